"""C50: what is encrypted with LUKS is read with a key from a file or a prompt, and not without."""

from __future__ import annotations

import os
import pty
import random
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from console.mounts.mounting import mounts
from protocol.errors import ExitCode
from tests.support.clients import MIB, succeed
from tests.support.encrypted import (
    FAST_ARGON,
    FAST_PBKDF2,
    PASSPHRASE,
    in_partition,
    key_file,
    luks1,
    luks2,
)
from tests.support.file_systems import import_image, make_ext
from tests.support.mounting import loop_device, mounted, require_mounting
from tests.support.sites import Site, farshore_command, running_sites

Tool = Callable[[str], str]
BIG = random.Random(5).randbytes(3 * MIB + 17)
PROMPT_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One site for the whole file."""
    with running_sites("a") as (one,):
        yield one
        assert one.stop() == 0
        one.check_log()


@pytest.fixture
def tree(scratch: Path) -> Path:
    root = scratch / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("secret plans\n")
    (root / "sub" / "big").write_bytes(BIG)
    os.link(root / "a.txt", root / "sub" / "hard")
    with (root / "sparse").open("wb") as file:
        file.seek(8 * MIB)
        file.write(b"end")
    return root


@pytest.fixture
def image(scratch: Path, tree: Path) -> Path:
    """ext4, in the clear."""
    return make_ext(scratch / "image", tree, "24M", "-b", "4096")


@pytest.fixture
def key(scratch: Path) -> Path:
    return key_file(scratch, PASSPHRASE)


def made_by(kind: str, image: Path, key: Path, tool: Tool) -> Path:
    match kind:
        case "LUKS1":
            return luks1(tool("cryptsetup"), image, key)
        case "LUKS1, CBC":
            return luks1(tool("cryptsetup"), image, key, "aes-cbc-essiv:sha256", 128)
        case "LUKS2":
            return luks2(tool("cryptsetup"), image, key, *FAST_ARGON)
        case "LUKS2, Argon2i":
            return luks2(tool("cryptsetup"), image, key, "--pbkdf", "argon2i", *FAST_ARGON)
        case "LUKS2, sectors of 4 KiB":
            return luks2(tool("cryptsetup"), image, key, *FAST_PBKDF2, "--sector-size", "4096")
        case "LUKS2, AES-128":
            return luks2(tool("cryptsetup"), image, key, *FAST_PBKDF2, "--key-size", "256")
        case _:
            inside = luks2(tool("cryptsetup"), image, key, *FAST_PBKDF2)
            return in_partition(inside, image.with_suffix(".disk"))


KINDS = (
    "LUKS1",
    "LUKS1, CBC",
    "LUKS2",
    "LUKS2, Argon2i",
    "LUKS2, sectors of 4 KiB",
    "LUKS2, AES-128",
    "LUKS2 in a partition",
)


@pytest.mark.parametrize("kind", KINDS)
def test_c50_files_of_an_encrypted_volume(
    site: Site, scratch: Path, tree: Path, image: Path, key: Path, tool: Tool, kind: str
) -> None:
    volume = f"k{KINDS.index(kind)}/v"
    import_image(site, volume, made_by(kind, image, key, tool), "b", tool("nbdcopy"))
    place = f"{volume}@b:/"

    refused = site.farshore("ls", place, exit_code=ExitCode.WRONG_STATE)
    assert "LUKS" in refused
    assert "--key-file" in refused

    wrong = key_file(scratch, b"wrong", "wrong")
    out = scratch / "out"
    words = ["restore", "files", volume, "--at", "b", "/", "--to", str(out)]
    for refused in (
        site.farshore(*words, "--key-file", str(wrong), exit_code=ExitCode.NOT_ALLOWED),
        site.farshore("cat", f"{place}a.txt", "--key-file", str(wrong), exit_code=ExitCode.NOT_ALLOWED),
    ):
        assert "does not open it" in refused
        assert "secret plans" not in refused
    assert not out.exists()

    with_key = ("--key-file", str(key))
    listed = site.json("ls", place, *with_key)
    assert listed["file_system"] == "ext4"
    assert site.farshore("cat", f"{place}a.txt", *with_key) == "secret plans\n"
    site.farshore(*words, *with_key)
    assert (out / "sub" / "big").read_bytes() == BIG
    assert (out / "a.txt").stat().st_ino == (out / "sub" / "hard").stat().st_ino
    assert (out / "sparse").stat().st_blocks * 512 < MIB
    assert (out / "sparse").read_bytes() == (tree / "sparse").read_bytes()


@pytest.fixture(scope="module")
def encrypted(site: Site, tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    """`e/v`, LUKS2 with ext4, and backup `b` of it; the key file."""
    scratch = tmp_path_factory.mktemp("encrypted")
    tree = scratch / "tree"
    tree.mkdir()
    (tree / "a.txt").write_text("secret plans\n")
    key = key_file(scratch)
    made = luks2(tool("cryptsetup"), make_ext(scratch / "image", tree, "24M"), key, *FAST_ARGON)
    import_image(site, "e/v", made, "b", tool("nbdcopy"))
    return key


def test_c50_a_key_file_that_others_can_read_is_refused(site: Site, encrypted: Path, scratch: Path) -> None:
    """Before anything is asked of the site; and so is none, an empty one, and a directory."""
    open_to_all = key_file(scratch, name="open")
    open_to_all.chmod(0o640)
    said = site.farshore("ls", "e/v@b:/", "--key-file", str(open_to_all), exit_code=ExitCode.NOT_ALLOWED)
    assert "0640" in said
    assert f"chmod 600 {open_to_all}" in said
    site.farshore("ls", "e/v@b:/", "--key-file", str(scratch / "none"), exit_code=ExitCode.NOT_FOUND)
    empty = key_file(scratch, b"", "empty")
    site.farshore("ls", "e/v@b:/", "--key-file", str(empty), exit_code=ExitCode.USAGE)
    site.farshore("ls", "e/v@b:/", "--key-file", str(scratch), exit_code=ExitCode.USAGE)


def test_c50_a_key_file_that_ends_with_a_newline(site: Site, encrypted: Path, scratch: Path) -> None:
    """As an editor and `echo` leave one."""
    key = key_file(scratch, PASSPHRASE + b"\n")
    assert site.farshore("cat", "e/v@b:/a.txt", "--key-file", str(key)) == "secret plans\n"


def test_c50_the_key_is_nowhere_but_in_its_file(site: Site, encrypted: Path) -> None:
    """No process has it in its words or environment; no log and no state of the site has it."""
    words = [
        *farshore_command(),
        "ls",
        "e/v@b:/",
        "--key-file",
        str(encrypted),
        "--site",
        str(site.directory),
    ]
    process = subprocess.Popen(words, env=site.environment(), stdout=subprocess.PIPE, text=True)
    seen = b""
    while process.poll() is None:
        for each in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    seen += (each / name).read_bytes()
                except OSError:
                    continue
    assert process.stdout is not None
    assert "a.txt" in process.stdout.read()
    assert b"console.luks.unlocker" in seen
    assert PASSPHRASE not in seen
    for file in site.directory.rglob("*"):
        if file.is_file() and file.suffix in {".log", ".toml", ".json"}:
            assert PASSPHRASE not in file.read_bytes()


def _typed(site: Site, typed: bytes, *words: str) -> tuple[int, bytes]:
    """What a command shows at a terminal where its prompt is answered; its exit code."""
    child, terminal = pty.fork()
    if not child:
        os.execvpe(
            farshore_command()[0],
            [*farshore_command(), *words, "--site", str(site.directory)],
            site.environment(),
        )
    said, answered = b"", False
    deadline = time.monotonic() + PROMPT_TIMEOUT_S
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        if not data:
            break
        said += data
        if b"passphrase of" in said and not answered:
            os.write(terminal, typed + b"\n")
            answered = True
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), said


@pytest.mark.usefixtures("encrypted")
def test_c50_the_passphrase_is_asked_for_at_a_terminal(site: Site) -> None:
    code, said = _typed(site, PASSPHRASE, "cat", "e/v@b:/a.txt")
    assert code == 0, said
    assert b"passphrase of e/v: " in said
    assert b"secret plans" in said
    assert PASSPHRASE not in said
    code, said = _typed(site, b"nonsense", "cat", "e/v@b:/a.txt")
    assert code == ExitCode.NOT_ALLOWED
    assert b"nonsense" not in said
    assert b"secret plans" not in said


def test_c50_the_newest_cut_with_a_file_and_its_versions(site: Site, encrypted: Path) -> None:
    with_key = ("--key-file", str(encrypted))
    assert site.json("files", "last", "e/v:/a.txt", *with_key)["name"]
    # At its oldest moment the volume was empty, which is no finding of a file's.
    said = site.farshore("files", "versions", "e/v:/a.txt", *with_key, exit_code=ExitCode.PARTIAL)
    assert "f " in said
    assert "now" in said
    wrong = key_file(encrypted.parent, b"wrong", "wrong2")
    site.farshore("files", "last", "e/v:/a.txt", "--key-file", str(wrong), exit_code=ExitCode.NOT_ALLOWED)


@pytest.mark.parametrize("writable", [False, True])
def test_c50_an_encrypted_volume_is_mounted(
    site: Site, encrypted: Path, scratch: Path, writable: bool
) -> None:
    """Without device mapper; what is written is encrypted, and there when it is mounted again. Nothing stays:
    no process, no clone, no socket."""
    require_mounting()
    point = scratch / "mnt"
    point.mkdir()
    before = _unlockers()
    with_key = ("--key-file", str(encrypted))
    site.farshore("mount", "e/v@b", str(point), exit_code=ExitCode.WRONG_STATE)
    assert not [each for each in mounts() if each.point == point]
    data = site.json("mount", "e/v@b", str(point), *with_key, *(["--writable"] if writable else []))
    try:
        assert data["filesystem"] == "ext4"
        assert (point / "a.txt").read_text() == "secret plans\n"
        if writable:
            (point / "new").write_bytes(BIG)
            succeed("sync", "--file-system", point)
            Path("/proc/sys/vm/drop_caches").write_text("1")
            assert (point / "new").read_bytes() == BIG
    finally:
        site.farshore("umount", str(point))
    deadline = time.monotonic() + PROMPT_TIMEOUT_S
    while _unlockers() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _unlockers() - before
    assert site.json("clone", "list")["clones"] == []


def _unlockers() -> set[str]:
    found = set()
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if b"console.luks.unlocker" in (each / "cmdline").read_bytes():
                found.add(each.name)
        except OSError:
            continue
    return found


def test_c50_the_log_of_an_encrypted_file_system_is_played_back(
    site: Site, encrypted: Path, scratch: Path, tool: Tool
) -> None:
    """A clone is mounted, a file is synced, and the cut is taken before it is unmounted."""
    require_mounting()
    point = scratch / "mnt"
    point.mkdir()
    with_key = ("--key-file", str(encrypted))
    site.farshore("volume", "create", "live/v", "--size", str(40 * MIB))
    whole = scratch / "whole"
    site.farshore("volume", "export", "e/v", str(whole), "--at", "b")
    site.farshore("volume", "import", str(whole), "live/v", "--confirm", "live/v")
    site.farshore("mount", "live/v", str(point), "--writable", *with_key)
    try:
        (point / "new").write_text("new")
        for name in ("new", "."):
            file = os.open(point / name, os.O_RDONLY)
            os.fsync(file)
            os.close(file)
        site.farshore("backup", "create", "live", "--label", "mounted")
    finally:
        site.farshore("umount", str(point))
    listed = site.json("ls", "live/v@mounted:/", *with_key)
    assert listed["replayed"]
    assert "/new" in [each["path"] for each in listed["entries"]]
    assert site.json("clone", "list")["clones"] == []


def test_c50_what_only_a_kernel_reads(site: Site, scratch: Path, key: Path, tool: Tool) -> None:
    """XFS inside LUKS, by `--kernel-mount`, with its log played back, its hard links and its holes."""
    require_mounting()
    image, point = scratch / "xfs", scratch / "out"
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    succeed(tool("mkfs.xfs"), "-q", image)
    with loop_device(tool("losetup"), image) as device, mounted(device, scratch) as root:
        (root / "a").write_text("secret plans\n")
        os.link(root / "a", root / "b")
        with (root / "sparse").open("wb") as file:
            file.truncate(64 * MIB)
    import_image(site, "x/v", luks2(tool("cryptsetup"), image, key, *FAST_PBKDF2), "b", tool("nbdcopy"))
    words = ["restore", "files", "x/v", "--at", "b", "/", "--to", str(point), "--kernel-mount"]
    site.farshore(*words, exit_code=ExitCode.WRONG_STATE)
    assert not point.exists()
    restored = site.json(*words, "--key-file", str(key))
    assert (restored["files"], restored["links"], restored["missed"]) == (2, 1, [])
    assert (point / "a").stat().st_ino == (point / "b").stat().st_ino
    assert (point / "sparse").stat().st_blocks == 0
    assert site.json("clone", "list")["clones"] == []


def test_c50_a_drill_of_an_encrypted_volume(site: Site, encrypted: Path) -> None:
    require_mounting()
    words = [
        "drill",
        "run",
        "e",
        "--at",
        "b",
        "--check",
        "grep -q plans $FARSHORE_MOUNT/a.txt",
        "--no-digest",
    ]
    data = site.json(*words, "--key-file", str(encrypted))
    steps = {step["step"]: step["state"] for step in data["steps"]}
    assert (steps["unlock"], steps["mount"], steps["check"]) == ("ok", "ok", "ok")
    wrong = key_file(encrypted.parent, b"wrong", "wrong")
    site.farshore(*words, "--key-file", str(wrong), exit_code=ExitCode.NOT_ALLOWED)
    assert site.json("clone", "list")["clones"] == []


def test_c50_a_damaged_header_is_named(site: Site, scratch: Path, encrypted: Path, tool: Tool) -> None:
    """One of the two is enough; without both the error says so, whatever the key."""
    made = scratch / "damaged"
    site.farshore("volume", "export", "e/v", str(made), "--at", "b")
    with made.open("r+b") as file:
        file.seek(4096)
        file.write(b"X" * 100)
    import_image(site, "d1/v", made, "b", tool("nbdcopy"))
    assert site.farshore("cat", "d1/v@b:/a.txt", "--key-file", str(encrypted)) == "secret plans\n"
    with made.open("r+b") as file:
        file.seek(16384 + 4096)
        file.write(b"X" * 100)
    import_image(site, "d2/v", made, "b", tool("nbdcopy"))
    said = site.farshore("ls", "d2/v@b:/", "--key-file", str(encrypted), exit_code=ExitCode.WRONG_STATE)
    assert "both of its LUKS2 headers are damaged" in said


def test_c50_a_bisection_of_an_encrypted_volume(site: Site, encrypted: Path, scratch: Path) -> None:
    """The file goes between two cuts; a wrong key is an error, and no bad cut."""
    require_mounting()
    point = scratch / "mnt"
    point.mkdir()
    whole = scratch / "whole"
    with_key = ("--key-file", str(encrypted))
    site.farshore("volume", "export", "e/v", str(whole), "--at", "b")
    site.farshore("volume", "import", str(whole), "bi/v")
    site.farshore("backup", "create", "bi", "--label", "good")
    site.farshore("mount", "bi/v", str(point), "--writable", *with_key)
    try:
        (point / "a.txt").unlink()
    finally:
        site.farshore("umount", str(point))
    site.farshore("backup", "create", "bi", "--label", "bad")
    check = "test -f $FARSHORE_MOUNT/a.txt"
    words = ["bisect", "bi/v", "--good", "good", "--bad", "bad", "--check", check]
    wrong = key_file(scratch, b"wrong", "wrong")
    site.farshore(*words, "--key-file", str(wrong), exit_code=ExitCode.NOT_ALLOWED)
    assert site.json(*words, *with_key)["frame"]
    assert site.json("clone", "list")["clones"] == []
