"""Engine objects as what replies hold (protocol/commands)."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from daemon.site import Site
from engine.copies.copies import Copy, CopyState
from engine.copies.copy_states import state_of
from engine.group.group import Group
from engine.group.site_state import Role
from engine.history.cuts import resolve_cut
from engine.history.timelines import holds
from engine.history.volumes import Volume
from engine.integrity.drills import Drill
from engine.integrity.verify_rounds import last_round
from engine.peering.pair_states import FIELD_CODE_SECONDARY_SPLIT, FIELD_CODES, PairState
from protocol.commands.backup import BackupInfo, Mirror
from protocol.commands.base import Reply
from protocol.commands.cut import CutInfo
from protocol.commands.drill import DrillInfo, DrillSummary, StepInfo
from protocol.commands.pair import GroupInfo, GroupRow, Head, LockInfo
from protocol.commands.volume import VolumeInfo
from protocol.cut_text import NamedCut, time_text
from protocol.errors import WrongState
from protocol.events import Consistency
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut, timeline_text
from site_primary.shipper import Shipper

Extended = TypeVar("Extended", bound=Reply)


def cut_info(cut: Cut, utc_ns: int | None = None) -> CutInfo:
    """A cut, and the time of the last frame before it if that is known."""
    return CutInfo(
        timeline=timeline_text(cut.timeline),
        position=cut.position,
        text=str(cut),
        time=time_or_none(utc_ns),
    )


def time_or_none(utc_ns: int | None) -> str | None:
    """A time as replies have it; none if it is not known, or 0."""
    return time_text(utc_ns) if utc_ns else None


def extended(kind: type[Extended], reply: Reply, **more: object) -> Extended:
    """The same reply with the fields that its extension adds."""
    return kind(**msgspec.structs.asdict(reply), **more)


def time_of(group: Group, cut: Cut) -> int | None:
    """UTC nanoseconds of the last frame before a cut."""
    if cut == group.end:
        return group.head.utc_ns
    before = group.reader.ending_at(cut.timeline, cut.position)
    return before.utc_ns if before else None


def resolve(site: Site, group: Group, named: NamedCut) -> Cut:
    """What a named cut stands for at this site now."""
    role = site.state.group(group.name).role
    return resolve_cut(group, named, role=role, complete_until_ns=site.complete_until_ns(group.name))


def require_primary(site: Site, group: Group) -> None:
    """WrongState, naming the primary, unless this site writes the group."""
    if not site.state.group(group.name).role.writes:
        peer = site.peer_of(group.name)
        raise WrongState(
            f"group {group.name} is written at {peer}, not here",
            subject=group.name,
            position=str(group.end),
            next_step=f"run the command at {peer}: --site {peer}",
        )


def volume_info(site: Site, group: Group, volume: Volume) -> VolumeInfo:
    """A volume."""
    created = group.reader.prefix_at(volume.timeline, volume.id)
    writes = site.state.group(group.name).role.writes
    closed = site.exports.closed(group, volume)
    return VolumeInfo(
        group=group.name,
        volume=volume.name,
        size_bytes=volume.size_bytes,
        online=writes and not group.failed and closed is None,
        offline_reason=closed or "",
        hosts=len(site.exports.clients(group, volume)),
        id=str(Cut(volume.timeline, volume.id)),
        created=time_text(created.utc_ns) if created else None,
        deleted=False,
    )


def backup_info(site: Site, group: Group, copy: Copy) -> BackupInfo:
    """A backup."""
    volumes = _volume_names(group, copy)
    here = site.config.name
    shipper, receiver = site.shippers.get(group.name), site.receivers.get(group.name)
    states = {here: state_of(group, copy).value.lower()}
    mirror: Mirror | None = None
    if shipper is not None:
        arrived = shipper.marks.remote_durable > copy.position
        states[shipper.peer] = (CopyState.AVAILABLE if arrived else CopyState.PENDING).value.lower()
        mirror = Mirror(source=here, to=shipper.peer)
    elif receiver is not None:
        if group.folding.promised > copy.position:
            states[receiver.peer] = CopyState.AVAILABLE.value.lower()
        mirror = Mirror(source=receiver.peer, to=here)
    mark = group.copies.mark_of(copy.id)
    return BackupInfo(
        id=f"{copy.id:016x}",
        label=copy.label or None,
        group=group.name,
        volumes=volumes,
        # To look up the frame before each mark would stall hosts where there are hundreds.
        cut=cut_info(copy.cut, time_of(group, copy.cut) if copy.retroactive else copy.utc_ns),
        time=time_text(copy.utc_ns),
        pinned=copy.pinned,
        locked_until=time_or_none(group.lock.until_utc_ns(copy.id)),
        kind="retroactive" if copy.retroactive else "mark",
        consistency="crash" if copy.consistency is Consistency.CRASH else "frozen",
        state=states,
        verified_at=time_or_none(mark.verified_utc_ns),
        damage=mark.damage or None,
        remote_mirror=mirror,
        local_mirrors=[
            Mirror(source=f"{group.name}/{name}", to=f"{group.name}/{name}@{copy.name}") for name in volumes
        ],
        held_by=_held_by(group, copy),
    )


def drill_summary(site: Site, drill: Drill) -> DrillSummary:
    """A drill without its steps."""
    return DrillSummary(
        drill=f"{drill.started_utc_ns:016x}",
        group=drill.group,
        site=site.config.name,
        volumes=list(drill.volumes),
        cut=cut_info(drill.cut, drill.cut_utc_ns),
        started=time_text(drill.started_utc_ns),
        ok=drill.ok,
        recovery_s=drill.recovery_ms / 1e3,
        data_age_s=drill.data_age_ms / 1e3 if drill.data_age_ms >= 0 else None,
    )


def drill_info(site: Site, drill: Drill) -> DrillInfo:
    """A drill."""
    steps = [
        StepInfo(
            volume=step.volume,
            step=step.step,
            state=step.state,
            took_s=step.took_ms / 1e3,
            said=step.said,
        )
        for step in drill.steps
    ]
    return extended(DrillInfo, drill_summary(site, drill), steps=steps)


def _volume_names(group: Group, copy: Copy) -> list[str]:
    """What the copy's volumes were called at its cut; they may be gone since."""
    if copy.cut.timeline not in group.timelines:
        return []
    spans = group.timelines.lineage(copy.cut.timeline, copy.cut.position)
    names = {volume.id: volume.name for volume in group.volumes.at(spans).values()}
    return [names[volume] for volume in copy.volumes if volume in names]


def _held_by(group: Group, copy: Copy) -> list[str]:
    """Leases on the copy's cut, clones that left it, and restores that went back to it."""
    spans = group.spans()
    held = group.kept.leases.holders(copy.cut)
    held += [f"clone {clone.name}" for clone in group.clones if clone.row.cut == copy.cut]
    return held + [
        f"restore at {Cut(entry.timeline, entry.position)}"
        for entry in group.volumes.all_reverts()
        if entry.cut == copy.cut and holds(spans, entry.timeline, entry.position)
    ]


def pair_state(site: Site, group: Group) -> tuple[PairState, str, str]:
    """State, field code and reason of a group's pair, from whichever end this site is."""
    shipper = site.shippers.get(group.name)
    receiver = site.receivers.get(group.name)
    if shipper is not None:
        return shipper.state, FIELD_CODES[shipper.state], shipper.reason
    if receiver is not None:
        state = receiver.state
        code = FIELD_CODE_SECONDARY_SPLIT if state is PairState.SPLIT else FIELD_CODES[state]
        return state, code, receiver.reason
    return PairState.SIMPLEX, FIELD_CODES[PairState.SIMPLEX], group.failed


def group_info(site: Site, group: Group) -> GroupInfo:
    """A group, and how its pair stands."""
    role = site.state.group(group.name).role
    state, code, reason = pair_state(site, group)
    shipper, receiver = site.shippers.get(group.name), site.receivers.get(group.name)
    pair = site.state.pair(group.name)
    peer = pair.peer if pair else ""
    here = site.config.name
    copies = group.copies.at(group.spans()) if group.head else []
    drill, checked = site.drills.last(group.name), last_round(group)
    marks = shipper.marks if shipper else None
    lag_bytes, lag_s = _lag(site, group)
    left_bytes, eta_s = _resync(shipper)
    return GroupInfo(
        group=group.name,
        role=role.value,
        state=state.value,
        code=code,
        mode=pair.mode.value if pair else None,
        fallen_back=site.exports.gate(group).fallen_back,
        peer=peer or None,
        direction=(f"{here}→{peer}" if role is Role.PRIMARY else f"{peer}→{here}") if peer else None,
        head=Head(timeline=timeline_text(group.head.timeline), position=group.writer.written),
        written=group.writer.written,
        durable=group.writer.durable,
        checkpointed=group.checkpoints.reached,
        shipped=marks.shipped if marks else None,
        remote_written=marks.remote_written if marks else None,
        remote_durable=marks.remote_durable if marks else None,
        lag_bytes=lag_bytes,
        lag_s=lag_s,
        resync_left_bytes=left_bytes,
        resync_eta_s=eta_s,
        applied_age_s=receiver.applied_age_s if receiver else None,
        complete_until=time_text(site.complete_until_ns(group.name)),
        journal_bytes=group.segments.total_bytes(),
        journal_pressure=group.space.pressure.stage.value,
        time_to_full_s=group.space.pressure.time_to_full_s,
        lock=_lock_info(group),
        volumes=len(group.volumes.at(group.spans())),
        reason=reason or _why_not_written(site, group),
        fetching=bool(shipper and shipper.fetcher.active),
        last_backup=backup_info(site, group, copies[-1]) if copies else None,
        last_drill=drill_summary(site, drill) if drill else None,
        damaged=len(group.damage),
        oldest_check=time_text(checked[0]) if checked else None,
    )


def damaged_row(name: str, reason: str, position: str) -> GroupRow:
    """A group of which nothing more can be said than why: its rows may be what is damaged."""
    return GroupRow(
        group=name,
        role=None,
        state="damaged",
        code=FIELD_CODES[PairState.SUSPENDED],
        mode=None,
        fallen_back=False,
        peer=None,
        direction=None,
        head=None,
        written=None,
        durable=None,
        checkpointed=None,
        shipped=None,
        remote_written=None,
        remote_durable=None,
        lag_bytes=None,
        lag_s=None,
        resync_left_bytes=None,
        resync_eta_s=None,
        applied_age_s=None,
        complete_until=None,
        journal_bytes=None,
        journal_pressure=None,
        time_to_full_s=None,
        lock=None,
        volumes=None,
        reason=reason,
        fetching=False,
        last_backup=None,
        last_drill=None,
        damaged=None,
        oldest_check=None,
        position=position,
    )


def _lag(site: Site, group: Group) -> tuple[int | None, float | None]:
    """How far the site that follows is behind, in bytes of journal and in seconds."""
    shipper, receiver = site.shippers.get(group.name), site.receivers.get(group.name)
    if receiver is not None:
        until_ns = receiver.complete_until_ns
        age_s = max(0.0, (site.clock.utc_ns() - until_ns) / 1e9) if until_ns else None
        return max(0, receiver.remote_written - group.writer.written), age_s
    if shipper is not None:
        return shipper.lag_bytes, _lag_s(group, shipper.marks.remote_written)
    return None, None


def _resync(shipper: Shipper | None) -> tuple[int | None, float | None]:
    """What is left of a copy that is under way, in bytes and in seconds."""
    if shipper is None or shipper.state is not PairState.COPYING or not shipper.connected:
        return None, None
    # A base is at most so large; the journal after it is small beside it.
    left = shipper.base.blocks_left * BLOCK_BYTES if shipper.base.active else shipper.lag_bytes
    return left, shipper.carrier.eta_s(left)


def _why_not_written(site: Site, group: Group) -> str:
    """Why hosts' writes wait or are refused, if they are and it is not the pair's state that says so."""
    refusing = site.exports.gate(group).refusing
    lack = group.lock.why(group.writer.lack)
    return group.failed or lack or refusing or group.holds.reason or _handed_over(site, group)


def _lock_info(group: Group) -> LockInfo | None:
    """What this site's retention lock holds; None if it holds nothing."""
    lock, window_s = group.lock, group.settings.lock_window_s
    ends = lock.ends_utc_ns() if group.copies.has_locks else []
    if not window_s and not ends:
        return None
    cut = group.space.cut_at(lock.limit()) if window_s else None
    return LockInfo(
        window_s=window_s,
        start=cut_info(cut, time_of(group, cut)) if cut else None,
        backups=len(ends),
        until=time_or_none(max(ends, default=0)),
    )


def _handed_over(site: Site, group: Group) -> str:
    """Why a group that was handed over, and not taken yet, is written nowhere."""
    if not site.state.group(group.name).role.writes or group.handed_to in ("", group.site):
        return ""
    return f"handed over to {site.name_of(group.handed_to)}, which does not write yet"


def _lag_s(group: Group, remote_written: int) -> float:
    """How much older the newest frame at the peer is than the newest here."""
    if remote_written >= group.writer.written:
        return 0.0
    for span in group.spans(group.writer.written):
        if span.start <= remote_written < span.end:
            prefix = group.reader.prefix_at(span.timeline, remote_written)
            if prefix is not None:
                return max(0.0, (group.clock.utc_ns() - prefix.utc_ns) / 1e9)
    return 0.0
