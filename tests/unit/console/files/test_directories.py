"""What the target directory gets of the volume's root, and directories that were there before of others."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path as FilePath

import msgspec
import pytest

from console.files.rights import Rights
from console.files.to_directory import DirectoryTarget, Outcome
from console.files.to_tar import TarTarget
from console.files.walk import Finder, Item, walk
from protocol.file_stream import Entry
from tests.support.special_files import ACL
from tests.unit.console.files.test_to_directory import Lies, entry

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="root only")
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
ATTRIBUTES = ((b"user.colour", b"blue"), (os.fsencode(ACCESS), ACL), (os.fsencode(DEFAULT), ACL))
MINE = {"uid": os.geteuid(), "gid": os.getegid()}
THEN = 10**18
# What the entries of the root directory have.
DIRECTORY = {"mode": 0o751, "mtime_ns": THEN, "atime_ns": THEN, **MINE}


class Rooted(Lies):
    """A source that says something of its root."""

    def __init__(self, directories: dict[int, list[Entry]], **root: object) -> None:
        super().__init__(directories)
        self._entry = entry(b"", "d", 2, **{**DIRECTORY, **root})

    def root(self) -> Entry:
        return self._entry


class RootedFat(Rooted):
    """The same of a file system without owners."""

    opened = msgspec.structs.replace(Lies.opened, has_owners=False, file_system="fat")


def restored(
    source: Lies, target: FilePath | str, *paths: Sequence[bytes], replace: bool = False, owner: bool = True
) -> Outcome:
    """What is at the paths, or everything."""
    rights = Rights(owner=owner and os.geteuid() == 0, special=False, privileged=False)
    made = DirectoryTarget(str(target), source, rights, replace=replace)
    for path in paths or ((),):
        way = Finder(source).ancestors(tuple(path)) or [Item(path=(), entry=source.root())]
        made.take([*way[:-1], *walk(source, way[-1])])
    made.finish()
    made.close()
    return made.outcome


def missed(outcome: Outcome) -> dict[bytes, str]:
    return {b"/".join(each.path): each.why for each in outcome.missed}


def mode(path: FilePath) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@ROOT_ONLY
@pytest.mark.parametrize("name", ["new", "new/", "new/.", "far/new"])
def test_a_target_that_is_made_gets_what_opens_it_to_nobody(tmp_path: FilePath, name: str) -> None:
    source = Rooted({2: [entry(b"file")]}, uid=1234, attributes=ATTRIBUTES, lacks=("its flags (A)",))
    target = tmp_path / name.removesuffix(".")
    outcome = restored(source, f"{tmp_path}/{name}")
    assert (mode(target), target.stat().st_uid) == (0o700, os.geteuid())
    assert target.stat().st_mtime_ns == THEN
    assert sorted(os.listxattr(target)) == [DEFAULT, "user.colour"]
    assert missed(outcome) == {b"": "came without its flags (A)"}
    assert "mode, owner and access list of /" in outcome.root_without


def test_a_target_that_was_there_stays_as_it_is(tmp_path: FilePath) -> None:
    tmp_path.chmod(0o710)
    source = Rooted({2: []}, attributes=ATTRIBUTES[:1], lacks=("its other streams: x",))
    before = tmp_path.stat().st_mtime_ns
    outcome = restored(source, tmp_path)
    assert (mode(tmp_path), tmp_path.stat().st_mtime_ns, os.listxattr(tmp_path)) == (0o710, before, [])
    assert missed(outcome) == {b"": "came without its other streams: x"}
    assert "was there before" in outcome.root_without


def test_a_root_that_was_not_asked_for_is_nobodys_business(tmp_path: FilePath) -> None:
    source = Rooted({2: [entry(b"a", "d", 3)], 3: []}, lacks=("its flags (A)",))
    outcome = restored(source, tmp_path / "new", [b"a"])
    assert (outcome.missed, outcome.root_without) == ([], "")


def test_a_root_without_an_entry_has_nothing_to_restore(tmp_path: FilePath) -> None:
    source = RootedFat({2: []}, mtime_ns=0)
    outcome = restored(source, tmp_path / "new")
    assert (outcome.missed, outcome.root_without) == ([], "")
    assert (tmp_path / "new").stat().st_mtime > 0
    assert names_in_archive(source) == []


def test_a_root_that_could_not_be_read_is_listed_everywhere(tmp_path: FilePath) -> None:
    source = RootedFat({2: []}, mtime_ns=0, lacks=("what it is itself: a sector",))
    assert missed(restored(source, tmp_path / "new")) == {b"": "came without what it is itself: a sector"}


def names_in_archive(source: Lies) -> list[tarfile.TarInfo]:
    out = io.BytesIO()
    made = TarTarget(out, source, special=False, privileged=False)
    made.take(walk(source, Item(path=(), entry=source.root())))
    made.finish()
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        return archive.getmembers()


def test_an_archive_begins_with_the_root(tmp_path: FilePath) -> None:
    root, below = names_in_archive(Rooted({2: [entry(b"a", "d", 3)], 3: []}, attributes=ATTRIBUTES))
    assert (root.name, root.isdir(), root.mode, root.mtime) == (".", True, 0o751, THEN // 10**9)
    assert root.pax_headers["SCHILY.xattr.user.colour"] == "blue"
    assert below.name == "a"


def below(**changes: object) -> Rooted:
    """`a`, with `b` in it."""
    made = entry(b"a", "d", 3, **{**DIRECTORY, **changes})
    return Rooted({2: [made], 3: [entry(b"b", "d", 4, **DIRECTORY)], 4: []})


def test_a_directory_that_was_there_keeps_its_own_and_is_listed(tmp_path: FilePath) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    outcome = restored(below(attributes=ATTRIBUTES[:1]), tmp_path, [b"a"])
    assert missed(outcome) == {b"a": "it was there before, and keeps its own mode, times, attributes"}
    assert mode(tmp_path / "a") == 0o700
    assert mode(tmp_path / "a" / "b") == 0o751


def test_on_the_way_to_what_was_asked_for_it_is_not_listed(tmp_path: FilePath) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    assert missed(restored(below(), tmp_path, [b"a", b"b"])) == {}
    # Asked for afterwards, it is.
    assert list(missed(restored(below(), tmp_path, [b"a", b"b"], [b"a"]))) == [b"a"]


def test_one_that_is_what_it_should_be_is_not_listed(tmp_path: FilePath) -> None:
    assert missed(restored(below(), tmp_path, [b"a"])) == {}
    assert missed(restored(below(), tmp_path, [b"a"])) == {}


@ROOT_ONLY
def test_access_lists_and_owners_that_were_there_are_compared(tmp_path: FilePath) -> None:
    restored(below(), tmp_path, [b"a"])
    os.setxattr(tmp_path / "a", DEFAULT, ACL)
    os.chown(tmp_path / "a" / "b", 1234, 0)
    found = missed(restored(below(), tmp_path, [b"a"]))
    assert {path: why.rpartition(" ")[2] for path, why in found.items()} == {
        b"a": "attributes",
        b"a/b": "owner",
    }


@ROOT_ONLY
def test_where_files_are_replaced_it_becomes_the_restored_one(tmp_path: FilePath) -> None:
    """Back in the volume itself; a mode alone would leave other people's rights in force."""
    for path in (tmp_path, tmp_path / "a"):
        path.mkdir(exist_ok=True)
        os.setxattr(path, ACCESS, ACL)
    source = below(uid=1234)
    assert missed(restored(source, tmp_path, replace=True)) == {}
    assert (tmp_path / "a").stat().st_uid == 1234
    for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        assert (mode(path), path.stat().st_mtime_ns, os.listxattr(path)) == (0o751, THEN, [])


def test_a_mode_that_was_made_up_changes_none(tmp_path: FilePath) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    source = RootedFat({2: [entry(b"a", "d", 3, **{**DIRECTORY, "uid": 0, "gid": 0})], 3: []}, mtime_ns=0)
    assert missed(restored(source, tmp_path, replace=True)) == {}
    assert (mode(tmp_path / "a"), (tmp_path / "a").stat().st_mtime_ns) == (0o700, THEN)
