"""A data directory that no daemon can start on: one error, with a next step, and never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.__main__ import main
from daemon.config import SiteConfig
from daemon.data_directory import check_identity, make_site
from protocol.errors import ExitCode

DEEP = "[" * 5000
LOCAL = ExitCode.FAILED


@pytest.fixture
def site(tmp_path: Path) -> Path:
    make_site(tmp_path / "a", SiteConfig(name="a"))
    return tmp_path / "a"


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The daemon's own, which it sets for its whole process, ends with the test."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def unreadable(path: Path) -> None:
    path.chmod(0)


def text(content: str | bytes) -> Callable[[Path], None]:
    """That it holds this."""
    raw = content.encode() if isinstance(content, str) else content

    def spoil(path: Path) -> None:
        path.write_bytes(raw)

    return spoil


def identity(inode: str) -> Callable[[Path], None]:
    return text(f'{{"format": 1, "site_id": "a", "machine": "m", "inode": {inode}}}')


CASES: list[tuple[str, Callable[[Path], object], ExitCode]] = [
    ("site.toml", directory, LOCAL),
    ("site.toml", loop, LOCAL),
    ("site.toml", text(f'name = "a"\nreserve_bytes = {"9" * 5000}\n'), ExitCode.USAGE),
    ("site.toml", text(f'name = "a"\nreserve_bytes = 0x{"f" * 9000}\n'), ExitCode.USAGE),
    ("site.toml", text(f'name = "a"\n[hooks.h]\ntimeout_s = 0x{"f" * 9000}\n'), ExitCode.USAGE),
    ("site.toml", text(f'name = "a"\nnbd = {DEEP}\n'), ExitCode.USAGE),
    ("site.toml", text(b'name = "\xff"\n'), ExitCode.USAGE),
    ("site.toml", text(bytes(100)), ExitCode.USAGE),
    ("identity.json", directory, LOCAL),
    ("identity.json", loop, LOCAL),
    ("identity.json", text(DEEP), ExitCode.USAGE),
    ("identity.json", text(b"\xff\xfe"), ExitCode.USAGE),
    ("identity.json", text("[1]"), ExitCode.USAGE),
    ("identity.json", identity("1e999"), ExitCode.USAGE),
    ("identity.json", identity("9" * 5000), ExitCode.USAGE),
    ("identity.json", identity("null"), ExitCode.USAGE),
    ("keys/secret", Path.unlink, ExitCode.MISMATCH),
    ("keys/secret", text("ü" * 20), ExitCode.MISMATCH),
    ("keys/secret", text(""), ExitCode.MISMATCH),
    ("keys/secret", text("x" * 39), ExitCode.MISMATCH),
    ("keys/secret", directory, ExitCode.MISMATCH),
    ("keys/public", Path.unlink, ExitCode.MISMATCH),
    ("lock", directory, LOCAL),
    ("lock", loop, LOCAL),
]


@pytest.mark.parametrize(("name", "spoil", "code"), CASES)
def test_a_file_that_is_bad(
    site: Path, capsys: pytest.CaptureFixture[str], name: str, spoil: Callable[[Path], object], code: ExitCode
) -> None:
    spoil(site / name)
    assert main(["run", str(site)]) == code
    said = capsys.readouterr().err
    assert said.count("error:") == said.count("next:") == 1
    assert name in said
    assert len(said) < 1000


@pytest.mark.parametrize("name", ["site.toml", "identity.json", "keys/secret"])
def test_a_file_of_somebody_else(site: Path, name: str) -> None:
    unreadable(site / name)
    # Root reads every file by these two rights.
    without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    words = [*without, sys.executable, "-m", "daemon", "run", str(site)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == LOCAL
    assert f"ls -ld {site / name}" in done.stderr


def test_a_machine_whose_id_is_no_text(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "machine-id").write_bytes(b"\xff\xfe\n")
    monkeypatch.setattr("daemon.data_directory.MACHINE_ID_PATHS", (tmp_path / "machine-id",))
    assert main(["run", str(site)]) == ExitCode.NOT_ALLOWED
    assert "site adopt" in capsys.readouterr().err


def test_c40_a_container_whose_machine_id_changes_at_each_start(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment names the machine, once the site was adopted with it. A copy of the directory brings no
    environment along, and is refused as before."""

    def restart(container: str) -> None:
        (tmp_path / "machine-id").write_text(container)
        monkeypatch.setattr("daemon.data_directory.MACHINE_ID_PATHS", (tmp_path / "machine-id",))

    restart("1" * 32)
    assert main(["run", str(site)]) == ExitCode.NOT_ALLOWED
    said = capsys.readouterr().err
    assert "FARSHORE_MACHINE_ID" in said
    assert "machine's id is another" in said
    assert "inode" not in said
    monkeypatch.setenv("FARSHORE_MACHINE_ID", "claim-a.0")
    assert main(["adopt", str(site)]) == ExitCode.OK
    restart("2" * 32)
    assert check_identity(site).machine == "claim-a.0"
    for other in ("", "claim-b"):
        monkeypatch.setenv("FARSHORE_MACHINE_ID", other)
        assert main(["run", str(site)]) == ExitCode.NOT_ALLOWED
    monkeypatch.setenv("FARSHORE_MACHINE_ID", "a\nb")
    assert main(["run", str(site)]) == ExitCode.USAGE


@pytest.mark.parametrize("mask", [0o777, 0o277, 0o000])
def test_what_is_made_is_its_owners_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    made = tmp_path / "b"
    os.umask(mask)
    assert main(["init", str(made), "--name", "b"]) == ExitCode.OK
    modes = {path.relative_to(made).as_posix(): path.stat().st_mode & 0o777 for path in made.rglob("*")}
    assert {name: mode for name, mode in modes.items() if "." not in name and "/" not in name} == {
        "keys": 0o700,
        "groups": 0o700,
    }
    assert main(["adopt", str(made)]) == ExitCode.OK
    assert (made / "lock").stat().st_mode & 0o777 == 0o600
