"""Files land below the target and nowhere else, whatever the source says."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from console.files.rights import Rights
from console.files.source import Failed, Path
from console.files.to_directory import DirectoryTarget
from console.files.to_tar import TarTarget
from console.files.walk import Finder, Item, Missed, bad_name, parse_path, walk
from protocol.errors import NotFound, UsageError
from protocol.file_stream import Data, Entry, Extents, Opened


def entry(name: bytes, what: str = "f", number: int = 0, **changes: object) -> Entry:
    """One entry; numbers differ unless given."""
    fields: dict[str, object] = {
        "name": name, "number": number or 1000 + hash(name) % 10**9, "what": what, "mode": 0o644, "uid": 0,
        "gid": 0, "size_bytes": 0, "mtime_ns": 10**18, "atime_ns": 10**18, "links": 1, "target": b"",
        "major": 0, "minor": 0, "attributes": (), "lacks": (),
    }  # fmt: skip
    return Entry(**{**fields, **changes})  # type: ignore[arg-type]


class Lies:
    """A source that says what it is told to: directories by number, content by number."""

    opened = Opened(
        partitions=(), partition=0, first_byte=0, size_bytes=0, file_system="ext4", holds="ext4", root=2,
        unfinished=False, case_folds=False, has_owners=True, unfenced="",
    )  # fmt: skip

    def __init__(self, directories: dict[int, list[Entry]], content: dict[int, bytes] | None = None) -> None:
        self._directories = directories
        self._content = content or {}

    def root(self) -> Entry:
        return entry(b"", "d", 2)

    def names(self, path: Path, directory: Entry) -> tuple[list[Entry], list[tuple[bytes, str]]]:
        return self._directories[directory.number], []

    def content(self, path: Path, file: Entry) -> Iterator[Extents | Data]:
        data = self._content.get(file.number, b"")
        yield Extents(size_bytes=len(data), extents=((0, len(data)),) if data else (), more=False)
        if data == b"breaks":
            raise Failed("it broke")
        if data:
            yield Data(offset=0, data=data)

    def close(self) -> None:
        pass


def restored(source: Lies, target: FilePath, **options: bool) -> dict[str, str]:
    """Everything of the source; what did not come, and why."""
    replace = options.pop("replace", False)
    rights = Rights(**{"owner": False, "special": False, "privileged": False, **options})
    made = DirectoryTarget(str(target), source, rights, replace=replace)
    try:
        made.take(walk(source, Item(path=(), entry=source.root())))
        made.finish()
    finally:
        made.close()
    return {b"/".join(each.path).decode("latin-1"): each.why for each in made.outcome.missed}


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/etc", b"a\0b", b"n" * 256])
def test_bad_names(name: bytes, tmp_path: FilePath) -> None:
    assert bad_name(name)
    missed = restored(Lies({2: [entry(name), entry(b"good")]}), tmp_path / "t")
    assert os.listdir(tmp_path / "t") == ["good"]
    assert list(missed) == [name.decode()]


def test_a_link_and_a_directory_of_one_name(tmp_path: FilePath) -> None:
    """Even a walk that lets both through gets nothing through the link."""
    source = Lies({2: [], 7: [entry(b"secret")]})
    link = Item(path=(b"door",), entry=entry(b"door", "l", target=b".."))
    inside = Item(path=(b"door", b"secret"), entry=entry(b"secret"))
    door = Item(path=(b"door",), entry=entry(b"door", "d", 7))
    rights = Rights(owner=False, special=False, privileged=False)
    made = DirectoryTarget(str(tmp_path / "t"), source, rights)
    made.take([link, door, inside])
    made.finish()
    made.close()
    assert len(made.outcome.missed) == 2
    assert os.listdir(tmp_path) == ["t"]
    assert (tmp_path / "t" / "door").is_symlink()


def test_half_a_file_does_not_stay(tmp_path: FilePath) -> None:
    source = Lies({2: [entry(b"a", number=5), entry(b"b", number=6)]}, {5: b"breaks", 6: b"whole"})
    assert restored(source, tmp_path / "t") == {"a": "it broke"}
    assert (tmp_path / "t" / "b").read_bytes() == b"whole"
    assert not (tmp_path / "t" / "a").exists()


def test_hard_links_and_set_id_bits(tmp_path: FilePath) -> None:
    both = [entry(name, number=5, links=2, mode=0o6755) for name in (b"a", b"b")]
    source = Lies({2: both}, {5: b"x"})
    assert restored(source, tmp_path / "t") == {}
    status = (tmp_path / "t" / "a").stat()
    assert status.st_ino == (tmp_path / "t" / "b").stat().st_ino
    # Who cannot give a file its owner does not give it that owner's rights either.
    assert status.st_mode & 0o7777 == 0o755


SEVERAL = Lies(
    {
        2: [
            *(entry(name, "l", 5, links=2, target=b"x") for name in (b"l1", b"l2")),
            *(entry(name, "p", 6, links=2, lacks=("a colour",)) for name in (b"p1", b"p2")),
            # What says that it is the same, and another kind of thing, is not.
            entry(b"file", number=5),
        ]
    }
)


def test_hard_links_of_what_is_no_file(tmp_path: FilePath) -> None:
    assert restored(SEVERAL, tmp_path / "t", special=True) == {"p1": "came without a colour"}
    assert (tmp_path / "t" / "l1").readlink() == FilePath("x")
    for one, other in (("l1", "l2"), ("p1", "p2")):
        assert (tmp_path / "t" / one).lstat().st_ino == (tmp_path / "t" / other).lstat().st_ino
    assert (tmp_path / "t" / "file").is_file()


def test_hard_links_of_what_is_no_file_in_an_archive(tmp_path: FilePath) -> None:
    out = io.BytesIO()
    made = TarTarget(out, SEVERAL, special=True, privileged=False)
    made.take(walk(SEVERAL, Item(path=(), entry=SEVERAL.root())))
    made.finish()
    assert [(each.path, each.why) for each in made.outcome.missed] == [((b"p1",), "came without a colour")]
    subprocess.run(["tar", "-C", tmp_path, "-xf", "-"], input=out.getvalue(), check=True, timeout=60)
    for one, other in (("l1", "l2"), ("p1", "p2")):
        assert (tmp_path / one).lstat().st_ino == (tmp_path / other).lstat().st_ino


def test_a_circle_ends(tmp_path: FilePath) -> None:
    source = Lies({2: [entry(b"one", "d", 3)], 3: [entry(b"root", "d", 2), entry(b"self", "d", 3)]})
    missed = restored(source, tmp_path / "t")
    assert sorted(missed) == ["one/root", "one/self"]


def test_replacing(tmp_path: FilePath) -> None:
    target = tmp_path / "t"
    target.mkdir()
    (target / "file").write_text("old")
    (target / "link").symlink_to(tmp_path)
    (target / "directory").mkdir()
    source = Lies(
        {2: [entry(b"file", number=5), entry(b"link", number=6), entry(b"directory", number=7)]},
        {5: b"new", 6: b"no link", 7: b"x"},
    )
    assert list(restored(source, target, replace=True)) == ["directory"]
    assert (target / "file").read_text() == "new"
    assert (target / "link").read_text() == "no link"
    assert not (target / "link").is_symlink()


def test_paths_as_users_write_them() -> None:
    assert parse_path(b"/a//b/./c/") == (b"a", b"b", b"c")
    assert parse_path(b"/") == ()
    for text in (b"/a/../b", b"..", b"a\0"):
        with pytest.raises(UsageError):
            parse_path(text)


def test_finding() -> None:
    source = Lies({2: [entry(b"a", "d", 3), entry(b"l", "l", target=b"a")], 3: [entry(b"b")]})
    found = Finder(source).ancestors((b"a", b"b"))
    assert [(item.path, item.asked) for item in found] == [((b"a",), False), ((b"a", b"b"), True)]
    with pytest.raises(NotFound, match="links are not followed"):
        Finder(source).find((b"l", b"b"))
    with pytest.raises(NotFound, match="there is no /a/c"):
        Finder(source).find((b"a", b"c"))


def test_what_was_missed_says_where() -> None:
    source = Lies({2: [entry(b"same", number=5), entry(b"same", number=6)]})
    found = list(walk(source, Item(path=(), entry=source.root())))
    assert [type(each) for each in found] == [Item, Item, Missed]


@pytest.mark.parametrize(
    ("uid", "gid"), [(2**32 - 1, os.getegid()), (os.geteuid(), 2**32 - 1), (2**32 - 1, 2**32 - 1)]
)
@pytest.mark.parametrize("what", ["f", "d", "l"])
def test_an_owner_that_no_file_can_have_is_listed(what: str, uid: int, gid: int, tmp_path: FilePath) -> None:
    """It means "leave it as it is" to the kernel: the caller's own file had set-id bits of nobody's."""
    odd = entry(b"odd", what, 7, uid=uid, gid=gid, mode=0o4755, target=b"to" if what == "l" else b"")
    missed = restored(Lies({2: [odd], 7: []}), tmp_path / "t", owner=True, privileged=True)
    assert missed["odd"].startswith("came without its owner")
    if what != "l":
        assert not (tmp_path / "t" / "odd").stat().st_mode & 0o6000
