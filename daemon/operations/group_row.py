"""A group as replies have it: what it is, how its pair stands, and why nobody writes it."""

from __future__ import annotations

import msgspec

from daemon.journal_times import ahead_s
from daemon.operations.backup_row import backup_info
from daemon.operations.drill_row import drill_summary, last_drill
from daemon.operations.shapes import cut_info, extended, time_of, time_or_none
from daemon.site import Site
from engine.group.group import Group
from engine.group.site_state import Role
from engine.integrity.verify_rounds import last_round
from engine.peering.pair_states import FIELD_CODE_SECONDARY_SPLIT, FIELD_CODES, PairState
from protocol.commands.pair import GroupInfo, GroupRow, Head, LockInfo, PairInfo, Remote
from protocol.cut_text import time_text
from protocol.positions import Cut, timeline_text
from site_primary.shipping.session_phases import Phase
from site_primary.shipping.shipper import Shipper
from site_secondary.receiver import Receiver


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
    newest = next(group.copies.newest(group.spans()), None)
    drill, checked = last_drill(site, group.name), last_round(group)
    marks = shipper.marks if shipper else None
    lag_bytes, lag_s = lag_of(site, group)
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
        applied_age_s=receiver.applied_age_s if receiver and group.head.utc_ns else None,
        complete_until=time_text(site.complete_until_ns(group.name)),
        journal_bytes=group.segments.total_bytes(),
        journal_pressure=group.space.pressure.stage.value,
        time_to_full_s=group.space.pressure.time_to_full_s,
        lock=_lock_info(group),
        volumes=len(group.volumes.at(group.spans())),
        reason=reason or _why_not_written(site, group),
        fetching=shipper is not None and shipper.session.phase is Phase.FETCHING,
        last_backup=backup_info(site, group, newest) if newest else None,
        last_drill=drill_summary(site, drill) if drill else None,
        damaged=len(group.damage),
        oldest_check=time_text(checked[0]) if checked else None,
        times_ahead_s=ahead_s(group) or None,
    )


def damaged_row(name: str, reason: str, position: str) -> GroupRow:
    """A group of which nothing more can be said than why: its rows may be what is damaged."""
    code = FIELD_CODES[PairState.SUSPENDED]
    said = {"group": name, "state": "damaged", "code": code, "reason": reason, "position": position}
    row = dict.fromkeys(GroupRow.__struct_encode_fields__) | {"fallen_back": False, "fetching": False} | said
    return msgspec.convert(row, GroupRow)


def lag_of(site: Site, group: Group) -> tuple[int | None, float | None]:
    """How far the site that follows is behind, in bytes of journal and in seconds."""
    shipper, receiver = site.shippers.get(group.name), site.receivers.get(group.name)
    if receiver is not None:
        until_ns, there_ns = receiver.complete_until_ns, receiver.peer_utc_ns
        age_s = max(0.0, (there_ns - until_ns) / 1e9) if until_ns else None
        return max(0, receiver.remote_written - group.writer.written), age_s
    if shipper is not None:
        return shipper.lag_bytes, _lag_s(group, shipper.marks.remote_written)
    return None, None


def _resync(shipper: Shipper | None) -> tuple[int | None, float | None]:
    """What is left of a copy that is under way, in bytes and in seconds."""
    if shipper is None or shipper.state is not PairState.COPYING or not shipper.connected:
        return None, None
    return shipper.left_bytes, shipper.session.eta_s(shipper.left_bytes)


def _why_not_written(site: Site, group: Group) -> str:
    """Why hosts' writes wait or are refused, if they are and it is not the pair's state that says so."""
    refusing = site.exports.gate(group).refusing
    lack = group.lock.why(group.writer.no_space)
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
    if not group.writes or group.handed_to in ("", group.site):
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


def pair_info(site: Site, name: str) -> PairInfo:
    """A group with its pair."""
    group = site.group(name)
    shipper, receiver = site.shippers.get(name), site.receivers.get(name)
    end = shipper or receiver
    return extended(
        PairInfo,
        group_info(site, group),
        peer_connected=bool(end and end.connected),
        remote=_remote(group, shipper, receiver),
        sent_bytes=shipper.sent_bytes if shipper else None,
        wire_bytes=shipper.session.wire_bytes if shipper else None,
    )


def _remote(group: Group, shipper: Shipper | None, receiver: Receiver | None) -> Remote | None:
    timeline = timeline_text(group.head.timeline)
    if shipper is not None and shipper.connected:
        written, durable = shipper.marks.remote_written, shipper.marks.remote_durable
        head_time = time_or_none(time_of(group, Cut(group.head.timeline, written)))
        return Remote(timeline=timeline, written=written, durable=durable, head_time=head_time)
    if receiver is not None and receiver.connected:
        written = receiver.remote_written
        return Remote(timeline=timeline, written=written, durable=written, head_time=None)
    return None
