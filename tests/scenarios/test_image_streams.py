"""Images by standard input and output, and imports that end early (C49)."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from protocol.errors import ExitCode
from tests.support.clients import MIB, patchy_image
from tests.support.oracle import content
from tests.support.sites import Site

SIZE = 8 * MIB
PATIENCE_S = 60


class Console:
    """`farshore` at a site with pipes, in a directory of its own."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.site, self.directory = site, directory
        directory.mkdir()

    def begun(self, *words: str) -> subprocess.Popen[bytes]:
        # A shell's background job has Ctrl-C ignored, and so have its children.
        return subprocess.Popen(
            ["env", "--default-signal=INT", *self.site.command(), *words, "--site", str(self.site.directory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=self.directory, env=self.site.environment(),
        )  # fmt: skip

    def done(self, *words: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        with self.begun(*words) as process:
            out, err = process.communicate(stdin, timeout=120)
        assert b"Traceback" not in err
        return process.returncode, out, err.decode()


def await_closed(site: Site, volume: str) -> None:
    """Until an import has begun to write."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        done = site.run("volume", "show", volume)
        if "only a part of an image" in done.stdout:
            return
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(0.1)


def test_c49_a_dash_is_a_stream(site: Site, scratch: Path) -> None:
    console = Console(site, scratch / "cwd")
    raw = patchy_image(scratch / "disk.img", SIZE, seed=1).read_bytes()
    # With a size it goes straight into the volume, without one over a file.
    sizes: dict[str, tuple[str, ...]] = {"g/straight": ("--size", "8M"), "g/kept": ()}
    for volume, size in sizes.items():
        code, _, err = console.done("volume", "import", "-", volume, *size, stdin=raw)
        assert code == 0, err
        assert content(site, volume) == raw
    code, out, err = console.done("volume", "export", "g/kept", "-")
    assert code == 0, err
    assert out == raw
    assert site.json("volume", "export", "g/kept", str(scratch / "file.img"))["digest"] in err
    for words in (("--format", "vmdk"), ("--json",)):
        code, out, err = console.done("volume", "export", "g/kept", "-", *words)
        assert code == ExitCode.USAGE, err
    with (scratch / "holes.img").open("wb") as sparse:
        export = [*site.command(), "volume", "export", "g/kept", "-", "--site", str(site.directory)]
        subprocess.run(export, stdout=sparse, check=True, timeout=120, env=site.environment())
    assert (scratch / "holes.img").read_bytes() == raw
    assert (scratch / "holes.img").stat().st_blocks * 512 < SIZE
    assert os.listdir(console.directory) == [], "a file named -"


def test_c49_a_pipe_that_ends_early_leaves_a_closed_volume(site: Site, scratch: Path) -> None:
    """Which a whole import opens, and before that a restore takes back."""
    console = Console(site, scratch / "cwd")
    raw = os.urandom(SIZE)
    assert console.done("volume", "import", "-", "g/v", "--size", "8M", stdin=raw)[0] == 0
    words = ("volume", "import", "-", "g/v", "--size", "8M", "--confirm", "g/v")
    code, _, err = console.done(*words, stdin=raw[: SIZE // 2][::-1])
    assert code == ExitCode.FAILED
    assert "only a part of the 8388608 bytes" in err
    assert "is closed to hosts" in err
    assert not site.json("volume", "show", "g/v")["online"]
    site.farshore("volume", "online", "g/v", exit_code=ExitCode.WRONG_STATE)
    undo = re.search("^undo: farshore (.*)$", err, re.MULTILINE)
    assert undo is not None, err
    site.farshore(*shlex.split(undo[1]), site="--site" not in undo[1])
    site.farshore("volume", "online", "g/v")
    assert content(site, "g/v") == raw


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_c49_an_import_that_is_killed_leaves_a_closed_volume(
    site: Site, scratch: Path, number: signal.Signals
) -> None:
    """Also for a daemon that starts again; doing it once more makes it whole."""
    console = Console(site, scratch / "cwd")
    raw = os.urandom(SIZE)
    with console.begun("volume", "import", "-", "g/v", "--size", "8M") as process:
        assert process.stdin is not None
        process.stdin.write(raw[: SIZE // 2])
        process.stdin.flush()
        await_closed(site, "g/v")
        process.send_signal(number)
        process.wait(60)
        _, err = process.communicate()
    assert process.returncode == (-9 if number is signal.SIGKILL else ExitCode.INTERRUPTED)
    assert (b"only a part of" in err) == (number is signal.SIGINT)
    site.kill()
    site.start()
    assert "only a part of an image" in site.farshore("volume", "show", "g/v")
    site.farshore("backup", "create", "g", exit_code=ExitCode.WRONG_STATE)
    words = ("volume", "import", "-", "g/v", "--size", "8M", "--confirm", "g/v")
    code, _, again = console.done(*words, stdin=raw)
    assert code == 0, again
    assert content(site, "g/v") == raw
    site.farshore("backup", "create", "g")
