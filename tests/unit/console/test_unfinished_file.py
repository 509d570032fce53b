"""A file that gets its name once it is whole, and what it does not overwrite."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from console.unfinished_file import UnfinishedFile
from protocol.errors import Busy, FarshoreError, Refused, UsageError


def test_what_the_new_file_builds_on_is_not_replaced(tmp_path: Path) -> None:
    """By whichever name, that of the partial file included."""
    needed = tmp_path / "base.partial"
    needed.write_bytes(b"base")
    (tmp_path / "symbolic").symlink_to(needed)
    (tmp_path / "hard").hardlink_to(needed)
    with needed.open() as opened:
        for name in ("base.partial", "symbolic", "hard", "base"):
            for replace in (True, False):
                with pytest.raises(UsageError, match="builds on"):
                    UnfinishedFile(tmp_path / name, replace=replace, needed=[opened.fileno()])
    assert needed.read_bytes() == b"base"
    assert sorted(os.listdir(tmp_path)) == ["base.partial", "hard", "symbolic"]


@pytest.mark.parametrize("name", ["/", ".", "", "..", "../", "fifo"])
def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is no file") as error:
        UnfinishedFile(Path(name), replace=True)
    assert error.value.subject == str(Path(name))
    assert os.listdir(tmp_path) == ["fifo"]


@pytest.mark.parametrize("name", ["loop", "file/v.img", "nowhere/v.img", "n" * 300])
def test_where_no_file_can_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(FarshoreError, match="cannot write"):
        UnfinishedFile(tmp_path / name, replace=True)


def written(path: Path, *, replace: bool = False) -> UnfinishedFile:
    file = UnfinishedFile(path, replace=replace)
    os.write(file.descriptor, b"image")
    file.make_durable()
    return file


def test_all_of_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little the kernel takes at once."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:3], offset))
    with UnfinishedFile(tmp_path / "key.pem", replace=False) as file:
        file.write(b"a key and more")
        file.make_durable()
        file.finish()
    assert (tmp_path / "key.pem").read_bytes() == b"a key and more"


def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(_source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(target))

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("links", [True, False])
def test_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool) -> None:
    if not links:
        no_links(monkeypatch)
    file = written(tmp_path / "v.img")
    assert os.listdir(tmp_path) == ["v.img.partial"]
    file.finish()
    file.discard()
    assert os.listdir(tmp_path) == ["v.img"]
    assert (tmp_path / "v.img").read_bytes() == b"image"


@pytest.mark.parametrize("links", [True, False])
def test_what_came_to_be_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    if not links:
        no_links(monkeypatch)
    path = tmp_path / "v.img"
    file = written(path)
    path.write_bytes(b"precious")
    with pytest.raises(Refused, match=r"v\.img\.partial"):
        file.finish()
    file.discard()
    assert path.read_bytes() == b"precious"
    assert (tmp_path / "v.img.partial").read_bytes() == b"image"


def test_with_replace_it_is(tmp_path: Path) -> None:
    path = tmp_path / "v.img"
    file = written(path, replace=True)
    path.write_bytes(b"old")
    file.finish()
    assert path.read_bytes() == b"image"
    assert os.listdir(tmp_path) == ["v.img"]


def test_killed_before_the_partial_name_was_gone(tmp_path: Path) -> None:
    """The next run begins a new file: it does not empty the finished one."""
    path = tmp_path / "v.img"
    path.write_bytes(b"whole")
    (tmp_path / "v.img.partial").hardlink_to(path)
    file = written(path, replace=True)
    assert path.read_bytes() == b"whole"
    file.discard()
    assert os.listdir(tmp_path) == ["v.img"]


def test_finished_by_another_run_between_open_and_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.img"
    other = written(path)
    lock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        other.finish()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    file = UnfinishedFile(path, replace=True)
    assert path.read_bytes() == b"image"
    file.discard()
    assert os.listdir(tmp_path) == ["v.img"]


def test_two_runs_at_once(tmp_path: Path) -> None:
    file = written(tmp_path / "v.img")
    with pytest.raises(Busy):
        UnfinishedFile(tmp_path / "v.img", replace=False)
    file.finish()
    assert (tmp_path / "v.img").read_bytes() == b"image"
