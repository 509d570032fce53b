"""The Debian package: built, unpacked and run from there.

FARSHORE_FULL=1 as root also installs and purges it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.clients import succeed
from tests.support.sites import ROOT, Site, short_directory

FULL = os.environ.get("FARSHORE_FULL") == "1"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no Debian here"),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("deb")
    succeed(ROOT / "packaging" / "make-deb.sh", sys.executable, place, timeout_s=800)
    (found,) = place.glob("farshore_*.deb")
    return found


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
    succeed("dpkg-deb", "-e", package, root / "DEBIAN")
    for each in (
        "usr/lib/systemd/system/farshore@.service",
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
    assert "are kept" in succeed("sh", root / "DEBIAN" / "postrm", "purge")


@pytest.mark.skipif(not FULL or os.geteuid() != 0, reason="installs it here: FARSHORE_FULL=1, as root")
def test_it_is_installed_and_purged_and_data_stays(package: Path) -> None:
    data = Path("/var/lib/farshore/a-test-of-the-package")
    try:
        succeed("dpkg", "-i", package)
        assert pwd.getpwnam("farshore").pw_dir == "/var/lib/farshore"
        assert "farshore" in succeed("/usr/bin/farshore", "--version")
        succeed("/usr/bin/farshore", "site", "init", data, "--name", "a")
    finally:
        said = succeed("dpkg", "--purge", "farshore")
        kept = data.is_dir()
        shutil.rmtree(data, ignore_errors=True)
    assert kept
    assert "are kept" in said
    assert not Path("/usr/bin/farshore").exists()
