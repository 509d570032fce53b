"""What each file system gives: every kind is made by its own tools and filled with all that it can hold; the
tree is restored and compared with what was seen in the original. The result is a column of the table in
docs/file-systems.md. What is neither equal nor listed nor said fails (C20, C21, C22).

    FARSHORE_WRITE_DOCS=1 .venv/bin/pytest tests/interop/test_file_systems_table.py

writes the table anew.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import trees
from tests.support.clients import succeed
from tests.support.file_systems import import_image
from tests.support.mounting import loop_device, mounted, require_mounting
from tests.support.sites import Site, farshore_command
from tests.support.special_files import mark_compressed, mark_encrypted

Tool = Callable[[str], str]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "file-systems.md"
KINDS = ("ext2", "ext3", "ext4", "NTFS", "FAT", "exFAT", "XFS")
NONE = "–"
MIB = 1 << 20


@contextmanager
def filled(kind: str, image: Path, scratch: Path, tool: Tool) -> Iterator[trees.Cases]:
    """An image of the kind; gives what is to be made in it, and closes it."""
    with image.open("wb") as file:
        file.truncate((512 if kind == "XFS" else 64) * MIB)
    losetup, point = tool("losetup"), scratch / "mnt"
    point.mkdir()
    match kind:
        case "ext2" | "ext3" | "ext4" | "XFS":
            features = ("-O", "inline_data,encrypt,ea_inode") if kind == "ext4" else ()
            words = () if kind == "XFS" else ("-I", "256", *features)
            succeed(tool(f"mkfs.{kind.lower()}"), "-q", *words, image)
            with loop_device(losetup, image) as device, mounted(device, scratch) as root:
                yield trees.Cases(root)
        case "NTFS":
            succeed(tool("mkntfs"), "-q", "-F", image)
            succeed(tool("ntfs-3g"), "-o", "compression", image, point)
            try:
                yield trees.Cases(point)
            finally:
                succeed("umount", point)
            mark_encrypted(image, trees.EFS_NS)
            mark_compressed(image, trees.ODD_NS)
        case "FAT":
            succeed(tool("mkfs.vfat"), "-F", "32", image)
            yield trees.Cases(point)
            words = ("-s", "-m", "-i", image)
            succeed("env", "TZ=UTC", tool("mcopy"), *words, *sorted(point.iterdir()), "::")
            succeed(tool("mattrib"), "-i", image, "+r", "::fixed")
            succeed(tool("mattrib"), "-i", image, "+h", "::hidden")
        case "exFAT":
            succeed(tool("mkfs.exfat"), image)
            with loop_device(losetup, image) as device:
                succeed(tool("mount.exfat-fuse"), device, point)
                try:
                    yield trees.Cases(point)
                finally:
                    succeed("umount", point)


FILLERS = {"ext2": trees.posix, "ext3": trees.posix, "ext4": trees.ext4, "XFS": trees.xfs,
           "NTFS": trees.ntfs, "FAT": trees.fat, "exFAT": trees.exfat}  # fmt: skip


class Restored:
    """A tree that came back, and what was said of it."""

    def __init__(self, site: Site, target: Path, *options: str) -> None:
        words = ["restore", "files", "g/v", "--at", "b", "/", "--to", str(target), *options]
        done = site.run(*words, "--json")
        assert done.returncode in (0, 3), done.stdout + done.stderr
        data: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])["data"]
        self.root = target
        self.missed = {row["path"]: row["why"] for row in data["missed"]}
        self.dropped = sum(data["dropped"].values())
        self.not_kept = data["not_kept"] or ""
        # C20: whoever only looks at the exit code knows as well.
        assert done.returncode == (3 if self.missed else 0)
        # C13: nobody else looks on, or in.
        assert target.stat().st_mode & 0o777 == 0o700

    def has(self, case: trees.Case) -> bool:
        try:
            return case.look(self.root / case.path) == case.expected
        except OSError:
            return False


class Archived:
    """A tree that came back by `--to -` and GNU tar, and what was said of it."""

    def __init__(self, site: Site, target: Path, *options: str) -> None:
        self.root = target
        archive = target.with_suffix(".tar")
        words = ["restore", "files", "g/v", "--at", "b", "/", "--to", "-", *options]
        with archive.open("wb") as file:
            done = subprocess.run(
                [*farshore_command(), *words, "--site", str(site.directory)],
                stdout=file,
                stderr=subprocess.PIPE,
                env=site.environment(),
                check=False,
                timeout=120,
            )
        self.lines = done.stderr.decode(errors="surrogateescape").splitlines()
        self.said = "\n".join(self.lines)
        assert done.returncode in (0, 3), self.said
        self.is_partial = done.returncode == 3
        target.mkdir()
        words = ["--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner"]
        succeed("tar", "-C", target, *words, "-xpf", archive)
        # Holes are none of the archive's bytes either (C50: 528 MB for a sparse file of 4 MB).
        stored = sum(each.lstat().st_blocks * 512 for each in target.rglob("*"))
        assert archive.stat().st_size < stored + 64 * MIB

    def has(self, case: trees.Case) -> bool:
        try:
            return case.look(self.root / case.path) == case.expected
        except OSError:
            return False


def archive_cell(case: trees.Case, usual: Archived, everything: Archived) -> str:
    """As `cell`, of an archive: its report is text, one line for each thing that is missing."""
    if usual.has(case):
        return "kept"
    listed = [line for line in usual.lines if f"/{case.path}:" in line]
    if everything.has(case):
        if any("--special" in line for line in listed):
            return "`--special`"
        assert "--privileged" in usual.said, f"{case.row}: dropped, and not counted:\n{usual.said}"
        return "`--privileged`"
    if listed:
        assert usual.is_partial
        return "listed"
    assert case.said, f"{case.row}: {case.path} is not what it was, and nothing was said:\n{usual.said}"
    assert case.said in usual.said, f"{case.row}: {usual.said!r} does not say {case.said!r}"
    return "said once"


def cell(case: trees.Case, usual: Restored, everything: Restored) -> str:
    """What became of a thing. Fails for what is gone without a word."""
    listed = usual.missed.get(f"/{case.path}", "")
    if usual.has(case):
        assert not listed or not case.content, f"{case.row}: there, and said to be missing: {listed}"
        return "kept"
    if everything.has(case):
        if "--special" in listed:
            return "`--special`"
        assert usual.dropped, f"{case.row}: dropped, and not counted"
        return "`--privileged`"
    if listed:
        if case.content:
            assert not (usual.root / case.path).exists(), f"{case.row}: half of it is there"
        return "listed"
    assert case.said, f"{case.row}: {case.path} is not what it was, and nothing was said"
    assert case.said in usual.not_kept, f"{case.row}: {usual.not_kept!r} does not say {case.said!r}"
    return "said once"


@pytest.mark.parametrize("kind", KINDS)
def test_c20_c21_c22_what_it_gives(site: Site, scratch: Path, tool: Tool, kind: str) -> None:
    require_mounting()
    image = scratch / "image"
    with filled(kind, image, scratch, tool) as cases:
        FILLERS[kind](cases)
        trees.root_directory(cases, kind)
    assert len(cases.cases) >= 6
    import_image(site, "g/v", image, "b", tool("nbdcopy"))
    options = ["--kernel-mount"] if kind == "XFS" else []
    usual = Restored(site, scratch / "usual", *options)
    everything = Restored(site, scratch / "everything", "--privileged", "--special", *options)
    archive = Archived(site, scratch / "archive", *options)
    whole_archive = Archived(site, scratch / "whole-archive", "--privileged", "--special", *options)
    found = {}
    for case in cases.cases:
        word, archived = cell(case, usual, everything), archive_cell(case, archive, whole_archive)
        found[case.row] = word if archived == word else f"{word}; archive: {archived}"
    assert len(found) == len(cases.cases)
    if os.environ.get("FARSHORE_WRITE_DOCS") == "1":
        write_column(kind, found)
    assert column(kind) == found


def table() -> dict[str, dict[str, str]]:
    """The page's table: columns by row."""
    rows: dict[str, dict[str, str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [each.strip() for each in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == len(KINDS) + 1 and not cells[0].startswith("-"):
            rows[cells[0]] = dict(zip(KINDS, cells[1:], strict=True))
    return rows


def column(kind: str) -> dict[str, str]:
    """What the page says of a kind."""
    return {row: cells[kind] for row, cells in table().items() if cells[kind] not in (NONE, kind)}


def write_column(kind: str, found: dict[str, str]) -> None:
    """Into the page, new rows at the end."""
    rows = {row: cells for row, cells in table().items() if row}
    for row in found:
        rows.setdefault(row, dict.fromkeys(KINDS, NONE))
    lines = ["| | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    for row, cells in rows.items():
        words = (cells | {kind: found.get(row, NONE)}).values()
        if set(words) != {NONE}:
            lines.append(f"| {row} | " + " | ".join(words) + " |")
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition("| | ")
    after = rest[rest.index("\n\n") :] if "\n\n" in rest else "\n"
    PAGE.write_text(before + "\n".join(lines) + after, encoding="utf-8")
