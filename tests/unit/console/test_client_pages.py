"""The client puts pages together, and asks a daemon that knows none for the whole list."""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from console.client import Client
from protocol.commands.backup import BackupList, BackupListReply
from protocol.commands.volume import Gap, HistoryInfo, VolumeShow
from protocol.errors import NotFound, RemoteProtocolError, UsageError
from tests.unit.console.stub_site import BACKUP, CUT, VOLUME_SHOWN, StubSite

ONE, TWO, THREE = (replace(BACKUP, id=f"{number:016x}") for number in (1, 2, 3))
LATER = replace(CUT, position=12_288, text="8f3a000000000001:12288")
HISTORY = HistoryInfo(
    oldest=CUT, complete_until=None, window_s=86_400.0, gaps=[Gap(start=None, to=CUT)], older=[TWO]
)
FIRST = replace(VOLUME_SHOWN, backups=[ONE, TWO], history=HISTORY)
PAGES: dict[str, dict[str, Any]] = {
    "": {**msgspec.to_builtins(FIRST), "more": "[2]"},
    "[2]": {"backups": [THREE], "history": {"older": [THREE]}, "more": "[3]"},
    "[3]": {"backups": [], "history": {"older": []}, "head": LATER, "more": None},
}


def client_of(stub: StubSite) -> Client:
    """A client of the stub's."""
    return Client(f"ipc://{stub.directory}/control.sock")


def test_pages_come_as_one_reply(stub: StubSite) -> None:
    stub.replies["volume.show"] = lambda command: PAGES[command.after]
    with client_of(stub) as client:
        shown = client.call(VolumeShow(group="vm1", volume="root", history=True))
    history = replace(HISTORY, older=[TWO, THREE])
    assert shown == replace(FIRST, backups=[ONE, TWO, THREE], history=history, head=LATER)
    assert [command.after for command in stub.asked] == ["", "[2]", "[3]"]
    assert all(command.history for command in stub.asked)


def test_a_daemon_that_knows_no_pages_is_asked_for_the_whole(stub: StubSite) -> None:
    def answer(command: BackupList) -> BackupListReply:
        if command.after is not UNSET:
            raise UsageError("bad request: Object contains unknown field `after` - at `$.command`")
        return BackupListReply(backups=[ONE, TWO])

    stub.replies["backup.list"] = answer
    with client_of(stub) as client:
        assert client.call(BackupList()).backups == [ONE, TWO]


def test_what_a_newer_daemon_adds_is_left_out(stub: StubSite) -> None:
    stub.replies["backup.list"] = lambda _: {"backups": [], "weather": "fine"}
    with client_of(stub) as client:
        assert client.call(BackupList()) == BackupListReply(backups=[])


@pytest.mark.parametrize("reply", [{}, {"backups": 3}, {"backups": [{"id": 7}]}])
def test_a_reply_of_another_shape_is_refused(stub: StubSite, reply: dict[str, Any]) -> None:
    stub.replies["backup.list"] = lambda _: reply
    with client_of(stub) as client, pytest.raises(RemoteProtocolError, match=r"bad reply to backup\.list"):
        client.call(BackupList())


def test_a_refusal_is_one(stub: StubSite) -> None:
    def refuse(_: BackupList) -> NoReturn:
        raise NotFound("there is no group vm1 here", subject="vm1")

    stub.replies["backup.list"] = refuse
    with client_of(stub) as client, pytest.raises(NotFound):
        client.call(BackupList(group="vm1"))
    assert len(stub.asked) == 1
