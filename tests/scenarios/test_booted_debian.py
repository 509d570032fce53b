"""A site under a real systemd: the package in a Debian that is booted in a container, farshore@NAME its unit.

Takes minutes and Debian's mirror, so only with FARSHORE_FULL=1, as root. Every test has a site of its own.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.booted_debian import DATA, BootedDebian, Service, booted
from tests.support.clients import MIB, succeed
from tests.support.file_systems import make_ext
from tests.support.sites import ROOT, short_directory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BLOCK = bytes(range(256)) * 16
LONG_BYTES = 2 << 30
RUNBOOK = ROOT / "docs" / "operations.md"


@pytest.fixture(scope="module")
def machine(debian: Path, package: Path) -> Iterator[BootedDebian]:
    """Booted, with the package installed."""
    place = short_directory()
    with booted(debian, place) as found:
        found.path("/root/farshore.deb").write_bytes(package.read_bytes())
        found.succeed("dpkg", "-i", "/root/farshore.deb")
        yield found


def runbook() -> list[str]:
    """The commands of "As a service" that make a site by hand, as they are written there."""
    section = RUNBOOK.read_text().split("## As a service", 1)[1]
    block = next(each for each in section.split("```")[1::2] if "\n# farshore site init" in each)
    lines = [line[2:] for line in block.splitlines() if line.startswith("# ")]
    return [re.split(r" {3,}", line)[0] for line in lines]


def test_the_runbook_makes_a_site_that_runs(machine: BootedDebian) -> None:
    for line in runbook():
        # This machine has no other address.
        machine.shell(line.replace("10.0.0.1", "127.0.0.1"))
    service = Service(machine, "lon")
    assert machine.property(service.unit, "ActiveState") == "active"
    assert machine.property(service.unit, "StatusText") == "lon: 0 groups"
    assert 'Status: "lon: 0 groups"' in machine.succeed("systemctl", "status", "--no-pager", service.unit)
    assert machine.succeed("systemctl", "is-enabled", service.unit).strip() == "enabled"
    service.farshore("volume", "create", "g/v", "--size", "16M")
    with service.host("g/v") as host:
        host.write_all([(0, BLOCK)])
        host.flush()
    machine.wait_for(service.unit, "StatusText", "lon: 1 groups")
    assert "witness" not in service.farshore("status")
    owner = machine.shell(f"stat -c %U {DATA}/witness/*").split()
    assert set(owner) == {"farshore"}
    machine.succeed("systemctl", "restart", service.unit)
    assert machine.path(f"{service.directory}/groups/g/index.mdb").stat().st_size > 0
    with service.host("g/v") as host:
        assert host.read(0, len(BLOCK)) == BLOCK
    service.stop()
    assert not machine.path("/run/farshore/lon").exists()


def test_what_the_unit_takes_away_is_away(machine: BootedDebian) -> None:
    service = Service(machine, "bare")
    service.make()
    service.start()
    status = machine.path(f"/proc/{service.pid}/status").read_text()
    for line in ("Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"):
        assert line in status, status
    entered = ("nsenter", "-t", str(service.pid), "-m")
    for place in ("/usr", "/etc", "/root", "/home"):
        assert machine.call(*entered, "touch", f"{place}/x").returncode != 0, place
    assert machine.call(*entered, "touch", f"{service.directory}/x").returncode == 0
    said = machine.succeed("systemd-analyze", "security", "--threshold=30", "--no-pager", service.unit)
    print(said.splitlines()[-1])
    machine.succeed(*entered, "rm", f"{service.directory}/x")
    service.stop()


def test_sockets_are_of_whom_the_settings_say(machine: BootedDebian) -> None:
    machine.shell("groupadd --system kvm; groupadd --system storage-admins")
    machine.shell("useradd -G kvm guest; useradd -G storage-admins admin; useradd stranger")
    service = Service(machine, "open")
    settings = """
nbd = ["unix:/run/farshore/open/nbd.sock", "tcp:127.0.0.1:10809"]
insecure = true
nbd_socket_group = "kvm"
control = "ipc:///run/farshore/open/control.sock"
control_socket_group = "storage-admins"
control_socket_mode = "0660"
"""
    service.make(settings, "SupplementaryGroups=kvm storage-admins\n")
    service.start()
    control = "ipc:///run/farshore/open/control.sock"
    words = ("--directory", service.directory, "--control", control, "--system")
    machine.succeed("farshore", "site", "set", "open", *words)
    shown = machine.shell("cd /run/farshore/open; stat -c '%n %U %G %a' . *").splitlines()
    assert shown == [
        ". farshore farshore 755", "control.sock farshore storage-admins 660", "nbd.sock farshore kvm 660",
    ]  # fmt: skip
    machine.succeed("farshore", "volume", "create", "g/v", "--size", "16M", "--site", "open")
    ask = ("nbdinfo", "--size", "nbd+unix:///g/v?socket=/run/farshore/open/nbd.sock")
    assert machine.succeed("runuser", "-u", "guest", "--", *ask).strip() == str(16 * MIB)
    assert machine.call("runuser", "-u", "stranger", "--", *ask).returncode != 0
    status = ("farshore", "status", "--site", "open")
    assert "g simplex" in machine.succeed("runuser", "-u", "admin", "--", *status)
    assert machine.call("runuser", "-u", "stranger", "--", *status).returncode == 14
    assert machine.succeed("nbdinfo", "--size", "nbd://127.0.0.1:10809/g/v").strip() == str(16 * MIB)
    service.stop()


def test_files_mounts_hooks_and_checks_work_beside_it(machine: BootedDebian, scratch: Path) -> None:
    service = Service(machine, "full")
    touch = '["/usr/bin/touch", "/run/farshore/full/{}"]'
    service.make(f"[hooks.mark]\nfreeze = {touch.format('frozen')}\nthaw = {touch.format('thawed')}\n")
    service.start()
    tree = scratch / "tree"
    tree.mkdir()
    (tree / "hello").write_text("from a volume\n")
    image = make_ext(scratch / "ext4", tree, "8M")
    machine.path("/root/v.img").write_bytes(image.read_bytes())
    service.farshore("volume", "import", "/root/v.img", "g/v")
    service.farshore("backup", "create", "g", "--label", "held", "--freeze", "mark")
    assert machine.shell("cd /run/farshore/full; ls frozen thawed").split() == ["frozen", "thawed"]
    assert service.farshore("cat", "g/v@held:/hello") == "from a volume\n"
    machine.path("/root/mnt").mkdir()
    service.farshore("mount", "g/v@held", "/root/mnt")
    assert machine.path("/root/mnt/hello").read_text() == "from a volume\n"
    service.farshore("umount", "/root/mnt")
    service.farshore("verify", "g", "--deep")
    service.stop()


def test_a_hook_freezes_with_the_capability_of_the_runbook(machine: BootedDebian, scratch: Path) -> None:
    image = make_ext(scratch / "ext4", scratch, "8M")
    loop = succeed("losetup", "--find", "--show", image).strip()
    try:
        machine.shell(f"mkdir -p /srv/db; mount {loop} /srv/db")
        service = Service(machine, "hook")
        hook = '["farshore-hook", "fsfreeze", "/srv/db", "{}"]'
        settings = f"[hooks.db]\nfreeze = {hook.format('freeze')}\nthaw = {hook.format('thaw')}\n"
        capability = "AmbientCapabilities=CAP_SYS_ADMIN\nCapabilityBoundingSet=CAP_SYS_ADMIN\n"
        service.make(settings + "thaw_waits = true\n", capability)
        service.start()
        service.farshore("volume", "create", "g/v", "--size", "16M")
        service.farshore("backup", "create", "g", "--label", "frozen", "--freeze", "db")
        assert "frozen" in service.farshore("backup", "list", "g")
        machine.succeed("touch", "/srv/db/thawed", timeout_s=10)
        service.stop()
        machine.succeed("umount", "/srv/db")
    finally:
        succeed("losetup", "--detach", loop)


def test_a_reload_takes_new_settings_and_refuses_bad_ones(machine: BootedDebian) -> None:
    service = Service(machine, "load")
    service.make()
    service.start()
    pid = service.pid
    config = machine.path(f"{service.directory}/site.toml")
    good = config.read_text()
    config.write_text(good + "window_s = 4711\n")
    machine.succeed("systemctl", "reload", service.unit)
    service.farshore("volume", "create", "g/v", "--size", "16M")
    machine.wait_for(service.unit, "StatusText", "load: 1 groups")
    assert '"event": "site.reloaded"' in machine.journal(service.unit), machine.journal(service.unit)
    config.write_text(good + "no_such_key = 1\n")
    machine.succeed("systemctl", "reload", service.unit)
    service.farshore("status")
    assert machine.property(service.unit, "ActiveState") == "active"
    assert service.pid == pid
    config.write_text(good)
    service.machine.succeed("systemctl", "stop", service.unit)


def test_one_that_was_killed_is_started_again(machine: BootedDebian) -> None:
    service = Service(machine, "kill")
    service.make()
    service.start()
    service.farshore("volume", "create", "g/v", "--size", "16M")
    with service.host("g/v") as host:
        host.write_all([(0, BLOCK)])
        host.flush()
    service.kill(signal.SIGKILL)
    machine.wait_for(service.unit, "NRestarts", "1")
    machine.wait_for(service.unit, "ActiveState", "active")
    with service.host("g/v") as host:
        assert host.read(0, len(BLOCK)) == BLOCK
    service.stop()


def test_a_loop_that_stands_still_is_ended_and_started_anew(machine: BootedDebian) -> None:
    service = Service(machine, "dog")
    service.make(drop_in="WatchdogSec=4\n")
    service.start()
    service.kill(signal.SIGSTOP)
    machine.wait_for(service.unit, "NRestarts", "1")
    machine.wait_for(service.unit, "ActiveState", "active")
    assert "Watchdog timeout" in machine.journal(service.unit)
    service.farshore("status")
    service.stop()


def test_what_no_restart_mends_is_not_tried_again(machine: BootedDebian) -> None:
    service = Service(machine, "bad")
    service.make("no_such_key = 1\n")
    assert machine.call("systemctl", "start", service.unit).returncode != 0
    assert machine.property(service.unit, "ActiveState") == "failed"
    assert machine.property(service.unit, "ExecMainStatus") == "2"
    assert machine.property(service.unit, "NRestarts") == "0"
    assert "no_such_key" in machine.journal(service.unit)


def test_a_long_recovery_outlives_the_start_timeout(machine: BootedDebian) -> None:
    """2 GiB of journal past the checkpoint, and a start that may take little longer than an empty site's."""
    service = Service(machine, "long")
    service.make()
    service.start()
    timeout_s = max(1.0, 1.5 * service.start_took_s)
    service.farshore("volume", "create", "g/v", "--size", "2G")
    payload = os.urandom(MIB)
    with service.host("g/v") as host:
        host.write_all((at, payload) for at in range(0, LONG_BYTES, MIB))
        host.flush()
    place = machine.path(f"/etc/systemd/system/{service.unit}.d")
    place.mkdir(parents=True)
    (place / "override.conf").write_text(f"[Service]\nTimeoutStartSec={timeout_s}\n")
    machine.succeed("systemctl", "daemon-reload")
    service.kill(signal.SIGKILL)
    machine.wait_for(service.unit, "NRestarts", "1")
    machine.wait_for(service.unit, "ActiveState", "active", timeout_s=600)
    assert machine.property(service.unit, "NRestarts") == "1", machine.journal(service.unit)
    print(f"started in {service.start_took_s:.1f} s under TimeoutStartSec={timeout_s:.1f}")
    assert service.start_took_s > timeout_s, "too quick to show anything"
    with service.host("g/v") as host:
        assert host.read(LONG_BYTES - MIB, MIB) == payload
    service.stop()
