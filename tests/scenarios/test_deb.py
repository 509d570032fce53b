"""The Debian package: built, unpacked and run from there.

With FARSHORE_FULL=1, as root, it is also installed, upgraded and purged, in a Debian that is booted for that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.booted_debian import BootedDebian, Service, booted
from tests.support.clients import MIB, succeed
from tests.support.sites import Site, short_directory

BLOCK = bytes(range(256)) * 16

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class UnpackedSite(Site):
    """Commands and daemon are those of an unpacked package."""

    is_of_this_checkout = False

    def __init__(self, directory: Path, name: str, root: Path) -> None:
        super().__init__(directory, name)
        self._root = root

    def environment(self) -> dict[str, str]:
        """See `Site.environment`."""
        return {key: value for key, value in super().environment().items() if key != "PYTHONPATH"}

    def command(self) -> list[str]:
        """See `Site.command`."""
        return [str(self._root / "usr/lib/farshore/bin/python"), "-P", "-m", "farshore"]


def test_a_site_runs_from_the_unpacked_package(package: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    succeed("dpkg-deb", "-x", package, root)
    for each in (
        "usr/lib/systemd/system/farshore@.service",
        "usr/lib/systemd/system/farshore-drill@.service",
        "usr/lib/systemd/system/farshore-drill@.timer",
        "usr/lib/sysusers.d/farshore.conf",
        "usr/lib/tmpfiles.d/farshore.conf",
        "usr/share/man/man1/farshore.1.gz",
        "usr/share/man/man1/farshore-backup.1.gz",
        "usr/share/bash-completion/completions/farshore",
        "usr/share/doc/farshore/operations.md",
    ):
        assert (root / each).is_file(), each
    first = (root / "usr/bin/farshore").read_text().splitlines()[0]
    assert first == "#!/usr/lib/farshore/bin/python"
    parent = short_directory()
    site = UnpackedSite(parent / "a", "a", root)
    try:
        site.init()
        site.start()
        site.create_volume("g/v", "1M")
        assert site.json("volume", "list")["volumes"][0]["volume"] == "v"
        words = ("complete", "--", "--site", str(site.directory), "ls", "")
        assert site.farshore(*words, site=False) == "g/v\n"
        assert site.stop() == 0
    finally:
        site.kill()
        shutil.rmtree(parent)


@pytest.fixture
def machine(debian: Path) -> Iterator[BootedDebian]:
    """Booted, and clean."""
    with booted(debian, short_directory()) as found:
        yield found


def install(machine: BootedDebian, package: Path) -> str:
    """By dpkg, as an operator does; what it said."""
    place = machine.path(f"/root/{package.name}")
    place.write_bytes(package.read_bytes())
    said = machine.succeed("dpkg", "-i", f"/root/{package.name}")
    place.unlink()
    return said


def older(package: Path, place: Path) -> Path:
    """An earlier version: FARSHORE_OLD_DEB, or the same content under a lower number."""
    if built := os.environ.get("FARSHORE_OLD_DEB"):
        return Path(built)
    succeed("dpkg-deb", "-R", package, place / "root")
    control = place / "root/DEBIAN/control"
    lines = control.read_text().splitlines()
    lines = ["Version: 0.0.1" if line.startswith("Version: ") else line for line in lines]
    control.write_text("\n".join(lines) + "\n")
    succeed("dpkg-deb", "--build", "--root-owner-group", "-Zgzip", place / "root", place / "old.deb")
    return place / "old.deb"


def files(machine: BootedDebian) -> set[str]:
    """Everything on its disk, less where every installation leaves its traces."""
    found = machine.shell("find / -xdev | grep -Ev '^/(proc|sys|root|var/(cache|log|tmp|lib/dpkg))(/|$)'")
    return set(found.splitlines())


def begin(machine: BootedDebian) -> Service:
    """A site that is enabled and runs, with a volume that holds something."""
    service = Service(machine, "lon")
    service.make()
    service.start()
    machine.succeed("systemctl", "enable", service.unit)
    service.farshore("volume", "create", "g/v", "--size", "16M")
    with service.host("g/v") as host:
        host.write_all([(0, BLOCK)])
        host.flush()
    return service


def test_it_is_installed_and_purged_and_data_stays(package: Path, machine: BootedDebian) -> None:
    before = files(machine)
    install(machine, package)
    shown = machine.shell("stat -c '%n %U %a' /var/lib/farshore /var/lib/farshore/witness /run/farshore")
    assert shown.splitlines() == [
        "/var/lib/farshore farshore 750", "/var/lib/farshore/witness farshore 700", "/run/farshore root 755",
    ]  # fmt: skip
    assert machine.property("farshore@lon.service", "ActiveState") == "inactive"  # starts nothing
    service = begin(machine)
    machine.succeed("dpkg", "--remove", "farshore")
    assert machine.call("pgrep", "-u", "farshore").returncode == 1
    # Installed again it goes on, also by itself at the next boot.
    install(machine, package)
    assert machine.succeed("systemctl", "is-enabled", service.unit).strip() == "enabled"
    service.start()
    with service.host("g/v") as host:
        assert host.read(0, len(BLOCK)) == BLOCK
    said = machine.succeed("dpkg", "--purge", "farshore")
    assert "are kept" in said
    assert machine.call("pgrep", "-u", "farshore").returncode == 1
    assert machine.path(f"{service.directory}/site.toml").is_file()
    assert machine.path(f"{service.directory}/groups/g/journal").is_dir()
    assert not machine.path("/run/farshore").exists()
    kept = ("/var/lib/farshore", "/etc/farshore")
    # The accounts' files have backups, and a lock, once there was a change.
    accounts = {f"/etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")} | {"/etc/.pwd.lock"}
    left = {each for each in files(machine) - before - accounts if not each.startswith(kept)}
    assert left == set()


def test_an_upgrade_over_a_running_site_keeps_its_data(
    package: Path, machine: BootedDebian, tmp_path: Path
) -> None:
    """The site goes on with the version before, checkpoint included, until it is restarted."""
    install(machine, older(package, tmp_path))
    service = begin(machine)
    pid = service.pid
    with service.host("g/v") as host:
        said = install(machine, package)
        assert "systemctl restart 'farshore@*'" in said
        host.write_all([(MIB, BLOCK)])
        host.flush()
    assert service.pid == pid
    service.farshore("backup", "create", "g", "--label", "upgraded")
    machine.succeed("systemctl", "restart", "farshore@*")
    assert service.pid != pid
    with service.host("g/v@upgraded") as host:
        assert host.read(0, len(BLOCK)) == BLOCK
        assert host.read(MIB, len(BLOCK)) == BLOCK
    service.farshore("verify", "g", "--deep")
    service.stop()
