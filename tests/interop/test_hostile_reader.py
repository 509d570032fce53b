"""A reader of file systems that was taken over says what it likes: whoever asked it gets a typed error or a
list of what did not come, in bounded memory, and nothing lands outside the target."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from console.files.reader_process import ReaderProcess
from console.files.rights import Rights
from console.files.to_directory import DirectoryTarget
from console.files.walk import Item, path_text, walk
from console.host_configs import Export, export_of
from protocol.commands.volume import VolumeUriReply
from protocol.errors import FarshoreError
from tests.support import hostile_reader
from tests.support.sites import Site, running_sites

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 1000 if os.environ.get("FARSHORE_FULL") == "1" else 25
# A directory may take 256 MiB; none here comes near it.
MEMORY_GROWTH_BYTES_MAX = 96 << 20


def export_at(site: Site) -> Export:
    """Where the volume is."""
    return export_of(msgspec.convert(site.json("volume", "uri", "g/v"), VolumeUriReply))


@pytest.fixture(scope="module")
def export() -> Iterator[Export]:
    """Of a volume that no reader here looks into."""
    with running_sites("a") as (site,):
        site.create_volume("g/v", "8M")
        yield export_at(site)
        assert site.stop() == 0
        site.check_log()


def memory_bytes(field: str) -> int:
    """Of this process, from /proc."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise AssertionError(field)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_it_says(export: Export, scratch: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setenv(hostile_reader.SEED, str(seed))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (scratch / "secret").write_text("secret")
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_bytes("VmRSS:")
    words: list[str] = []
    try:
        with ReaderProcess(export, module="tests.support.hostile_reader") as reader:
            words += [reader.opened.unfenced, reader.opened.holds]
            rights = Rights(owner=False, special=False, privileged=False)
            target = DirectoryTarget(str(scratch / "target"), reader, rights)
            try:
                target.take(walk(reader, Item(path=(), entry=reader.root())))
                target.finish()
            finally:
                target.close()
                words += [path_text(each.path) + each.why for each in target.outcome.missed]
    except FarshoreError as error:
        words.append(error.message)
    assert words
    assert [word for word in words if not word.isprintable()] == []
    assert set(os.listdir(scratch)) <= {"secret", "target"}
    assert (scratch / "secret").stat().st_nlink == 1
    assert memory_bytes("VmHWM:") - before < MEMORY_GROWTH_BYTES_MAX


def test_c15_the_directory_where_it_runs_is_not_looked_into(
    site: Site, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages named like ours in the current directory are not run."""
    for package in ("site_secondary", "protocol", "pytsk3"):
        (scratch / package).mkdir()
        (scratch / package / "__init__.py").write_text(f"open({str(scratch / 'ran')!r}, 'w')\n")
    site.create_volume("g/v", "8M")
    monkeypatch.chdir(scratch)
    with ReaderProcess(export_at(site)) as reader:
        assert reader.opened.file_system == ""
    assert not (scratch / "ran").exists()
