"""The copy table answers by index what a walk through all copies would say."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.copies.copies import Copy, CopyTable
from engine.copies.copy_order import Place
from engine.history.timelines import Span, holds
from protocol.errors import NotFound, Refused
from protocol.events import Consistency, CopyDeleted, CopyLocked, CopyPinned, CopyRecord, Mark
from protocol.positions import POSITION_MAX, Cut

LABELS = ("", "a", "b", "0000000000000002")
IDS = range(1, 6)
FORK = 40
LINEAGES = [
    [],
    [Span(1, 0, 0, POSITION_MAX)],
    [Span(1, 0, 0, 60)],
    [Span(1, 0, 0, FORK), Span(2, 1, FORK, POSITION_MAX)],
    [Span(1, 0, 0, FORK), Span(2, 1, FORK, 70)],
    [Span(3, 2, 0, POSITION_MAX)],
]


@dataclass
class Lock:
    """A retention lock that the test sets."""

    held: set[int] = field(default_factory=set)
    remembered: set[Place] = field(default_factory=set)
    waits: bool = False

    def locked(self, copy_id: int) -> bool:
        return copy_id in self.held

    def gave_up(self, deletion: Place) -> bool:
        return not self.waits or deletion not in self.remembered

    @property
    def moment(self) -> tuple[object, ...]:
        return frozenset(self.held), frozenset(self.remembered), self.waits


@dataclass
class Walk:
    """All copies, gone through for each answer."""

    lock: Lock
    copies: dict[Place, Copy] = field(default_factory=dict)
    pins: dict[Place, CopyPinned] = field(default_factory=dict)
    deletions: dict[Place, int] = field(default_factory=dict)

    def apply(self, place: Place, utc_ns: int, record: CopyRecord) -> None:
        if isinstance(record, Mark):
            self.copies[place] = Copy(
                id=record.copy_id, label=record.label, cut=record.cut or Cut(*place), volumes=record.volumes,
                utc_ns=utc_ns, consistency=record.consistency, pinned=record.pinned, timeline=place[0],
                position=place[1], retroactive=record.cut is not None,
            )  # fmt: skip
        elif isinstance(record, CopyPinned):
            self.pins[place] = record
        elif isinstance(record, CopyDeleted):
            self.deletions[place] = record.copy_id

    def forget(self, timeline: int, position: int) -> None:
        for rows in (self.copies, self.pins, self.deletions):
            for place in [each for each in rows if each[0] == timeline and each[1] >= position]:
                del rows[place]

    def deletions_of(self, copy: Copy) -> list[Place]:
        return [place for place, copy_id in self.deletions.items() if copy_id == copy.id]

    def on(self, spans: list[Span]) -> list[Copy]:
        found = [copy for place, copy in self.copies.items() if holds(spans, *place)]
        return sorted(found, key=lambda copy: copy.position)

    def at(self, spans: list[Span]) -> list[Copy]:
        found = []
        for copy in self.on(spans):
            deleted = any(holds(spans, *place) for place in self.deletions_of(copy))
            if deleted and not self.lock.locked(copy.id):
                continue
            said = [(p, r.pinned) for p, r in self.pins.items() if r.copy_id == copy.id and holds(spans, *p)]
            newest = max(said, key=lambda each: each[0][1], default=(0, copy.pinned))
            found.append(replace(copy, pinned=newest[1]))
        return found

    def retained(self, spans: list[Span], durable: int, without: set[int]) -> set[Cut]:
        kept = set()
        for place, copy in self.copies.items():
            counting = [each for each in self.deletions_of(copy) if holds(spans, *each) and each[1] < durable]
            first = min(counting, key=lambda each: each[1], default=None)
            if not holds(spans, *place):
                first = min(self.deletions_of(copy), default=None)
            if copy.id in without:
                continue
            if self.lock.locked(copy.id) or first is None or not self.lock.gave_up(first):
                kept.add(copy.cut)
        return kept

    def last_by_schedule(self, spans: list[Span], volumes: set[int]) -> Copy | None:
        for copy in reversed(self.at(spans)):
            lacks = [each for each in volumes - set(copy.volumes) if each < copy.cut.position]
            if not copy.label and not copy.retroactive and not lacks:
                return copy
        return None


places = st.tuples(st.integers(1, 3), st.integers(1, 99))
marks = st.builds(
    Mark,
    copy_id=st.sampled_from(IDS),
    label=st.sampled_from(LABELS),
    cut=st.none() | st.builds(Cut, st.just(1), st.integers(1, 9)),
    volumes=st.sampled_from([(5,), (5, 45), (45,)]),
    consistency=st.just(Consistency.CRASH),
    pinned=st.booleans(),
)
other = st.one_of(
    st.builds(CopyPinned, copy_id=st.sampled_from(IDS), pinned=st.booleans()),
    st.builds(CopyDeleted, copy_id=st.sampled_from(IDS)),
    st.builds(CopyLocked, copy_id=st.sampled_from(IDS), lock_s=st.just(60)),
)
steps = st.one_of(
    st.tuples(st.just("apply"), places, st.one_of(marks, other)),
    st.tuples(st.just("forget"), places, st.none()),
    st.tuples(st.just("lock"), st.sampled_from(IDS), st.none()),
    st.tuples(st.just("waits"), st.booleans(), st.none()),
    st.tuples(st.just("look"), st.sampled_from(range(len(LINEAGES))), st.integers(1, 99)),
)


def said(ask: Callable[[], Any]) -> Any:
    """What comes back, or which refusal."""
    try:
        return ask()
    except (NotFound, Refused) as error:
        return type(error), error.message


@given(st.lists(steps, max_size=60))
def test_the_index_says_what_a_walk_through_all_copies_says(history: list[tuple[str, Any, Any]]) -> None:
    lock = Lock()
    table, walk = CopyTable(), Walk(lock)
    table.lock = lock
    ever_locked: set[int] = set()
    at_place: dict[Place, CopyRecord] = {}
    for verb, one, two in history:
        if verb == "apply":
            # A place has one event, and only what was ever locked is.
            record = at_place.setdefault(one, two)
            utc_ns = 10 * one[1]
            table.apply(one[0], one[1], one[1], utc_ns, record)
            walk.apply(one, utc_ns, record)
            if isinstance(record, CopyLocked):
                ever_locked.add(record.copy_id)
            elif isinstance(record, CopyDeleted):
                lock.remembered.add(one)
        elif verb == "forget":
            table.forget(*one)
            walk.forget(*one)
            at_place = {p: r for p, r in at_place.items() if p[0] != one[0] or p[1] < one[1]}
        elif verb == "lock":
            lock.held ^= {one} & ever_locked
        elif verb == "waits":
            lock.waits = one
        else:
            check(table, walk, LINEAGES[one], two)
    for spans in LINEAGES:
        check(table, walk, spans, 50)


def check(table: CopyTable, walk: Walk, spans: list[Span], number: int) -> None:
    """Every question."""
    copies = walk.at(spans)
    assert table.at(spans) == copies
    assert table.count(spans) == len(copies)
    assert list(table.newest(spans)) == copies[::-1]
    assert list(table.newest(spans, number)) == [c for c in copies[::-1] if c.position < number]
    before = [c for c in copies[::-1] if (c.utc_ns, c.position) < (10 * number, number)]
    assert list(table.taken_before(spans, 10 * number, number)) == before
    for volumes in ({5}, {5, 45}, set[int]()):
        assert table.last_by_schedule(spans, volumes) == walk.last_by_schedule(spans, volumes)
    for cut in {copy.cut for copy in walk.copies.values()}:
        assert table.of_cut(spans, cut) == [c for c in copies if c.cut == cut]
    for name in (*LABELS, *(f"{each:016x}" for each in IDS), "000000000000000A"):
        first = next((c for c in copies if name in (c.label, f"{c.id:016x}") and name), None)
        found = said(lambda name=name: table.find(spans, name, "vm1"))  # type: ignore[misc]
        assert found == first if first else found[0] is NotFound
    for label in LABELS[1:]:
        taken = any(copy.label == label for copy in walk.on(spans))
        found = said(lambda label=label: table.require_free(spans, label, "vm1"))  # type: ignore[misc]
        assert (found is not None) == taken
        if found:
            assert ("was deleted" in found[1]) == all(copy.label != label for copy in copies)
    assert table.cuts() == {copy.cut for copy in walk.copies.values()}
    for without in (set[int](), {2}, {1, 3}):
        assert table.retained(spans, number, without=without) == walk.retained(spans, number, without)


def test_what_is_kept_is_worked_out_again_only_when_it_changed() -> None:
    table, here = filled(8), [Span(1, 0, 0, POSITION_MAX)]
    table.lock = lock = Lock(waits=True)
    kept = table.retained(here, 100)
    assert table.retained(here, 200) is kept, "more became durable than any copy says"
    table.apply(1, 18, 18, 18, CopyPinned(copy_id=2, pinned=True))
    assert table.retained(here, 200) is kept, "pins keep no cut"
    assert table.retained(here, 3) > kept, "the first deletion lies at 3"
    lock.held.add(1)
    assert table.retained(here, 200) == kept | {Cut(1, 2)}
    table.apply(1, 20, 20, 20, CopyDeleted(copy_id=2))
    assert table.retained(here, 200) == (kept | {Cut(1, 2)}) - {Cut(1, 4)}
    table.forget(1, 20)
    assert table.retained(here, 200) == kept | {Cut(1, 2)}


def calls(ask: Callable[[], Any]) -> int:
    """How many functions run for it."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        ask()
    finally:
        sys.setprofile(None)
    return count


def filled(count: int) -> CopyTable:
    """So many backups, of which every other one was deleted."""
    table = CopyTable()
    for number in range(1, count + 1):
        label = f"l{number}" if number % 3 else ""
        mark = Mark(
            copy_id=number, label=label, cut=None, volumes=(5,), consistency=Consistency.CRASH, pinned=False
        )
        table.apply(1, 2 * number, 2 * number, number, mark)
        if number % 2:
            table.apply(1, 2 * number + 1, 2 * number + 1, number, CopyDeleted(copy_id=number))
    return table


def work(table: CopyTable, count: int) -> dict[str, int]:
    """What each question costs of a table that was asked before."""
    here = [Span(1, 0, 0, POSITION_MAX)]
    table.retained(here, POSITION_MAX)
    new = 2 * count + 10
    mark = Mark(
        copy_id=1 << 40, label="new", cut=None, volumes=(5,), consistency=Consistency.CRASH, pinned=False
    )
    return {
        "free": calls(lambda: table.require_free(here, "new", "g")),
        "create": calls(lambda: table.apply(1, new, new, new, mark)),
        "delete": calls(lambda: table.apply(1, new + 1, new + 1, new, CopyDeleted(copy_id=4))),
        "label": calls(lambda: table.find(here, "l8", "g")),
        "id": calls(lambda: table.find(here, f"{8:016x}", "g")),
        "gone": calls(lambda: said(lambda: table.find(here, "l7", "g"))),
        "cut": calls(lambda: table.of_cut(here, Cut(1, 16))),
        "count": calls(lambda: table.count(here)),
        "newest": calls(lambda: next(table.newest(here))),
        "page": calls(lambda: next(table.taken_before(here, count // 2, 0))),
        "run": calls(lambda: table.last_by_schedule(here, (5,))),
        "retained": calls(lambda: table.retained(here, POSITION_MAX)),
    }


def test_no_question_takes_longer_the_more_backups_were_ever_taken() -> None:
    few, many = work(filled(64), 64), work(filled(4096), 4096)
    # A bisection takes six steps more, of four calls each.
    assert {name: cost for name, cost in many.items() if cost > few[name] + 32} == {}
