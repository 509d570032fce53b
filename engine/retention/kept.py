"""Which cuts of a group can be read, and who keeps them so."""

from __future__ import annotations

from collections.abc import Iterable

from engine.group.core import GroupCore
from engine.history.bases import base_on, gap_at, require_held
from engine.index.view import VolumeView
from engine.ports.store import ReadTransaction
from engine.retention.cut_bounds import BoundsOfCuts
from engine.retention.leases import Leases
from engine.retention.needed import Anchor, Retention, horizon_on, load_retention, readable, without
from engine.retention.old_segments import has_tail
from engine.retention.timed_leases import TimedLeases
from protocol.errors import NotFound, Trimmed
from protocol.events import Record, Revert
from protocol.positions import Cut


class KeptHistory:
    """`retention` is what holds now; `leases` keep cuts readable (`timed`: up to a time); `bounds`: what cuts
    see, as far as it was worked out."""

    def __init__(self, group: GroupCore) -> None:
        self.retention = Retention()
        self.bounds = BoundsOfCuts(group.timelines, group.volumes)
        self.leases = Leases(group.name, group.state, self.require)
        self.timed = TimedLeases(group, self.leases)
        self._group = group

    def load(self, transaction: ReadTransaction) -> None:
        """Take up what the index says, before any cut or digest is asked for."""
        self.retention = load_retention(transaction)
        self._group.reader.anchor = self._anchor
        self.leases.load()

    def reload(self) -> None:
        """The index was changed."""
        with self._group.store.read() as transaction:
            self.retention = load_retention(transaction)

    def _anchor(self, timeline: int, position: int) -> Anchor | None:
        return self.retention.anchor(timeline, position)

    def horizon(self) -> Cut | None:
        """The cut on the head's lineage below which only kept cuts can be read."""
        spans, table = self._group.spans(), self._group.timelines
        found = [horizon_on(table, spans, horizon) for horizon in self.retention.horizons]
        return max((each for each in found if each), key=lambda horizon: horizon.position, default=None)

    def readable(self, cut: Cut) -> bool:
        """Whether a cut of a timeline held here can still be read in full."""
        timelines = self._group.timelines
        if cut.position > self._group.dropping.get(cut.timeline, cut.position):
            return False
        return readable(timelines, self.retention, cut) and gap_at(timelines, cut) is None

    def require(self, cut: Cut) -> None:
        """Trimmed unless `cut` is readable."""
        require_held(self._group.timelines, cut, self._group.name)
        if not self.readable(cut):
            horizon = self.horizon()
            raise Trimmed(
                f"{cut} is no longer kept: history before {horizon} was truncated",
                subject=self._group.name,
                position=str(cut),
                next_step=f"`farshore backup list {self._group.name}` shows cuts that are kept",
            )

    def require_reverts(self, records: Iterable[tuple[int, Record]]) -> None:
        """Trimmed if one of the records goes back to what cannot be read here. Who wrote it may have more of
        a timeline than came here: what it went back to is not what lies here then."""
        for _, record in records:
            if not isinstance(record, Revert):
                continue
            if not self._came(record.cut):
                raise Trimmed(f"{record.cut} is of a history that is not here", position=str(record.cut))
            self.require(record.cut)

    def _came(self, cut: Cut) -> bool:
        try:
            return cut.timeline in self._group.timelines and cut.position <= self._group.end_of(cut.timeline)
        except NotFound:
            return False  # all of it lies in the gap below a base

    def view_at(self, name: str, cut: Cut) -> VolumeView:
        """The volume of that name at a cut (engine.history.cuts checks and resolves), or the one that has the
        name now, if none had it there. Trimmed if the cut is no longer kept."""
        self.require(cut)
        return self._group.view_on(self._group.volume_at(name, cut), cut.timeline, cut.position)

    def view_of(self, volume: int, cut: Cut) -> VolumeView:
        """The volume with an id at a cut. NotFound; Trimmed if it is no longer kept."""
        self.require(cut)
        group = self._group
        found = group.volumes.by_id(group.timelines.lineage(cut.timeline, cut.position)).get(volume)
        if found is None:
            raise NotFound(f"volume {volume} of {group.name} did not exist at {cut}", position=str(cut))
        return group.view_on(found, cut.timeline, cut.position)

    def journal_reaches(self, cut: Cut) -> bool:
        """Whether every frame from `cut`, on the head's lineage, to the end is in the journal: none was
        truncated, or lies in the gap below a base."""
        spans = self._group.spans(self._group.writer.written)
        base = base_on(self._group.timelines, spans)
        if base is not None and cut.position < base.cut.position:
            return False
        first = next((at for at, span in enumerate(spans) if span.timeline == cut.timeline), None)
        if first is None:
            return False
        return all(
            self.retention.truncated_to(span.timeline) <= max(span.start, cut.position)
            for span in spans[first:]
            if span.end > cut.position
        )

    def tails(self, horizons: frozenset[Cut]) -> list[int]:
        """Timelines on the way to a horizon that go on past a fork of theirs."""
        table = self._group.timelines
        spans = {span for horizon in horizons for span in table.lineage(horizon.timeline, horizon.position)}
        return [span.timeline for span in spans if has_tail(self._group, span)]

    def dropped_for_good(self, parts: Iterable[tuple[int, int]]) -> None:
        """Timelines are about to go, each from a position on; the index is told with them."""
        table = self._group.timelines
        self.retention = without(self.retention, parts, lambda each: table.get(each).fork_cut)
