"""Commands about notifications: how they do, and a test."""

from __future__ import annotations

from daemon.notify.config import NotifyConfig
from daemon.operations.registry import carries_out
from daemon.site import Site
from protocol.commands.notify import NotifyInfo, NotifyList, NotifyListReply, NotifyTest, NotifyTestReply


@carries_out(NotifyList)
async def notifications(site: Site, _: NotifyList) -> NotifyListReply:
    """Every one."""
    rows = [_info(site, name, target) for name, target in sorted(site.relay.targets.items())]
    return NotifyListReply(notifications=rows, lost=site.relay.lost)


@carries_out(NotifyTest)
async def send_test(site: Site, command: NotifyTest) -> NotifyTestReply:
    """Send a test."""
    tried = await site.relay.test(command.notification)
    return NotifyTestReply(
        name=command.notification,
        way=site.relay.targets[command.notification].way,
        ok=not tried.error,
        error=tried.error or None,
        took_s=tried.took_s,
    )


def _info(site: Site, name: str, target: NotifyConfig) -> NotifyInfo:
    report = site.relay.reports.get(name)
    return NotifyInfo(
        name=name,
        way=target.way,
        min_level=target.min_level,
        sent=report.sent if report else 0,
        dropped=report.dropped if report else 0,
        queued=report.queued if report else 0,
        error=(report.error or None) if report else None,
    )
