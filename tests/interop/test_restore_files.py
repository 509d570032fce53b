"""Files out of real file systems in volumes: what comes is what was put in, with all that it is."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.errors import ExitCode
from tests.support.clients import succeed
from tests.support.file_systems import import_image, make_ext
from tests.support.mounting import loop_device, require_mounting
from tests.support.sites import Site, farshore_command

MIB = 1 << 20
Tool = Callable[[str], str]


@pytest.fixture
def tree(scratch: Path) -> Path:
    """Names, kinds, holes, times, owners and attributes that a restore must keep."""
    root = scratch / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "a.txt").write_text("hello\n")
    (root / "sub" / "big").write_bytes(random.Random(1).randbytes(3 * MIB + 17))
    (root / "empty").touch()
    (root / "umläut").write_text("x")
    Path(os.fsdecode(os.fsencode(root) + b"/bad\xff\xfe")).write_text("y")
    (root / "two\nlines").write_text("z")
    with (root / "sparse").open("wb") as file:
        file.seek(10 * MIB)
        file.write(b"middle" * 1000)
        file.truncate(20 * MIB)
    os.link(root / "a.txt", root / "sub" / "hard")
    (root / "link").symlink_to("/etc/shadow")
    (root / "long").symlink_to("x" * 200)
    os.mkfifo(root / "pipe")
    os.setxattr(root / "a.txt", "user.colour", b"blue\0\xff")
    os.setxattr(root / "sub" / "big", "user.long", b"v" * 900)
    (root / "sub" / "big").chmod(0o4750)
    os.utime(root / "sub" / "big", (981173106, 981173107))
    os.utime(root / "sub", (981173106, 981173108))
    return root


def facts(root: Path) -> dict[bytes, tuple[object, ...]]:
    """What there is to compare, by path; without what mke2fs adds, pipes, and the time of reading."""
    found: dict[bytes, tuple[object, ...]] = {}
    for directory, directories, files in os.walk(os.fsencode(root)):
        for name in [*directories, *files]:
            path = os.path.join(directory, name)
            if name in (b"lost+found", b"pipe"):
                continue
            status = os.lstat(path)
            content: object = None
            attributes: object = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = Path(os.fsdecode(path)).read_bytes()
                attributes = sorted((each, os.getxattr(path, each)) for each in os.listxattr(path))
            links = status.st_nlink if not os.path.isdir(path) else 0
            times = (status.st_mtime_ns // 10**9,)
            key = os.path.relpath(path, os.fsencode(root))
            found[key] = (status.st_mode, status.st_uid, status.st_gid, links, *times, content, attributes)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_ext(site: Site, scratch: Path, tree: Path, tool: Tool, kind: str) -> None:
    os.chown(tree / "a.txt", 1000, 1001)
    os.chown(tree / "link", 1002, 1003, follow_symlinks=False)
    image = make_ext(scratch / "image", tree, "64M", kind=kind)
    import_image(site, "g/v", image, "b", tool("nbdcopy"))

    out = scratch / "out"
    words = ["restore", "files", "g/v", "--at", "b", "/", "--privileged"]
    site.farshore(*words, "--to", str(out), exit_code=3)
    assert facts(out) == facts(tree)
    assert (out / "sparse").stat().st_blocks * 512 < MIB
    assert (out / "a.txt").stat().st_ino == (out / "sub" / "hard").stat().st_ino

    # Every path once more as tar, unpacked by GNU tar.
    archive = scratch / "out.tar"
    words += ["--special", "--to", "-"]
    with archive.open("wb") as file:
        subprocess.run(
            [*farshore_command(), *words, "--site", str(site.directory)],
            stdout=file,
            env=site.environment(),
            check=True,
            timeout=60,
        )
    assert archive.stat().st_size < 8 * MIB
    unpacked = scratch / "unpacked"
    unpacked.mkdir()
    succeed("tar", "-C", unpacked, "--xattrs", "-xpf", archive)
    assert facts(unpacked) == facts(tree)
    assert (unpacked / "sparse").stat().st_blocks * 512 < MIB
    with tarfile.open(archive) as read:
        assert read.getmember("pipe").isfifo()


def test_ls_and_cat(site: Site, scratch: Path, tree: Path, tool: Tool) -> None:
    import_image(site, "g/v", make_ext(scratch / "image", tree, "64M"), "b", tool("nbdcopy"))
    names = site.farshore("ls", "g/v@b:/").splitlines()
    assert [name for name in names if name != "lost+found/"] == [
        "a.txt", r"bad\xff\xfe", "empty", "link", "long", "pipe", "sparse", "sub/", r"two\nlines", "umläut",
    ]  # fmt: skip
    (line,) = site.farshore("ls", "-l", "g/v@b:/sub/big").splitlines()
    assert line.startswith("-rwsr-x---")
    assert line.endswith(" big")
    assert f" {3 * MIB + 17} " in line
    listed = site.json("ls", "--recursive", "g/v@b:/")
    assert listed["file_system"] == "ext4"
    assert not listed["replayed"]
    by_path = {entry["path"]: entry for entry in listed["entries"]}
    assert by_path["/link"]["target"] == "/etc/shadow"
    assert by_path["/sub/hard"]["number"] == by_path["/a.txt"]["number"]
    assert [entry["path_bytes"] for entry in listed["entries"] if "path_bytes" in entry] == [
        b"/bad\xff\xfe".hex()
    ]
    assert site.farshore("cat", "g/v@b:/a.txt") == "hello\n"
    words = [*farshore_command(), "cat", "g/v@b:/sparse", "--site", str(site.directory)]
    done = subprocess.run(words, stdout=subprocess.PIPE, env=site.environment(), check=True, timeout=60)
    assert done.stdout == (tree / "sparse").read_bytes()
    assert "links are not followed" in site.farshore("cat", "g/v@b:/link/x", exit_code=10)
    assert "there is no /sub/nope" in site.farshore("cat", "g/v@b:/sub/nope", exit_code=10)
    assert site.farshore("cat", "g/v:/a.txt") == "hello\n"  # the newest moment
    site.farshore("ls", "g/v@b:/sub/../a.txt", exit_code=2)


def test_nothing_that_is_there_is_overwritten(site: Site, scratch: Path, tree: Path, tool: Tool) -> None:
    import_image(site, "g/v", make_ext(scratch / "image", tree, "64M"), "b", tool("nbdcopy"))
    out = scratch / "out"
    outside = scratch / "outside"
    outside.mkdir()
    out.mkdir()
    (out / "a.txt").write_text("mine")
    (out / "sub").symlink_to(outside)
    data = site.run("restore", "files", "g/v", "--at", "b", "/a.txt", "/sub", "/umläut", "--to", str(out))
    assert data.returncode == 3
    assert (out / "a.txt").read_text() == "mine"
    assert list(outside.iterdir()) == []
    assert (out / "umläut").read_text() == "x"
    assert "/a.txt: File exists" in data.stderr


@pytest.mark.parametrize("kind", ["vfat", "exfat", "ntfs"])
def test_other_file_systems(site: Site, scratch: Path, tool: Tool, kind: str) -> None:
    """Filled through the kernel or by the file system's own tool, in the second of two partitions."""
    image = scratch / "image"
    part = scratch / "part"
    content = random.Random(2).randbytes(2 * MIB + 5)
    (scratch / "content").write_bytes(content)
    with part.open("wb") as file:
        file.truncate(48 * MIB)
    match kind:
        case "ntfs":
            succeed(tool("mkntfs"), "-q", "-F", part)
            succeed(tool("ntfscp"), "-f", part, scratch / "content", "Content.bin")
        case "vfat":
            succeed(tool("mkfs.vfat"), "-n", "LABEL", part)
            succeed(tool("mcopy"), "-i", part, scratch / "content", "::Content.bin")
        case "exfat":
            succeed(tool("mkfs.exfat"), part)
            fill_exfat(tool, part, scratch, content)
    with image.open("wb") as file:
        file.truncate(96 * MIB)
    succeed(
        tool("parted"),
        "-s",
        image,
        "mklabel",
        "gpt",
        "mkpart",
        "a",
        "1MiB",
        "40MiB",
        "mkpart",
        "b",
        "40MiB",
        "90MiB",
    )
    with image.open("r+b") as file:
        file.seek(40 * MIB)
        file.write(part.read_bytes())
    import_image(site, "g/v", image, "b", tool("nbdcopy"))
    assert "Content.bin" in site.farshore("ls", "g/v@b:/")
    out = scratch / "out"
    site.farshore("restore", "files", "g/v", "--at", "b", "/content.BIN", "--to", str(out))
    assert (out / "Content.bin").read_bytes() == content
    assert site.json("ls", "g/v@b:/", "--partition", "2")["entries"]
    assert "no partition 3" in site.farshore("ls", "g/v@b:/", "--partition", "3", exit_code=2)


def fill_exfat(tool: Tool, image: Path, scratch: Path, content: bytes) -> None:
    """Through FUSE, from a loop device: no tool writes files into it otherwise."""
    require_mounting()
    point = scratch / "point"
    point.mkdir()
    with loop_device(tool("losetup"), image) as device:
        succeed(tool("mount.exfat-fuse"), device, point)
        try:
            (point / "Content.bin").write_bytes(content)
        finally:
            succeed("umount", point)


def test_last(site: Site, scratch: Path, tool: Tool) -> None:
    """A file that is gone is found at the last cut before that, though no backup shows it; as nobody."""
    root = scratch / "tree"
    root.mkdir()
    image = scratch / "image"
    uri = site.create_volume("g/v", "8M")

    def written(label: str, *names: str) -> None:
        for name in ("always", "gone", "between"):
            (root / name).unlink(missing_ok=True)
        for name in names:
            (root / name).write_text(f"{name} in {label}")
        image.unlink(missing_ok=True)
        succeed(tool("nbdcopy"), "--flush", make_ext(image, root, "8M"), uri)
        site.farshore("backup", "create", "g", "--label", label)

    written("first", "always", "gone")
    written("second", "always")
    written("third", "always")
    there = site.json("files", "last", "g/v:/always")
    assert (there["name"], there["without"], there["exact"]) == ("now", None, True)
    gone = site.json("files", "last", "g/v:/gone")
    cuts = {each["label"]: each["cut"]["position"] for each in site.json("backup", "list")["backups"]}
    assert cuts["first"] <= gone["cut"]["position"] < gone["without"]["position"] <= cuts["second"]
    assert gone["exact"]
    assert gone["size_bytes"] == len("gone in first")
    # The cut and the one after it: it is in the one, and not in the other.
    cat = ["cat", f"g/v@{gone['cut']['text']}:/gone", "--no-replay"]
    assert site.run(*cat).stdout == "gone in first"
    assert site.run("cat", f"g/v@{gone['without']['text']}:/gone", "--no-replay").returncode != 0
    restore = gone["restore"].replace(f"--site {site.name} ", "")
    assert restore == f"farshore restore files g/v --at {gone['cut']['text']} /gone --to ."
    never = site.run("files", "last", "g/v:/never")
    assert never.returncode == ExitCode.NOT_FOUND
    assert "farshore files versions g/v:/never" in never.stderr.replace(f"--site {site.name} ", "")


def test_versions(site: Site, scratch: Path, tool: Tool) -> None:
    """Absent, there, the same, touched only, and changed: three versions."""
    root = scratch / "tree"
    root.mkdir()
    image = scratch / "image"
    uri = site.create_volume("g/v", "8M")
    nbdcopy = tool("nbdcopy")
    for label, text, mtime in (
        ("none", None, 0), ("b1", "one", 1), ("b2", "one", 1), ("touched", "one", 9), ("b3", "two", 10),
    ):  # fmt: skip
        if text is not None:
            (root / "file").write_text(text)
            os.utime(root / "file", (mtime, mtime))
        image.unlink(missing_ok=True)
        succeed(nbdcopy, "--flush", make_ext(image, root, "8M"), uri)
        site.farshore("backup", "create", "g", "--label", label)
    data = site.run("files", "versions", "g/v:/file", "--json")
    found = json.loads(data.stdout.strip().splitlines()[-1])["data"]
    names = [[cut["name"] for cut in version["cuts"]] for version in found["versions"]]
    assert names == [["none"], ["b1", "b2", "touched"], ["b3", "now"]]
    assert [version["size_bytes"] for version in found["versions"]] == [None, 3, 3]
    # At the oldest moment the volume was empty: said, and no reason to keep the rest back.
    assert data.returncode == 3
    assert [each["cut"] for each in found["failed"]] == ["oldest"]
