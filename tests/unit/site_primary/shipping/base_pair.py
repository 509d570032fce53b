"""Two real groups, one of which sends the other a base over a line that can be cut at any message."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from engine.group.head import NotContiguous
from engine.group.site_state import Role
from engine.ports.disk import Buffer
from engine.ports.durable import RealDisk
from protocol.base_messages import BaseAck, BaseDigests, BaseMessage, BaseSeeds
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.frames import FrameError
from protocol.messages import decode_message
from protocol.positions import Cut
from site_primary.shipping.base_sender import BaseSender
from site_primary.shipping.rate_limit import SendQueue
from site_primary.shipping.session import PeerTraffic
from site_secondary.base_receiver import BaseReceiver
from site_secondary.base_seeds import BaseSeedUse
from tests.sim.world import SimClock, SimWorld
from tests.unit.engine.group_rig import GroupRig
from tests.unit.site_primary.shipping.lines import session_over

DELAY_S = 0.001


class BasePair:
    """`one` sends, `other` receives. `wire_bytes` counts headers and payloads from `one` to `other`;
    `carried` messages both ways. After `cut_after` messages the line is dead until `connect`. `seed_disk` has
    the seeds of `other`, which `one` uses if it `reads_seeds`. `said`: kinds of messages to `one`."""

    def __init__(self, directory: Path, seed: int = 1) -> None:
        self.world = SimWorld(seed)
        self.one = GroupRig(directory / "one", world=self.world, seed=seed)
        self.other = GroupRig(
            directory / "other", site="par", world=self.world, seed=seed + 1, role=Role.SECONDARY
        )
        self.one.open()
        self.other.open()
        self.wire_bytes = 0
        self.carried = 0
        self.cut_after: int | None = None
        self.leave = False
        self.seed_disk = RealDisk(directory, None)
        self.reads_seeds = True
        self.said: list[type[BaseMessage]] = []
        self.traffic = PeerTraffic(SendQueue(SimClock(self.world)))
        self.failures: list[str] = []
        self.sender: BaseSender | None = None
        self._line = 0
        self._rng = random.Random(seed)
        self.start_receiver()

    def older_one(self, directory: Path) -> GroupRig:
        """A copy of `one` as it is, in a directory of its own. Not open."""
        self.one.drop()
        old = self.one.copy_to(directory)
        old.world = self.world
        self.one.open()
        return old

    def start_receiver(self) -> None:
        self.receiver = BaseReceiver(
            self.other.group,
            on_installed=self._installed,
            on_failed=self.failures.append,
            seeds=BaseSeedUse(self.seed_disk, self.other.clock, "g", self.other.group.emit),
        )

    def start_sender(self, start: Cut | None) -> BaseSender:
        self.session = session_over(self._send, self.one.clock, self.traffic)
        self.sender = BaseSender(
            self.one.group,
            self.session,
            start,
            self._rng,
            on_done=lambda: None,
            on_failed=self.failures.append,
        )
        return self.sender

    def connect(self) -> None:
        """A new session over a new line."""
        assert self.sender is not None
        self._line += 1
        self.cut_after = None
        self.session.dial()
        self.receiver.attach(self.session.id, self._carry(self._to_sender), leave=self.leave)
        if self.reads_seeds:
            self.receiver.source_reads_seeds()
        self.sender.attach()

    def disconnect(self) -> None:
        """Nothing of this session arrives any more."""
        self._line += 1
        self.receiver.detach()
        if self.sender is not None:
            self.sender.detach()

    def _send(self, header: bytes, payload: Buffer | None) -> None:
        self._carry(self._to_receiver)(header, payload)

    def _carry(
        self, deliver: Callable[[bytes, Buffer | None], None]
    ) -> Callable[[bytes, Buffer | None], None]:
        line = self._line

        def send(header: bytes, payload: Buffer | None) -> None:
            data = None if payload is None else bytes(payload)

            def arrive() -> None:
                if line == self._line and (self.cut_after is None or self.carried < self.cut_after):
                    self.carried += 1
                    deliver(header, data)

            self.world.schedule(DELAY_S, arrive)

        return send

    def _to_receiver(self, header: bytes, payload: Buffer | None) -> None:
        self.wire_bytes += len(header) + len(payload or b"")
        message = decode_message(header)
        assert isinstance(message, BaseMessage)
        try:
            self.receiver.on_message(message, payload)
        except (FarshoreError, OSError, FrameError, NotContiguous, RemoteProtocolError) as error:
            self.failures.append(str(error))

    def _to_sender(self, header: bytes, payload: Buffer | None) -> None:
        message = decode_message(header)
        assert isinstance(message, BaseAck | BaseSeeds | BaseDigests)
        self.said.append(type(message))
        if self.sender is not None:
            self.sender.on_message(message, payload)

    def _installed(self) -> None:
        pass

    # What tests do.

    def copy(self, start: Cut | None) -> Cut:
        """One base from beginning to end; the cut that `other` is at then."""
        sender = self.start_sender(start)
        self.connect()
        assert self.world.run_until(lambda: sender.done or bool(self.failures), 600.0), "no end"
        assert not self.failures, self.failures
        assert sender.cut is not None
        return sender.cut

    def restart_other(self) -> None:
        """kill -9 of the receiving site, and its next start."""
        self.disconnect()
        self.other.reopen()
        self.start_receiver()

    def close(self) -> None:
        for rig in (self.one, self.other):
            rig.drop()
