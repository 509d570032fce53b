"""From what a user wrote to a cut that this site holds.

Accepted: a backup's label or id, a time, `latest`, `TIMELINE:POSITION`. A time means the last frame written
at or before it; a site that does not hold every frame up to that time refuses, because its answer would
change later.
"""

from __future__ import annotations

from engine.group.group import Group
from engine.group.site_state import Role
from engine.history.bases import downwards, not_held, require_held, shared_below, spans_after
from engine.history.timelines import Span
from engine.retention.needed import Anchor
from protocol.cut_text import CutBackup, CutLabel, CutLatest, CutPosition, CutTime, NamedCut, time_text
from protocol.errors import NotFound, Trimmed, Unsafe, WrongState
from protocol.limits import CLOCK_SKEW_S
from protocol.positions import Cut

# An operator's clock may be this much ahead of the site's: `now` is resolved there.
CLOCK_SKEW_NS = int(CLOCK_SKEW_S * 1e9)


def resolve_cut(group: Group, selector: NamedCut, *, role: Role, complete_until_ns: int) -> Cut:
    """The cut that a selector names now. NotFound or WrongState say why there is none."""
    match selector:
        case CutLatest():
            return group.end
        case CutLabel(label=name) | CutBackup(backup_id=name):
            cut = group.copies.find(group.spans(group.writer.written), name, group.name).cut
            group.kept.require(cut)
            return cut
        case CutPosition(timeline=timeline, position=position):
            return checked_cut(group, Cut(timeline, position))
        case CutTime(utc_ns=utc_ns):
            if role is Role.PRIMARY and utc_ns > complete_until_ns + CLOCK_SKEW_NS:
                raise WrongState(
                    "that time has not come yet",
                    subject=group.name,
                    position=str(group.end),
                    next_step="ask for `latest`",
                )
            if role is Role.SECONDARY and utc_ns > complete_until_ns:
                raise WrongState(
                    "this site does not hold every write up to that time yet",
                    subject=group.name,
                    position=str(group.end),
                    next_step="wait for the pair to catch up, or ask for `latest`",
                )
            _require_told_apart(group, utc_ns)
            return cut_at_time(group, utc_ns)


def _require_told_apart(group: Group, utc_ns: int) -> None:
    """Unsafe if frames that are dated later may have been written by that time all the same: the writer's
    clock went back, and times in a journal do not. From the first frame whose time is yet to come, no time
    tells them apart."""
    now_ns = group.clock.utc_ns()
    ahead_ns = group.head.utc_ns - now_ns
    if ahead_ns <= CLOCK_SKEW_NS or utc_ns >= group.head.utc_ns:
        return
    if _last_before(group, utc_ns) != _last_before(group, max(now_ns, utc_ns)):
        return
    raise Unsafe(
        f"the newest writes are dated up to {ahead_ns / 1e9:.0f} s ahead of this site's clock: no time tells"
        f" which of them were there at {time_text(utc_ns)}",
        subject=group.name,
        position=str(group.end),
        next_step="ask for `latest`, a backup, or TIMELINE:POSITION"
        f" (`farshore journal show {group.name}` lists them)",
    )


def _last_before(group: Group, utc_ns: int) -> Cut | None:
    try:
        return cut_at_time(group, utc_ns)
    except NotFound:
        return None


def checked_cut(group: Group, cut: Cut) -> Cut:
    """The cut, if it is a frame boundary that is held here, on the head's lineage or on a branch."""
    if cut.timeline in group.timelines and cut.position > group.end_of(cut.timeline):
        raise WrongState(
            f"{cut} is past the end of what this site holds",
            subject=group.name,
            position=str(Cut(cut.timeline, group.end_of(cut.timeline))),
            next_step=f"`farshore wait {group.name} --position {cut}`",
        )
    require_held(group.timelines, cut, group.name)
    group.kept.require(cut)
    group.reader.digest_at(group.timelines, cut.timeline, cut.position)
    return cut


def cut_at_time(group: Group, utc_ns: int) -> Cut:
    """The end of the last frame written at or before a time; NotFound before the first, Trimmed where that
    frame may be one that did not come to this site, or is no longer kept."""
    table, end, above = group.timelines, group.writer.written, None
    hidden = False  # whether the frame may be one above that was truncated
    for spans, base, below in downwards(table, group.spans(end), shared_below):
        for span in reversed(spans_after(table, spans)[0]):
            truncated_to, anchor = _truncated_within(group, span)
            begin = max(span.start, truncated_to)
            boundary = group.reader.boundary_at_time(span.timeline, begin, span.end, utc_ns)
            if boundary is None and anchor is not None and anchor.utc_ns <= utc_ns:
                boundary = truncated_to
            if boundary is not None:
                if above is not None and boundary == end:  # or a later one, which never came
                    raise not_held(table, above, "that time", group.name)
                cut = Cut(span.timeline, boundary)
                if group.kept.readable(cut) and not (hidden and boundary == span.end):
                    return cut
                raise _before_the_horizon(group, utc_ns)
            # The first frame that is left was written later, and so was all that comes after it.
            hidden = bool(truncated_to) or (hidden and begin == span.end)
        if base is None:
            break
        if utc_ns >= base.utc_ns:
            if above is not None and base.cut.position == end:
                raise not_held(table, above, "that time", group.name)
            if hidden:
                raise _before_the_horizon(group, utc_ns)
            return base.cut
        hidden = False
        if below is None:
            raise not_held(table, base, "that time", group.name)
        end, above = below.position, base
    if hidden:
        raise _before_the_horizon(group, utc_ns)
    raise NotFound(
        "nothing was written that early",
        subject=group.name,
        next_step=f"`farshore journal show {group.name}` prints the first frames and their times",
    )


def _truncated_within(group: Group, span: Span) -> tuple[int, Anchor | None]:
    """Up to where a span's frames have gone, 0 if none have, and what is known of the last of them. The
    timeline may be truncated below the span, which then begins at a base, or past it, on a branch."""
    truncated = group.kept.retention.truncated.get(span.timeline)
    if truncated is None or truncated[0] <= span.start:
        return 0, None
    if truncated[0] <= span.end:
        return truncated
    return span.end, group.reader.ending_at(span.timeline, span.end)


def _before_the_horizon(group: Group, utc_ns: int) -> Trimmed:
    horizon = group.kept.horizon()
    oldest = group.reader.ending_at(horizon.timeline, horizon.position) if horizon else None
    since = time_text(oldest.utc_ns) if oldest else "now"
    return Trimmed(
        f"{time_text(utc_ns)} is before {since}, the oldest time that can still be restored",
        subject=group.name,
        position=str(horizon or ""),
        next_step=f"`farshore backup list {group.name}` shows older cuts that are kept",
    )
