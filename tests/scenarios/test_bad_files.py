"""Files of a data directory that are bad: each names itself, and costs nothing but what stands in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.demo.host import Host
from protocol.errors import ExitCode
from tests.support.sites import Site, running_sites

pytestmark = pytest.mark.usefixtures("as_installed")


@pytest.fixture
def stopped() -> Iterator[Site]:
    """A site with the groups g and vm1, stopped cleanly, with a checkpoint of vm1."""
    with running_sites("a") as (site,):
        site.create_volume("g/v", "1M")
        site.create_volume("vm1/v", "1M")
        with Host(site.nbd_socket, "vm1/v") as host:
            for _ in range(2):
                host.write(0, b"w" * (1 << 20))
        assert site.stop() == 0
        yield site


def refuses_to_run(site: Site, code: ExitCode, said: str) -> None:
    """It says `said` and what to do next."""
    text = site.refuses_to_run(code)
    assert said in text
    assert "next:" in text


def errors_of(site: Site) -> dict[str, str]:
    """What the daemon logged at level error: event to text."""
    return {entry["event"]: entry.get("error", "") for entry in site.log() if entry.get("level") == "error"}


def starts_without(site: Site, group: str, said: str) -> None:
    """The daemon serves every group but one, of which its ERROR event says `said`."""
    site.start()
    groups = {row["group"]: row for row in site.json("status")["groups"]}
    assert errors_of(site).keys() == {"group.damaged"}
    assert said in errors_of(site)["group.damaged"]
    assert {name for name, row in groups.items() if row["state"] == "damaged"} == {group}
    assert site.stop() == 0


@pytest.mark.parametrize("lacking_bytes", [1, 3 * 4096])
def test_an_index_that_was_cut(stopped: Site, lacking_bytes: int) -> None:
    index = stopped.directory / "groups" / "vm1" / "index.mdb"
    os.truncate(index, index.stat().st_size - lacking_bytes)
    starts_without(stopped, "vm1", f"{index} is damaged: it was cut to")


@pytest.mark.parametrize("length", [9000, 3 * 4096])
def test_a_state_that_was_cut(stopped: Site, length: int) -> None:
    state: Path = stopped.directory / "state.mdb"
    os.truncate(state, length)
    refuses_to_run(stopped, ExitCode.MISMATCH, f"{state} is damaged: it was cut to {length} of")


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_state_that_was_lost(stopped: Site, how: str) -> None:
    """It would come up without a group, and new ones would be made over the files of the old."""
    state: Path = stopped.directory / "state.mdb"
    kept = state.read_bytes()
    state.unlink()
    if how == "empty":
        state.touch()
    refuses_to_run(stopped, ExitCode.MISMATCH, f"{state} is {how}, and says nothing of the groups")
    state.write_bytes(kept)
    stopped.start()
    assert {row["group"] for row in stopped.json("status")["groups"]} == {"g", "vm1"}
    assert stopped.stop() == 0


def test_files_of_a_group_that_is_not_known_are_not_built_on(stopped: Site) -> None:
    shutil.copytree(stopped.directory / "groups" / "vm1", stopped.directory / "groups" / "vm2")
    stopped.start()
    done = stopped.run("volume", "create", "vm2/v", "--size", "1M")
    assert done.returncode == ExitCode.BUSY
    assert "a group that this site knows nothing of" in done.stderr
    shutil.rmtree(stopped.directory / "groups" / "vm2")
    stopped.create_volume("vm2/v", "1M")
    assert stopped.stop() == 0


def test_an_empty_list_says_what_it_could_not_look_at(stopped: Site) -> None:
    """It advised to make the first volume of a site whose groups were all damaged."""
    for group in ("g", "vm1"):
        os.truncate(stopped.directory / "groups" / group / "index.mdb", 5000)
    stopped.start()
    assert errors_of(stopped).keys() == {"group.damaged"}
    for words in (("volume", "list"), ("backup", "list"), ("group", "list"), ("schedule", "list")):
        said = stopped.run(*words).stderr
        assert "not of g, vm1" in said, words
        assert "create" not in said, words
    assert stopped.stop() == 0


def test_a_state_that_is_a_directory(stopped: Site) -> None:
    state = stopped.directory / "state.mdb"
    state.unlink()
    state.mkdir()
    refuses_to_run(stopped, ExitCode.FAILED, f"{state}")


@pytest.mark.parametrize("how", ["a directory", "no text"])
def test_peers_that_cannot_be_read(stopped: Site, how: str) -> None:
    peers = stopped.directory / "peers.json"
    if how == "no text":
        peers.write_bytes(b'[{"name": "\xff"}]')
    else:
        peers.mkdir()
    stopped.start()
    assert errors_of(stopped).keys() == {"peer.set_aside"}
    assert stopped.stop() == 0
