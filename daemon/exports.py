"""Which exports a site's hosts find: live volumes where this site writes, clones and any retained cut at
either site.

Names: `group/volume`, `clone/volume`, and `group/volume@CUT` with CUT a label, backup id, RFC 3339 time or
TIMELINE:POSITION; `group/volume@fill:TOKEN` for whoever writes an image into a volume that is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from daemon.export_cuts import CONTEXTS, ExportCuts
from daemon.seen_exports import HostLists, MayOpen, SeenExports
from engine.group.compartment import attempt
from engine.group.group import Group
from engine.group.open_clone import Clone
from engine.group.serving import refusal
from engine.group.site_state import EVERY_VOLUME, SiteState
from engine.history.volumes import Volume, half_way_text, is_import
from protocol.commands.base import parse_volume_name
from protocol.errors import NotFound, WrongState
from protocol.limits import SYNC_TIMEOUT_S
from protocol.nbd.exports import ExportInfo
from protocol.positions import Cut
from site_primary.nbd.exports import Export, ExportConnection
from site_primary.sync_gate import SyncGate

FILL = "fill:"
# Of a list, beyond which backups are left out: each may be opened all the same.
NAMES_MAX = 4096


class SiteExports:
    """The site's `ExportOpener`. `complete_until` gives a group's UTC nanoseconds up to which it is
    complete; `sync_timeout_s` is for every group's gate."""

    def __init__(
        self,
        groups: dict[str, Group],
        state: SiteState,
        complete_until: Callable[[str], int],
        peer_of: Callable[[str], str],
        sync_timeout_s: float = SYNC_TIMEOUT_S,
    ) -> None:
        self._groups = groups
        self._state = state
        self._cuts = ExportCuts(groups, state, complete_until)
        self.maps = self._cuts.maps  # of `ExportOpener`
        self._peer_of = peer_of
        self._sync_timeout_s = sync_timeout_s
        self._gates: dict[str, SyncGate] = {}
        self.live: dict[tuple[str, int], Export] = {}
        self.past: set[Export] = set()
        self._of_clones: dict[tuple[str, int], Export] = {}
        self.hosts = HostLists(state)
        self.filling: dict[tuple[str, int], str] = {}  # tokens

    def seen_by(self, host: str) -> SeenExports:
        """See `ExportOpener.seen_by`."""
        return self.hosts.seen(host, self.names, self.find, self.volume_of)

    def names(self, may_open: MayOpen = lambda *_: True) -> list[str]:
        """Live volumes that are open, where this site writes; at a secondary names of backups, the newest as
        far as a list goes that people read. Only of volumes that `may_open`."""
        found: list[str] = []
        for group in self._groups.values():
            attempt("exports.defect", self._add_names, group, found, partial(may_open, group.name))
        return sorted(found)

    def _add_names(self, group: Group, found: list[str], may_open: Callable[[int], bool]) -> None:
        spans = group.spans()
        volumes = {name: each for name, each in group.volumes.at(spans).items() if may_open(each.id)}
        writes = group.writes
        if writes:
            found += [
                f"{group.name}/{volume.name}"
                for volume in volumes.values()
                if self.closed(group, volume) is None
            ]
        for clone in group.clones:
            found += [f"{clone.name}/{name}" for name in clone.volumes() if may_open(clone.volume(name).id)]
        if not writes:
            by_id = {volume.id: volume.name for volume in volumes.values()}
            for copy in group.copies.newest(spans):
                if len(found) >= NAMES_MAX:
                    break
                at = copy.label or f"{copy.id:016x}"
                found += [f"{group.name}/{by_id[v]}@{at}" for v in copy.volumes if v in by_id]

    def find(self, name: str) -> ExportInfo:
        """See `ExportLookup.find`."""
        path, at, text = name.partition("@")
        group_name, volume_name = parse_volume_name(path)
        clone = None if at else self.clone(group_name)
        if clone is not None:
            clone.require_serving()
            volume = clone.volume(volume_name)
            return ExportInfo(
                name=name, size_bytes=volume.size_bytes, description=f"{path}, a clone", token=volume
            )
        group = self.group(group_name)
        if at and not text.startswith(FILL):
            cut = self._cuts.resolve(group, text)
            view = group.kept.view_at(volume_name, cut)
            return ExportInfo(
                name=name,
                size_bytes=view.size_bytes,
                read_only=True,
                description=f"{path} at {cut}",
                token=cut,
                meta_contexts=CONTEXTS,
                check_context=partial(self._cuts.since, group, view.volume),
            )
        self._require_writable(group, path)
        volume = group.volume(volume_name)
        self._require_open_to(group, volume, text)
        return ExportInfo(
            name=name,
            size_bytes=volume.size_bytes,
            description=f"{path}, live",
            token=volume,
            meta_contexts=CONTEXTS,
            check_context=partial(self._cuts.since, group, volume.id),
        )

    def open(self, info: ExportInfo) -> Export:
        """See `ExportOpener.open`."""
        path, _, text = info.name.partition("@")
        group_name, volume_name = parse_volume_name(path)
        clone = self.clone(group_name)
        if clone is not None and not isinstance(info.token, Cut):
            return self._cloned(clone, clone.volume(volume_name), info.name)
        group = self.group(group_name)
        if isinstance(info.token, Cut):
            view = group.kept.view_at(volume_name, info.token)
            volume = group.volume_at(volume_name, info.token)
            leases = group.kept.leases
            lease = leases.take("export", info.token)
            export = Export(
                info.name,
                view,
                group,
                volume,
                self.gate(group),
                read_only=True,
                on_idle=lambda: leases.release(lease),
            )
            self.past = {each for each in self.past if each.connections} | {export}
            return export
        self._require_writable(group, path)
        volume = group.volume(volume_name)
        self._require_open_to(group, volume, text)
        return self._live(group, volume, path)

    def _live(self, group: Group, volume: Volume, name: str) -> Export:
        """One export for all connections of a volume: they share its view."""
        key = (group.name, volume.id)
        found = self.live.get(key)
        if found is None:
            found = self.live[key] = export = Export(
                name, group.live_view(volume), group, volume, self.gate(group), read_only=False
            )

            def refresh() -> None:
                if not group.failed:  # also of one that nobody may use just now
                    now = group.volumes.as_it_is(volume, group.spans())
                    export.show(now, group.live_view(now))
                if self.refusal(group, name) is not None:
                    export.shut()

            group.listeners.view.append(refresh)
            group.listeners.relief.append(export.resume)
        return found

    def _cloned(self, clone: Clone, volume: Volume, name: str) -> Export:
        """The same of a clone's volume. Nobody waits for a peer: it has none."""
        key = (clone.name, volume.id)
        found = self._of_clones.get(key)
        if found is None:
            clone.require_serving()
            gate = SyncGate(clone, self._sync_timeout_s)
            found = self._of_clones[key] = export = Export(
                name, clone.view(volume), clone, volume, gate, read_only=False
            )

            def refresh() -> None:
                if clone.failed:
                    export.shut()
                else:
                    export.view = clone.view(volume)

            clone.on_view.append(refresh)
            clone.history.listeners.relief.append(export.resume)
        return found

    def volume_of(self, info: ExportInfo) -> tuple[str, int]:
        """Whose list says who may open an export: the group and the volume, also of a clone, which is made of
        them. FarshoreError if it is gone meanwhile."""
        group_name, volume_name = parse_volume_name(info.name.partition("@")[0])
        if isinstance(info.token, Cut):
            return group_name, self.group(group_name).kept.view_at(volume_name, info.token).volume
        clone = self.clone(group_name)
        if clone is not None:
            return clone.history.name, clone.volume(volume_name).id
        return group_name, self.group(group_name).volume(volume_name).id

    def connections_of(self, group: Group, volume: int) -> list[ExportConnection]:
        """Hosts connected to a volume, live, as it was, or in a clone."""
        exports = [*self.live.values(), *self.past, *self._of_clones.values()]
        mine = [each for each in exports if each.volume.id == volume and each.group in (group, *group.clones)]
        return [connection for export in mine for connection in export.connections]

    def connections_from(self, host: str) -> list[ExportConnection]:
        """Connections of one host (protocol/hosts.py), to whatever volume."""
        exports = [*self.live.values(), *self.past, *self._of_clones.values()]
        return [each for export in exports for each in export.connections if each.who == host]

    def clone(self, name: str) -> Clone | None:
        """The clone of that name, if there is one."""
        return next((found for group in self._groups.values() if (found := group.clones.get(name))), None)

    def clone_clients(self, clone: Clone) -> list[str]:
        """Hosts connected to a clone's volumes."""
        exports = [export for (name, _), export in self._of_clones.items() if name == clone.name]
        return [connection.client for export in exports for connection in export.connections]

    def shut_clone(self, clone: Clone) -> None:
        """Close every connection to a clone that goes."""
        for key in [key for key in self._of_clones if key[0] == clone.name]:
            export = self._of_clones.pop(key)
            clone.history.listeners.relief.remove(export.resume)
            export.shut()

    def hosts_of(self, group: Group) -> list[str]:
        """Hosts connected to a group, live or as it was, but for its clones."""
        exports = [*self.live.values(), *self.past]
        return [each.client for export in exports if export.group is group for each in export.connections]

    def forget(self, group: Group) -> None:
        """It is closed, and another one may come by its name."""
        for key in [key for key, export in self.live.items() if export.group is group]:
            self.live.pop(key).shut()
        self.past = {each for each in self.past if each.group is not group}
        self._gates.pop(group.name, None)

    def gate(self, group: Group) -> SyncGate:
        """The group's gate, one for all its exports, with or without a pair."""
        found = self._gates.get(group.name)
        if found is None:
            found = self._gates[group.name] = SyncGate(group, self._sync_timeout_s)
        return found

    def close_gate(self, group: Group) -> None:
        """The site stops: hosts wait for no peer any more."""
        self.gate(group).close()

    def group(self, name: str) -> Group:
        """An open group; NotFound."""
        group = self._groups.get(name)
        if group is None:
            raise NotFound(
                f"there is no group {name} here", subject=name, next_step="`farshore status` shows groups"
            )
        return group

    def refusal(self, group: Group, path: str) -> WrongState | None:
        """Why no host may be connected to a group's live volumes here; None if hosts may."""
        if not group.writes:
            peer = self._peer_of(group.name)
            return WrongState(
                f"{path} is written at {peer or 'another site'}, not here",
                subject=path,
                next_step=f"connect to {peer or 'the primary'}, or read a cut here: {path}@CUT",
            )
        return refusal(group)

    def _require_writable(self, group: Group, path: str) -> None:
        why = self.refusal(group, path)
        if why is not None:
            raise why

    def closed(self, group: Group, volume: Volume) -> str | None:
        """Why the live volume is offline, or None."""
        half_way = group.volumes.half_way(group.spans(), volume.id)
        if half_way is not None:
            return f"it {half_way_text(half_way)}"
        for each in (volume.id, EVERY_VOLUME):
            reason = self._state.closed(group.name, each)
            if reason is not None:
                return reason
        return self._unread(group, volume)

    def _unread(self, group: Group, volume: Volume) -> str | None:
        """What no operator accepted yet of what is not understood in its history, or None."""
        unread = group.unread.seen(volume.id, group.live_view(volume).intervals) if len(group.unread) else []
        if not unread:
            return None
        size = unread[0].end - unread[0].position
        return (
            f"the journal frame at {unread[0].cut}, {size} bytes, may have changed it and cannot be "
            f"understood ({unread[0].reason})"
        )

    def require_open(self, group: Group, volume: Volume) -> None:
        """WrongState if the export is closed."""
        path = f"{group.name}/{volume.name}"
        group.volumes.require_whole(group.spans(), volume.id, path)
        reason = self.closed(group, volume)
        if reason is not None:
            raise WrongState(
                f"{path} is offline: {reason}", subject=path, next_step=f"`farshore volume online {path}`"
            )

    def _require_open_to(self, group: Group, volume: Volume, text: str) -> None:
        """The same for whoever knows the token of an import that goes on, which is all that it is open to."""
        if not text:
            self.require_open(group, volume)
        elif not self.is_filled_by(group, volume, text.removeprefix(FILL)):
            path = f"{group.name}/{volume.name}"
            raise NotFound(
                f"that import into {path} is over", subject=path, next_step=f"`farshore volume show {path}`"
            )

    def is_filled_by(self, group: Group, volume: Volume, token: str) -> bool:
        """Whether that is the token of the import that goes on. A restore ends one as well."""
        half_way = group.volumes.half_way(group.spans(), volume.id)
        goes_on = half_way is not None and is_import(half_way)
        return goes_on and self.filling.get((group.name, volume.id)) == token

    def clients(self, group: Group, volume: Volume) -> list[str]:
        """Hosts connected to the live volume."""
        export = self.live.get((group.name, volume.id))
        return [connection.client for connection in export.connections] if export else []

    def had_clients(self, group: Group, volume: Volume) -> bool:
        """Whether any host connected to the live volume since this site started."""
        return (group.name, volume.id) in self.live

    def shut(self, group: Group, volume: Volume) -> None:
        """Close the live export's connections."""
        export = self.live.get((group.name, volume.id))
        if export is not None:
            export.shut()
