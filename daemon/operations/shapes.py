"""Engine objects as the plain dicts that replies carry (shapes: protocol/commands.py)."""

from __future__ import annotations

from typing import Any

from daemon.site import Site
from engine.copies.copies import Copy, CopyState
from engine.copies.copy_marks import state_of
from engine.group.group import Group
from engine.group.site_state import Role
from engine.history.cuts import resolve_cut
from engine.history.timelines import holds
from engine.history.volumes import Volume
from engine.integrity.drills import Drill
from engine.integrity.verify_rounds import last_round
from engine.peering.pair_states import FIELD_CODE_SECONDARY_SPLIT, FIELD_CODES, PairState
from protocol.cut_text import NamedCut, time_text
from protocol.errors import WrongState
from protocol.events import Consistency
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut, timeline_text

Data = dict[str, Any]


def cut_data(cut: Cut, utc_ns: int | None = None) -> Data:
    """CUT."""
    return {
        "timeline": timeline_text(cut.timeline),
        "position": cut.position,
        "text": str(cut),
        "time": time_text(utc_ns) if utc_ns else None,
    }


def time_of(group: Group, cut: Cut) -> int | None:
    """UTC nanoseconds of the last frame before a cut."""
    if cut == group.end:
        return group.utc_ns
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


def volume_data(site: Site, group: Group, volume: Volume) -> Data:
    """VOLUME."""
    created = group.reader.prefix_at(volume.timeline, volume.id)
    writes = site.state.group(group.name).role.writes
    closed = site.exports.closed(group, volume)
    return {
        "group": group.name,
        "volume": volume.name,
        "size_bytes": volume.size_bytes,
        "online": writes and not group.failed and closed is None,
        "offline_reason": closed or "",
        "hosts": len(site.exports.clients(group, volume)),
        "id": str(Cut(volume.timeline, volume.id)),
        "created": time_text(created.utc_ns) if created else None,
        "deleted": False,
    }


def backup_data(site: Site, group: Group, copy: Copy) -> Data:
    """BACKUP."""
    volumes = _volume_names(group, copy)
    here = site.config.name
    shipper, receiver = site.shippers.get(group.name), site.receivers.get(group.name)
    states = {here: state_of(group, copy).value.lower()}
    mirror: Data | None = None
    if shipper is not None:
        arrived = shipper.marks.remote_durable > copy.position
        states[shipper.peer] = (CopyState.AVAILABLE if arrived else CopyState.PENDING).value.lower()
        mirror = {"from": here, "to": shipper.peer}
    elif receiver is not None:
        if group.folding.promised > copy.position:
            states[receiver.peer] = CopyState.AVAILABLE.value.lower()
        mirror = {"from": receiver.peer, "to": here}
    mark = group.copies.mark_of(copy.id)
    return {
        "id": f"{copy.id:016x}",
        "label": copy.label or None,
        "group": group.name,
        "volumes": volumes,
        # To look up the frame before each mark would stall hosts where there are hundreds.
        "cut": cut_data(copy.cut, time_of(group, copy.cut) if copy.retroactive else copy.utc_ns),
        "time": time_text(copy.utc_ns),
        "pinned": copy.pinned,
        "locked_until": _time(group.lock.until_utc_ns(copy.id)),
        "kind": "retroactive" if copy.retroactive else "mark",
        "consistency": "crash" if copy.consistency is Consistency.CRASH else "frozen",
        "state": states,
        "verified_at": time_text(mark.verified_utc_ns) if mark.verified_utc_ns else None,
        "damage": mark.damage or None,
        "remote_mirror": mirror,
        "local_mirrors": [
            {"from": f"{group.name}/{name}", "to": f"{group.name}/{name}@{copy.name}"} for name in volumes
        ],
        "held_by": _held_by(group, copy),
    }


def drill_data(site: Site, drill: Drill, *, steps: bool = True) -> Data:
    """DRILL, or its summary."""
    data: Data = {
        "drill": f"{drill.started_utc_ns:016x}",
        "group": drill.group,
        "site": site.config.name,
        "volumes": list(drill.volumes),
        "cut": cut_data(drill.cut, drill.cut_utc_ns),
        "started": time_text(drill.started_utc_ns),
        "ok": drill.ok,
        "recovery_s": drill.recovery_ms / 1e3,
        "data_age_s": drill.data_age_ms / 1e3 if drill.data_age_ms >= 0 else None,
    }
    if steps:
        data["steps"] = [
            {
                "volume": step.volume,
                "step": step.step,
                "state": step.state,
                "took_s": step.took_ms / 1e3,
                "said": step.said,
            }
            for step in drill.steps
        ]
    return data


def _last_drill(site: Site, group: Group) -> Data | None:
    drill = site.drills.last(group.name)
    return drill_data(site, drill, steps=False) if drill else None


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
    held = group.folding.leases.holders(copy.cut)
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


def group_data(site: Site, group: Group) -> Data:
    """One group's row of `site.status`."""
    role = site.state.group(group.name).role
    state, code, reason = pair_state(site, group)
    shipper = site.shippers.get(group.name)
    receiver = site.receivers.get(group.name)
    pair = site.state.pair(group.name)
    peer = pair.peer if pair else ""
    here = site.config.name
    gate = site.exports.gate(group)
    copies = group.copies.at(group.spans()) if group.head else []
    row: Data = {
        "group": group.name,
        "role": role.value,
        "state": state.value,
        "code": code,
        "mode": pair.mode.value if pair else None,
        "fallen_back": gate.fallen_back,
        "peer": peer or None,
        "direction": (f"{here}→{peer}" if role is Role.PRIMARY else f"{peer}→{here}") if peer else None,
        "head": {"timeline": timeline_text(group.head), "position": group.writer.written},
        "written": group.writer.written,
        "durable": group.writer.durable,
        "checkpointed": group.checkpoints.reached,
        "shipped": None,
        "remote_written": None,
        "remote_durable": None,
        "lag_bytes": None,
        "lag_s": None,
        "resync_left_bytes": None,
        "resync_eta_s": None,
        "applied_age_s": None,
        "complete_until": time_text(site.complete_until_ns(group.name)),
        "journal_bytes": group.segments.total_bytes(),
        "journal_pressure": group.folding.space.pressure.stage.value,
        "time_to_full_s": group.folding.space.pressure.time_to_full_s,
        "lock": _lock_data(group),
        "volumes": len(group.volumes.at(group.spans())),
        "reason": reason or _why_not_written(site, group),
        "fetching": bool(shipper and shipper.fetcher.active),
        "last_backup": backup_data(site, group, copies[-1]) if copies else None,
        "last_drill": _last_drill(site, group),
        **_checked(group),
    }
    if shipper is not None:
        marks = shipper.marks
        row |= {
            "shipped": marks.shipped,
            "remote_written": marks.remote_written,
            "remote_durable": marks.remote_durable,
            "lag_bytes": shipper.lag_bytes,
            "lag_s": _lag_s(group, marks.remote_written),
        }
        if shipper.state is PairState.COPYING and shipper.connected:
            # A base is at most so large; the journal after it is small beside it.
            left = shipper.base.blocks_left * BLOCK_BYTES if shipper.base.active else shipper.lag_bytes
            row |= {"resync_left_bytes": left, "resync_eta_s": shipper.carrier.eta_s(left)}
    if receiver is not None:
        lag = max(0, receiver.remote_written - group.writer.written)
        row |= {
            "lag_bytes": lag,
            "lag_s": max(0.0, (site.clock.utc_ns() - receiver.complete_until_ns) / 1e9)
            if receiver.complete_until_ns
            else None,
            "applied_age_s": receiver.applied_age_s,
        }
    return row


def _why_not_written(site: Site, group: Group) -> str:
    """Why hosts' writes wait or are refused, if they are and it is not the pair's state that says so."""
    refusing = site.exports.gate(group).refusing
    lack = group.lock.why(group.writer.lack)
    return group.failed or lack or refusing or group.holds.reason or _handed_over(site, group)


def _lock_data(group: Group) -> Data | None:
    """What this site's retention lock holds; None if it holds nothing."""
    lock, window_s = group.lock, group.settings.lock_window_s
    ends = lock.ends_utc_ns() if group.copies.has_locks else []
    if not window_s and not ends:
        return None
    cut = group.folding.space.cut_at(lock.limit()) if window_s else None
    return {
        "window_s": window_s,
        "from": cut_data(cut, time_of(group, cut)) if cut else None,
        "backups": len(ends),
        "until": _time(max(ends, default=0)),
    }


def _time(utc_ns: int) -> str | None:
    return time_text(utc_ns) if utc_ns else None


def _checked(group: Group) -> Data:
    """How many damaged places are known, and since when everything was compared."""
    checked = last_round(group)
    return {"damaged": len(group.damage), "oldest_check": time_text(checked[0]) if checked else None}


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
