"""The client puts pages together, and asks a daemon that knows none for the whole list."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from console.client import Client
from protocol.commands import BackupList, VolumeShow
from protocol.errors import NotFound, UsageError
from tests.unit.console.stub_site import StubSite

PAGES: dict[str, dict[str, Any]] = {
    "": {"backups": [1, 2], "history": {"older": [2], "gaps": [7]}, "head": "h", "more": "[2]"},
    "[2]": {"backups": [3], "history": {"older": [3]}, "more": "[3]"},
    "[3]": {"backups": [], "history": {"older": []}, "head": "later", "more": None},
}


def client_of(stub: StubSite) -> Client:
    """A client of the stub's."""
    return Client(f"ipc://{stub.directory}/control.sock")


def test_pages_come_as_one_reply(stub: StubSite) -> None:
    stub.replies["volume.show"] = lambda command: PAGES[command.after]
    with client_of(stub) as client:
        shown = client.call(VolumeShow(group="vm1", volume="root", history=True))
        one = client.call(VolumeShow(group="vm1", volume="root", after="[2]"))
    assert shown == {"backups": [1, 2, 3], "history": {"older": [2, 3], "gaps": [7]}, "head": "later"}
    assert list(shown) == ["backups", "history", "head"]
    assert one == PAGES["[2]"], "whoever asks for a page gets that one"
    assert [command.after for command in stub.asked] == ["", "[2]", "[3]", "[2]"]
    assert all(command.history for command in stub.asked[:3])


def test_a_daemon_that_knows_no_pages_is_asked_for_the_whole(stub: StubSite) -> None:
    def answer(command: BackupList) -> dict[str, Any]:
        if command.after is not UNSET:
            raise UsageError("bad request: Object contains unknown field `after` - at `$.command`")
        return {"backups": [1, 2]}

    stub.replies["backup.list"] = answer
    with client_of(stub) as client:
        assert client.call(BackupList()) == {"backups": [1, 2]}


def test_a_refusal_is_one(stub: StubSite) -> None:
    def refuse(_: BackupList) -> dict[str, Any]:
        raise NotFound("there is no group vm1 here", subject="vm1")

    stub.replies["backup.list"] = refuse
    with client_of(stub) as client, pytest.raises(NotFound):
        client.call(BackupList(group="vm1"))
    assert len(stub.asked) == 1
