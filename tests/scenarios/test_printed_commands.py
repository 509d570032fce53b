"""C52: every command that a reply prints is pasted into a shell that has another site as its default. Each is
taken by the parser, names its site, and never comes to the other one.

Templates that no walk reaches are parsed by `tests/tidy/test_printed_commands.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from protocol.errors import ExitCode
from tests.support.pairs import start_pair
from tests.support.pasting import Shell, printed_commands, shell_elsewhere
from tests.support.sites import Site, running_sites

MIB = 1 << 20

BEFORE_THERE_IS_ANYTHING = """\
status
volume list
backup list
clone list
drill list
drill report
group list
schedule list
seed list
operator list
job list
mount --list
"""

AT_THE_PRIMARY = """\
status vm9
volume show vm1/none
volume show none/root
pair show vm9
pair create vm1 --with nobody
pair create vm1 --with par
pair create none --with par
pair resync vm1
pair set none --mode sync
pair delete vm1
backup show vm1 none
backup create vm1 --label nightly
backup delete vm1 nightly
backup unpin vm1 none
clone create vm1@nightly second
clone create vm1@nightly second
clone delete none
clone delete second
volume delete vm1/root
volume offline vm1/root
status
volume uri vm1/none
volume online vm1/root
group delete vm1
group rename none other
peer remove par
peer remove nobody
peer set par --rate 1
peer add FS1.none
schedule show none
schedule set vm1 --window 1h
schedule set none --every 1h
journal show vm1 --limit 1
journal show vm1 --limit 1 --since 30d
journal show vm1 --since 0000000000000000:0
journal show vm1 --since nonsense!
restore group vm1 --at nightly
restore group vm1 --at 2001-01-01
restore volume vm1/root --at nightly --confirm vm1/root
restore group vm1 --at nightly --confirm vm1
drill run vm1 --at nightly
drill show none
drill run none
verify vm1
verify vm1 nightly
verify none
wait vm1 --state split --timeout 0.2
wait vm9
takeover vm1
takeover
failback vm1
switchover none
job show 999
job watch 999
files versions vm1/root:/etc
ls vm1/root@nightly:/
cat vm1/root@none:/x
restore files vm1/root@nightly:/ --to /nonexistent/x
branch list vm1
branch drop vm1 0000000000000001
seed remove vm1/root
operator add ann short
operator remove ann
notify test nobody
volume import /nonexistent vm1/root
events --since nightly
statsu
mount vm1/root /nonexistent
bisect vm1/root
"""

AT_THE_SECONDARY = """\
status
pair resync vm1
volume create vm1/more --size 1M
volume delete vm1/root
backup create vm1
restore group vm1 --at now --dry-run
restore group vm1 --at nightly
switchover vm1
takeover vm1 --plan
takeover vm1
failback vm1
volume uri vm1/root
volume online vm1/root
group delete vm1
pair delete vm1
"""

MOVING = """\
switchover vm1 --confirm vm1
"""

ALONE = """\
status
switchover vm1 --confirm vm1 --timeout 1
pair show vm1
pair split vm1
pair resync vm1
takeover vm1 --plan
takeover vm1 --confirm vm1
failback vm1
wait vm1 --state paired --timeout 0.2
pair delete vm1
"""


def walk(site: Site, lines: str) -> Iterator[str]:
    """The commands that the replies to these lines print."""
    for line in lines.splitlines():
        ran = site.run(*shlex.split(line))
        yield from printed_commands(ran.stdout + "\n" + ran.stderr)


def paste(shell: Shell, commands: list[str]) -> list[str]:
    """What is wrong with each."""
    wrong = []
    for command in dict.fromkeys(commands):
        words = shlex.split(command)
        of_no_site = words[1:3] in (["site", "run"], ["site", "init"]) or "--help" in words
        if "--site" not in words and not of_no_site:
            wrong.append(f"names no site: {command}")
        if words[1:3] == ["site", "run"]:
            continue  # it is what runs already
        done = shell.paste(command)
        if done.returncode == ExitCode.USAGE:
            wrong.append(f"{command}: {done.stderr}")
        if shell.came:
            wrong.append(f"came to the other site: {command}")
            shell.came = 0
    return wrong


@pytest.mark.timeout(900)
def test_each_acts_where_it_was_printed() -> None:
    with running_sites("lon", "par") as (lon, par), shell_elsewhere(lon) as shell:
        printed = list(walk(lon, BEFORE_THERE_IS_ANYTHING))
        start_pair(lon, par, "vm1/root", 16 * MIB)
        lon.farshore("backup", "create", "vm1", "--label", "nightly")
        printed += walk(lon, AT_THE_PRIMARY)
        printed += walk(par, AT_THE_SECONDARY)
        # What is confirmed already changes what the others find: it comes last.
        assert paste(shell, [command for command in printed if "--confirm" not in command]) == []
        lon.farshore("wait", "vm1", "--state", "paired", "--timeout", "60")
        printed += (moved := list(walk(lon, MOVING)))
        assert any(command.startswith("farshore switchover vm1 --site par") for command in moved), moved
        par.farshore("wait", "vm1", "--state", "paired", "--timeout", "60")
        lon.kill()
        par.expected_errors |= {"peer.silent", "pair.suspended"}
        printed += (alone := list(walk(par, ALONE)))
        assert paste(shell, [command for command in alone if "--confirm" not in command]) == []
        lon.start()
        confirmed = [command for command in printed if "--confirm" in command]
        assert len(confirmed) > 3
        assert paste(shell, [*moved, *confirmed]) == []
        for part in (
            "restore volume vm1/root --at",
            "restore group vm1 --at",
            "job watch",
            "journal show vm1 --since",
        ):
            assert any(part in command for command in printed), part
        assert len(dict.fromkeys(printed)) > 25
