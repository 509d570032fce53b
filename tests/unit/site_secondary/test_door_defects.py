"""A defect in the handler of any kind of message stays behind the peers' door: the session ends, or the
question gets an error, and nothing is raised that would be the daemon's."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from engine.peering.peer_answers import PeerAnswers
from protocol.messages import Ask, Hello, Refused, Report, decode_message
from protocol.peer_requests import AskNews, NoAnswer, PeerRequest
from protocol.rows import pack_row
from protocol.wire import WireRow
from site_secondary.base_receiver import BaseReceiver
from site_secondary.peer_door import PeerDoor
from site_secondary.receiver import Receiver
from tests.support.hostile_messages import KINDS, Mint, Pool
from tests.unit.engine.group_rig import GROUP_ID
from tests.unit.site_secondary.test_door_hostile import MakeRig, Site, in_session, lived_in

# What only the other end of a session takes: nobody handles it here.
NOT_HANDLED = {
    "Welcome", "Ack", "Refused", "Reset", "Fetched", "Report", "BaseAck", "Held", "BlockContents", "Changed",
    "Frames", "News", "NoAnswer", "BaseSeeds", "BaseDigests",
}  # fmt: skip


class Bang(Exception):
    """What nobody expects."""


def bang(*_: object, **__: object) -> Any:
    raise Bang("thrown by the test")


GUARDS = {
    (PeerDoor, "on_message"), (PeerDoor, "_in_session"), (PeerDoor, "_answer"), (PeerDoor, "_report"),
    (PeerDoor, "_take"),
    (PeerAnswers, "answer"), (PeerAnswers, "_answer_now"),
}  # fmt: skip


def break_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method to which a message is given, as the classes have them now."""
    for owner in (Receiver, BaseReceiver, PeerAnswers, PeerDoor):
        for name, method in inspect.getmembers(owner, inspect.isfunction):
            given = {"message", "hello", "fetch", "beat", "request", "ask"}
            if given & set(inspect.signature(method).parameters) and (owner, name) not in GUARDS:
                monkeypatch.setattr(owner, name, bang)
    monkeypatch.setattr(Receiver, "_make_durable", bang)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_defect_in_its_handler_ends_no_more_than_the_session(
    kind: type[WireRow], make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(lived_in(make_rig("one")))
    in_session(site)
    about = {"session": 9, "group": "g", "group_id": GROUP_ID, "version": 1}
    mint = Mint(1, Pool([1, 2, 4097], ["g", GROUP_ID, "lon", "paired", "async"], payloads=[b"x"]))
    with monkeypatch.context() as broken:
        break_handlers(broken)
        row = mint.good(kind, about)
        assert isinstance(decode_message(pack_row(row)), kind)
        told = site.say(pack_row(row), b"x")
    name = kind.__name__
    if issubclass(kind, Ask):
        assert told == [Report(session=9, role="", generation=0, timeline=0, written=0, durable=0)]
    elif issubclass(kind, (*PeerRequest.__args__, AskNews)):
        (answer,) = told
        assert isinstance(answer, NoAnswer)
        assert "defect" in answer.message
    elif name in NOT_HANDLED and name not in ("Welcome",) and not told:
        assert site.events == []
    else:
        assert site.events == ["peer.session_failed"], told
        assert isinstance(told[-1], Refused)
    # The next one is served.
    in_session(site, 11)
    assert issubclass(kind, Hello) or site.group_.failed == ""
