"""What site.toml comes to: what is left out there stands for something."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import SiteConfig
from daemon.configured import control_address, group_settings, nbd_addresses, reserve_of
from protocol.errors import UsageError
from protocol.positions import POSITION_MAX

PLACE = Path("/srv/lon")


def test_sockets_are_in_the_directory_unless_something_else_is_said() -> None:
    plain = SiteConfig(name="lon")
    assert nbd_addresses(PLACE, plain) == ("unix:/srv/lon/nbd.sock",)
    assert control_address(PLACE, plain) == "ipc:///srv/lon/control.sock"
    said = SiteConfig(name="lon", nbd=("unix:/run/a", "unix:/run/b"), control="ipc:///run/c")
    assert nbd_addresses(PLACE, said) == ("unix:/run/a", "unix:/run/b")
    assert control_address(PLACE, said) == "ipc:///run/c"


def test_a_directory_that_no_socket_fits_in_is_refused() -> None:
    with pytest.raises(UsageError, match="unix sockets allow"):
        control_address(Path("/" + 100 * "d"), SiteConfig(name="lon"))


def test_no_limit_is_as_much_as_there_can_be() -> None:
    settings = group_settings(SiteConfig(name="lon"), 7)
    assert (settings.journal_limit_bytes, settings.window_bytes) == (POSITION_MAX, POSITION_MAX)
    assert settings.reserve_bytes == 7
    config = SiteConfig(name="lon", journal_limit_bytes=5, window_s=6.0, window_bytes=8, throttle=True)
    settings = group_settings(config, 0)
    assert (settings.journal_limit_bytes, settings.window_bytes, settings.window_s) == (5, 8, 6.0)
    assert settings.throttle


def test_the_reserve_is_a_small_part_of_a_small_file_system() -> None:
    config = SiteConfig(name="lon", reserve_bytes=1000)
    assert reserve_of(config, 1 << 40) == 1000
    assert reserve_of(config, 1600) == 100
