"""How a command ends that a person, or its reader, ends: no traceback, and the exit code that is said."""

from __future__ import annotations

import signal

from msgspec.structs import replace

from protocol.commands.volume import VolumeListReply
from tests.unit.console.conftest import start_process
from tests.unit.console.stub_site import EVENTS, VOLUME, StubSite


def test_following_ends_with_130_on_ctrl_c(stub: StubSite) -> None:
    none = replace(EVENTS, events=[])
    stub.replies["events"] = lambda command: EVENTS if command.since is None else none
    with start_process("events", "--follow", "--json", "--site", str(stub.directory)) as process:
        assert process.stdout is not None
        assert '"kind":"event"' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")


def test_a_reader_that_went_away_is_no_traceback(stub: StubSite) -> None:
    rows = [replace(VOLUME, volume=f"v{n}") for n in range(5000)]
    stub.replies["volume.list"] = VolumeListReply(volumes=rows)
    with start_process("volume", "list", "--site", str(stub.directory)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(20)
    assert err == ""
    assert process.returncode == 1
