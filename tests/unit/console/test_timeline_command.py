"""`farshore timeline`: which moments it asks for, and how its answer looks."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from protocol.commands.cut import CutResolve
from protocol.commands.timeline import Timeline, TimelineBucket, TimelineMark, TimelineReply
from protocol.errors import ExitCode
from tests.unit.console.conftest import Ran, run_on_terminal
from tests.unit.console.stub_site import CUT, StubSite

Run = Callable[..., Ran]
HOUR_NS = 3_600 * 10**9
TIMELINE = TimelineReply(
    group="vm1",
    begin="2026-07-03T00:00:00Z",
    end="2026-07-03T01:00:00Z",
    bucket_s=1800.0,
    held_from="2026-07-03T00:10:00Z",
    exact=True,
    buckets=[
        TimelineBucket(time="2026-07-03T00:00:00Z", bytes=None),
        TimelineBucket(time="2026-07-03T00:30:00Z", bytes=3 << 20),
    ],
    marks=[TimelineMark(kind="backup", time="2026-07-03T00:45:00Z", cut=CUT.text, name="nightly")],
    marks_left_out=2,
)


@pytest.fixture(autouse=True)
def _told(stub: StubSite) -> None:
    stub.replies["timeline"] = TIMELINE


def test_the_last_day_if_nothing_is_said(stub: StubSite, farshore: Run) -> None:
    ran = farshore("timeline", "vm1", "--site", str(stub.directory))
    assert ran.code == 0, ran.err
    (asked,) = stub.asked
    assert isinstance(asked, Timeline)
    assert 0 <= asked.to_ns - asked.from_ns - 24 * HOUR_NS < HOUR_NS
    lines = ran.out.splitlines()
    assert lines[0].split() == ["TIME", "BYTES", "MARKS"]
    assert re.sub(" +", " ", lines[1]) == "2026-07-03 02:00:00 +0200 -"
    assert re.sub(" +", " ", lines[2]) == "2026-07-03 02:30:00 +0200 3 MiB backup nightly"
    assert "2 older marks are left out" in ran.err


def test_from_a_backup_to_a_time(stub: StubSite, farshore: Run) -> None:
    words = [
        "timeline",
        "vm1",
        "--from",
        "nightly",
        "--to",
        "2026-07-03T01:45:00Z",
        "--buckets",
        "4",
        "--json",
    ]
    ran = farshore(*words, "--site", str(stub.directory))
    assert ran.json[-1]["data"]["buckets"][1]["bytes"] == 3 << 20
    resolved, asked = stub.asked
    assert isinstance(resolved, CutResolve)
    assert isinstance(asked, Timeline)
    assert (asked.to_ns - asked.from_ns, asked.buckets) == (HOUR_NS, 4)


def test_what_was_not_counted_is_said(stub: StubSite, farshore: Run) -> None:
    stub.replies["timeline"] = replace(TIMELINE, exact=False)
    assert "spread evenly" in farshore("timeline", "vm1", "--site", str(stub.directory)).err


@pytest.mark.parametrize(
    "words", ["--from now --to 10m", "--buckets 0", "--buckets 1001", "--from 2pm", "--to latest!"]
)
def test_no_such_time(words: str, stub: StubSite, farshore: Run) -> None:
    ran = farshore("timeline", "vm1", *words.split(), "--site", str(stub.directory))
    assert ran.code == ExitCode.USAGE
    assert stub.asked == []


def test_a_hostile_name_of_a_mark(stub: StubSite) -> None:
    (mark,) = TIMELINE.marks
    stub.replies["timeline"] = replace(TIMELINE, marks=[replace(mark, name="\x1b]52;c;x\x07\nforged")])
    screen, code = run_on_terminal(("timeline", "vm1", "--site", str(stub.directory)))
    assert code == 0
    assert "\x1b]52" not in screen
    assert "▇▇▇" in screen
    assert not any(line.startswith("forged") for line in re.split(r"[\r\n]+", screen))
