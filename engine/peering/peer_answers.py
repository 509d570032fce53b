"""Answering what the other site asks of a group's past (protocol.peer_requests).

Each answer is made at one stroke and is small: a slice of a scan, a message of blocks or frames. No answer is
made while as much as `PEER_UNREAD_BYTES_MAX` waits for the asking peer, be it for its pace or because it does
not read, nor while that peer has had its share of this site's time (engine.peering.peer_pace): questions are
small and wait instead, `PEER_REQUESTS_WAITING_MAX` of them a peer; more are refused.

A cut that is asked about is read like any other: what this site no longer keeps is refused as trimmed, and
damaged blocks are said to be so. It writes nothing but leases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import assert_never

from engine.group.compartment import attempt
from engine.group.group import Group
from engine.history.cuts import checked_cut, cut_at_time
from engine.journal.reader import BadFrame
from engine.peering.own_past import changes_of, contents_of, frames_of
from engine.peering.peer_pace import PeerPace, Turn
from engine.ports.disk import Buffer
from engine.ports.transport import Caller
from engine.retention.timed_leases import asked_lease
from protocol.compress import Compression
from protocol.errors import Busy, Corruption, FarshoreError, NotFound, WrongState
from protocol.limits import PEER_COMMIT_S, PEER_REQUESTS_WAITING_MAX, PEER_UNREAD_BYTES_MAX
from protocol.peer_requests import (
    READABLE,
    AskNews,
    BlockContents,
    Blocks,
    Changed,
    Changes,
    Find,
    Frames,
    Held,
    Hold,
    Journal,
    NoAnswer,
    PeerRequest,
    Reads,
    Release,
)
from protocol.positions import NO_TIMELINE, Cut

# How soon it is looked whether there is room for another answer.
LOOK_AGAIN_S = 0.02


Header = Callable[[Compression], bytes]  # that says how the payload travels
Travel = Callable[[Caller, Group, Header, bytes], None]


def as_it_is(caller: Caller, group: Group, header: Header, payload: Buffer) -> None:
    """At once, uncompressed."""
    caller.send(header(Compression.NONE), payload)


def nothing_unread(peer: str) -> int:
    """Of a site that holds nothing for it."""
    return 0


Waiting = deque[tuple[Caller, PeerRequest, Group]]  # by their group's clock, which ends with the group


class PeerAnswers:
    """Answers the peers of one site, in turn. `travel` sends an answer, at once or in its turn; `unread` says
    how many bytes of answers wait for a peer, `pace` who has had too much of this site's time."""

    def __init__(
        self,
        travel: Travel = as_it_is,
        unread: Callable[[str], int] = nothing_unread,
        pace: PeerPace | None = None,
    ) -> None:
        self._travel = travel
        self._unread = unread
        self._pace = pace or PeerPace()
        self._requests: dict[str, Waiting] = {}  # by peer, until there is room

    def answer(self, caller: Caller, request: PeerRequest, group: Group) -> None:
        """Answer a peer that this group is shared with, now or once there is room for more."""
        waiting = self._requests.setdefault(caller.peer, deque())
        if not waiting and self._has_room(caller.peer, group):
            self._answer_now(caller, request, group)
        elif len(waiting) >= PEER_REQUESTS_WAITING_MAX:
            refuse(caller, request, Busy("too many questions wait for an answer", subject=group.name))
        else:
            waiting.append((caller, request, group))
            if len(waiting) == 1:
                self._look_again(caller.peer)

    def _look_again(self, peer: str) -> None:
        waiting = self._requests[peer]
        self._pace.waits(peer, Turn.QUESTION, bool(waiting) and self.is_read(peer))
        if waiting:
            waiting[0][2].clock.call_later(LOOK_AGAIN_S, lambda: self._go_on(peer))

    def group_stopped(self, name: str) -> None:
        """A group was stopped by a defect: nothing of it waits any more, which is said, and what waited
        behind it goes on by another's clock."""
        for peer, waiting in self._requests.items():
            left = deque(each for each in waiting if each[2].name != name)
            self._requests[peer] = left
            for caller, request, group in waiting:
                if group.name == name:
                    refuse(caller, request, _stopped(group))
            if len(left) != len(waiting):
                self._look_again(peer)

    def _has_room(self, peer: str, group: Group) -> bool:
        return self._pace.ready(peer, group.clock.monotonic(), Turn.QUESTION) and self.is_read(peer)

    def is_read(self, peer: str) -> bool:
        """Whether that peer reads what it is answered."""
        return self._unread(peer) < PEER_UNREAD_BYTES_MAX

    def _go_on(self, peer: str) -> None:
        waiting = self._requests[peer]
        while waiting and self._has_room(peer, waiting[0][2]):
            caller, request, group = waiting.popleft()
            if group.failed:
                refuse(caller, request, _stopped(group))
            else:
                self._answer_now(caller, request, group)
        self._look_again(peer)

    def _answer_now(self, caller: Caller, request: PeerRequest, group: Group) -> None:
        """A defect is that of this question: others may wait behind it, about other groups."""
        began_s = group.clock.monotonic()
        defect = attempt("peer.question_failed", self._answer_or_refuse, caller, request, group)
        now_s = group.clock.monotonic()
        least_s = PEER_COMMIT_S if isinstance(request, Hold | Release) else 0.0
        self._pace.spend(caller.peer, now_s, max(now_s - began_s, least_s), Turn.QUESTION)
        if defect is not None:
            refuse(caller, request, FarshoreError(f"a defect at this site: {type(defect).__name__}"))

    def _answer_or_refuse(self, caller: Caller, request: PeerRequest, group: Group) -> None:
        try:
            self._answer(caller, request, group)
        except (BadFrame, OSError) as error:
            refuse(caller, request, Corruption(f"the journal cannot be read: {error}"))
        except FarshoreError as error:
            refuse(caller, request, error)

    def _answer(self, caller: Caller, request: PeerRequest, group: Group) -> None:
        session = request.session
        match request:
            case Hold(name=name, cut=cut):
                cut = checked_cut(group, cut)
                group.kept.timed.hold(asked_lease(caller.peer, name), cut, request.for_s)
                caller.send(Held(session=session, cut=cut).encode())
            case Release(name=name):
                group.kept.timed.release(asked_lease(caller.peer, name))
                caller.send(Held(session=session, cut=Cut(NO_TIMELINE, 0)).encode())
            case Find(utc_ns=utc_ns):
                caller.send(Held(session=session, cut=cut_at_time(group, utc_ns)).encode())
            case Blocks():
                contents, payload = contents_of(group, request)
                header = partial(_contents_header, session, contents)
                self._send(caller, group, header, payload)
            case Changes():
                next_block, done, payload = changes_of(group, request)
                self._send(caller, group, partial(_changed_header, session, next_block, done), payload)
            case Journal():
                self._send(caller, group, partial(_frames_header, session), frames_of(group, request))
            case Reads(what=what):
                if what not in READABLE:
                    raise NotFound(f"this version does not read {what}", subject=group.name)
                caller.send(Held(session=session, cut=Cut(NO_TIMELINE, 0)).encode())
            case _:
                assert_never(request)

    def _send(self, caller: Caller, group: Group, header: Header, payload: bytes) -> None:
        if payload:
            self._travel(caller, group, header, payload)
        else:
            caller.send(header(Compression.NONE))


def refuse(caller: Caller, request: PeerRequest | AskNews, error: FarshoreError) -> None:
    """Say why there is no answer."""
    no_answer = NoAnswer(
        session=request.session, code=error.code, message=error.message, position=error.position
    )
    caller.send(no_answer.encode())


def _stopped(group: Group) -> WrongState:
    return WrongState(f"group {group.name} has stopped: {group.failed}", subject=group.name)


def _contents_header(session: int, contents: bytes, compression: Compression) -> bytes:
    return BlockContents(session=session, contents=contents, compression=compression).encode()


def _changed_header(session: int, next_block: int, done: bool, compression: Compression) -> bytes:
    return Changed(session=session, next_block=next_block, done=done, compression=compression).encode()


def _frames_header(session: int, compression: Compression) -> bytes:
    return Frames(session=session, compression=compression).encode()
