"""A new user's five jobs, as docs/first-jobs.md has them, where the Debian package is installed and no more.

Three Debians are booted in containers, two of them joined by a cable. What is typed comes from the page, and
what is seen is compared with its transcripts, but for numbers, ids and times. FARSHORE_WRITE_DOCS=1 writes
them anew. Takes minutes and Debian's mirror, so only with FARSHORE_FULL=1, as root.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.booted_debian import BootedDebian, booted, join, stocked
from tests.support.clients import call
from tests.support.first_jobs import USER, Job, Operators, jobs, shape, with_transcripts
from tests.support.sites import ROOT, short_directory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PAGE = ROOT / "docs" / "first-jobs.md"
COMMANDS_MAX = 6
NETWORK = "10.77.0"
ADDRESSES = {"lon": f"{NETWORK}.1", "rom": f"{NETWORK}.2"}
# What the jobs need beside Farshore, of Debian.
PACKAGES = ("postgresql",)


class Machines:
    """lon and rom with a cable between them, the auditor's, and lon's successor."""

    def __init__(self, base: Path, package: Path, stack: ExitStack) -> None:
        self._base = base
        self._package = package
        self._stack = stack
        self._there: dict[str, BootedDebian] = {}

    def named(self, name: str) -> BootedDebian:
        """One that runs."""
        return self._there[name]

    def boot(self, name: str) -> BootedDebian:
        """A new one, with the package's file and a user's account."""
        made = self._stack.enter_context(booted(self._base, short_directory(), name))
        hosts = [f"127.0.0.1 localhost {name if name not in ADDRESSES else ''}"]
        hosts += [f"{address} {each}" for each, address in ADDRESSES.items()]
        made.path("/etc/hosts").write_text("\n".join(hosts) + "\n")
        made.path(f"/root/{self._package.name}").write_bytes(self._package.read_bytes())
        made.succeed("useradd", "--create-home", "--shell", "/bin/sh", USER)
        self._there[name] = made
        self._stack.callback(self._empty, made)
        return made

    def connect(self) -> None:
        """lon and rom."""
        join(self.named("lon"), self.named("rom"), NETWORK)

    def destroy(self, name: str) -> None:
        """With what its kernel would have lost: loop devices are this machine's, and outlive a container."""
        machine = self._there.pop(name)
        listed = machine.succeed("farshore", "mount", "--list")
        machine.destroy()
        for device in re.findall(r"/dev/loop\d+", listed):
            call("losetup", "--detach", device)

    def _empty(self, machine: BootedDebian) -> None:
        """The same of one that is not needed any more, in an orderly way."""
        if machine not in self._there.values():
            return
        machine.call("systemctl", "stop", "postgresql@15-shop")
        for point in re.findall(r"^(/\S+)", machine.call("farshore", "mount", "--list").stdout, re.MULTILINE):
            print(machine.call("farshore", "umount", point).stdout)
        machine.destroy()


def test_no_job_takes_more_than_six_commands() -> None:
    found = jobs(PAGE.read_text(encoding="utf-8"))
    assert [each.number for each in found] == [1, 2, 3, 4, 5]
    for job in found:
        print(f"{job.title}: {len(job.typed)} commands")
        assert 0 < len(job.typed) <= COMMANDS_MAX, job.title
        for typed in job.typed:
            # One command is one: not two behind each other.
            assert not re.search(r";(?! echo \$\?$)|&& ", re.sub(r"'[^']*'", "", typed.line)), typed.line


@pytest.fixture(scope="module")
def clean(debian: Path, package: Path) -> Iterator[Path]:
    """A Debian without what hosts need."""
    with stocked(debian, short_directory(), package, PACKAGES) as base:
        yield base


def test_the_five_jobs_are_done_as_the_page_says(clean: Path, package: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    made: dict[int, str] = {}
    with ExitStack() as stack:
        machines = Machines(clean, package, stack)
        operators = Operators(machines.named)
        machines.boot("lon")
        machines.boot("rom")
        machines.connect()
        for job in jobs(page):
            for typed in job.before:
                print(operators.run(typed))
            if job.number == 4:
                machines.destroy("lon")
                machines.boot("lon")
                machines.connect()
            made[job.number] = transcript(job, operators, machines)
            proven(job, machines, made[job.number])
    if os.environ.get("FARSHORE_WRITE_DOCS") == "1":
        PAGE.write_text(with_transcripts(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    for job in jobs(PAGE.read_text(encoding="utf-8")):
        differences = list(difflib.unified_diff(shape(job.transcript), shape(made[job.number]), lineterm=""))
        assert not differences, f"{job.title}: FARSHORE_WRITE_DOCS=1 writes it anew\n" + "\n".join(
            differences
        )


def transcript(job: Job, operators: Operators, machines: Machines) -> str:
    """What is seen while the job is done."""
    seen = ""
    for typed in job.typed:
        if typed.machine == "auditor" and "auditor" not in seen:
            hand_over(machines)
        seen += operators.run(typed)
        print(seen.rpartition(typed.machine)[2])
    return seen


def hand_over(machines: Machines) -> None:
    """The report, by mail or on a stick, to a machine that has Farshore and no site."""
    auditor = machines.boot("auditor")
    auditor.succeed("sh", "-ec", "apt-get -qq install -y /root/farshore_*.deb >/dev/null 2>&1")
    report = machines.named("rom").path("/root/proof.html").read_bytes()
    auditor.path(f"/home/{USER}/proof.html").write_bytes(report)
    auditor.succeed("chown", f"{USER}:", f"/home/{USER}/proof.html")


def proven(job: Job, machines: Machines, seen: str) -> None:
    """That it did what it is for, by other means than the page's."""
    orders = "select count(*) from orders"
    if job.number == 1:
        machines.named("lon").shell("echo hello >/mnt/hello; sync -f /mnt")
        machines.named("lon").succeed("farshore", "wait", "files", "--state", "paired", "--timeout", "60")
        assert machines.named("rom").succeed("farshore", "cat", "files/data@latest:/hello") == "hello\n"
    elif job.number == 2:
        assert sql(machines.named("lon"), orders) == "1000"
    elif job.number == 3:
        assert machines.named("lon").shell("cat /home/ada/back/ada/report.txt") == "second draft\n"
    elif job.number == 4:
        assert sql(machines.named("rom"), orders) == "1000"
        sql(machines.named("rom"), "insert into orders values (1001)")
        for group in ("shop", "files"):
            words = ("farshore", "wait", group, "--state", "paired", "--timeout", "120")
            machines.named("rom").succeed(*words)
    else:
        # As it was signed, and with a byte changed.
        assert re.findall(r"^\d+$", seen, re.MULTILINE) == ["0", "24"]


def sql(machine: BootedDebian, statement: str) -> str:
    """What the database of the page answers."""
    words = ("runuser", "-u", "postgres", "--", "psql", "--cluster", "15/shop", "-XAtc", statement)
    return machine.succeed(*words).strip()


def test_the_other_pages_give_the_same_commands() -> None:
    page = jobs(PAGE.read_text(encoding="utf-8"))
    readme, operations = (
        in_one_line((ROOT / name).read_text(encoding="utf-8")) for name in ("README.md", "docs/operations.md")
    )
    assert "docs/first-jobs.md" in readme
    assert "first-jobs.md" in operations
    for job in page:
        for typed in job.typed:
            if typed.line.startswith("farshore "):
                words = in_one_line(typed.line)
                assert words in readme + operations, f"{job.title}: {typed.line}"


def in_one_line(text: str) -> str:
    """Without regard to where lines are broken."""
    return " ".join(text.replace("\\\n", " ").split())
