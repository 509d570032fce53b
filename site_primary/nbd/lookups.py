"""What a handshake finds for one connection: the exports that its host may open, or why it finds none."""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import Busy, NotAllowed
from protocol.nbd.exports import ExportInfo, ExportLookup


class Told:
    """A lookup whose refusals are told to the site's operator, too."""

    def __init__(self, exports: ExportLookup, told: Callable[[str, NotAllowed], None]) -> None:
        self._exports = exports
        self._told = told
        self.names = exports.names

    def find(self, name: str) -> ExportInfo:
        """See `ExportLookup.find`."""
        try:
            return self._exports.find(name)
        except NotAllowed as error:
            self._told(name, error)
            raise


class Full:
    """Nothing, for a host that has come when there was no room for another connection."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def names(self) -> list[str]:
        """See `ExportLookup.names`."""
        return []

    def find(self, name: str) -> ExportInfo:
        """See `ExportLookup.find`."""
        raise Busy(
            f"no room for another connection: {self._reason}",
            subject=name,
            next_step="close one, or raise nbd_connections_per_host in site.toml and reload the site",
        )
