"""The peers' door: which group a peer's message is for, and whether that peer may ship it here.

A HELLO for a group that is not here makes it, as a secondary of the caller; every later message finds its
receiver by the session that the HELLO opened. One session a group: a new HELLO ends those before it.

Questions about a group's past (engine.peering.peer_answers) come in no session: any peer that shares the
group may put them.

It opens no files and no sockets: who holds the groups is asked through `GroupHolder`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from engine.group.compartment import attempt
from engine.group.frame_checks import check_generation
from engine.group.group import Group
from engine.group.listeners import Emit
from engine.group.site_state import PairRow, Role, SiteState
from engine.peering.peer_answers import PeerAnswers, Travel, as_it_is, nothing_unread, refuse
from engine.peering.peer_pace import PeerPace, Turn
from engine.ports.clock import Clock
from engine.ports.transport import Caller, Payload
from protocol.errors import (
    Busy,
    Corruption,
    Diverged,
    FarshoreError,
    NotAllowed,
    NotFound,
    RemoteProtocolError,
    WrongState,
)
from protocol.messages import (
    BAD_MESSAGE,
    SUPERSEDED,
    Ask,
    Fetch,
    Heartbeat,
    Hello,
    Message,
    Refused,
    Report,
    decode_message,
    refusal_of,
)
from protocol.peer_requests import AskNews, News, PeerRequest
from site_secondary.receiver import Receiver
from site_secondary.twins import Twins
from site_secondary.waiting_calls import WaitingCalls


class Superseded(WrongState):
    """A peer that ships by an older authority than this site's."""


class GroupHolder(Protocol):
    """The site, as far as the door needs it."""

    @property
    def clock(self) -> Clock:
        """The site's, of no group."""

    @property
    def receivers(self) -> dict[str, Receiver]:
        """By group."""

    def make_receiver(self, group: Group, peer: str) -> Receiver:
        """Take the group's journal from a peer."""

    def superseded(self, group: Group, by: str, generation: int = 0) -> None:
        """The peer writes the group by a newer authority, of that generation: stop serving at once and follow
        it."""

    def has_group(self, name: str) -> bool:
        """Whether a group is here, damaged or not."""

    def group(self, name: str) -> Group:
        """An open group; the damage that keeps it closed, or NotFound."""

    def check_room(self, name: str, peer: str = "") -> None:
        """Refused unless that peer may make one more group here."""

    def create_group(self, name: str, group_id: str, role: Role) -> Group:
        """A new, empty group. Refused if there is no room for it."""


class PeerDoor:
    """Takes the calls of every peer of one site. `on_session` is told of every new one; `travel` and `unread`
    are those of `PeerAnswers`; `news` says what has happened here."""

    def __init__(
        self,
        holder: GroupHolder,
        state: SiteState,
        emit: Emit,
        on_session: Callable[[], None],
        travel: Travel = as_it_is,
        unread: Callable[[str], int] = nothing_unread,
        news: Callable[[str, AskNews], tuple[News, bytes]] | None = None,
    ) -> None:
        self._news = news
        self._holder = holder
        self._state = state
        self._emit = emit
        self._on_session = on_session
        self._pace = PeerPace()
        self._waiting = WaitingCalls(self._pace, holder.clock, self._take_waiting, unread)
        self._answers = PeerAnswers(travel, unread, self._pace)
        self._sessions: dict[tuple[str, int], Receiver] = {}
        self._twins = Twins(emit)

    def on_message(self, caller: Caller, header: bytes, payload: Payload) -> None:
        """A peer's message: to the group's receiver, made with the first HELLO for it."""
        try:
            message = decode_message(header)
        except RemoteProtocolError as error:
            self._emit("peer.bad_message", object=caller.peer, error=str(error))
            refusal = refusal_of(header, error)
            if refusal is not None:
                caller.send(refusal)
            return
        if isinstance(message, Ask):
            if attempt("peer.question_failed", self._report, caller, message) is not None:
                caller.send(_nothing(message).encode())
            return
        if isinstance(message, AskNews):
            if (defect := attempt("peer.question_failed", self._tell_news, caller, message)) is not None:
                refuse(caller, message, FarshoreError(f"a defect at this site: {type(defect).__name__}"))
            return
        if isinstance(message, PeerRequest):
            if (defect := attempt("peer.question_failed", self._answer, caller, message)) is not None:
                refuse(caller, message, FarshoreError(f"a defect at this site: {type(defect).__name__}"))
            return
        if isinstance(message, Hello):
            self._waiting.forget(caller.peer, self._sessions_of(message.group, caller.peer))
        known = isinstance(message, Hello) or (caller.peer, message.session) in self._sessions
        if isinstance(message, Hello | Fetch) and known and self._waiting.must_wait(caller.peer, message):
            if not self._waiting.add(caller, message):
                self._refuse(caller, message.session, Busy("too many calls wait for their turn"))
            return
        self._take(caller, message, payload)

    def _sessions_of(self, group: str, peer: str) -> list[int]:
        receiver = self._holder.receivers.get(group)
        return [
            session for (name, session), each in self._sessions.items() if each is receiver and name == peer
        ]

    def _take_waiting(self, caller: Caller, call: Hello | Fetch) -> None:
        """A HELLO that was repeated before the first was answered may come behind what its session has sent
        since: it must not begin that session once more."""
        if not (isinstance(call, Hello) and (caller.peer, call.session) in self._sessions):
            self._take(caller, call)

    def _take(self, caller: Caller, message: Message, payload: Payload = None) -> None:
        """A message of a session, or a call for one. Frames are not counted: what they are is the pair's
        work."""
        clock = self._holder.clock
        began_s = clock.monotonic()
        defect = attempt("peer.session_failed", self._in_session, caller, message, payload)
        if defect is not None:
            self._session_failed(caller, message.session, defect)
        if not isinstance(message, Hello | Fetch | Heartbeat):
            return
        now_s = clock.monotonic()
        turn = None if isinstance(message, Heartbeat) else Turn.CALL
        self._pace.spend(caller.peer, now_s, now_s - began_s, turn)
        if self._pace.exhausted(caller.peer, now_s):
            # By heartbeats, which are not kept waiting: each may say something else that must be remembered.
            self._sessions.pop((caller.peer, message.session), None)
            self._refuse(caller, message.session, Busy("this session takes too much of the site's time"))

    def _refuse(self, caller: Caller, session: int, error: FarshoreError) -> None:
        caller.send(Refused(session=session, code=error.code, message=error.message).encode())

    def _in_session(self, caller: Caller, message: Message, payload: Payload) -> None:
        if isinstance(message, Hello):
            try:
                receiver = self._receiver_for(caller, message)
            except FarshoreError as error:
                code = SUPERSEDED if isinstance(error, Superseded) else error.code
                refused = Refused(session=message.session, code=code, message=error.message)
                caller.send(refused.encode())
                return
            except RemoteProtocolError as error:
                refused = Refused(session=message.session, code=BAD_MESSAGE, message=str(error))
                caller.send(refused.encode())
                return
            except OSError as error:
                text = f"cannot make the group {message.group}: {error}"
                caller.send(Refused(session=message.session, code="failed", message=text).encode())
                return
            self._sessions[caller.peer, message.session] = receiver
            self._on_session()
        else:
            found = self._sessions.get((caller.peer, message.session))
            if found is None:
                if isinstance(message, Heartbeat):
                    self._late_beat(caller, message.session)
                return
            receiver = found
        receiver.on_message(caller, message, payload)

    def _late_beat(self, caller: Caller, session: int) -> None:
        """Of a session that is over: another daemon's, perhaps."""
        error = self._twins.late(caller.peer, session)
        if error is not None:
            caller.send(Refused(session=session, code=error.code, message=error.message).encode())

    def _session_failed(self, caller: Caller, session: int, defect: Exception) -> None:
        """The group knows what a message did to it (engine.group.compartment); the session is over."""
        self._sessions.pop((caller.peer, session), None)
        text = f"the message was not taken, because of a defect: {type(defect).__name__}"
        self._emit("peer.session_failed", object=caller.peer, error=text)
        caller.send(Refused(session=session, code="failed", message=text).encode())

    def close(self) -> None:
        """Calls that wait are for nobody; no other comes, because the transport is closed."""
        self._waiting.close()

    def group_stopped(self, group: str) -> None:
        """A group has stopped: what its peers still send is for nobody, and what they asked is not
        answered."""
        self._answers.group_stopped(group)
        receiver = self._holder.receivers.get(group)
        for key in [key for key, each in self._sessions.items() if each is receiver]:
            del self._sessions[key]

    def _receiver_for(self, caller: Caller, hello: Hello) -> Receiver:
        name = hello.group
        holder = self._holder
        held = holder.group(name) if holder.has_group(name) else None
        check_generation(hello.generation, max(self._state.heard(name), held.generation) if held else 0)
        if held is None:
            self._check_known(hello)
            holder.check_room(name, caller.peer)
            # The pair first: a crash in between would leave a group that belongs to nobody, refused for ever.
            self._put_pair(name, caller.peer)
            try:
                holder.create_group(name, hello.group_id, Role.SECONDARY)
            finally:
                if not holder.has_group(name):
                    self._state.delete_pair(name)
        group = holder.group(name)
        if group.failed:
            raise WrongState(f"group {name} has stopped: {group.failed}", subject=name)
        receiver = holder.receivers.get(name)
        self._twins.check(caller.peer, group, hello.session, receiver.heard_at if receiver else None)
        row = self._state.group(name)
        lone = self._state.pair(name) is None and row.role is Role.SECONDARY
        if lone and row.group_id == hello.group_id:
            self._put_pair(name, caller.peer)
        newer = check_pairing(self._state, group, hello, caller.peer)
        if newer:
            holder.superseded(group, caller.peer, hello.generation)
        elif hello.generation > max(self._state.heard(name), group.generation):
            self._state.set_heard(name, hello.generation)
        receiver = holder.receivers.get(name)
        if receiver is None:
            receiver = holder.make_receiver(group, caller.peer)
        # Sessions of this group's receiver that came before are over.
        for key in [key for key, each in self._sessions.items() if each is receiver]:
            del self._sessions[key]
        self._twins.began(caller.peer, group, hello.session)
        return receiver

    def _check_known(self, hello: Hello) -> None:
        """WrongState if the group is here by another name: a second copy would be made of it."""
        for row in self._state.groups():
            if row.name != hello.group and row.group_id and row.group_id == hello.group_id:
                raise WrongState(
                    f"the group {hello.group} is called {row.name} here: `farshore group rename {row.name} "
                    f"{hello.group}` at this site",
                    subject=hello.group,
                )

    def _put_pair(self, name: str, peer: str) -> None:
        self._state.put_pair(PairRow.called(name, peer))

    def _answer(self, caller: Caller, request: PeerRequest) -> None:
        name = request.group
        try:
            if not self._shares(caller.peer, name, request.group_id):
                raise NotFound(f"group {name} is not shared with {caller.peer}", subject=name)
            group = self._holder.group(name)
        except FarshoreError as error:
            refuse(caller, request, error)
            return
        self._answers.answer(caller, request, group)

    def _tell_news(self, caller: Caller, ask: AskNews) -> None:
        if self._news is None or not self._shares(caller.peer, ask.group, ask.group_id):
            refuse(caller, ask, NotFound(f"group {ask.group} is not shared with {caller.peer}"))
        elif not self._answers.is_read(caller.peer):
            refuse(caller, ask, Busy("answers wait to be read"))
        else:
            clock = self._holder.clock
            began_s = clock.monotonic()
            news, payload = self._news(caller.peer, ask)
            caller.send(news.encode(), payload)
            self._pace.spend(caller.peer, clock.monotonic(), clock.monotonic() - began_s, Turn.QUESTION)

    def _shares(self, peer: str, name: str, group_id: str) -> bool:
        """Whether a group is here, in a pair with that peer."""
        pair = self._state.pair(name)
        if pair is None or pair.peer != peer or not self._holder.has_group(name):
            return False
        return self._state.group(name).group_id == group_id

    def _report(self, caller: Caller, ask: Ask) -> None:
        caller.send(self._report_of(caller.peer, ask).encode())

    def _report_of(self, peer: str, ask: Ask) -> Report:
        """What this site is to a group that it shares with the peer."""
        nothing = _nothing(ask)
        try:
            if not self._shares(peer, ask.group, ask.group_id):
                return nothing
            row = self._state.group(ask.group)
        except Corruption:
            return nothing  # whose group it is cannot be read any more
        try:
            group = self._holder.group(ask.group)
        except FarshoreError:
            return replace(nothing, role=row.role.value)
        return Report(
            session=ask.session,
            role=row.role.value,
            generation=group.generation,
            timeline=group.head.timeline,
            written=group.writer.written,
            durable=group.writer.durable,
        )


def _nothing(ask: Ask) -> Report:
    """What is said of a group that is not here."""
    return Report(session=ask.session, role="", generation=0, timeline=0, written=0, durable=0)


def check_pairing(state: SiteState, group: Group, hello: Hello, peer: str) -> bool:
    """Whether a peer may ship a group here; True if it does so by a newer authority than this site, which
    wrote the group until now. NotAllowed or WrongState say why not."""
    row = state.group(hello.group)
    pair = state.pair(hello.group)
    if row.group_id != hello.group_id:
        raise WrongState(
            f"the group {hello.group} here is another one of the same name: "
            f"`farshore group rename {hello.group} NEW` or `farshore group delete {hello.group}` at this "
            "site makes the name free",
            subject=hello.group,
        )
    if pair is None:
        raise NotAllowed(
            f"the group {hello.group} is written here, and has no pair: `farshore group rename {hello.group} "
            f"NEW` or `farshore group delete {hello.group}` at this site makes the name free",
            subject=hello.group,
        )
    if pair.peer != peer:
        raise NotAllowed(f"the group {hello.group} here belongs to another pair", subject=hello.group)
    if row.role is not Role.PRIMARY:
        return False
    mine = group.generation
    if hello.generation == mine == 0:
        raise Diverged(f"the group {hello.group} is written at this site too", subject=hello.group)
    # Both may have taken over while neither could hear of the other: the same one yields at both.
    if (hello.generation, hello.site) > (mine, group.site) or group.handed_to == hello.site:
        return True
    raise Superseded(f"the group {hello.group} is written here by a newer authority", subject=hello.group)
