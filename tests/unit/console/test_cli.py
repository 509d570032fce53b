"""The command `farshore` against a stub site: words in, command out, what is printed, how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from console.pasted import for_site
from protocol.commands.backup import BackupCreate, BackupDeleteMany, BackupShow
from protocol.commands.event import Events
from protocol.commands.journal import JournalShow
from protocol.commands.pages import PagedCommand
from protocol.commands.pair import PairCreate, PairDelete, PairResync, PairSet, WaitFor, WaitReply
from protocol.commands.peer import PeerSet
from protocol.commands.restore import RestoreGroup, RestoreVolume
from protocol.commands.verify import DamageInfo
from protocol.commands.volume import VolumeCreate, VolumeListReply, VolumeUri
from protocol.cut_text import CutBackup, CutLabel, CutPosition, CutTime
from protocol.errors import Busy, Diverged, ExitCode, NotFound, Trimmed
from tests.unit.console.conftest import Ran, run_on_terminal
from tests.unit.console.stub_site import (
    DAMAGED,
    REPLIES,
    RESTORE,
    ROW,
    STATUS,
    VERIFIED,
    WAIT,
    StubSite,
)

Run = Callable[..., Ran]
EVERY_COMMAND = [
    ("status", "status"),
    ("site token", "site.token"),
    ("peer add FS1.abc", "peer.add"),
    ("peer list", "peer.list"),
    ("peer set par --rate 10M", "peer.set"),
    ("peer replace par FS1.abc", "peer.replace"),
    ("peer rename par rom", "peer.rename"),
    ("peer remove par", "peer.remove"),
    ("volume create vm1/root --size 10G", "volume.create"),
    ("volume list", "volume.list"),
    ("volume show vm1/root", "volume.show"),
    ("volume uri vm1/root", "volume.uri"),
    ("volume online vm1/root", "volume.online"),
    ("volume offline vm1/root", "volume.offline"),
    ("volume resize vm1/root 2G", "volume.resize"),
    ("volume rename vm1/root boot", "volume.rename"),
    ("volume delete vm1/root --confirm vm1/root", "volume.delete"),
    ("pair create vm1 --with par", "pair.create"),
    ("pair show vm1", "pair.show"),
    ("pair split vm1", "pair.split"),
    ("pair resync vm1 --source local", "pair.resync"),
    ("pair set vm1 --mode sync", "pair.set"),
    ("pair delete vm1 --confirm vm1", "pair.delete"),
    ("switchover vm1 --confirm vm1", "switchover"),
    ("takeover vm1 --confirm vm1", "takeover"),
    ("takeover vm1 --plan", "takeover.plan"),
    ("failback vm1", "failback"),
    ("branch list vm1", "branch.list"),
    ("branch diff vm1 00000000000000cd", "branch.diff"),
    ("branch drop vm1 00000000000000cd --confirm 00000000000000cd", "branch.drop"),
    ("backup create vm1", "backup.create"),
    ("backup create vm1 --freeze db", "backup.create"),
    ("backup list", "backup.list"),
    ("backup list vm1 --limit 1 --after []", "backup.list"),
    ("volume list --limit 1", "volume.list"),
    ("backup show vm1 nightly", "backup.show"),
    ("backup delete vm1 nightly weekly --confirm vm1", "backup.delete-many"),
    ("backup delete vm1 nightly weekly --dry-run", "backup.delete-many"),
    ("restore volume vm1/root --at nightly --confirm vm1/root", "restore"),
    ("restore group vm1 --at nightly --confirm vm1", "restore"),
    ("wait vm1 --state paired", "wait"),
    ("events", "events"),
    ("journal show vm1", "journal.show"),
    ("verify vm1", "verify"),
]


@pytest.mark.parametrize(("line", "kind"), EVERY_COMMAND)
def test_every_command_speaks_to_people_and_to_scripts(
    line: str, kind: str, stub: StubSite, farshore: Run
) -> None:
    plain = farshore(*line.split(), "--site", str(stub.directory))
    assert (plain.code, plain.err.count("error:")) == (0, 0)
    assert plain.out.strip()
    assert "\x1b" not in plain.out
    scripted = farshore("--json", *line.split(), f"--site={stub.directory}")
    assert scripted.code == 0
    assert scripted.err == ""
    (answer,) = scripted.json
    assert (answer["api"], answer["kind"], answer["site"]) == (1, kind, "lon")
    if kind in REPLIES:
        expected = json.loads(msgspec.json.encode(REPLIES[kind]))
        if "undo" in expected:
            expected["undo"] = for_site(expected["undo"], str(stub.directory))
        assert answer["data"].items() >= expected.items()
    assert len(stub.asked) == 2
    assert stub.asked[0] == stub.asked[1]


def test_the_options_of_all_commands_may_stand_anywhere(stub: StubSite, farshore: Run) -> None:
    site = str(stub.directory)
    for words in (
        ("--site", site, "--json", "volume", "list"),
        ("volume", "--json", "list", "--site", site),
        ("volume", "--site", site, "list", "--json"),
    ):
        assert farshore(*words).json[0]["kind"] == "volume.list"


def sent(stub: StubSite, farshore: Run, line: str) -> Any:
    """The command that a line becomes; a list comes in pages whatever the line says."""
    ran = farshore(*line.split(), "--site", str(stub.directory))
    assert ran.code == 0, ran.err
    asked = stub.asked[-1]
    return replace(asked, after=UNSET) if isinstance(asked, PagedCommand) else asked


def test_words_become_typed_commands(stub: StubSite, farshore: Run) -> None:
    position = CutPosition(timeline=0xFF, position=4096)
    cases = {
        "volume create vm1/root --size 1.5G": VolumeCreate(group="vm1", volume="root", size_bytes=3 << 29),
        "peer set par --rate 1.5M": PeerSet(peer="par", rate_bytes_s=3 << 19),
        "peer set par --endpoint tcp://par:1": PeerSet(peer="par", endpoint="tcp://par:1"),
        "peer set par --rate none --compress zstd": PeerSet(peer="par", rate_bytes_s=0, compress="zstd"),
        "pair create vm1 --with par": PairCreate(group="vm1", peer="par", mode="async"),
        "pair resync vm1": PairResync(group="vm1", source=None),
        "pair resync vm1 --source remote": PairResync(group="vm1", source="remote"),
        "pair set vm1 --mode async --confirm vm1": PairSet(group="vm1", mode="async", confirm="vm1"),
        "pair delete vm1 --confirm vm1": PairDelete(group="vm1", confirm="vm1"),
        "backup create vm1 --label nightly --pin": BackupCreate(group="vm1", label="nightly", pin=True),
        "backup create vm1/root": BackupCreate(group="vm1", volume="root"),
        "backup delete vm1 nightly 00000000000000ab --confirm vm1": BackupDeleteMany(
            group="vm1",
            cuts=(CutLabel(label="nightly"), CutBackup(backup_id="00000000000000ab")),
            confirm="vm1",
        ),
        "backup show vm1 00000000000000ab": BackupShow(
            group="vm1", cut=CutBackup(backup_id="00000000000000ab")
        ),
        "volume uri vm1/root@nightly": VolumeUri(group="vm1", volume="root", cut=CutLabel(label="nightly")),
        "volume uri vm1/root@00000000000000ff:4096": VolumeUri(group="vm1", volume="root", cut=position),
        "journal show vm1 --since 00000000000000ff:4096 --limit 5": JournalShow(
            group="vm1", since=position, limit=5
        ),
        "events --since 3 --limit 9": Events(since=3, limit=9),
        "wait vm1 --position 00000000000000ff:4096 --timeout 0.5": WaitFor(
            group="vm1", position=position, timeout_s=0.5
        ),
        "restore group vm1 --at 2026-07-03T02:45:00Z --dry-run --force --online": RestoreGroup(
            group="vm1",
            cut=CutTime(utc_ns=1_783_046_700_000_000_000),
            dry_run=True,
            force=True,
            start=True,
        ),
    }
    for line, command in cases.items():
        got = sent(stub, farshore, line)
        if isinstance(got, WaitFor):
            assert got.timeout_s <= 0.5
            got = WaitFor(group=got.group, position=got.position, timeout_s=0.5)
        assert got == command, line


def test_a_relative_time_is_fixed_once_and_said(stub: StubSite, farshore: Run) -> None:
    words = ("restore", "volume", "vm1/root", "--at", "-10m", "--dry-run", "--site", str(stub.directory))
    ran = farshore(*words)
    cut = stub.asked[0].cut
    assert isinstance(cut, CutTime)
    assert ran.err.startswith("-10m: ")
    assert ran.err.rstrip().endswith("Z")
    assert "+0" in ran.err  # local time, with its offset
    assert "8f3a000000000001:8192" in ran.out  # the position, once the site resolved it
    assert farshore(*words, "--json").err == ""


def test_a_label_is_not_echoed(stub: StubSite, farshore: Run) -> None:
    assert farshore("volume", "uri", "vm1/root@nightly", "--site", str(stub.directory)).err == ""


def test_a_restore_without_the_name_is_refused_before_anything_is_sent(stub: StubSite, farshore: Run) -> None:
    ran = farshore("restore", "volume", "vm1/root", "--at", "nightly", "--site", str(stub.directory))
    assert ran.code == ExitCode.UNSAFE
    assert "next: add --confirm vm1/root, or look with --dry-run" in ran.err
    assert stub.asked == []


def test_a_restore_sends_its_confirmation(stub: StubSite, farshore: Run) -> None:
    line = "restore volume vm1/root --at nightly --online --confirm vm1/root"
    got = sent(stub, farshore, line)
    assert got == RestoreVolume(
        group="vm1", volume="root", cut=CutLabel(label="nightly"), start=True, confirm="vm1/root"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("m", subject="vm1/x", position="8f:1", next_step="look"), 10),
        (Busy("m"), 11),
        (Diverged("m"), 21),
        (Trimmed("m"), 23),
    ],
)
def test_a_sites_error_is_an_exit_code(error: Any, code: int, stub: StubSite, farshore: Run) -> None:
    def refuse(_command: object) -> NoReturn:
        raise error

    stub.replies["volume.list"] = refuse
    ran = farshore("volume", "list", "--site", str(stub.directory))
    assert (ran.code, ran.out) == (code, "")
    expected = ["error: m"]
    if error.subject:
        expected += ["object: vm1/x", "position: 8f:1", "next: look"]
    assert ran.err.splitlines() == expected
    scripted = farshore("volume", "list", "--json", "--site", str(stub.directory))
    (answer,) = scripted.json
    assert (scripted.code, answer["kind"], answer["errors"]) == (code, "error", [error.as_dict()])


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "volume",
        "volume create vm1/root",
        "volume create vm1 --size 1G",
        "volume create vm1/root --size 10GB",
        "volume create vm1/root --size 0",
        "volume resize vm1/root",
        "volume resize vm1/root 10GB",
        "volume rename vm1/root Boot",
        "volume create VM1/root --size 1G",
        "volume uri vm1/root@",
        "volume uri vm1/root --format iscsi",
        "restore volume vm1/root",
        "restore volume vm1/root --at tomorrow! --dry-run",
        "backup create vm1 --label latest",
        "backup create vm1 --label 0123456789abcdef",
        "wait vm1 --state happy",
        "wait vm1 --state paired --position 00000000000000ff:1",
        "wait vm1 --position 12",
        "journal show vm1 --limit 0",
        "pair create vm1 --with par --mode maybe",
        "pair set vm1",
        "pair set vm1 --mode maybe",
        "switchover vm1 --confirm vm1 --timeout -1",
        "takeover",
        "takeover vm1 --from par --confirm vm1",
        "takeover vm1 --max-loss 30 --confirm vm1",
        "failback vm1 --timeout nan",
        "branch diff vm1 8f",
        "branch diff vm1 00000000000000cd --limit 0",
        "branch drop vm1 00000000000000CD --confirm 00000000000000CD",
    ],
)
def test_words_that_make_no_sense_end_with_2(line: str, stub: StubSite, farshore: Run) -> None:
    ran = farshore(*line.split(), "--site", str(stub.directory))
    assert ran.code == ExitCode.USAGE, ran.out + ran.err
    assert ran.err
    assert "Traceback" not in ran.err
    assert stub.asked == []


def test_usage_errors_are_json_too(farshore: Run) -> None:
    (answer,) = farshore("volume", "create", "vm1/root", "--json").json
    assert answer["errors"][0]["code"] == "usage"
    assert answer["errors"][0]["next"] == "farshore volume create --help"
    assert farshore("status", "--site").code == ExitCode.USAGE


def test_no_daemon_is_14_with_the_command_that_starts_it(home: Path, farshore: Run) -> None:
    ran = farshore("status", "--site", str(home / "lon"))
    assert ran.code == ExitCode.UNREACHABLE
    assert f"ipc://{home}/lon/control.sock" in ran.err
    assert f"next: farshore site run {home}/lon" in ran.err


def test_status_is_one_line_a_group(stub: StubSite, farshore: Run) -> None:
    lines = farshore("status", "--site", str(stub.directory)).out.splitlines()
    assert lines[0] == "site lon 0.1.0"
    assert lines[1] == (
        "vm1 paired (PAIR) async lon→par | head 8f3a:91.2G | behind 1.1 MiB 0.4 s | applied 0.3 s ago"
        " | last backup nightly 02:45 available pending"
    )


def test_status_with_nothing_known(stub: StubSite, farshore: Run) -> None:
    stub.replies["site.status"] = replace(STATUS, groups=[DAMAGED])
    out = farshore("status", "--site", str(stub.directory)).out
    assert "vm1 damaged (PSUE) | last backup never | its journal begins nowhere\n" in out


def test_status_shows_roles_and_states_that_a_person_must_notice(stub: StubSite, farshore: Run) -> None:
    rows = [
        replace(ROW, state="taken over", code="SSWS", mode="sync"),
        replace(ROW, group="vm2", state="diverged", code="PSUE", fetching=True, reason="why"),
        replace(ROW, group="vm3", role="detached", state="split", code="SSUS", direction=None),
    ]
    stub.replies["site.status"] = replace(STATUS, groups=rows)
    lines = farshore("status", "--site", str(stub.directory)).out.splitlines()[1:]
    assert [line.split(" | ")[0] for line in lines] == [
        "vm1 taken over (SSWS) sync lon→par",
        "vm2 diverged (PSUE) fetching async lon→par",
        "vm3 split (SSUS) detached async par→lon",
    ]
    assert lines[1].endswith(" | why")


def test_a_wait_goes_on_until_it_is_reached_with_progress(stub: StubSite, farshore: Run) -> None:
    def gradually(_command: object) -> WaitReply:
        return replace(WAIT, reached=len(stub.asked) >= 3, lag_bytes=4096 * (3 - len(stub.asked)))

    stub.replies["wait"] = gradually
    ran = farshore("wait", "vm1", "--json", "--site", str(stub.directory))
    assert ran.code == 0
    assert [line["kind"] for line in ran.json] == ["progress", "progress", "wait"]
    # What is waited for is fixed by the first answer, or a busy group would never be done.
    assert [command.position for command in stub.asked] == [
        None,
        CutPosition(timeline=0x8F3A000000000001, position=8192),
        CutPosition(timeline=0x8F3A000000000001, position=8192),
    ]


def test_a_wait_that_is_not_reached_ends_with_22(stub: StubSite, farshore: Run) -> None:
    stub.replies["wait"] = replace(WAIT, reached=False, state="split", code="PSUS", lag_bytes=4096)
    line = ("wait", "vm1", "--state", "paired", "--timeout", "0", "--site", str(stub.directory))
    ran = farshore(*line)
    assert ran.code == ExitCode.TIMEOUT
    assert "it is split (PSUS), behind 4 KiB" in ran.err


def test_damage_ends_with_24_and_is_told(stub: StubSite, farshore: Run) -> None:
    damage = DamageInfo(object="vm1 journal", position="8f:1", message="bad digest", next="resync")
    stub.replies["verify"] = replace(VERIFIED, ok=False, damage=[damage])
    ran = farshore("verify", "vm1", "--site", str(stub.directory))
    assert ran.code == ExitCode.MISMATCH
    assert "vm1 journal 8f:1: bad digest" in ran.out


def test_text_from_the_site_is_no_markup(stub: StubSite, farshore: Run) -> None:
    assert "[bold]not markup[/bold]" in farshore("events", "--site", str(stub.directory)).out


def test_empty_lists_say_how_to_begin(stub: StubSite, farshore: Run) -> None:
    stub.replies["volume.list"] = VolumeListReply(volumes=[])
    ran = farshore("volume", "list", "--site", str(stub.directory))
    assert (ran.code, ran.out) == (0, "")
    assert f"farshore --site {stub.directory} volume create" in ran.err


def test_help_and_version(farshore: Run) -> None:
    for words in (("--help",), ("volume", "--help"), ("restore", "volume", "--help")):
        ran = farshore(*words)
        assert (ran.code, ran.err) == (0, "")
        assert "Usage" in ran.out
    assert farshore("--version").out.startswith("farshore")
    assert farshore().code == ExitCode.USAGE


def test_a_person_is_shown_the_plan_and_asked_for_the_name(stub: StubSite) -> None:
    stub.replies["restore.volume"] = lambda command: replace(RESTORE, dry_run=command.dry_run)
    words = ("restore", "volume", "vm1/root", "--at", "-10m", "--site", str(stub.directory))
    for answer, code in (("vm1", ExitCode.UNSAFE), ("vm1/root", ExitCode.OK)):
        stub.asked.clear()
        screen, returned = run_on_terminal(words, prompt="to turn it back: ", answer=answer)
        assert returned == code, screen
        assert "would be turned back to 8f3a000000000001:8192" in screen
        assert [command.dry_run for command in stub.asked] == ([True, False] if code == 0 else [True])
    # What was planned is what is done: the relative time has become the plan's position.
    assert stub.asked[1].cut == CutPosition(timeline=0x8F3A000000000001, position=8192)
    assert stub.asked[1].confirm == "vm1/root"


def test_tables_on_a_terminal(stub: StubSite) -> None:
    screen, code = run_on_terminal(("volume", "list", "--site", str(stub.directory)))
    assert code == 0
    assert "vm1/root" in screen
    assert "\x1b[" in screen
