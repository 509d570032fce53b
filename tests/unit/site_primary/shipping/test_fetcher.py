"""A peer that is asked for what it holds cannot keep this site's hosts waiting by answering with nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.ports.disk import Buffer
from engine.ports.transport import Caller
from protocol.messages import Ack, Fetch, Fetched, decode_message
from site_primary.shipping.fetcher import ANSWER_TIMEOUT_S
from site_primary.shipping.session_phases import Phase
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair


class Withholding(ShippingPair):
    """`other` gives nothing that it is asked for. With `chatty` it says something else, once a second."""

    def __init__(self, directory: Path) -> None:
        self.chatty = False
        self.asked = 0
        super().__init__(directory)

    def _on_message(self, caller: Caller, header: bytes, payload: Buffer | None) -> None:
        message = decode_message(header)
        if not isinstance(message, Fetch):
            super()._on_message(caller, header, payload)
            return
        self.asked += 1
        if self.chatty:
            self._chat(caller, message.session, 60)
        else:
            caller.send(Fetched(session=message.session, done=False).encode(), b"")

    def _chat(self, caller: Caller, session: int, times: int) -> None:
        end = self.other.end
        caller.send(Ack(session=session, timeline=end.timeline, written=0, durable=0).encode())
        if times:
            self.world.schedule(1.0, lambda: self._chat(caller, session, times - 1))


@pytest.fixture
def pair(directory: Path) -> Iterator[Withholding]:
    made = Withholding(directory)
    yield made
    made.close()


@pytest.mark.parametrize("chatty", [False, True])
def test_hosts_are_let_in_when_the_start_has_waited_long_enough(pair: Withholding, chatty: bool) -> None:
    pair.chatty = chatty
    pair.write(3)
    pair.start_one()
    pair.until_paired()
    kept = pair.one.end
    pair.write(3)
    pair.until_paired()
    pair.lose_tail(kept)
    pair.start_one()
    pair.until(lambda: pair.asked > 0)
    pair.world.run_for(1.0)
    assert pair.asked == 1, "it was asked again at once"
    hosts = pair.shipper.hosts
    hosts.no_longer(taking_in=pair.shipper.session.phase is Phase.FETCHING)
    pair.until(lambda: not pair.one.group.holds, ANSWER_TIMEOUT_S + 1)
    pair.write(1)
    pair.until_paired()
    pair.assert_same()
