"""The base that one peer gets, if it needs one: the same over as many sessions as that takes.

A peer that cannot take a base on what it has is sent one on nothing. One that cannot take the journal, as a
revert in it goes back to what that peer does not have, is sent a base instead, whatever the journal holds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from msgspec import structs

from engine.group.group import Group
from engine.peering.pair_states import Mode, PairState
from engine.ports.disk import Buffer
from protocol.base_messages import READS_SEEDS, FromTarget
from protocol.limits import BLOCK_BYTES
from protocol.positions import NO_TIMELINE, Cut
from site_primary.shipping.base_sender import BaseSender, release_written
from site_primary.shipping.comparison import Start, Verdict, can_base_on, heartbeat_of
from site_primary.shipping.session import Session


class BaseShipment:
    """`sent_bytes` counts the frames of all bases sent. `on_done` is called once one was installed,
    `on_failed` if this site cannot make one."""

    def __init__(
        self,
        group: Group,
        session: Session,
        rng: random.Random,
        on_done: Callable[[], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self._group = group
        self._session = session
        self._rng = rng
        self._on_done = on_done
        self._on_failed = on_failed
        self._sender: BaseSender | None = None
        self._ended_bytes = 0
        self._on_nothing = False
        self._wanted = False  # the peer cannot take the journal
        self._outlasted = 0  # bases in a row for which the journal had not enough room

    @property
    def sent_bytes(self) -> int:
        """See the class."""
        return self._ended_bytes + (self._sender.sent_bytes if self._sender else 0)

    @property
    def left_bytes(self) -> int:
        """At most so much is still to be sent."""
        return self._sender.blocks_left * BLOCK_BYTES if self._sender else 0

    def judged(self, start: Start) -> Start:
        """Where to start, with a base in place of a journal that the peer cannot take."""
        if start.verdict is Verdict.SHIP and self._wanted:
            # Where the journal leads on from need not be what can still be read.
            cut = start.cut if can_base_on(self._group, start.cut) else Cut(NO_TIMELINE, 0)
            return replace(start, verdict=Verdict.BASE, cut=cut)
        if start.verdict is not Verdict.BASE:
            self._outlasted = 0
            self.end()
        return start

    def begin(self, cut: Cut) -> None:
        """Send one on `cut` (timeline 0: on nothing) in the session that began, or go on with it."""
        start = None if self._on_nothing or cut.timeline == NO_TIMELINE else cut
        if self._sender is not None and self._sender.start_cut != start:
            self.end()
        if self._sender is None:
            self._sender = BaseSender(
                self._group,
                self._session,
                start,
                self._rng,
                on_done=self._done,
                on_failed=self._failed,
                on_outlasted=self._is_outlasted,
            )
        beat = heartbeat_of(self._group, self._session.id, PairState.COPYING, Mode.ASYNC)
        self._session.send(structs.replace(beat, mode=READS_SEEDS).encode())
        self._sender.attach()

    def pump(self) -> None:
        """Send what there is room for."""
        if self._sender is not None:
            self._sender.pump()

    def on_message(self, message: FromTarget, payload: Buffer | None) -> None:
        """What the peer says of it."""
        if self._sender is not None:
            self._sender.on_message(message, payload)

    def refused(self) -> bool:
        """The peer cannot go on from what it has, by the journal or by this base; False if there is nothing
        else to try."""
        if self._sender is None:
            again = not self._wanted
            self._wanted = True
            return again
        again = self._sender.start_cut is not None
        self.end()
        self._wanted = self._on_nothing = again
        return again

    def interrupt(self) -> None:
        """The session is over."""
        if self._sender is not None:
            self._sender.detach()

    def end(self) -> None:
        """It is not needed any more."""
        self._on_nothing = self._wanted = False
        if self._sender is not None:
            self._ended_bytes += self._sender.sent_bytes
            self._sender.close()
            self._sender = None
        else:
            release_written(self._group, self._session.peer)

    def _is_outlasted(self) -> None:
        self._outlasted += 1
        self._group.emit(
            "base.outlasted",
            group=self._group.name,
            peer=self._session.peer,
            in_a_row=self._outlasted,
            reason=f"the journal ran full while a copy was on its way, which goes on; {self._what_follows()}",
        )

    def _what_follows(self) -> str:
        if self._outlasted == 1:
            return "another one of what changed meanwhile follows it"
        return (
            "hosts write more than goes to the peer meanwhile: raise `journal_limit_bytes` in site.toml or "
            f"the rate of {self._session.peer} (`farshore peer list`), or set `throttle`"
        )

    def _done(self) -> None:
        self.end()
        self._on_done()

    def _failed(self, reason: str) -> None:
        self.end()
        self._on_failed(reason)
