"""Receiving a base (engine.history.bases): its messages checked and put in order, X's frames handed to the
intake, acknowledged by X's positions.

One object a group, over any number of sessions. What a message breaks is raised to the caller, who ends the
session as for frames of the journal; what goes wrong later is told through `on_failed`.

Everything runs in callbacks on one loop.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.group.group import Group
from engine.group.head import NotContiguous
from engine.group.holds import Holder
from engine.history.base_checks import BaseOrder, check_order
from engine.history.base_intake import BaseIntake
from engine.ports.disk import Buffer
from protocol.base_messages import (
    BaseAck,
    BaseBegin,
    BaseEnd,
    BaseFrames,
    BaseHoled,
    BaseMessage,
    BasePart,
    BaseWant,
    parts_digest,
)
from protocol.compress import Compression, decompress
from protocol.errors import RemoteProtocolError
from protocol.frames import frames_in
from protocol.limits import BASE_PART_BYTES_MAX
from protocol.positions import Cut
from site_secondary.base_seeds import BaseSeedUse as BaseSeedUse

Send = Callable[[bytes, Buffer | None], None]


class BaseReceiver:
    """`done` is B once a base was installed in this session."""

    def __init__(
        self,
        group: Group,
        *,
        on_installed: Callable[[], None],
        on_failed: Callable[[str], None],
        seeds: BaseSeedUse | None = None,
    ) -> None:
        self.done: Cut | None = None
        self.received_bytes = 0
        self._group = group
        self._on_installed = on_installed
        self._on_failed = on_failed
        self._seeds = seeds
        self._seeds_due = False  # the source reads what is said of seeds, and was told nothing yet
        self._intake: BaseIntake | None = None
        self._session = 0
        self._leave = False
        self._send: Send | None = None
        self._parts: list[bytes] = []
        self._parts_expected = 0
        self._parts_digest = b""
        self._ack_pending = False
        self._acknowledged = 0

    @property
    def installing(self) -> bool:
        """Whether nothing else may be taken in: the history here changes any moment. Perhaps by what another
        receiver began: what installs goes on when its pair ends, or its peer gets another name."""
        return Holder.INSTALL in self._group.holds

    @property
    def active(self) -> bool:
        """Whether a base is under way."""
        return self._intake is not None

    @property
    def trouble(self) -> str:
        """Why the base does not go on at this site just now, and is tried again; empty if it does."""
        trouble = self._intake.trouble if self._intake is not None else ""
        return f"{trouble}; make room at this site, it goes on by itself" if trouble else ""

    def not_needed(self) -> None:
        """The source sends its journal: it has let go of any base, and no other session goes on with it."""
        if self._group.remains.here and not self.installing:
            self._drop_intake()
            self._group.remains.drop()

    def attach(self, session: int, send: Send, *, leave: bool) -> None:
        """A new session: everything that is sent from now on belongs to it. With `leave`, a tail that others
        than the base's writer wrote here may be left for it and becomes a branch."""
        self._leave = leave
        self._session = session
        self._send = send
        self.done = None
        self._parts = []
        self._parts_expected = 0
        self._seeds_due = False

    def source_reads_seeds(self) -> None:
        """The source of this session knows what to do with seeds."""
        self._seeds_due = self._seeds is not None

    def detach(self) -> None:
        """The session is over. What is here of X stays."""
        self._session = 0
        self._send = None
        if self._seeds is not None:
            self._seeds.end()

    def on_message(self, message: BaseMessage, payload: Buffer | None) -> None:
        """One message. NotContiguous, FrameError or RemoteProtocolError if it breaks the rules: the session
        must end. Trimmed if a base on that start cannot be taken, WrongState or another FarshoreError, or
        OSError, if this one cannot."""
        if message.session != self._session or self._session == 0:
            return
        match message:
            case BaseBegin():
                self._begin(message)
            case BasePart():
                self._part(message, payload)
            case BaseFrames():
                self._frames(message, payload)
            case BaseHoled():
                self._holed(message, payload)
            case BaseWant():
                self._tell_digests(message)
            case BaseEnd():
                if len(self._parts) != self._parts_expected:
                    raise RemoteProtocolError("a base ends before its parts came")
                if parts_digest(self._parts) != self._parts_digest:
                    raise RemoteProtocolError("the parts of a base are not what was sent")
                intake = self._require(message.base)
                intake.complete(message.end, message.digest, tuple(self._parts), leave=self._leave)
            case _:
                raise RemoteProtocolError("a message of a base's target from its source")

    def _begin(self, begin: BaseBegin) -> None:
        order = BaseOrder(
            timeline=begin.base,
            cut=begin.cut,
            start=begin.start,
            digest=begin.digest,
            utc_ns=begin.utc_ns,
        )
        self._parts = []
        self._parts_expected = begin.parts
        self._parts_digest = begin.parts_digest
        intake = self._intake
        if self.installing:
            raise NotContiguous("a base is being installed")
        if intake is not None and intake.order == order:
            self._acknowledged = intake.written
            if intake.ready:
                self._ack_soon()
            return
        self._drop_intake()
        check_order(self._group, order)
        intake = BaseIntake(
            self._group,
            order,
            on_ready=self._ready,
            on_progress=self._ack_soon,
            on_installed=self._installed,
            on_failed=self._failed,
        )
        self._intake = intake
        intake.open()

    def _require(self, base: int) -> BaseIntake:
        intake = self._intake
        if intake is None or intake.order.timeline != base:
            raise NotContiguous("no such base is under way")
        return intake

    def _part(self, message: BasePart, payload: Buffer | None) -> None:
        self._require(message.base)
        if payload is None or len(payload) > BASE_PART_BYTES_MAX:
            raise RemoteProtocolError("a part of a base has no payload, or too much")
        if message.number != len(self._parts) or len(self._parts) == self._parts_expected:
            raise RemoteProtocolError("the parts of a base are out of order")
        self._parts.append(bytes(payload))

    def _frames(self, message: BaseFrames, payload: Buffer | None) -> None:
        intake = self._require(message.base)
        if payload is None:
            raise RemoteProtocolError("frames of a base have no payload")
        if message.compression is Compression.ZSTD:
            payload = decompress(payload)
        for frame in frames_in(payload):
            intake.take(frame.prefix, frame.raw)
        self.received_bytes += len(payload)
        self._ack_soon()

    def _holed(self, message: BaseHoled, payload: Buffer | None) -> None:
        intake = self._require(message.base)
        if payload is None or self._seeds is None:
            raise RemoteProtocolError("a frame of a base has no payload, or holes for which there is no seed")

        def take(whole: bytearray) -> None:
            for frame in frames_in(whole):
                intake.take(frame.prefix, frame.raw)

        self._seeds.take(message, payload, take)
        self.received_bytes += message.frame_bytes
        self._ack_soon()

    def _tell_digests(self, want: BaseWant) -> None:
        self._require(want.base)
        if self._seeds is None:
            raise RemoteProtocolError("digests of seeds were asked for, and there are none")
        answer, digests = self._seeds.digests(want)
        if self._send is not None:
            self._send(answer.encode(), digests)

    def _tell_seeds(self, intake: BaseIntake) -> None:
        """Before the first acknowledgement of a session: from then on frames come."""
        if self._seeds_due and self._seeds is not None and self._send is not None:
            self._seeds_due = False
            seeds = self._seeds.begin(self._session, intake.order.timeline)
            if seeds is not None:
                self._send(seeds.encode(), None)

    def _ready(self) -> None:
        if self._intake is not None:
            self._acknowledged = self._intake.written
        self._ack_soon()

    def _ack_soon(self) -> None:
        if not self._ack_pending and self._session:
            self._ack_pending = True
            self._group.clock.call_soon(self._ack)

    def _ack(self) -> None:
        """While indexing must catch up say no more than before: the sender's bound holds the rest back."""
        self._ack_pending = False
        intake = self._intake
        if intake is None or self._send is None or not intake.ready:
            return
        self._tell_seeds(intake)
        if not intake.crowded:
            self._acknowledged = intake.written
        self._say(intake, min(self._acknowledged, intake.written), installed=False)

    def _say(self, intake: BaseIntake, written: int, *, installed: bool) -> None:
        if self._send is not None:
            ack = BaseAck(
                session=self._session,
                base=intake.order.timeline,
                written=written,
                indexed=intake.indexed,
                installed=installed,
            )
            self._send(ack.encode(), None)

    def _installed(self) -> None:
        intake, self._intake = self._intake, None
        if intake is not None:
            self.done = intake.order.cut
            self._say(intake, intake.written, installed=True)
            if self._seeds is not None and (seeded := self._seeds.installed()):
                place = {"group": self._group.name, "position": str(self.done)}
                self._group.emit("base.seeded", **place, seeded_bytes=seeded)
            self._on_installed()

    def _failed(self, reason: str) -> None:
        self._intake = None
        self._on_failed(reason)

    def close(self) -> None:
        """Stop. A base that is being installed is finished by the next start."""
        self.detach()
        self._drop_intake()

    def _drop_intake(self) -> None:
        if self._intake is not None:
            self._intake.close()
            self._intake = None
