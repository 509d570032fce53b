"""The cuts that hosts name: in an export's name, and in that of what changed since one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from engine.group.group import Group
from engine.group.site_state import SiteState
from engine.history.cuts import resolve_cut
from engine.history.visibility import visibility
from protocol.cut_text import parse_export_cut
from protocol.errors import FarshoreError, NotFound
from protocol.nbd.constants import BASE_ALLOCATION
from protocol.positions import Cut
from site_primary.nbd.block_status import CHANGED_SINCE, Allocation, ChangedSince, StatusMap
from site_primary.nbd.exports import Export

CONTEXTS = (BASE_ALLOCATION, CHANGED_SINCE)


class ExportCuts:
    """Of one site. `complete_until` gives a group's UTC nanoseconds up to which it is complete."""

    def __init__(
        self, groups: Mapping[str, Group], state: SiteState, complete_until: Callable[[str], int]
    ) -> None:
        self._groups = groups
        self._state = state
        self._complete_until = complete_until

    def resolve(self, group: Group, text: str) -> Cut:
        """The cut that an export name's text stands for."""
        role = self._state.group(group.name).role
        until = self._complete_until(group.name)
        return resolve_cut(group, parse_export_cut(text), role=role, complete_until_ns=until)

    def since(self, group: Group, volume: int, context: str) -> Cut:
        """The cut that a context names, at which the volume (id) existed: another volume of that name may
        have held other bytes where this one has nothing."""
        cut = self.resolve(group, context.removeprefix(CHANGED_SINCE))
        existing = group.volumes.at(group.timelines.lineage(cut.timeline, cut.position))
        if all(each.id != volume for each in existing.values()):
            raise NotFound(
                f"the volume did not exist at {cut}",
                subject=context,
                position=str(cut),
                next_step="read it whole: `base:allocation` says what it holds",
            )
        return cut

    def maps(self, export: Export, contexts: Mapping[int, str]) -> dict[int, StatusMap]:
        """See `ExportOpener.maps`."""
        maps: dict[int, StatusMap] = {}
        group = self._groups[export.group.history.name]
        leases = group.kept.leases
        try:
            for context, name in contexts.items():
                if name == BASE_ALLOCATION:
                    maps[context] = Allocation(export)
                    continue
                cut = self.since(group, export.view.volume, name)
                lease = leases.take("changed-since", cut)
                seen = visibility(
                    group.timelines, group.volumes, export.view.volume, cut.timeline, cut.position
                )
                maps[context] = ChangedSince(export, seen, partial(leases.release, lease))
        except FarshoreError:
            for each in maps.values():
                each.close()
            export.release()
            raise
        return maps
