"""A host whose disk is an export: nbdfuse, a loop device on its file, a file system mounted from that.

ext4 ── /dev/loopN ── nbdfuse (a file in user space) ── the daemon

Two forms: context managers, one a layer, for tests that hold it all open; and `MountedHost`, which an
operator's own commands bring up and take down again, as `restore --stop … --start …` calls them.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import missing
from tests.support.clients import call, succeed
from tests.support.sites import Site

APPEAR_TIMEOUT_S = 20.0
HANG_TIMEOUT_S = 240
SHELL_MODE = 0o755


def require_mounting() -> None:
    """Skip (or fail, where everything must run) if this machine cannot mount."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        missing("mounting needs root, /dev/fuse and loop devices")


def mounts_of(site: Site) -> list[dict[str, Any]]:
    """What `mount --list` says of a site: it lists all of this machine, also what other tests mount."""
    rows: list[dict[str, Any]] = site.json("mount", "--list")["mounts"]
    return [row for row in rows if row["site"] == str(site.directory)]


@contextmanager
def nbdfuse(program: str, uri: str, directory: Path) -> Iterator[Path]:
    """The export as a file; taken away again even when something still holds it."""
    mount = directory / "fuse"
    mount.mkdir()
    # `timeout` outlives this test's own process: a FUSE server that hangs must not hang the machine.
    process = subprocess.Popen(
        ["timeout", "--kill-after=5", str(HANG_TIMEOUT_S), program, str(mount / "disk.img"), uri],
        stdin=subprocess.DEVNULL,
    )
    file = mount / "disk.img"
    try:
        deadline = time.monotonic() + APPEAR_TIMEOUT_S
        while not file.exists():
            assert process.poll() is None, "nbdfuse ended at once"
            assert time.monotonic() < deadline, "nbdfuse did not mount"
            time.sleep(0.05)
        yield file
    finally:
        if call("umount", mount).returncode != 0:
            call("umount", "--lazy", mount)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(20)
        mount.rmdir()


@contextmanager
def loop_device(program: str, file: Path) -> Iterator[str]:
    """A block device on the file."""
    device = succeed(program, "--find", "--show", "--direct-io=on", file).strip()
    try:
        yield device
    finally:
        call(program, "--detach", device)


@contextmanager
def mounted(device: str, directory: Path) -> Iterator[Path]:
    """The file system on the device."""
    point = directory / "mnt"
    point.mkdir(exist_ok=True)
    succeed("timeout", "60", "mount", device, point)
    try:
        yield point
    finally:
        if call("timeout", "60", "umount", point).returncode != 0:
            call("umount", "--lazy", point)


class MountedHost:
    """A host with an ext4 file system on a volume, mounted at `point`, brought up and down by two scripts.

    `after_mount` and `before_umount` are lines of shell: how what runs on the file system is started and
    stopped. `stop` ends only when nothing is connected to the volume any more.
    """

    def __init__(
        self,
        directory: Path,
        uri: str,
        tool: Callable[[str], str],
        *,
        after_mount: str = "",
        before_umount: str = "",
    ) -> None:
        require_mounting()
        directory.mkdir(exist_ok=True)
        # What runs on the file system may be another user's, and must find its way to it.
        for each in (directory, directory.parent):
            each.chmod(0o755)
        self.uri = uri
        self.point = directory / "mnt"
        self._fuse = directory / "fuse"
        self._directory = directory
        self._tool = tool
        self._hooks = (after_mount, before_umount)
        self.start_script = directory / "start"
        self.stop_script = directory / "stop"
        for made in (self.point, self._fuse):
            made.mkdir(exist_ok=True)
        self._write_scripts()

    @property
    def stop_command(self) -> str:
        """What `restore --stop` is given."""
        return shlex.quote(str(self.stop_script))

    @property
    def start_command(self) -> str:
        """What `restore --start` is given."""
        return shlex.quote(str(self.start_script))

    def make_file_system(self) -> None:
        """A new ext4 on the volume, mounted and started."""
        self._run("attach")
        succeed(self._tool("mkfs.ext4"), "-q", "-F", "-E", "lazy_itable_init=0", self._device())
        self._run("start")

    def start(self) -> None:
        """Connect, mount and start."""
        self._run("start")

    def stop(self) -> None:
        """Stop, unmount and disconnect."""
        self._run("stop")

    def close(self) -> None:
        """Take away whatever still stands; twice is fine."""
        for point in (self.point, self._fuse):
            if os.path.ismount(point) and call("timeout", "60", "umount", point).returncode != 0:
                call("umount", "--lazy", point)
            if point == self.point:
                for device in self._devices():
                    call(self._tool("losetup"), "--detach", device)

    def _run(self, script: str) -> None:
        log = self._directory / "scripts.log"
        with log.open("ab") as out:
            ended = subprocess.run(
                [str(self._directory / script)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                timeout=HANG_TIMEOUT_S, check=False,
            )  # fmt: skip
        assert ended.returncode == 0, f"{script} ended with {ended.returncode}\n{log.read_text()[-4000:]}"

    def _devices(self) -> list[str]:
        listed = call(
            self._tool("losetup"), "--noheadings", "--output", "NAME", "-j", self._fuse / "disk.img"
        )
        return listed.stdout.split()

    def _device(self) -> str:
        (device,) = self._devices()
        return device

    def _write_scripts(self) -> None:
        after_mount, before_umount = self._hooks
        nbdfuse_words = shlex.join([self._tool("nbdfuse"), f"{self._fuse}/disk.img", self.uri])
        losetup, disk, point = self._tool("losetup"), f"{self._fuse}/disk.img", self.point
        attach = f"""#!/bin/sh
set -e
[ -e {disk} ] || {{
    setsid timeout --kill-after=5 {HANG_TIMEOUT_S} {nbdfuse_words} </dev/null >/dev/null 2>&1 &
    tries=0
    while ! [ -e {disk} ]; do
        tries=$((tries + 1)); [ $tries -lt 400 ]; sleep 0.05
    done
}}
[ -n "$({losetup} -j {disk})" ] || {losetup} --find --direct-io=on {disk}
"""
        start = f"""{attach}mount "$({losetup} --noheadings --output NAME -j {disk})" {point}
{after_mount}
"""
        # Unmounting answers before nbdfuse is gone, and with it the host's connection. A device that another
        # program looks at is given back only once that has closed it.
        stop = f"""#!/bin/sh
set -e
{before_umount}
umount {point}
{losetup} --detach "$({losetup} --noheadings --output NAME -j {disk})"
tries=0
until umount {self._fuse}; do
    tries=$((tries + 1)); [ $tries -lt 400 ]; sleep 0.05
done
tries=0
while pgrep -f {self._fuse}/disk.img >/dev/null; do
    tries=$((tries + 1)); [ $tries -lt 400 ]; sleep 0.05
done
"""
        for name, text in (("attach", attach), ("start", start), ("stop", stop)):
            script = self._directory / name
            script.write_text(text)
            script.chmod(SHELL_MODE)
