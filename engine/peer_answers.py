"""Answering what the other site asks of a group's past (protocol.question_messages).

Each answer is made at one stroke and is small: a slice of a scan, a message of blocks or frames. No answer is
made while as much as `PEER_UNREAD_BYTES_MAX` waits for the asking peer, be it for its pace or because it does
not read, nor while that peer has had its share of this site's time (engine.peer_pace): questions are small
and wait instead, `QUESTIONS_WAITING_MAX` of them a peer; more are refused.

A cut that is asked about is read like any other: what this site no longer keeps is refused as trimmed, and
damaged blocks are said to be so. It writes nothing but leases.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from engine.changes import ChangeScan
from engine.compartment import attempt
from engine.cuts import checked_cut, cut_at_time
from engine.group import Group
from engine.journal.reader import BadFrame
from engine.peer_pace import PeerPace, Turn
from engine.ports.disk import Buffer
from engine.ports.transport import Caller
from engine.timed_leases import asked_lease
from engine.view import ZERO_BLOCK, VolumeView
from protocol.compress import Compression
from protocol.errors import Busy, Corruption, FarshoreError, NotFound
from protocol.limits import (
    BLOCK_BYTES,
    FRAME_BYTES_MAX,
    PEER_COMMIT_S,
    PEER_UNREAD_BYTES_MAX,
    QUESTION_CHANGES_MAX,
    QUESTIONS_WAITING_MAX,
)
from protocol.positions import NO_TIMELINE, Cut
from protocol.question_messages import (
    BlockContents,
    Blocks,
    Changed,
    Changes,
    Content,
    Find,
    Frames,
    Held,
    Hold,
    Journal,
    NoAnswer,
    Question,
    Release,
)
from protocol.rows import pack_row

# How soon it is looked whether there is room for another answer.
LOOK_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Travel:
    """How a payload goes to a peer: as these bytes, and not before `wait_s` seconds have passed."""

    payload: Buffer
    compression: Compression = Compression.NONE
    wait_s: float = 0.0


def as_it_is(peer: str, payload: Buffer) -> Travel:
    """At once, uncompressed."""
    return Travel(payload=payload)


def nothing_unread(peer: str) -> int:
    """Of a transport that holds nothing."""
    return 0


@dataclass(slots=True)
class _Asker:
    """One peer: bytes of its answers that wait for its pace, by group, and questions that wait for room. Both
    wait by their group's clock, which ends with the group."""

    paced_bytes: Counter[str] = field(default_factory=Counter)
    questions: deque[tuple[Caller, Question, Group]] = field(default_factory=deque)


class PeerAnswers:
    """See the module's docstring. `travel` says how a payload goes to a named peer, `unread` how many bytes
    the transport holds for it, `pace` who has had too much of this site's time."""

    def __init__(
        self,
        travel: Callable[[str, Buffer], Travel] = as_it_is,
        unread: Callable[[str], int] = nothing_unread,
        pace: PeerPace | None = None,
    ) -> None:
        self._travel = travel
        self._unread = unread
        self._pace = pace or PeerPace()
        self._askers: dict[str, _Asker] = {}

    def answer(self, caller: Caller, question: Question, group: Group) -> None:
        """Answer a peer that this group is shared with, now or once there is room for more."""
        asker = self._askers.setdefault(caller.peer, _Asker())
        if not asker.questions and self._has_room(caller.peer, asker, group):
            self._answer_now(caller, question, group)
        elif len(asker.questions) >= QUESTIONS_WAITING_MAX:
            refuse(caller, question, Busy("too many questions wait for an answer", subject=group.name))
        else:
            asker.questions.append((caller, question, group))
            if len(asker.questions) == 1:
                self._look_again(caller.peer, asker)

    def _look_again(self, peer: str, asker: _Asker) -> None:
        waiting = bool(asker.questions)
        self._pace.waits(peer, Turn.QUESTION, waiting and self._is_read(peer, asker))
        if waiting:
            clock = asker.questions[0][2].clock
            clock.call_later(LOOK_AGAIN_S, lambda: self._go_on(peer, asker))

    def group_stopped(self, name: str) -> None:
        """A group was stopped by a defect: nothing of it waits any more, and what waited behind it goes on by
        another's clock."""
        for peer, asker in self._askers.items():
            del asker.paced_bytes[name]
            waiting = len(asker.questions)
            asker.questions = deque(each for each in asker.questions if each[2].name != name)
            if len(asker.questions) != waiting:
                self._look_again(peer, asker)

    def _has_room(self, peer: str, asker: _Asker, group: Group) -> bool:
        return self._pace.ready(peer, group.clock.monotonic(), Turn.QUESTION) and self._is_read(peer, asker)

    def _is_read(self, peer: str, asker: _Asker) -> bool:
        return asker.paced_bytes.total() + self._unread(peer) < PEER_UNREAD_BYTES_MAX

    def _go_on(self, peer: str, asker: _Asker) -> None:
        while asker.questions and self._has_room(peer, asker, asker.questions[0][2]):
            caller, question, group = asker.questions.popleft()
            if not group.failed:
                self._answer_now(caller, question, group)
        self._look_again(peer, asker)

    def _answer_now(self, caller: Caller, question: Question, group: Group) -> None:
        """A defect is that of this question: others may wait behind it, about other groups."""
        began_s = group.clock.monotonic()
        defect = attempt("peer.question_failed", self._answer_or_refuse, caller, question, group)
        now_s = group.clock.monotonic()
        least_s = PEER_COMMIT_S if isinstance(question, Hold | Release) else 0.0
        self._pace.spend(caller.peer, now_s, max(now_s - began_s, least_s), Turn.QUESTION)
        if defect is not None:
            refuse(caller, question, FarshoreError(f"a defect at this site: {type(defect).__name__}"))

    def _answer_or_refuse(self, caller: Caller, question: Question, group: Group) -> None:
        try:
            self._answer(caller, question, group)
        except (BadFrame, OSError) as error:
            refuse(caller, question, Corruption(f"the journal cannot be read: {error}"))
        except FarshoreError as error:
            refuse(caller, question, error)

    def _answer(self, caller: Caller, question: Question, group: Group) -> None:
        session = question.session
        match question:
            case Hold(name=name, cut=cut):
                cut = checked_cut(group, cut)
                group.folding.timed.hold(asked_lease(caller.peer, name), cut, question.for_s)
                caller.send(Held(session=session, cut=cut).encode())
            case Release(name=name):
                group.folding.timed.release(asked_lease(caller.peer, name))
                caller.send(Held(session=session, cut=Cut(NO_TIMELINE, 0)).encode())
            case Find(utc_ns=utc_ns):
                caller.send(Held(session=session, cut=cut_at_time(group, utc_ns)).encode())
            case Blocks():
                contents, payload = _contents(group, question)
                header = partial(_contents_header, session, contents)
                self._send(caller, group, header, payload)
            case Changes():
                next_block, done, payload = _changes(group, question)
                self._send(caller, group, partial(_changed_header, session, next_block, done), payload)
            case Journal():
                self._send(caller, group, partial(_frames_header, session), _frames(group, question))
            case _:
                assert_never(question)

    def _send(
        self, caller: Caller, group: Group, header: Callable[[Compression], bytes], payload: bytes
    ) -> None:
        if not payload:
            caller.send(header(Compression.NONE))
            return
        travel = self._travel(caller.peer, payload)
        if travel.wait_s <= 0.0:
            caller.send(header(travel.compression), travel.payload)
            return
        asker, size = self._askers.setdefault(caller.peer, _Asker()), len(travel.payload)
        asker.paced_bytes[group.name] += size

        def go() -> None:
            asker.paced_bytes[group.name] -= size
            caller.send(header(travel.compression), travel.payload)

        group.clock.call_later(travel.wait_s, go)


def refuse(caller: Caller, question: Question, error: FarshoreError) -> None:
    """Say why there is no answer."""
    no_answer = NoAnswer(
        session=question.session, code=error.code, message=error.message, position=error.position
    )
    caller.send(no_answer.encode())


def view_of(group: Group, volume: int, cut: Cut) -> VolumeView:
    """The volume with an id at a cut. NotFound, or Trimmed."""
    spans = group.timelines.lineage(cut.timeline, cut.position)
    for name, each in group.volumes.at(spans).items():
        if each.id == volume:
            return group.view_at(name, cut)
    raise NotFound(f"volume {volume} of {group.name} did not exist at {cut}", position=str(cut))


def _contents(group: Group, question: Blocks) -> tuple[bytes, bytes]:
    view = view_of(group, question.volume, question.cut)
    kinds = bytearray()
    pieces = []
    with view.batch() as batch:
        for block in question.blocks:
            if block * BLOCK_BYTES >= view.size_bytes:
                kinds.append(Content.ZEROES)
                continue
            try:
                data = view.read_block(batch, block)
            except (Corruption, OSError):
                kinds.append(Content.DAMAGED)
                continue
            if data == ZERO_BLOCK:
                kinds.append(Content.ZEROES)
            else:
                kinds.append(Content.BYTES)
                pieces.append(data)
    return bytes(kinds), b"".join(pieces)


def change_scan(group: Group, volume: int, before: VolumeView, after: VolumeView, first: int) -> ChangeScan:
    """A scan for the blocks of a volume (id) that may differ between two views of it."""
    return ChangeScan(
        store=group.store,
        memtable=group.memtable,
        volume=volume,
        blocks=-(-max(before.size_bytes, after.size_bytes) // BLOCK_BYTES),
        before=before.intervals,
        after=after.intervals,
        first=first,
    )


def _changes(group: Group, question: Changes) -> tuple[int, bool, bytes]:
    """Where to ask on, whether that was all, and the runs."""
    volume = question.volume
    before, after = view_of(group, volume, question.before), view_of(group, volume, question.after)
    scan = change_scan(group, volume, before, after, question.first)
    blocks = scan.slice()
    next_block, done = scan.next_block, scan.done
    if len(blocks) > QUESTION_CHANGES_MAX:
        next_block, done = blocks[QUESTION_CHANGES_MAX], False
        del blocks[QUESTION_CHANGES_MAX:]
    runs: list[int] = []
    for block in blocks:
        if runs and runs[-2] + runs[-1] == block:
            runs[-1] += 1
        else:
            runs += [block, 1]
    return next_block, done, pack_row(runs)


def _frames(group: Group, question: Journal) -> bytes:
    """As many frames as one message takes; at least one."""
    found: list[Buffer] = []
    room = FRAME_BYTES_MAX
    end = min(question.end, group.end_of(question.timeline))
    try:
        for frame in group.reader.frames(question.timeline, question.start, end, None):
            room -= frame.prefix.frame_bytes
            if room < 0:
                break
            found.append(frame.raw)
    except BadFrame:
        if not found:
            raise
    if not found:
        raise NotFound(
            f"there are no frames from {Cut(question.timeline, question.start)} on",
            subject=group.name,
            position=str(Cut(question.timeline, question.start)),
        )
    return b"".join(found)


def _contents_header(session: int, contents: bytes, compression: Compression) -> bytes:
    return BlockContents(session=session, contents=contents, compression=compression).encode()


def _changed_header(session: int, next_block: int, done: bool, compression: Compression) -> bytes:
    return Changed(session=session, next_block=next_block, done=done, compression=compression).encode()


def _frames_header(session: int, compression: Compression) -> bytes:
    return Frames(session=session, compression=compression).encode()
