"""A Debian that is booted: systemd as process 1 of a container, for what only a real service manager shows.

debootstrap makes the system once (minutes, and Debian's mirror), or FARSHORE_DEBIAN names one that it made:
`debootstrap --variant=minbase --include=…` with `PACKAGES`. It stays as it is: what a container writes goes
into an overlay of its own. The container has no network but its own loopback.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from console.demo.host import Host
from tests.support.clients import call, succeed

DATA = "/var/lib/farshore"
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "procps", "libnbd-bin", "fuse3", "bash")
# Of those: what hosts need, which a new user's machine has not got yet.
NOT_IN_A_CLEAN_ONE = ("libnbd-bin", "fuse3")
TOOLS = ("debootstrap", "systemd-nspawn", "nsenter")
# This machine's, as a container has no udev to show them.
LOOP_DEVICES = """
mknod /dev/loop-control c 10 237
for n in $(seq 0 63); do mknod /dev/loop$n b 7 $n; done
"""
BOOT_TIMEOUT_S = 120.0
HALT_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 300.0


class BootedDebian:
    """One container that runs. Commands in it are root's, started from outside."""

    def __init__(self, root: Path, process: subprocess.Popen[bytes], leader: int) -> None:
        self.root = root
        self.process = process
        self.leader = leader

    def destroy(self) -> None:
        """As a fire does: every process of it is killed at once, and nothing is said to anybody."""
        os.kill(self.leader, signal.SIGKILL)
        self.process.wait(HALT_TIMEOUT_S)

    def call(
        self, *words: str | Path, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it, whatever its exit code."""
        return call(*self._entered(), *words, timeout_s=timeout_s)

    def succeed(self, *words: str | Path, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a command in it that must succeed; its standard output."""
        return succeed(*self._entered(), *words, timeout_s=timeout_s)

    def shell(self, line: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Run a line of shell in it that must succeed; its standard output."""
        return self.succeed("sh", "-ec", line, timeout_s=timeout_s)

    def path(self, inside: str) -> Path:
        """A path in it as this machine reaches it, mounts and sockets included."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def property(self, unit: str, name: str) -> str:
        """What `systemctl show` says of a unit."""
        return self.succeed("systemctl", "show", "--value", "-p", name, unit).strip()

    def wait_for(self, unit: str, name: str, value: str, timeout_s: float = 90.0) -> None:
        """Until a unit's property has this value."""
        deadline = time.monotonic() + timeout_s
        while (found := self.property(unit, name)) != value:
            if time.monotonic() > deadline:
                raise AssertionError(f"{unit}: {name} is {found}, not {value}\n{self.journal(unit)}")
            time.sleep(0.1)

    def journal(self, unit: str, lines: int = 60) -> str:
        """The newest of what a unit, and systemd about it, logged."""
        return self.call("journalctl", "-u", unit, "-n", str(lines), "--no-pager", "-o", "cat").stdout

    def _entered(self) -> list[str]:
        bare = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"]
        return ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-r", "-w", *bare]


class Service:
    """farshore@NAME, made as docs/operations.md says."""

    def __init__(self, machine: BootedDebian, name: str) -> None:
        self.machine = machine
        self.name = name
        self.unit = f"farshore@{name}.service"
        self.directory = f"{DATA}/{name}"

    def make(self, settings: str = "", drop_in: str = "") -> None:
        """The site, lines of its site.toml, and of the unit's [Service]."""
        self.machine.succeed("farshore", "site", "init", self.directory, "--name", self.name)
        with self.machine.path(f"{self.directory}/site.toml").open("a") as config:
            config.write(settings)
        self.machine.succeed("chown", "-R", "farshore:", self.directory)
        if drop_in:
            place = self.machine.path(f"/etc/systemd/system/{self.unit}.d")
            place.mkdir(parents=True)
            (place / "override.conf").write_text(f"[Service]\n{drop_in}")
            self.machine.succeed("systemctl", "daemon-reload")

    def start(self) -> None:
        """Returns once it said READY."""
        done = self.machine.call("systemctl", "start", self.unit)
        assert done.returncode == 0, done.stderr + self.machine.journal(self.unit)

    def stop(self) -> None:
        """In an orderly way, with nothing logged that a person must look at."""
        self.machine.succeed("systemctl", "stop", self.unit)
        assert self.machine.property(self.unit, "Result") == "success", self.machine.journal(self.unit)
        logged = self.machine.journal(self.unit, lines=2000)
        assert '"level": "error"' not in logged, logged
        assert "Traceback" not in logged, logged

    def farshore(self, *words: str) -> str:
        """A command of root's for this site."""
        return self.machine.succeed("farshore", *words, "--site", self.directory)

    def host(self, export: str) -> Host:
        """A host of its, from outside the container."""
        return Host(self.machine.path(f"{self.directory}/nbd.sock"), export)

    @property
    def start_took_s(self) -> float:
        """From the newest start of the daemon until it said READY."""
        begun, ready = (
            int(self.machine.property(self.unit, f"{name}Monotonic"))
            for name in ("ExecMainStartTimestamp", "ActiveEnterTimestamp")
        )
        return (ready - begun) / 1e6

    @property
    def pid(self) -> int:
        """The daemon's process id in the container."""
        return int(self.machine.property(self.unit, "MainPID"))

    def kill(self, number: signal.Signals) -> None:
        """A signal to the daemon alone."""
        self.machine.succeed("kill", f"-{number.value}", str(self.pid))


def lacking() -> str:
    """Why there can be none here; nothing if there can."""
    if os.geteuid() != 0:
        return "a container is booted by root"
    tools = [each for each in TOOLS if shutil.which(each, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    return f"not installed: {', '.join(tools)}" if tools else ""


def debian_root(place: Path) -> Path:
    """A system that nobody has booted yet: FARSHORE_DEBIAN's, or a new one in `place`."""
    if chosen := os.environ.get("FARSHORE_DEBIAN"):
        return Path(chosen)
    root = place / "debian"
    included = f"--include={','.join(PACKAGES)}"
    succeed("debootstrap", "--variant=minbase", included, SUITE, root, MIRROR, timeout_s=1800)
    return root


@contextmanager
def overlay(base: Path, place: Path) -> Iterator[Path]:
    """A copy of `base`, kept in `place`, to be written to; removed afterwards."""
    root, upper, work = place / "root", place / "upper", place / "work"
    for each in (root, upper, work):
        each.mkdir(parents=True)
    options = f"lowerdir={base},upperdir={upper},workdir={work}"
    succeed("mount", "-t", "overlay", "overlay", "-o", options, root)
    try:
        yield root
    finally:
        succeed("umount", root)
        shutil.rmtree(place)


@contextmanager
def booted(base: Path, place: Path, name: str = "") -> Iterator[BootedDebian]:
    """Boot a copy of `base`, kept in `place`; halted and removed afterwards. With a name it is a machine of
    its own, of that host name."""
    with overlay(base, place) as root:
        if name:
            (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
            (root / "etc/hostname").write_text(f"{name}\n")
        with (place / "console.log").open("wb") as console:
            words = ["systemd-nspawn", "--quiet", f"--directory={root}", "--boot", "--private-network"]
            words += [f"--hostname={name}"] if name else []
            words += ["--register=no", "--keep-unit", "--bind=/dev/fuse", "--console=pipe"]
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
            )
        try:
            found = _wait_for_boot(root, process, place / "console.log")
            found.shell(LOOP_DEVICES)
            yield found
        finally:
            _halt(process)


def join(first: BootedDebian, second: BootedDebian, network: str) -> None:
    """A cable between two machines: the first is NETWORK.1, the second NETWORK.2; nobody else is on it."""
    ends = [("name", "cable", "netns", str(machine.leader)) for machine in (first, second)]
    succeed("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
    for number, machine in enumerate((first, second), start=1):
        inside = ("nsenter", "-t", str(machine.leader), "-n", "ip")
        succeed(*inside, "address", "add", f"{network}.{number}/24", "dev", "cable")
        succeed(*inside, "link", "set", "cable", "up")


@contextmanager
def stocked(base: Path, place: Path, package: Path, packages: Sequence[str]) -> Iterator[Path]:
    """A copy of `base` in which apt has `packages`, and what `package` asks for, at hand, and nothing of that
    is installed: so it can be installed where there is no network. Takes Debian's mirror."""
    with overlay(base, place) as root:
        (root / "root" / package.name).write_bytes(package.read_bytes())
        lines = [
            "export DEBIAN_FRONTEND=noninteractive",
            # What it installs need not outlive a loss of power.
            "echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/quick",
            f"apt-get -qq purge -y {' '.join(NOT_IN_A_CLEAN_ONE)}",
            "apt-get -qq autoremove --purge -y",
            "apt-get -qq update",
            f"apt-get -qq install -y --download-only {' '.join(packages)}",
            f"apt-get -qq install -y --download-only /root/{package.name}",
            f"rm /root/{package.name}",
        ]
        words = ["systemd-nspawn", "--quiet", f"--directory={root}", "--register=no", "--keep-unit", "--pipe"]
        succeed(*words, "--resolv-conf=copy-host", "sh", "-ec", "\n".join(lines), timeout_s=900)
        yield root


def _wait_for_boot(root: Path, process: subprocess.Popen[bytes], console: Path) -> BootedDebian:
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if leader := _leader(process.pid):
            found = BootedDebian(root, process, leader)
            state = found.call("systemctl", "is-system-running").stdout.strip()
            if state in {"running", "degraded"}:
                return found
        time.sleep(0.2)
    raise AssertionError(f"the container did not boot\n{console.read_text(errors='replace')[-4000:]}")


def _leader(nspawn: int) -> int:
    """Process 1 of the container, by its id here; 0 if it is not there yet."""
    words = call("pgrep", "-P", str(nspawn)).stdout.split()
    return int(words[0]) if words else 0


def _halt(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to systemd-nspawn is an orderly halt of what it booted."""
    process.terminate()
    try:
        process.wait(HALT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
