"""What a mounted tree says of what is in it."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path as FilePath

import pytest

from console.files.mounted_tree import MountedTree


def test_the_root_is_looked_at_as_any_other(tmp_path: FilePath) -> None:
    os.setxattr(tmp_path, "user.colour", b"blue")
    os.utime(tmp_path, ns=(5, 10**18))
    with closing(MountedTree(tmp_path, "xfs")) as tree:
        root = tree.root()
    assert (root.what, root.mtime_ns, root.attributes) == ("d", 10**18, ((b"user.colour", b"blue"),))


@pytest.mark.parametrize("is_guest", [False, True])
def test_names_of_one_thing(tmp_path: FilePath, is_guest: bool) -> None:
    """Also of a guest's tree, whose file system's own numbers are shown."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("x")
    os.mkfifo(tmp_path / "pipe")
    for name in os.listdir(tmp_path):
        os.link(tmp_path / name, tmp_path / f"{name}-too", follow_symlinks=False)
    with closing(MountedTree(tmp_path, "xfs", is_guest=is_guest)) as tree:
        entries, troubles = tree.names((), tree.root())
    assert troubles == []
    assert len(entries) == 6
    assert {entry.lacks for entry in entries} == {()}
    assert len({entry.number for entry in entries}) == 3


@pytest.mark.parametrize("root", [1, 256])
def test_c50_names_of_one_thing_that_cannot_be_told(
    tmp_path: FilePath, root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root of number 1 was numbered by FUSE, and one of 256 may have snapshots below: it is said."""
    (tmp_path / "file").touch()
    os.link(tmp_path / "file", tmp_path / "too")
    (tmp_path / "one").touch()
    whole = os.fstat

    def numbered(file: int) -> os.stat_result:
        status = whole(file)
        return os.stat_result((status.st_mode, root, *status[2:]))

    monkeypatch.setattr(os, "fstat", numbered)
    with closing(MountedTree(tmp_path, "btrfs", is_guest=True)) as tree:
        monkeypatch.undo()
        entries, _ = tree.names((), tree.root())
    said = {entry.name: entry.lacks for entry in entries}
    two = ("being one file with 2 names",)
    assert said == {b"file": two, b"too": two, b"one": ()}
