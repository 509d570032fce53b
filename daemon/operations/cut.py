"""Commands about cuts: what a name of one stands for."""

from __future__ import annotations

from daemon.operations.registry import carries_out
from daemon.operations.shapes import cut_info, extended, resolve, time_of
from daemon.site import Site
from protocol.commands.cut import CutResolve, CutResolveReply
from protocol.cut_text import CutBackup, CutLabel, time_text


@carries_out(CutResolve)
async def resolve_cut(site: Site, command: CutResolve) -> CutResolveReply:
    """What a name stands for."""
    group = site.group(command.group)
    cut = resolve(site, group, command.cut)
    copy = None
    if isinstance(command.cut, CutLabel):
        copy = group.copies.find(group.spans(), command.cut.label, group.name)
    elif isinstance(command.cut, CutBackup):
        copy = group.copies.find(group.spans(), command.cut.backup_id, group.name)
    return extended(
        CutResolveReply,
        cut_info(cut, time_of(group, cut)),
        group=group.name,
        label=copy.label or None if copy else None,
        backup_id=f"{copy.id:016x}" if copy else None,
        complete_until=time_text(site.complete_until_ns(group.name)),
    )
