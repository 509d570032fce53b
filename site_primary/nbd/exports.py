"""What a host has connected to: a live volume, or a volume at a cut.

A live export hands out the current view and knows its connections, so that whoever closes it (a revert, an
operator) reaches them. A cut's view never changes and cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.history.volumes import Volume
from engine.index.view import VolumeView
from site_primary.hosted import Hosted
from site_primary.nbd.latency import HostLatency
from site_primary.sync_gate import SyncGate


class ExportConnection(Protocol):
    """One host's connection, as the export sees it."""

    client: str

    def shut(self) -> None:
        """Close the connection: the export is gone."""

    def resume(self) -> None:
        """Read on, after `Group.overloaded` stopped it."""

    def resized(self, size_bytes: int) -> None:
        """The volume has this size from now on."""


class Export:
    """A volume that hosts are connected to, live or, `read_only`, at a cut. Writes to a live one are
    acknowledged as its `gate` says."""

    def __init__(
        self,
        name: str,
        view: VolumeView,
        group: Hosted,
        volume: Volume,
        gate: SyncGate,
        *,
        read_only: bool,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_idle` is called when the last connection has gone."""
        self.name = name
        self.view = view
        self.group = group
        self.gate = gate
        self.read_only = read_only
        self.volume = volume
        self.latency = HostLatency()
        self.connections: dict[ExportConnection, None] = {}
        self._on_idle = on_idle

    def leave(self, connection: ExportConnection) -> None:
        """A connection has gone."""
        if connection in self.connections:
            del self.connections[connection]
            self.release()

    def release(self) -> None:
        """Let go of what it holds, unless somebody is connected."""
        if not self.connections:
            self._on_idle()

    def current_view(self) -> VolumeView:
        """The volume as it is now."""
        return self.view

    def shut(self) -> None:
        """Close every connection."""
        for connection in list(self.connections):
            connection.shut()

    def show(self, volume: Volume, view: VolumeView) -> None:
        """The volume as it is from now on."""
        resized = volume.size_bytes != self.volume.size_bytes
        self.volume, self.view = volume, view
        if resized:
            for connection in list(self.connections):
                connection.resized(volume.size_bytes)

    def resume(self) -> None:
        """Let every connection read on."""
        for connection in list(self.connections):
            connection.resume()
