"""File systems made to hurt whoever restores from them: nothing lands outside the target, the daemon lives,
and the files that are whole still come."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import succeed
from tests.support.file_systems import (
    PLAIN,
    debugfs,
    import_image,
    inode_at,
    make_ext,
    replace_bytes,
    write_at,
)
from tests.support.mounting import require_mounting
from tests.support.sites import Site, running_sites, short_directory

Tool = Callable[[str], str]
FULL = os.environ.get("FARSHORE_FULL") == "1"
GOOD = b"still here"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One daemon that must outlive every image here."""
    with running_sites("a") as (one,):
        yield one
        assert one.stop() == 0
        one.check_log()


class Attacked:
    """A target directory inside another one, where everything that gets out would be seen."""

    def __init__(self, site: Site, scratch: Path, nbdcopy: str) -> None:
        self.tree = scratch / "tree"
        self.tree.mkdir()
        (self.tree / "good").write_bytes(GOOD)
        self.image = scratch / "image"
        self.outer = short_directory()
        self.target = self.outer / "target"
        (self.outer / "secret").write_text("secret")
        self._site = site
        self._nbdcopy = nbdcopy

    def restore(self, *options: str) -> Any:
        """Everything of the image; the command's data. Fails if anything is outside the target afterwards."""
        group = f"g{random.SystemRandom().getrandbits(32)}"
        import_image(self._site, f"{group}/v", self.image, "b", self._nbdcopy)
        before = self._site.pid
        words = ["restore", "files", f"{group}/v", "--at", "b", "/", "--to", str(self.target), *options]
        done = self._site.run(*words, "--json")
        assert done.returncode in (0, 3), done.stdout + done.stderr
        self.check_outside()
        assert self._site.pid == before
        lines = done.stdout.strip().splitlines()
        return json.loads(lines[-1])["data"] | {"exit_code": done.returncode}

    def check_outside(self) -> None:
        """The outer directory holds what it held; no file in the target is one of outside by a link."""
        assert sorted(os.listdir(self.outer)) == ["secret", "target"]
        assert (self.outer / "secret").read_text() == "secret"
        assert (self.outer / "secret").stat().st_nlink == 1
        assert (self.target / "good").read_bytes() == GOOD


@pytest.fixture
def attacked(site: Site, scratch: Path, tool: Tool) -> Attacked:
    """An honest tree to begin with."""
    return Attacked(site, scratch, tool("nbdcopy"))


def missed(data: Any) -> dict[str, str]:
    """Why, by path."""
    return {row["path"]: row["why"] for row in data["missed"]}


def test_links_are_made_and_not_followed(attacked: Attacked) -> None:
    """A link `door` to the outside, and a directory of the same name with a file for it."""
    (attacked.tree / "shadow").symlink_to("/etc/shadow")
    (attacked.tree / "door").symlink_to("..")
    (attacked.tree / "doop").mkdir()
    (attacked.tree / "doop" / "secret").write_text("planted")
    make_ext(attacked.image, attacked.tree, "8M", "-O", PLAIN)
    replace_bytes(attacked.image, b"doop", b"door")
    data = attacked.restore()
    assert (attacked.target / "shadow").is_symlink()
    assert os.readlink(attacked.target / "shadow") == "/etc/shadow"
    assert missed(data)["/door"] == "a name that is there twice"
    assert data["exit_code"] == 3


def test_a_link_where_a_directory_is_to_be(attacked: Attacked) -> None:
    """The target has a link already (of an earlier restore, say): nothing goes through it."""
    (attacked.tree / "door").mkdir()
    (attacked.tree / "door" / "secret").write_text("planted")
    make_ext(attacked.image, attacked.tree, "8M", "-O", PLAIN)
    attacked.target.mkdir()
    (attacked.target / "door").symlink_to("..")
    data = attacked.restore()
    assert set(missed(data)) == {"/door", "/door/secret"}


def test_names_that_are_none(attacked: Attacked) -> None:
    """Names of ten bytes are replaced by others, of files and of directories. (What follows a NUL is no part
    of a name to pytsk3.)"""
    names = [b"../planted", b"/tmp/plant", b"sub/../../", b"..", b"."]
    (attacked.tree / "sub").mkdir()
    for number in range(len(names)):
        (attacked.tree / f"filefile-{number}").write_text("planted")
        (attacked.tree / f"dirdirdi-{number}").mkdir()
        (attacked.tree / f"dirdirdi-{number}" / "secret").write_text("planted")
    make_ext(attacked.image, attacked.tree, "8M", "-O", PLAIN)
    for number, name in enumerate(names):
        for kind, old in ((1, b"filefile-%d" % number), (2, b"dirdirdi-%d" % number)):
            at = attacked.image.read_bytes().index(bytes([len(old), kind]) + old)
            write_at(attacked.image, at, bytes([len(name), kind]) + name)
    data = attacked.restore()
    assert sorted(os.listdir(attacked.target)) == ["good", "lost+found", "sub"]
    assert data["files"] == 1
    assert len(data["missed"]) == 6


def test_circles(attacked: Attacked) -> None:
    """A directory that is its own grandchild."""
    (attacked.tree / "one" / "two").mkdir(parents=True)
    (attacked.tree / "one" / "file").write_text("1")
    make_ext(attacked.image, attacked.tree, "8M", "-O", PLAIN)
    debugfs(attacked.image, "link one one/two/again", "link / one/root")
    data = attacked.restore()
    why = "this directory was met before: it leads in a circle"
    assert missed(data) == {"/one/root": why, "/one/two/again": why}
    assert (attacked.target / "one" / "file").read_text() == "1"


def test_many_entries(attacked: Attacked) -> None:
    """100,000 names in one directory; by default fewer."""
    count = 100_000 if FULL else 3_000
    make_ext(attacked.image, attacked.tree, "96M", "-N", str(count + 1000))
    # By the kernel: mke2fs reads a directory anew for each name that it adds.
    require_mounting()
    point = attacked.outer.with_suffix(".mnt")
    point.mkdir()
    succeed("mount", "-o", "loop", attacked.image, point)
    try:
        (point / "crowd").mkdir()
        for number in range(count):
            (point / "crowd" / f"{number:06}").symlink_to("/etc/shadow")
    finally:
        succeed("umount", point)
        point.rmdir()
    data = attacked.restore()
    assert data["links"] == count
    assert len(os.listdir(attacked.target / "crowd")) == count


def test_a_damaged_inode_table(attacked: Attacked) -> None:
    """A block of inodes is garbage: what they named is reported, the rest comes."""
    for number in range(200):
        (attacked.tree / f"file{number:03}").write_bytes(b"%d" % number)
    make_ext(attacked.image, attacked.tree, "8M", "-O", PLAIN, "-I", "256", "-b", "1024")
    block, _ = inode_at(attacked.image, "/file100")
    assert inode_at(attacked.image, "/good")[0] != block
    write_at(attacked.image, block * 1024, random.Random(3).randbytes(1024))
    data = attacked.restore()
    whole = [n for n in range(200) if (attacked.target / f"file{n:03}").exists()]
    # Four inodes of 256 bytes lie in a block.
    assert len(whole) >= 196
    assert data["exit_code"] == 3
    right = [n for n in whole if (attacked.target / f"file{n:03}").read_bytes() == b"%d" % n]
    assert len(right) >= 196


def test_files_of_absurd_sizes(attacked: Attacked) -> None:
    """A size field of 2^60 bytes, which no file system takes; and one of a terabyte, which is all hole."""
    (attacked.tree / "huge").write_text("h")
    (attacked.tree / "large").write_text("l")
    make_ext(attacked.image, attacked.tree, "8M", "-O", PLAIN)
    debugfs(attacked.image, f"sif huge size {1 << 60}", f"sif large size {1 << 40}")
    data = attacked.restore()
    assert not (attacked.target / "huge").exists() or (attacked.target / "huge").stat().st_blocks < 64
    assert (attacked.target / "large").stat().st_blocks < 64
    assert data["bytes"] < 1 << 20


def test_terminal_codes_in_names(attacked: Attacked, site: Site) -> None:
    (attacked.tree / "evil\x1b[2J\x07").write_text("e")
    make_ext(attacked.image, attacked.tree, "8M")
    import_image(site, "codes/v", attacked.image, "b", "nbdcopy")
    listed = site.farshore("ls", "-l", "codes/v@b:/")
    assert r"evil\x1b[2J\x07" in listed
    assert "\x1b" not in listed


@pytest.mark.parametrize("seed", range(200 if FULL else 3))
def test_random_damage(attacked: Attacked, seed: int) -> None:
    """Bytes of the metadata changed at random: whatever it becomes, nothing gets out and nothing hangs."""
    rng = random.Random(seed)
    for number in range(40):
        (attacked.tree / f"d{number % 5}").mkdir(exist_ok=True)
        (attacked.tree / f"d{number % 5}" / f"f{number}").write_bytes(rng.randbytes(rng.randrange(20_000)))
        (attacked.tree / f"l{number}").symlink_to(f"../{number}")
    make_ext(attacked.image, attacked.tree, "4M", "-O", PLAIN, "-b", "1024")
    good = inode_at(attacked.image, "/good")[0]
    used = [n for n in range(good - 8, good + 200) if n not in (good,)]
    for _ in range(300):
        write_at(attacked.image, rng.choice(used) * 1024 + rng.randrange(1024), bytes([rng.randrange(256)]))
    import_image(attacked._site, f"r{seed}/v", attacked.image, "b", "nbdcopy")
    done = attacked._site.run(
        "restore", "files", f"r{seed}/v", "--at", "b", "/", "--to", str(attacked.target)
    )
    assert done.returncode in (0, 1, 3), done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(attacked.outer)) in (["secret", "target"], ["secret"])
    assert (attacked.outer / "secret").stat().st_nlink == 1
    succeed("rm", "-rf", attacked.outer)
