"""Commands about the site itself: status, token, and what it lost."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os

from daemon.data_directory import make_next_keys, use_next_keys
from daemon.operations.group_row import damaged_row, group_info
from daemon.operations.paging import NextPage, Page, beyond, rows_of, start_of
from daemon.operations.peer import peers
from daemon.operations.registry import carries_out
from daemon.operations.shapes import cut_info, extended, time_or_none
from daemon.peer_tokens import fingerprint, make_token
from daemon.site import Site
from engine.group.compartment import attempt
from engine.group.group import Group
from protocol.commands.base import check_confirm
from protocol.commands.pair import GroupRow
from protocol.commands.site import (
    SiteAccept,
    SiteAcceptReply,
    SiteRotateKey,
    SiteRotateKeyReply,
    SiteStatus,
    SiteStatusReply,
    SiteToken,
    SiteTokenReply,
)
from protocol.cut_text import time_text
from protocol.errors import FarshoreError, WrongState


@carries_out(SiteStatus)
async def status(site: Site, command: SiteStatus) -> Page[SiteStatusReply] | NextPage:
    """Everything about this site now."""
    start = start_of(command, tuple[bool, str])
    rows: list[tuple[tuple[bool, str], Group | FarshoreError]] = [
        *(((False, name), group) for name, group in site.groups.items()),
        *(((True, name), error) for name, error in site.damaged.items()),
    ]
    named = beyond((((damaged, name), (name, each)) for (damaged, name), each in rows), start)
    groups, more = await rows_of(site, command, named, lambda row: _group_row(site, *row))
    if start:
        return NextPage({"groups": groups}, more)
    reply = SiteStatusReply(
        site=site.config.name,
        site_id=site.identity.site_id,
        version=importlib.metadata.version("farshore"),
        time=time_text(site.clock.utc_ns()),
        pid=os.getpid(),
        control=site.control_endpoint,
        replication=site.config.replication or None,
        nbd=list(site.nbd_addresses),
        peers=peers(site),
        groups=groups,
        log_dropped=site.log_dropped(),
        certificate_expires=time_or_none(site.nbd.tcp.end_in_use_ns(site.nbd_addresses)),
        stuck_hooks=site.hooks.stuck(),
    )
    return Page(reply, more)


def _group_row(site: Site, name: str, group: Group | FarshoreError) -> GroupRow:
    """A group's row; of one that cannot be opened, or does not say how it is, why."""
    if isinstance(group, FarshoreError):
        return damaged_row(name, group.message, group.position)
    found: list[GroupRow] = []
    # What is wrong with one group must not hide the others.
    defect = attempt("status.defect", lambda: found.append(extended(GroupRow, group_info(site, group))))
    return found[0] if defect is None else damaged_row(name, group.failed or str(defect), "")


@carries_out(SiteToken)
async def token(site: Site, _: SiteToken) -> SiteTokenReply:
    """What a peer needs to trust this site."""
    return SiteTokenReply(
        site=site.config.name,
        token=make_token(site.own),
        site_id=site.identity.site_id,
        replication=site.own.endpoint or None,
        public_key=site.keys.public,
        fingerprint=fingerprint(site.keys.public),
    )


@carries_out(SiteRotateKey)
async def rotate_key(site: Site, command: SiteRotateKey) -> SiteRotateKeyReply:
    """Make this site's next key, or go by it."""
    if command.finish:
        site.rekey(use_next_keys(site.disk))
        site.events.emit("site.key_changed", fingerprint=fingerprint(site.keys.public))
        keys = site.keys
    else:
        keys = make_next_keys(site.disk)
    return SiteRotateKeyReply(
        token=make_token(dataclasses.replace(site.own, public_key=keys.public)),
        fingerprint=fingerprint(keys.public),
        in_use=command.finish,
    )


@carries_out(SiteAccept)
async def accept(site: Site, command: SiteAccept) -> SiteAcceptReply:
    """Go on with what is here of a group that was more, or without one that was here."""
    name = command.group
    check_confirm(command.confirm, name, dry_run=False)
    head = None
    if site.has_group(name):
        group = site.group(name)
        lost = group.turned_back.lost
        if lost is None:
            raise WrongState(
                f"group {name} is not known to have been more than it is here",
                subject=name,
                position=str(group.end),
                next_step="`farshore status`",
            )
        group.turned_back.accept()
        head = cut_info(group.end)
    else:
        lost = site.witness.give_up(name)
        site.events.emit("group.accepted", group=name, position=str(lost))
    site.witness.write()
    site.notify()
    return SiteAcceptReply(group=name, lost=cut_info(lost), head=head)
