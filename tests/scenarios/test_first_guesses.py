"""C52: what a person types first works, or is answered with the exact command to type, which does."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from protocol.errors import ExitCode
from tests.support.pairs import start_pair
from tests.support.pasting import Shell, printed_commands, shell_elsewhere
from tests.support.sites import Site, running_sites

MIB = 1 << 20

WORKS = """\
status vm1
status vm1/root
restore vm1 --at now --dry-run
restore vm1/root --at nightly --dry-run
restore vm1 nightly --dry-run
restore vm1@nightly --dry-run
restore vm1/root@nightly --dry-run
backup restore vm1 nightly --dry-run
pair list
pair status
pair status vm1
pair vm1
volume ls
volumes
vol ls
list
ls
ls vm1
volume vm1/root
volume status vm1/root
volume create vm1/data 16M
backup ls
backups
snapshot ls
snapshot create vm1
snapshot vm1
backup vm1 --label by-name
backup info vm1 nightly
events --since 10m
events --since '10 minutes ago'
events --since yesterday
logs
journal show vm1 --since 10m
journal show vm1 --since '10 minutes ago'
journal vm1
journal ls vm1
groups
group status vm1
peers
jobs
schedule ls
branch ls vm1
help
help restore
help snapshot create
-h
status -h
version
site status
info
""".splitlines()

# Refused, by what they would do or what there is; the answer has a command that can be pasted.
ANSWERED = {
    "restore vm1": ExitCode.USAGE,
    "restore vm1/root": ExitCode.USAGE,
    "backup verify vm1 nightly": ExitCode.USAGE,
    "verify vm1 nightly": ExitCode.USAGE,
    "verify vm1/root": ExitCode.USAGE,
    "restore vm1 --at -1h --dry-run": ExitCode.NOT_FOUND,
    "restore vm1 --at '10 days ago' --dry-run": ExitCode.NOT_FOUND,
    "restore vm1 --at 2020-11-28 --dry-run": ExitCode.NOT_FOUND,
    "statsu": ExitCode.USAGE,
    "status vm": ExitCode.NOT_FOUND,
    "pair show vm": ExitCode.NOT_FOUND,
    "volume show vm1/rot": ExitCode.NOT_FOUND,
    "restore vm1 nigthly --dry-run": ExitCode.NOT_FOUND,
    "backup show vm1 nightl": ExitCode.NOT_FOUND,
    "peer remove pra": ExitCode.NOT_FOUND,
    "drill run vm nightly": ExitCode.NOT_FOUND,
    "group show vm": ExitCode.NOT_FOUND,
}

# Times as people write them. To a young site most are before the first write, or to come.
TIMES = ("10 minutes ago", "-1min", "2:02", "2026-11-28", "yesterday", "18:02", "an hour ago", "1 hour ago")


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Site, Site]]:
    with running_sites("lon", "par") as (lon, par):
        start_pair(lon, par, "vm1/root", 16 * MIB)
        lon.farshore("backup", "create", "vm1", "--label", "nightly")
        yield lon, par


@pytest.fixture(scope="module")
def shell(pair: tuple[Site, Site]) -> Iterator[Shell]:
    with shell_elsewhere(pair[0]) as shell:
        yield shell


@pytest.mark.parametrize("line", WORKS)
def test_it_works(line: str, pair: tuple[Site, Site]) -> None:
    ran = pair[0].run(*shlex.split(line))
    assert ran.returncode == 0, ran.stderr


def test_a_drill_of_one_backup_is_begun(pair: tuple[Site, Site]) -> None:
    """It does not prove good, as nothing on the volume can be mounted; but it is the right one."""
    for line in ("drill run vm1 nightly", "drill vm1 nightly"):
        ran = pair[0].run(*shlex.split(line), "--json")
        assert ran.returncode in (ExitCode.OK, ExitCode.FAILED), ran.stdout
        assert '"kind":"drill' in ran.stdout


@pytest.mark.parametrize("line", ANSWERED)
def test_or_is_answered_with_what_does(line: str, pair: tuple[Site, Site], shell: Shell) -> None:
    lon, _ = pair
    ran = lon.run(*shlex.split(line))
    assert ran.returncode == ANSWERED[line], ran.stderr
    commands = printed_commands(ran.stderr)
    assert commands, ran.stderr
    for command in commands:
        assert f"--site {lon.name} " in command
        done = shell.paste(command)
        # What was refused for want of --confirm, too, was understood.
        assert done.returncode != ExitCode.USAGE, f"{command}: {done.stderr}"
        assert done.returncode != ExitCode.NOT_FOUND, f"{command}: {done.stderr}"
    assert shell.came == 0


@pytest.mark.parametrize("line", ["failover vm1 --plan", "promote vm1 --plan"])
def test_where_the_writing_is_to_come(line: str, pair: tuple[Site, Site]) -> None:
    ran = pair[1].run(*line.split())
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("text", TIMES)
def test_times_as_people_write_them(text: str, pair: tuple[Site, Site]) -> None:
    since = ["journal", "show", "vm1", "--since", text]
    for words in (["restore", "vm1", "--at", text, "--dry-run"], since):
        ran = pair[0].run(*words)
        early = "nothing was written that early" in ran.stderr and words is not since
        to_come = "is in the future" in ran.stderr
        assert ran.returncode == 0 or early or to_come, ran.stderr
        if to_come:
            (again,) = printed_commands(ran.stderr)
            assert shlex.split(again)[-1] in ("--dry-run", f"yesterday {text}")
        else:
            assert f"{text}: 20" in ran.stderr  # how it was understood
