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


THREE_ROWS: dict[str, dict[str, Any]] = {
    "": {"backups": [ONE, TWO], "more": "[2]"},
    "[2]": {"backups": [THREE], "more": None},
}


def test_some_rows_of_a_list_and_how_to_go_on(stub: StubSite) -> None:
    """A page may have fewer rows than were asked for, and then the next one is asked for the others."""

    def answer(command: BackupList) -> dict[str, Any]:
        page = THREE_ROWS[str(command.after)]
        if command.rows is UNSET or command.rows >= len(page["backups"]):
            return page
        return {"backups": page["backups"][: command.rows], "more": f"[{command.rows}]"}

    stub.replies["backup.list"] = answer
    with client_of(stub) as client:
        one = client.page(BackupList(), 1, None, 5.0)
        assert (one.backups, one.next) == ([ONE], "[1]")
        three = client.page(BackupList(), 3, None, 5.0)
        assert (three.backups, three.next) == ([ONE, TWO, THREE], None)
        rest = client.page(BackupList(), None, "[2]", 5.0)
        assert (rest.backups, rest.next) == ([THREE], None)
        assert client.call(BackupList()).next is UNSET
    assert [(each.after, each.rows) for each in stub.asked] == [
        ("", 1), ("", 3), ("[2]", 1), ("[2]", UNSET), ("", UNSET), ("[2]", UNSET),
    ]  # fmt: skip


def test_a_daemon_that_knows_no_limit_is_not_asked_for_all_instead(stub: StubSite) -> None:
    def answer(_: BackupList) -> BackupListReply:
        raise UsageError("bad request: Object contains unknown field `rows` - at `$.command`")

    stub.replies["backup.list"] = answer
    with client_of(stub) as client, pytest.raises(UsageError, match="knows neither --limit nor --after"):
        client.page(BackupList(), 1, None, 5.0)


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
