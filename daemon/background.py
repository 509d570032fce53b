"""What goes on beside hosts and peers: scheduled backups, the watch, notifications and figures, begun and
ended as one. None of it is on the data path."""

from __future__ import annotations

from daemon.alerts.watch import AlertWatch
from daemon.metrics.source import MetricsSource
from daemon.scheduler import Scheduler
from daemon.site import Site


class Background:
    """One site's. `start` on its loop; `close` before the site stops."""

    def __init__(self, site: Site) -> None:
        self._scheduler = Scheduler(site)
        self._relay = site.relay
        self._alerts = AlertWatch(site)
        self._metrics = MetricsSource(site, self._alerts.standing)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()
        self._alerts.start()
        self._relay.start(self._alerts.well)
        self._metrics.start()

    async def close(self) -> None:
        """End; what has happened is still told."""
        await self._metrics.close()
        await self._alerts.close()
        await self._relay.close()
        await self._scheduler.close()
