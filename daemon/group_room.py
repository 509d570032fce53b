"""Whether there is room for one more group at this site, and whether a peer may be the one who takes it.

A HELLO of a hundred bytes makes a group, which costs descriptors, disk and durable rows for as long as the
site keeps it. So a peer makes no more than a share of what a site has room for, and none that would
take descriptors which the groups that are there may want for their next segments (docs/threat-model.md). An
operator is bound by the site's room alone. Descriptors are counted ahead of that: a group takes most of them
only once it is paired and checkpoints, and then the others' journals would find none.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable

from engine.group.site_state import Role, SiteState
from protocol.errors import Refused
from protocol.limits import (
    DESCRIPTORS_OF_GROUP,
    DESCRIPTORS_OF_SITE,
    GROUPS_MAX,
    PEER_GROUPS_MAX,
    PEER_PAIRS_MAX,
)
from site_primary.nbd.listener import descriptors_for_hosts


class GroupRoom:
    """Counts groups by their rows: one that cannot be opened has its row, and is opened by the next start."""

    def __init__(
        self,
        state: SiteState,
        descriptors_left: Callable[[], bool],
        of_a_peer: Callable[[], int] = lambda: PEER_GROUPS_MAX,
    ) -> None:
        self._state = state
        self._descriptors_left = descriptors_left
        self._of_a_peer = of_a_peer

    def check(self, name: str, peer: str = "") -> None:
        """Refused if the group `name` may not be made, by a peer's call if one is named."""
        if peer and not self._descriptors_left():
            raise Refused(
                "the descriptors left are kept for the groups that are here (NBD_DESCRIPTORS_RESERVED)",
                subject=name,
                next_step="allow the daemon more open files (LimitNOFILE), or pair fewer groups with it",
            )
        names = self._state.group_names()
        if name in names:
            return  # it was begun before, and not finished
        if len(names) >= GROUPS_MAX:
            raise Refused(
                f"a site has at most {GROUPS_MAX} groups (GROUPS_MAX)",
                subject=name,
                next_step="put the volume into a group that is there; `farshore status` shows them",
            )
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = (limit - DESCRIPTORS_OF_SITE) // DESCRIPTORS_OF_GROUP
        if len(names) >= room:
            raise Refused(
                f"the daemon may open {limit} files: enough for {max(0, room)} groups (DESCRIPTORS_OF_GROUP)",
                subject=name,
                next_step="allow it more (LimitNOFILE=, `ulimit -Hn`) and restart it, or put the volume into "
                "a group that is there",
            )
        if peer:
            self.check_pairs(name, peer, by_peer=True)

    def check_pairs(self, name: str, peer: str, *, by_peer: bool = False) -> None:
        """Refused if the group `name` may not be paired with that peer, by its call or an operator here."""
        paired = self._state.roles_beside(peer)
        # What follows a peer counts as made by it.
        most = self._of_a_peer()
        if by_peer and paired.count(Role.SECONDARY) >= most:
            raise Refused(
                f"a peer makes at most {most} groups at this site (groups_per_peer in its site.toml)",
                subject=name,
                next_step="pair fewer groups with this site, or have its operator raise that",
            )
        if len(paired) >= PEER_PAIRS_MAX:
            raise Refused(
                f"two sites have at most {PEER_PAIRS_MAX} pairs with each other (PEER_PAIRS_MAX)",
                subject=name,
                next_step="put volumes that are mirrored together into one group",
            )


def descriptors_left() -> bool:
    """Whether a descriptor is free that is not kept for the groups that are here. The system gives the lowest
    number that is free: below it, all are in use."""
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        return False
    os.close(descriptor)
    return descriptor < descriptors_for_hosts()
