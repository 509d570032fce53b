"""The wheel, installed beside other distributions whose packages have the names of ours: all of it works."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from console.demo.host import Host
from farshore.launch import PACKAGES
from tests.support.clients import MIB, succeed
from tests.support.file_systems import import_image, make_ext
from tests.support.oracle import Oracle
from tests.support.sites import ROOT, Site, short_directory

FOREIGN = ("bench", "tests", *PACKAGES)
SIZE = 16 * MIB
LABELS = ("one", "two", "three")


def put_foreign(directory: Path) -> None:
    """A package of each name, none of which can be imported."""
    for name in FOREIGN:
        (directory / name).mkdir()
        (directory / name / "__init__.py").write_text(f"raise ImportError('a foreign {name}')\n")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the source, which is gone by now."""
    place = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "build", "*.egg-info", "tests", "bench")
    source = Path(shutil.copytree(ROOT, place / "source", ignore=left_out))
    succeed(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", place, source)
    shutil.rmtree(source)
    (found,) = place.glob("farshore-*.whl")
    return found


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment that has the wheel and the foreign packages."""
    venv = tmp_path_factory.mktemp("environment") / "venv"
    succeed(sys.executable, "-m", "venv", venv)
    succeed(venv / "bin" / "pip", "install", "-q", wheel)
    (packages,) = venv.glob("lib/python3.*/site-packages")
    put_foreign(packages)
    return venv / "bin"


class InstalledSite(Site):
    """Commands and daemon are the installed ones, and find nothing by PYTHONPATH."""

    is_of_this_checkout = False

    def __init__(self, directory: Path, name: str, programs: Path) -> None:
        super().__init__(directory, name)
        self._programs = programs

    def environment(self) -> dict[str, str]:
        """See `Site.environment`."""
        return {key: value for key, value in super().environment().items() if key != "PYTHONPATH"}

    def command(self) -> list[str]:
        """See `Site.command`."""
        return [str(self._programs / "farshore")]


@pytest.fixture
def installed(programs: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstalledSite]:
    """A site that runs; the foreign packages lie in the current directory too."""
    put_foreign(scratch)
    monkeypatch.chdir(scratch)
    parent = short_directory()
    site = InstalledSite(parent / "a", "a", programs)
    try:
        site.init()
        site.start()
        yield site
    finally:
        site.kill()
        shutil.rmtree(parent, ignore_errors=True)


@pytest.mark.slow
def test_only_one_name_is_installed(wheel: Path) -> None:
    paths = [Path(name).parts for name in zipfile.ZipFile(wheel).namelist()]
    (version,) = {path[0] for path in paths} - {"farshore"}
    assert version.endswith(".dist-info")
    own = {path[1] for path in paths if path[0] == "farshore"}
    assert own == {
        "__init__.py",
        "__main__.py",
        "children.py",
        "launch.py",
        "plain_files.py",
        "py.typed",
        *PACKAGES,
    }
    for name in PACKAGES:
        files = [found for found in (ROOT / name).rglob("*") if found.is_file()]
        here = {found.relative_to(ROOT).parts for found in files if found.parent.name != "__pycache__"}
        assert {path[1:] for path in paths if path[1] == name} == here


@pytest.mark.slow
def test_the_foreign_packages_are_found(programs: Path, tmp_path: Path) -> None:
    """The test below would be worth nothing otherwise; and `import farshore` changes nothing for others."""
    for name in FOREIGN:
        done = subprocess.run(
            [programs / "python", "-P", "-c", f"import farshore.launch, {name}"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert f"a foreign {name}" in done.stderr


@pytest.mark.slow
def test_every_program_finds_its_own_packages(
    installed: InstalledSite, programs: Path, scratch: Path, tool: Callable[[str], str]
) -> None:
    """Command, daemon, indexer, guard, reader of files; each is a process of its own."""
    tree = scratch / "tree"
    tree.mkdir()
    (tree / "hello").write_text("there")
    import_image(installed, "g/files", make_ext(scratch / "ext4", tree, "8M"), "files", tool("nbdcopy"))
    assert "hello" in installed.farshore("ls", "g/files@files:/")
    words = ("--freeze-command", "true", "--thaw-command", "true")
    installed.farshore("backup", "create", "g", "--label", "frozen", *words)
    installed.farshore("verify", "g")
    assert installed.stop() == 0
    installed.check_log()
    assert "fsfreeze" in succeed(programs / "farshore-hook", "--help")
    assert succeed(programs / "python", "-P", "-m", "farshore", "--version").startswith("farshore ")


@pytest.mark.slow
def test_a_dead_sites_directory_is_replayed(installed: InstalledSite, programs: Path, scratch: Path) -> None:
    """At three labels, on a copy of what `kill -9` left."""
    oracle = Oracle(SIZE, 11)
    expected: dict[str, bytes] = {}
    installed.create_volume("g/v", str(SIZE))
    for label in LABELS:
        with Host(installed.nbd_socket, "g/v") as host:
            oracle.write(host, oracle.some_blocks(500))
        installed.farshore("backup", "create", "g", "--label", label)
        expected[label] = bytes(oracle.image)
    installed.kill()
    dead, image = scratch / "copy", scratch / "v.img"
    shutil.copytree(installed.directory, dead, ignore=shutil.ignore_patterns("*.sock"))
    for label in LABELS:
        words = ("journal", "replay", str(dead), "--output", str(image), "--until", label, "--replace")
        installed.farshore(*words, site=False)
        assert image.read_bytes() == expected[label], label
