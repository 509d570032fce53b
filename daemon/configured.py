"""What site.toml comes to: where the console and hosts connect, and what each group is set to. Pure."""

from __future__ import annotations

import pathlib

from daemon.config import SiteConfig
from engine.group.settings import GroupSettings
from protocol.endpoints import control_endpoint
from protocol.positions import POSITION_MAX

NBD_SOCKET_NAME = "nbd.sock"
# Of a file system: what is left free of a small one, at most.
RESERVE_PART = 16


def nbd_addresses(directory: pathlib.Path, config: SiteConfig) -> tuple[str, ...]:
    """Where hosts connect to the site in an absolute directory."""
    return config.nbd or (f"unix:{directory / NBD_SOCKET_NAME}",)


def control_address(directory: pathlib.Path, config: SiteConfig) -> str:
    """The endpoint where the console asks. UsageError if the directory is too long for a socket in it."""
    return config.control or control_endpoint(str(directory))


def reserve_of(config: SiteConfig, disk_bytes: int) -> int:
    """What stays free of a file system of that size."""
    return min(config.reserve_bytes, disk_bytes // RESERVE_PART)


def group_settings(config: SiteConfig, reserve_bytes: int) -> GroupSettings:
    """What each group is set to, with so much of its file system left free."""
    return GroupSettings(
        journal_limit_bytes=config.journal_limit_bytes or POSITION_MAX,
        reserve_bytes=reserve_bytes,
        window_s=config.window_s,
        window_bytes=config.window_bytes or POSITION_MAX,
        throttle=config.throttle,
        lock_window_s=config.lock_window_s,
    )
