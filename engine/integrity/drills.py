"""What drills showed: rows in the site's own store, the newest `DRILLS_KEPT_MAX` of each group.

    drills    name\\0u64 UTC ns of its start    row, as `_pack` has it

Every write is durable on return.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from engine.integrity.drill_rows import drop_old, newest_first, row_key
from engine.ports.store import Store
from protocol.bounds import AnyTimeline, Count, MsOrUnknown, NameOrNone, Position, Text, UtcNs, Word
from protocol.limits import DRILL_BYTES_MAX, DRILLS_KEPT_MAX
from protocol.positions import Cut
from protocol.rows import pack_row
from protocol.wire import RowType

TABLE = "drills"
NOTHING_BESIDE: Mapping[str, bytes] = MappingProxyType({})
_STEP = tuple[Text, Text, Word, Count, Text]
ROW = RowType(
    tuple[
        tuple[NameOrNone, ...], AnyTimeline, Position, UtcNs, bool, MsOrUnknown, MsOrUnknown,
        tuple[_STEP, ...],
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step; `state` is "ok", "failed" or "skipped"; `volume` is empty for what concerns all."""

    step: str
    volume: str
    state: str
    took_ms: int
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One drill. `started_utc_ns` is its id in its group; `cut_utc_ns` 0 and `data_age_ms` -1 if unknown."""

    group: str
    started_utc_ns: int
    volumes: tuple[str, ...]
    cut: Cut
    cut_utc_ns: int
    ok: bool
    recovery_ms: int
    data_age_ms: int
    steps: tuple[Step, ...]


class Drills:
    """Typed rows over the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, drill: Drill, beside: Mapping[str, bytes] = NOTHING_BESIDE) -> Drill:
        """Keep it, and with it rows of other tables that are about it; the oldest of its group goes when
        there are too many. One that began in the same nanosecond as another gets a later one. Gives it as it
        is kept."""
        with self._store.write() as write:
            while write.get(TABLE, row_key(drill.group, drill.started_utc_ns)) is not None:
                drill = replace(drill, started_utc_ns=drill.started_utc_ns + 1)
            for table, row in {TABLE: _pack(drill), **beside}.items():
                write.put(table, row_key(drill.group, drill.started_utc_ns), row)
        for table in (TABLE, *beside):
            drop_old(self._store, table, drill.group, DRILLS_KEPT_MAX)
        return drill

    def of(self, group: str, limit: int | None = None, before_utc_ns: int | None = None) -> list[Drill]:
        """A group's drills, newest first; those only that began before a time, if one is given."""
        rows = newest_first(self._store, TABLE, group, limit, before_utc_ns)
        return [_unpack(group, started, value) for started, value in rows]

    def last(self, group: str, now_utc_ns: int) -> Drill | None:
        """A group's newest drill. One whose time is yet to come is none: the clock was ahead when it began,
        and went back, and it would be the newest until then whatever is drilled, or is not."""
        return next(iter(self.of(group, 1, now_utc_ns + 1)), None)


def _pack(drill: Drill) -> bytes:
    steps = [(each.step, each.volume, each.state, each.took_ms, each.said) for each in drill.steps]
    return pack_row(
        (
            drill.volumes,
            drill.cut.timeline,
            drill.cut.position,
            drill.cut_utc_ns,
            drill.ok,
            drill.recovery_ms,
            drill.data_age_ms,
            steps,
        )
    )


def _unpack(group: str, started_utc_ns: int, value: bytes) -> Drill:
    row = ROW.decode(value, DRILL_BYTES_MAX)
    volumes, timeline, position, cut_utc_ns, ok, recovery_ms, data_age_ms, steps = row
    return Drill(
        group=group,
        started_utc_ns=started_utc_ns,
        volumes=volumes,
        cut=Cut(timeline, position),
        cut_utc_ns=cut_utc_ns,
        ok=ok,
        recovery_ms=recovery_ms,
        data_age_ms=data_age_ms,
        steps=tuple(
            Step(step=step, volume=volume, state=state, took_ms=took_ms, said=said)
            for step, volume, state, took_ms, said in steps
        ),
    )
