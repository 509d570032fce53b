"""What a volume's root could do is not restored unless asked for (C13), and what is left out is counted."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from pathlib import Path as FilePath

import pytest

from console.files.rights import Dropped, Rights, grant
from console.files.tar_acl import acl_text
from console.files.to_directory import DirectoryTarget, Outcome
from console.files.to_tar import TarTarget
from console.files.walk import Item, walk
from tests.support.special_files import ACL, CAPABILITY
from tests.unit.console.files.test_to_directory import Lies, entry

ATTRIBUTES = (
    (b"user.colour", b"blue"),
    (b"security.capability", CAPABILITY),
    (b"security.mine", b"x"),
    (b"trusted.mine", b"y"),
    (b"system.posix_acl_access", ACL),
)
HOSTILE = Lies(
    {
        2: [
            entry(b"door", number=5, mode=0o6770, attributes=ATTRIBUTES),
            entry(b"disk", "b", 6, major=8, mode=0o666),
            entry(b"link", "l", 7, target=b"x", attributes=((b"trusted.mine", b"z"),)),
            entry(b"sub", "d", 8, mode=0o2777),
        ],
        8: [],
    },
    {5: b"content"},
)
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="root only")


def restored(target: FilePath, rights: Rights) -> Outcome:
    made = DirectoryTarget(str(target), HOSTILE, rights)
    made.take(walk(HOSTILE, Item(path=(), entry=HOSTILE.root())))
    made.finish()
    made.close()
    return made.outcome


@ROOT_ONLY
def test_c13_as_root_without_options(tmp_path: FilePath) -> None:
    target = tmp_path / "new"
    outcome = restored(target, Rights(owner=True, special=False, privileged=False))
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert stat.S_IMODE((target / "door").stat().st_mode) == 0o770
    assert sorted(os.listxattr(target / "door")) == ["system.posix_acl_access", "user.colour"]
    assert stat.S_IMODE((target / "sub").stat().st_mode) == 0o777
    assert not (target / "disk").exists()
    assert outcome.dropped == Dropped(set_id=2, capabilities=1, attributes=3)
    assert [(each.path, each.why) for each in outcome.missed] == [
        ((b"disk",), "a device or a pipe: add --special")
    ]
    assert outcome.dropped.text() == "2 set-id bits, 1 file capabilities, 3 attributes"


@ROOT_ONLY
def test_c13_c22_as_root_with_everything(tmp_path: FilePath) -> None:
    target = tmp_path / "new"
    outcome = restored(target, Rights(owner=True, special=True, privileged=True))
    assert stat.S_IMODE((target / "door").stat().st_mode) == 0o6770
    assert {os.fsencode(name) for name in os.listxattr(target / "door")} == {name for name, _ in ATTRIBUTES}
    assert os.getxattr(target / "link", "trusted.mine", follow_symlinks=False) == b"z"
    assert stat.S_ISBLK((target / "disk").stat().st_mode)
    assert outcome.dropped == Dropped()
    assert outcome.missed == []


@pytest.mark.parametrize("privileged", [False, True])
def test_who_gives_no_owners_gives_no_rights(privileged: bool) -> None:
    dropped = Dropped()
    rights = Rights(owner=False, special=True, privileged=privileged)
    granted = grant(entry(b"a", mode=0o7755, attributes=ATTRIBUTES), rights, dropped)
    assert granted.mode == 0o1755
    assert [name for name, _ in granted.attributes] == [b"user.colour"]
    assert dropped == Dropped(set_id=1, capabilities=1, attributes=3)


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: FilePath) -> None:
    (tmp_path / "there").mkdir(mode=0o750)
    restored(tmp_path / "there", Rights(owner=False, special=False, privileged=False))
    assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o750


@ROOT_ONLY
@pytest.mark.parametrize("privileged", [False, True])
def test_c13_in_an_archive(tmp_path: FilePath, privileged: bool) -> None:
    """Unpacked by GNU tar, as root, with everything that it can restore."""
    out = io.BytesIO()
    made = TarTarget(out, HOSTILE, special=False, privileged=privileged)
    made.take(walk(HOSTILE, Item(path=(), entry=HOSTILE.root())))
    made.finish()
    words = ["tar", "-C", str(tmp_path), "--acls", "--xattrs", "--xattrs-include=*", "-xpf", "-"]
    subprocess.run(words, input=out.getvalue(), check=True, timeout=60)
    names = set(os.listxattr(tmp_path / "door"))
    root_only = {"security.capability", "security.mine", "trusted.mine"}
    assert names & root_only == (root_only if privileged else set())
    assert os.getxattr(tmp_path / "door", "system.posix_acl_access") == ACL
    assert stat.S_IMODE((tmp_path / "door").stat().st_mode) == (0o6770 if privileged else 0o770)
    assert (made.outcome.dropped == Dropped()) is privileged


def test_access_lists_as_text() -> None:
    assert acl_text(ACL) == "user::rwx,user:1234:r-x,group::r--,mask::rwx,other::---"
    for broken in (b"", ACL[:-1], b"\3" + ACL[1:], ACL[:4] + b"\7" + ACL[5:]):
        assert acl_text(broken) is None


def test_c21_a_time_that_cannot_be_kept_is_said(tmp_path: FilePath) -> None:
    """No file system here counts to the year 2554."""
    source = Lies({2: [entry(b"late", number=5, mtime_ns=(1 << 64) - 1)]}, {5: b"x"})
    made = DirectoryTarget(str(tmp_path / "t"), source, Rights(owner=False, special=False, privileged=False))
    made.take(walk(source, Item(path=(), entry=source.root())))
    made.close()
    assert [each.why for each in made.outcome.missed] == [
        "came without its time, which the target's file system cannot hold"
    ]
