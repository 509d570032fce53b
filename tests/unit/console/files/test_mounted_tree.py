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
    """Of a guest's tree every name has a number of its own, so that it must be said."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("x")
    os.mkfifo(tmp_path / "pipe")
    for name in os.listdir(tmp_path):
        os.link(tmp_path / name, tmp_path / f"{name}-too", follow_symlinks=False)
    with closing(MountedTree(tmp_path, "xfs", is_guest=is_guest)) as tree:
        entries, troubles = tree.names((), tree.root())
    assert troubles == []
    assert len(entries) == 6
    said = ("being one file with 2 names",) if is_guest else ()
    assert {entry.lacks for entry in entries} == {said}
    assert len({entry.number for entry in entries}) == 3
