"""What people type first: it asks for what the command asks for, or is answered with what to type."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from console.guesses import guessed
from protocol.commands.cut import CutResolve
from protocol.commands.event import Events, EventsReply
from protocol.commands.journal import JournalShow
from protocol.commands.pair import PairShow
from protocol.commands.site import SiteStatus
from protocol.cut_text import CutPosition, CutTime
from protocol.errors import ExitCode
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import CUT, EVENTS, StubSite

Run = Callable[..., Ran]


@pytest.mark.parametrize(
    ("guess", "line"),
    [
        ("status vm1", "status"),
        ("restore vm1 --at nightly --confirm vm1", "restore group vm1 --at nightly --confirm vm1"),
        ("restore vm1 nightly --confirm vm1", "restore group vm1 --at nightly --confirm vm1"),
        ("restore vm1 -10m --dry-run", "restore group vm1 --at -10m --dry-run"),
        (
            "restore vm1/root nightly --confirm vm1/root",
            "restore volume vm1/root --at nightly --confirm vm1/root",
        ),
        ("restore group vm1 nightly --confirm vm1", "restore group vm1 --at nightly --confirm vm1"),
        ("backup restore vm1 nightly --confirm vm1", "restore group vm1 --at nightly --confirm vm1"),
        ("pair list", "status"),
        ("pair ls", "status"),
        ("pairs", "status"),
        ("pair status", "status"),
        ("pair status vm1", "pair show vm1"),
        ("pair info vm1", "pair show vm1"),
        ("volume ls", "volume list"),
        ("volumes", "volume list"),
        ("ls", "volume list"),
        ("backup ls", "backup list"),
        ("snapshots", "backup list"),
        ("snapshot create vm1", "backup create vm1"),
        ("backup new vm1", "backup create vm1"),
        ("peer ls", "peer list"),
        ("peer rm par", "peer remove par"),
        ("peer delete par", "peer remove par"),
        ("group ls", "group list"),
        ("groups", "group list"),
        ("volume rm vm1/root --confirm vm1/root", "volume delete vm1/root --confirm vm1/root"),
        ("failover vm1 --confirm vm1", "takeover vm1 --confirm vm1"),
        ("promote vm1 --plan", "takeover vm1 --plan"),
        ("logs", "events"),
        ("status vm1/root", "status"),
        ("restore vm1@nightly --confirm vm1", "restore group vm1 --at nightly --confirm vm1"),
        ("backup vm1 --label x", "backup create vm1 --label x"),
        ("snapshot vm1", "backup create vm1"),
        ("journal vm1", "journal show vm1"),
        ("journal ls vm1", "journal show vm1"),
        ("volume vm1/root", "volume show vm1/root"),
        ("volume create vm1/data 1G", "volume create vm1/data --size 1G"),
        ("ls vm1", "volume list vm1"),
        ("site status", "status"),
    ],
)
def test_a_guess_asks_for_the_same(guess: str, line: str, stub: StubSite, farshore: Run) -> None:
    asked = []
    for words in (guess, line):
        stub.asked.clear()
        ran = farshore(*words.split(), "--site", str(stub.directory))
        assert ran.code == 0, ran.err
        asked.append([_without_now(each) for each in stub.asked])
    assert asked[0]
    assert asked[0] == asked[1]


def _without_now(command: Any) -> Any:
    """A relative time is another one a moment later."""
    cut = getattr(command, "cut", None)
    return replace(command, cut=CutTime(utc_ns=0)) if isinstance(cut, CutTime) else command


@pytest.mark.parametrize(
    ("guess", "next_step"),
    [
        ("backup verify vm1 nightly", "drill run vm1 --at nightly`"),
        ("backup verify vm1", "drill run vm1 --at CUT`"),
        ("verify vm1 nightly", "drill run vm1 --at nightly`"),
        ("backup verify", "drill run G --at CUT`"),
        ("restore vm1 nightly --at other", "farshore restore group --help"),
        ("events --since nightly", "write it as 10m"),
    ],
)
def test_a_guess_without_one_answer_is_told_what_to_type(
    guess: str, next_step: str, stub: StubSite, farshore: Run
) -> None:
    ran = farshore(*guess.split(), "--site", str(stub.directory))
    assert ran.code == ExitCode.USAGE
    assert next_step in ran.err
    assert stub.asked == []


def test_help_is_a_word_too(farshore: Run) -> None:
    for words in (["help"], ["help", "restore"], ["help", "snapshot", "create"]):
        ran = farshore(*words)
        assert (ran.code, ran.err) == (0, "")
        assert "Usage: farshore" in ran.out
    assert guessed(["help", "snapshot", "create"]) == ["backup", "create", "--help"]


def test_what_is_no_guess_stays_as_it_is() -> None:
    for line in (
        "restore files vm1/root:/etc --to x",
        "drill run vm1 --at -1h",
        "verify vm1 --deep",
        "restore --help",
    ):
        assert guessed(line.split()) == line.split()
    assert guessed([]) == []


def test_status_of_one_group(stub: StubSite, farshore: Run) -> None:
    ran = farshore("--json", "status", "vm1", "--site", str(stub.directory))
    assert [each["group"] for each in ran.json[0]["data"]["groups"]] == ["vm1"]
    assert [type(each) for each in stub.asked] == [SiteStatus]
    gone = farshore("status", "vm9", "--site", str(stub.directory))
    assert (gone.code, "no group vm9" in gone.err) == (ExitCode.NOT_FOUND, True)


def test_events_since_a_time(stub: StubSite, farshore: Run) -> None:
    now = datetime.now(UTC)
    (event,) = EVENTS.events
    times = [now - timedelta(minutes=ago) for ago in (30, 9, 11, 1)]  # the clock was put back in between
    rows = [
        replace(event, seq=at, time=each.isoformat().replace("+00:00", "Z"))
        for at, each in enumerate(times, 1)
    ]
    stub.replies["events"] = EventsReply(events=rows, next=4, missed=False)
    for since in ("10m", "-10m", "10 minutes ago"):
        ran = farshore("--json", "events", "--since", since, "--site", str(stub.directory))
        assert [each["seq"] for each in ran.json[0]["data"]["events"]] == [2, 3, 4], ran.err
    ran = farshore("--json", "events", "--since", "10m", "--limit", "1", "--site", str(stub.directory))
    assert [each["seq"] for each in ran.json[0]["data"]["events"]] == [4]
    stub.asked.clear()
    farshore("events", "--since", "3", "--site", str(stub.directory))
    (asked,) = stub.asked
    assert isinstance(asked, Events)
    assert asked.since == 3


def test_the_journal_since_a_time(stub: StubSite, farshore: Run) -> None:
    ran = farshore("journal", "show", "vm1", "--since", "10m", "--site", str(stub.directory))
    assert ran.code == 0, ran.err
    resolve, show = stub.asked
    assert isinstance(resolve, CutResolve)
    assert isinstance(resolve.cut, CutTime)
    assert isinstance(show, JournalShow)
    assert show.since == CutPosition(timeline=int(CUT.timeline, 16), position=CUT.position)


def test_a_pairs_guess_needs_its_group(stub: StubSite, farshore: Run) -> None:
    farshore("pair", "get", "vm1", "--site", str(stub.directory))
    assert stub.asked == [PairShow(group="vm1")]
