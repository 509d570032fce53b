"""What one host finds at the door: the exports of volumes on whose list it is, as it may use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.group.access import AccessLists
from engine.group.site_state import SiteState
from protocol.errors import NotAllowed
from protocol.hosts import Right
from protocol.nbd.exports import ExportInfo

MayOpen = Callable[[str, int], bool]  # of a group's name and a volume


class HostLists:
    """The site's lists, and who looks through them."""

    def __init__(self, state: SiteState) -> None:
        self.access = AccessLists(state)

    def seen(
        self,
        host: str,
        names: Callable[[MayOpen], list[str]],
        find: Callable[[str], ExportInfo],
        volume_of: Callable[[ExportInfo], tuple[str, int]],
    ) -> SeenExports:
        """What that host finds of the site's exports."""
        return SeenExports(host=host, access=self.access, names_of=names, find_any=find, volume_of=volume_of)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenExports:
    """The `ExportLookup` of a host's connection; see `SiteExports` for what it looks through."""

    host: str
    access: AccessLists
    names_of: Callable[[MayOpen], list[str]]
    find_any: Callable[[str], ExportInfo]
    volume_of: Callable[[ExportInfo], tuple[str, int]]

    def names(self) -> list[str]:
        """See `ExportLookup.names`."""
        lists, right = self.access.all(), self.access.right
        return self.names_of(lambda group, volume: bool(right(lists.get((group, volume), {}), self.host)))

    def find(self, name: str) -> ExportInfo:
        """See `ExportLookup.find`; NotAllowed for a host that is not on the volume's list."""
        info, lists = self.find_any(name), self.access.all()
        right = Right.WRITE
        if lists:  # else nothing more is asked
            right = self.access.right(lists.get(self.volume_of(info), {}), self.host)
        if right is Right.NONE:
            raise NotAllowed(
                f"{self.host or 'a host without a certificate'} is not on the list of {name}",
                subject=name,
                next_step="ask who runs the site to allow it: `farshore volume allow --help`",
            )
        return info if right is Right.WRITE else replace(info, read_only=True)
