"""`farshore timeline` of a pair: both sites say the same of bytes and marks, and hosts do not wait for it."""

from __future__ import annotations

from typing import Any

import pytest

from console.figures import utc_ns
from protocol.errors import ExitCode
from tests.support.clients import succeed
from tests.support.pairs import start_pair
from tests.support.sites import Site, running_sites

MIB = 1 << 20


def timeline(site: Site, begin: str, end: str, buckets: int = 10) -> dict[str, Any]:
    found: dict[str, Any] = site.json(
        "timeline", "vm1", "--from", begin, "--to", end, "--buckets", str(buckets)
    )
    return found


def test_both_sites_tell_the_same_story() -> None:
    with running_sites("lon", "par") as (lon, par):
        start_pair(lon, par, "vm1/root", 16 * MIB)
        lon.farshore("backup", "create", "vm1", "--label", "nightly")
        succeed("qemu-io", "-f", "raw", "-c", "write -P 7 0 1M", "-c", "flush", lon.uri("vm1/root"))
        lon.farshore("restore", "volume", "vm1/root", "--at", "nightly", "--confirm", "vm1/root")
        lon.farshore("switchover", "vm1", "--confirm", "vm1")
        par.farshore("wait", "vm1", "--state", "paired", "--timeout", "60")
        frames = par.json("journal", "show", "vm1", "--limit", "1000")["frames"]
        begin, end = frames[0]["time"], par.json("status")["time"]
        told = [timeline(site, begin, end) for site in (lon, par)]
        assert told[0] == told[1]
        (story, _) = told
        # Each frame in its bucket, the last one being open at its end.
        for number, bucket in enumerate(story["buckets"]):
            first = utc_ns(bucket["time"])
            later = story["buckets"][number + 1]["time"] if number < 9 else story["to"]
            within = [each["bytes"] for each in frames if first <= utc_ns(each["time"]) < utc_ns(later)]
            assert bucket["bytes"] == sum(within)
        assert sum(each["bytes"] for each in story["buckets"]) > MIB
        assert (story["exact"], story["held_from"], story["marks_left_out"]) == (True, begin, 0)
        marks = [(each["kind"], each["name"]) for each in story["marks"]]
        assert marks == [("backup", "nightly"), ("restore", "root"), ("switchover", "par")]
        # The way back of a lost site.
        par.kill()
        lon.expected_errors |= {"peer.silent", "pair.suspended"}
        lon.farshore("takeover", "vm1", "--confirm", "vm1")
        last = timeline(lon, end, "now", 1)["marks"]
        assert [(each["kind"], each["name"]) for each in last] == [("takeover", "lon")]
        screen = lon.farshore("timeline", "vm1", "--from", begin, "--buckets", "1")
        assert "backup nightly, restore root, switchover par, takeover lon" in screen


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["vm9"], ExitCode.NOT_FOUND, "did you mean vm1?"),
        (["vm1", "--from", "now", "--to", "10m"], ExitCode.USAGE, "--to 10m is not after --from now"),
        (["vm1", "--buckets", "0"], ExitCode.USAGE, "--buckets"),
        (["vm1", "--buckets", "1001"], ExitCode.USAGE, "--buckets"),
        (["vm1", "--from", "nightly"], ExitCode.NOT_FOUND, "nightly"),
    ],
)
def test_what_makes_no_sense_is_refused(words: list[str], code: ExitCode, said: str, lon: Site) -> None:
    ran = lon.run("timeline", *words)
    assert ran.returncode == code
    assert said in ran.stderr


@pytest.fixture(scope="module")
def lon() -> Any:
    with running_sites("lon") as (site,):
        site.create_volume("vm1/root", "1M")
        yield site
