"""What each site says of its journal, and where shipping begins: one comparison.

    the peer ends                                   then
    nowhere: it has nothing yet                     ship from the root
    on this lineage, digest equal                   ship from there
    past the fork, in runs of this writer only      nothing served since the start: fetch that tail, it was
                                                    lost here; else it becomes a branch there: ship from the
                                                    fork. If it cannot have been lost, as this site does not
                                                    know that run, writes it now or had called it durable:
                                                    diverged
    nowhere past this, but this site once held more diverged: neither has it, an operator must know
    past the fork, in what another site wrote       diverged: nothing moves by itself. An operator chooses:
                                                    this history (ship from the fork), or the peer's (fetch)
    at an equal place with another digest           diverged

Where this journal does not lead from there to its end (it was shortened, or this site got a base itself), or
leads from the root but is long, a base is sent instead of the first part of it: the blocks that differ
between that place and a cut of this head, or all there are. A place that cannot be read here any more counts
as none.

In sync means equal timeline, position and digest, nothing else (invariant 7). The fork is the last place that
both hold; that the journals are equal up to it, the first frame proves: its digest covers all before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from engine.group.group import Group
from engine.group.head_moves import begin_timeline
from engine.group.holds import Holder
from engine.group.serving import took_over
from engine.history.bases import gap_at
from engine.history.lineage import fork_of, journal_leads, lineage_rows
from engine.history.timelines import Span
from engine.peering.pair_states import Mode, PairState
from protocol.limits import HISTORY_SHIPPED_BYTES_MAX
from protocol.messages import Heartbeat, Hello, Welcome
from protocol.positions import Cut


class Verdict(Enum):
    """What follows from a comparison."""

    SHIP = "ship"
    BASE = "base"  # `cut` is what it stands on; timeline 0: on nothing
    FETCH = "fetch"
    DIVERGED = "diverged"


class Choice(Enum):
    """Whose history an operator wants where both sites wrote."""

    NONE = "none"
    LOCAL = "local"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """`cut` is where frames go on from, either way. `tail`: what the peer holds past it. `lost`: what this
    site once called durable, and neither of the two holds."""

    verdict: Verdict
    cut: Cut
    tail: tuple[Span, ...] = ()
    lost: Cut | None = None

    @property
    def fork(self) -> Cut | None:
        """Where the peer's journal left this one, if it did."""
        return self.cut if self.tail else None

    @property
    def tail_bytes(self) -> int:
        """Size of what the peer holds past that."""
        return sum(span.end - span.start for span in self.tail)

    @property
    def equal_to(self) -> int:
        """Up to where both sites' heads are known to be the same."""
        return self.cut.position if self.verdict is not Verdict.DIVERGED or self.tail else 0

    def difference(self, welcome: Welcome) -> str:
        """For an operator: where the peer is, and what it has that is not here."""
        if self.lost is not None:
            return f"does not hold {self.lost} either, which was durable at this site and is not here"
        what = f"{self.tail_bytes} bytes from {self.cut} on" if self.tail else "other bytes there"
        return f"is at {Cut(welcome.timeline, welcome.written)} and has {what}, written elsewhere"


NOT_COMPARED = Start(verdict=Verdict.DIVERGED, cut=Cut(0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What earlier sessions told of the peer: `confirmed`, the last cut that it had, readable here; `parted`,
    a fork past which it did not leave what it has, or could not give it."""

    confirmed: Cut | None = None
    parted: Cut | None = None


NOTHING_KNOWN = Known()


def heartbeat_of(group: Group, session: int, state: PairState, mode: Mode) -> Heartbeat:
    """Where the journal ends now, with the promise that every later frame says a later time. A site that
    ships on what it follows knows that only of what is before its newest frame."""
    horizon = group.kept.horizon()
    promise_ns = group.promise_utc_ns() if group.writes else max(0, group.head.utc_ns - 1)
    return Heartbeat(
        session=session,
        timeline=group.head.timeline,
        written=group.writer.written,
        utc_ns=promise_ns,
        state=state.value,
        mode=mode.value,
        horizon=horizon.position if horizon else 0,
    )


def hello_of(group: Group, session: int, group_id: str, *, adopt: bool) -> Hello:
    """What this site says of its journal, for the peer to compare; `adopt`: what the peer has past it is to
    become a branch."""
    return Hello(
        session=session,
        group=group.name,
        group_id=group_id,
        site=group.site,
        lineage=lineage_rows(group),
        written=group.writer.written,
        adopt=adopt,
    )


def where_to_start(
    group: Group, welcome: Welcome, known: Known = NOTHING_KNOWN, *, choice: Choice, serving: bool
) -> Start:
    """Compare, and say what to do. FarshoreError if this site's own journal cannot answer, or this run's
    timeline cannot begin. `serving`: hosts have been served since this site started."""
    # Who waits for what this site once held is served by nobody, however long the wait has been.
    serving = serving and Holder.OLDER not in group.holds
    start = _compare(group, welcome, known, choice=choice, serving=serving)
    if start.verdict in (Verdict.SHIP, Verdict.BASE) and group.turned_back.lost is not None:
        if choice is Choice.NONE:
            return replace(start, verdict=Verdict.DIVERGED, lost=group.turned_back.lost)
        group.turned_back.accept()
    return start


def _compare(group: Group, welcome: Welcome, known: Known, *, choice: Choice, serving: bool) -> Start:
    confirmed = known.confirmed
    if not welcome.lineage:
        return _ship_from(group, Cut(0, 0), None)
    spans = group.spans(group.writer.written)
    fork, tail = fork_of(spans, welcome.lineage, welcome.written)
    if not tail:
        if not fork.timeline:
            return Start(verdict=Verdict.DIVERGED, cut=fork)
        if not (group.kept.journal_reaches(fork) or group.kept.readable(fork)):
            # The frame that said the digest there has gone, or never came: this site got a base past it. A
            # base is taken on what both are known to have.
            return _ship_from(group, fork, confirmed)
        if welcome.digest != group.reader.digest_at(group.timelines, fork.timeline, fork.position):
            return Start(verdict=Verdict.DIVERGED, cut=fork)
        if choice is Choice.REMOTE and took_over(group):
            # All of the peer's history is here: what is written from here on outranks it.
            begin_timeline(group, authority=True)
        return _ship_from(group, fork, confirmed)
    writers = {row[4] for row in welcome.lineage if any(span.timeline == row[0] for span in tail)}
    if writers == {group.site} and fork.timeline and choice is not Choice.REMOTE:
        lost = fork == group.end and not group.head.began
        if lost and not serving and fork != known.parted:
            return Start(verdict=Verdict.FETCH, cut=fork, tail=tail)
        # A site knows every timeline that it ever began. One that does not is an old copy of itself.
        forgot = any(span.timeline not in group.timelines for span in tail)
        # Nor can it have lost the end of what it writes now, unless the whole machine was turned back.
        running = group.head.began and any(span.timeline == group.head.timeline for span in tail)
        if forgot or running:
            what = "more of the timeline that is written here now" if running else "timelines of this site"
            group.turned_back.suspected(Cut(tail[-1].timeline, tail[-1].end), what)
        if (forgot or running or fork == known.parted) and choice is Choice.NONE:
            return Start(verdict=Verdict.DIVERGED, cut=fork, tail=tail)
        if running or (lost and choice is Choice.LOCAL):
            # No position is used twice. Hosts may still wait for what the peer holds: the operator does not.
            begin_timeline(group)
        elif lost:
            group.begin_writing()
        return _ship_from(group, fork, confirmed, tail)
    if choice is Choice.REMOTE and fork != known.parted:
        return Start(verdict=Verdict.FETCH, cut=fork, tail=tail)
    if choice is Choice.LOCAL and fork.timeline:
        if fork == group.end or not group.head.began:
            # There is nothing past the fork to send: only a timeline that begins there makes the peer leave.
            # Nor may the peer have given the lane of the last one away.
            begin_timeline(group)
        return _ship_from(group, fork, confirmed, tail)
    return Start(verdict=Verdict.DIVERGED, cut=fork, tail=tail)


def _ship_from(group: Group, cut: Cut, confirmed: Cut | None, tail: tuple[Span, ...] = ()) -> Start:
    """The journal from a cut on if it leads on from there, else a base: on that cut if it can be read here,
    or on what the peer had earlier."""
    reaches = journal_leads(group, cut)
    if not cut.timeline and group.writer.written > HISTORY_SHIPPED_BYTES_MAX:
        reaches = False
    if reaches:
        return Start(verdict=Verdict.SHIP, cut=cut, tail=tail)
    for start in (cut, confirmed):
        if (
            start is not None
            and start.timeline
            and start.position <= cut.position
            and can_base_on(group, start)
        ):
            return Start(verdict=Verdict.BASE, cut=start, tail=tail)
    return Start(verdict=Verdict.BASE, cut=Cut(0, 0), tail=tail)


def can_base_on(group: Group, cut: Cut) -> bool:
    """Whether a base can be made here for who has all up to a cut."""
    if not cut.timeline or not group.holds_cut(cut):
        return False
    return gap_at(group.timelines, cut) is None and group.kept.readable(cut)
