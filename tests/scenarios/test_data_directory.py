"""Data directories that a daemon must not open: held by another one, of another version, copied, or none."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from console.demo.host import Host
from protocol.errors import ExitCode
from tests.support.sites import Site, running_sites

pytestmark = pytest.mark.usefixtures("as_installed")


@pytest.fixture
def stopped() -> Iterator[Site]:
    """A site with a volume whose first block holds `w`s, stopped cleanly."""
    with running_sites("a") as (site,):
        site.create_volume("g/v", "1M")
        with Host(site.nbd_socket, "g/v") as host:
            host.write(0, b"w" * 4096)
        assert site.stop() == 0
        yield site


def serves_what_was_written(site: Site) -> None:
    """The daemon runs and its volume holds what the fixture wrote."""
    with Host(site.nbd_socket, "g/v") as host:
        assert host.read(0, 4096) == b"w" * 4096


def test_a_second_daemon(stopped: Site) -> None:
    stopped.start()
    said = stopped.refuses_to_run(ExitCode.BUSY)
    assert "another daemon runs" in said
    serves_what_was_written(stopped)
    # By another path it is the same directory.
    link = stopped.directory.parent / "link"
    link.symlink_to(stopped.directory)
    stopped.refuses_to_run(ExitCode.BUSY, link)
    serves_what_was_written(stopped)
    assert stopped.stop() == 0
    stopped.check_log()


def test_a_killed_daemon_leaves_no_lock(stopped: Site) -> None:
    stopped.start()
    stopped.kill()
    stopped.start()
    serves_what_was_written(stopped)


def test_another_format_version(stopped: Site) -> None:
    path = stopped.directory / "identity.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"format": 3}))
    said = stopped.refuses_to_run(ExitCode.NOT_ALLOWED)
    assert "format version 3" in said
    assert "next:" in said
    path.write_text(before)
    stopped.start()
    serves_what_was_written(stopped)


def test_a_copied_directory(stopped: Site) -> None:
    copy = stopped.directory.parent / "copy"
    subprocess.run(["cp", "-a", str(stopped.directory), str(copy)], check=True)
    said = stopped.refuses_to_run(ExitCode.NOT_ALLOWED, copy)
    assert f"farshore site adopt {copy}" in said
    # The original is as it was; the copy runs once it was adopted.
    stopped.start()
    serves_what_was_written(stopped)
    assert stopped.stop() == 0
    stopped.farshore("site", "adopt", str(copy), site=False)
    adopted = Site(copy, "copy")
    adopted.start()
    try:
        serves_what_was_written(adopted)
        assert adopted.stop() == 0
    finally:
        adopted.kill()


def test_a_directory_of_another_machine(stopped: Site) -> None:
    path = stopped.directory / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": "0" * 32}))
    stopped.refuses_to_run(ExitCode.NOT_ALLOWED)
    stopped.farshore("site", "adopt", str(stopped.directory), site=False)
    stopped.start()
    serves_what_was_written(stopped)


def test_a_running_site_is_not_adopted(stopped: Site) -> None:
    stopped.start()
    said = stopped.farshore("site", "adopt", str(stopped.directory), site=False, exit_code=int(ExitCode.BUSY))
    assert "another daemon runs" in said


def test_no_site_there(stopped: Site) -> None:
    parent = stopped.directory.parent
    stopped.refuses_to_run(ExitCode.NOT_FOUND, parent / "nothing")
    (parent / "empty").mkdir()
    stopped.refuses_to_run(ExitCode.NOT_FOUND, parent / "empty")
    words = ("site", "init", str(stopped.directory), "--name", "a")
    assert "not empty" in stopped.farshore(*words, site=False, exit_code=int(ExitCode.BUSY))


def test_a_wrong_key_in_the_configuration(stopped: Site) -> None:
    path = stopped.directory / "site.toml"
    before = path.read_text()
    path.write_text(before + "jurnal_limit_bytes = 1\n")
    said = stopped.refuses_to_run(ExitCode.USAGE)
    assert "jurnal_limit_bytes" in said
    assert "did you mean 'journal_limit_bytes'?" in said
    path.write_text(before + "reserve_bytes = 'many'\n")
    stopped.refuses_to_run(ExitCode.USAGE)
    path.write_text(before)
    stopped.start()
    serves_what_was_written(stopped)
