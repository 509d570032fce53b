"""Rates and schedules by the time of day: what is typed, and how what holds now is shown."""

from __future__ import annotations

from datetime import UTC

import pytest
from msgspec.structs import replace

from console.link_rates import rate_now_text, window_text
from protocol.commands.peer import PeerSet, RateWindow, RateWindowInfo
from protocol.commands.schedule import ScheduleNext, ScheduleSet
from protocol.errors import ExitCode
from tests.unit.console.stub_site import PEER, StubSite
from tests.unit.console.test_cli import Run


def test_words_become_typed_commands(stub: StubSite, farshore: Run) -> None:
    cases = {
        "peer set par --rate 20M --between 22:00-06:00 --tz Europe/Berlin": PeerSet(
            peer="par",
            window=RateWindow(
                from_minute=1320, until_minute=360, zone="Europe/Berlin", rate_bytes_s=20 << 20
            ),
        ),
        "peer set par --rate none --between 18:00-24:00": PeerSet(
            peer="par", window=RateWindow(from_minute=1080, until_minute=0, zone="UTC", rate_bytes_s=0)
        ),
        "peer set par --rate 20M --between mon-fri_08:00-18:00 --tz Europe/Berlin": PeerSet(
            peer="par",
            window=RateWindow(
                from_minute=480,
                until_minute=1080,
                zone="Europe/Berlin",
                rate_bytes_s=20 << 20,
                days=(0, 1, 2, 3, 4),
            ),
        ),
        "peer set par --between Sat,Sun,wed_00:00-24:00_none": PeerSet(
            peer="par",
            window=RateWindow(from_minute=0, until_minute=0, zone="UTC", rate_bytes_s=0, days=(2, 5, 6)),
        ),
        "peer set par --between fri-mon_22:00-06:00_1M": PeerSet(
            peer="par",
            window=RateWindow(
                from_minute=1320, until_minute=360, zone="UTC", rate_bytes_s=1 << 20, days=(0, 4, 5, 6)
            ),
        ),
        "peer set par --between mon-sun_18:00-24:00_1M": PeerSet(
            peer="par",
            window=RateWindow(from_minute=1080, until_minute=0, zone="UTC", rate_bytes_s=1 << 20),
        ),
        "peer set par --between none --rate 1M": PeerSet(peer="par", rate_bytes_s=1 << 20, drop_windows=True),
        "schedule set vm1 --at 02:05 --tz Europe/Berlin": ScheduleSet(
            group="vm1", cron="5 2 * * *", zone="Europe/Berlin"
        ),
        "schedule next vm1 --count 3": ScheduleNext(group="vm1", count=3),
    }
    for line, command in cases.items():
        words = [word.replace("_", " ") for word in line.split()]
        assert farshore(*words, "--site", str(stub.directory)).code == 0, line
        assert stub.asked[-1] == command, line


@pytest.mark.parametrize(
    "between",
    [
        "08:00-08:00",
        "mon 08:00-25:00",
        "mo 08:00-18:00",
        "mon- 08:00-18:00",
        ",mon 08:00-18:00",
        "mon tue 08:00-18:00",
        "mon-sun 00:00-24:00x",
        "mon-sun 08:00-08:00",
        "mon 08:00-18:00 5M",
        "08:00-18:00 mon",
        "",
        " ",
    ],
)
def test_no_window_is_refused(stub: StubSite, farshore: Run, between: str) -> None:
    ran = farshore("peer", "set", "par", "--rate", "20M", "--between", between, "--site", str(stub.directory))
    assert (ran.code, stub.asked) == (ExitCode.USAGE, [])


def test_what_holds_now_is_said_with_its_end() -> None:
    window = RateWindowInfo(between="22:00-06:00", zone="Europe/Berlin", rate_bytes_s=0)
    assert window_text(window) == "22:00-06:00 Europe/Berlin: no limit"
    working = replace(window, days="mon-fri")
    assert window_text(working) == "mon-fri 22:00-06:00 Europe/Berlin: no limit"
    assert rate_now_text(PEER, UTC) == "10 MiB/s"
    peer = replace(PEER, windows=[window], rate_now_bytes_s=20 << 20, rate_until="2027-03-28T20:00:00Z")
    assert rate_now_text(peer, UTC) == "20 MiB/s until 20:00"
    assert rate_now_text(replace(peer, rate_now_bytes_s=0, rate_until=None), UTC) == "no limit"


def test_a_run_is_shown_in_the_zone_of_its_schedule(stub: StubSite, farshore: Run) -> None:
    for words in (("list",), ("show", "vm1"), ("next", "vm1")):
        ran = farshore("schedule", *words, "--site", str(stub.directory))
        assert "2027-03-28 03:00:00 +0200 CEST" in ran.out.replace("\n", " "), ran.err
        (answer,) = farshore("schedule", *words, "--site", str(stub.directory), "--json").json
        assert answer["kind"] == f"schedule.{words[0]}"
