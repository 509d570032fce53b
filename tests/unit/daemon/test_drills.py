"""Drills at two real sites: what one tells the other, what it signs, and what it does not take in."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from typing import Any

import pytest

from daemon.alerts.figures import copy_figures
from daemon.alerts.told_drills import hear_of_drill
from daemon.alerts.watch import AlertWatch
from daemon.operations.drill_row import DrillPlace, KnownDrill, drill_summary, newest_first
from daemon.signing_key import SIGNING_KEY_FILE, signing_seed
from daemon.site import Site
from protocol.commands.backup import BackupCreate, BackupShow
from protocol.commands.cut import CutResolve
from protocol.commands.drill import (
    DrillInfo,
    DrillKey,
    DrillList,
    DrillPlans,
    DrillPlanSet,
    DrillProof,
    DrillRecord,
    DrillSign,
    VolumeDigest,
)
from protocol.commands.volume import VolumeCreate
from protocol.cut_text import CutLabel, CutPosition
from protocol.drill_report import verified_report
from protocol.errors import Corruption, ExitCode, NotFound, UsageError
from protocol.proof_limits import (
    CHECK_COMMAND_CHARS_MAX,
    CHECK_OUTPUT_CHARS_MAX,
    CHECK_USER_CHARS_MAX,
    DIGEST_CHARS_MAX,
    TOOL_CHARS_MAX,
    TOOLS_MAX,
)
from tests.support.sites import short_directory
from tests.unit.daemon.stage import Stage, carried_out, make_one_site, staged

PROOF = DrillProof(
    version="0.1.0",
    hook="sqlite",
    command="sqlite of Farshore",
    user="root (0)",
    exit_code=0,
    output="</pre><script>",
    digests=(VolumeDigest(volume="v", digest="xxh3:00", size_bytes=1 << 20),),
)


async def drilled(
    stage: Stage,
    *,
    started_ns: int = 1_000_000_000,
    site: Site | None = None,
    group: str = "good",
    proof: DrillProof = PROOF,
) -> DrillInfo:
    """A drill of backup b1 of the good group, recorded at b if nothing else is said."""
    cut = await carried_out(stage.b, CutResolve(group="good", cut=CutLabel(label="b1")))
    at = CutPosition(timeline=int(cut.timeline, 16), position=cut.position)
    command = DrillRecord(
        group=group,
        volumes=("v",),
        cut=at,
        started_utc_ns=started_ns,
        ok=True,
        recovery_s=1.5,
        steps=(),
        data_age_s=2.0,
        proof=proof,
    )
    return await carried_out(site or stage.b, command)


async def the_other_knows(stage: Stage) -> None:
    info = await drilled(stage)
    assert info.proof is not None
    assert info.proof.backup == "b1"
    watch = AlertWatch(stage.a)
    watch.start()
    try:
        await stage.until(lambda: stage.a.proofs.told("good"))
    finally:
        await watch.close()
    (told,) = (await carried_out(stage.a, DrillList(group="good"))).drills
    assert (told.drill, told.site, told.ok, told.cut) == (info.drill, "b", True, told.cut)
    assert (told.recovery_s, told.data_age_s) == (1.5, 2.0)
    assert told.proof is not None
    assert (told.proof.digest, told.proof.hook) == (info.proof.digest, "sqlite")
    for site in (stage.a, stage.b):
        (proven,) = (await carried_out(site, BackupShow(group="good", cut=CutLabel(label="b1")))).proven
        assert (proven.how, proven.site, proven.ok, proven.digest) == (
            "drilled",
            "b",
            True,
            info.proof.digest,
        )


async def each_signs_its_own(stage: Stage) -> None:
    key = await carried_out(stage.b, DrillKey())
    signed = await carried_out(stage.b, DrillSign(group="good", backup="b1", format="html"))
    assert signed.key == key.key == (await carried_out(stage.b, DrillKey())).key
    _, statement = verified_report(signed.document.encode(), key.fingerprint, "it")
    assert [each.drill for each in statement.drills] == signed.drills
    assert statement.site_id == stage.b.identity.site_id
    with pytest.raises(NotFound) as caught:
        await carried_out(stage.a, DrillSign(group="good"))
    assert "--site b" in caught.value.next_step
    with pytest.raises(NotFound):
        await carried_out(stage.b, DrillSign(group="good", backup="b2"))
    with pytest.raises(NotFound):
        await carried_out(stage.b, DrillSign(since_utc_ns=1 << 61))


def lies_are_left_out(stage: Stage, position: str) -> None:
    """A peer may say anything."""
    good: dict[str, object] = {"group": "good", "position": position, "drill": "0" * 15 + "1"}
    wrong: list[Mapping[str, object]] = [
        {"drill": "ffffffffffffffff"},
        {"drill": "../x"},
        {"drill": 1},
        {"position": "nowhere"},
        {"position": f"{'f' * 16}:{10**30}"},
        {"group": "bad"},
        {"group": "nothing"},
        {"group": None},
        {"recovery_s": float("nan")},
        {"recovery_s": -1},
        {"data_age_s": "x"},
        {"backup": "g" * 16},
        {"label": "<script>"},
        {"check": "/bin/sh"},
        {"given_by": "x" * 1000},
        {"digest": "sha256:?"},
    ]
    before = stage.a.proofs.told("good")
    for change in wrong:
        hear_of_drill(stage.a, "b", "drill.ok", {**good, **change})
    hear_of_drill(stage.a, "stranger", "drill.ok", good)
    hear_of_drill(stage.a, "b", "drill.old", good)
    assert stage.a.proofs.told("good") == before
    # As an earlier version tells of one that failed; a name that would turn a terminal is made printable.
    hear_of_drill(stage.a, "b", "drill.failed", {**good, "failed": "check", "given_by": "\x1b[2J"})
    ((_, told),) = [each for each in stage.a.proofs.told("good") if each not in before]
    assert (told.ok, told.digest, told.by) == (False, "", "\\x1b[2J")


async def both_of_one_nanosecond_are_listed(stage: Stage, position: str) -> None:
    """One was run at each site; a clock that counts in coarse steps does that. Also where a page ends between
    the two, and with another group at the same time."""
    at_ns = 0x3000
    fields = {"group": "good", "position": position, "drill": f"{at_ns:016x}"}
    hear_of_drill(stage.a, "b", "drill.ok", fields)
    own = await drilled(stage, started_ns=at_ns, site=stage.a)
    other = await drilled(stage, started_ns=at_ns, site=stage.a, group="bad")
    expected = [("bad", "a", other.drill), ("good", "a", own.drill), ("good", "b", own.drill)]

    def listed(start: DrillPlace | None, limit: int) -> list[tuple[DrillPlace, KnownDrill]]:
        return list(newest_first(stage.a, ["bad", "good"], start, limit))

    def names(rows: list[tuple[DrillPlace, KnownDrill]]) -> list[tuple[str, str, str]]:
        shown = [drill_summary(stage.a, known) for _, known in rows]
        return [(each.group, each.site, each.drill) for each in shown if int(each.drill, 16) == at_ns]

    whole = listed(None, 1000)
    assert names(whole) == expected
    place, one_by_one = None, []
    while rows := listed(place, 1):
        one_by_one += rows
        place = rows[-1][0]
    assert [known for _, known in one_by_one] == [known for _, known in whole]


def a_full_disk_holds_up_no_news(stage: Stage, position: str) -> None:
    """The event that it is comes after this, and the peer's other news."""
    heard = []

    def full(*row: object) -> None:
        heard.append(row)
        raise OSError(errno.ENOSPC, "no room")

    stage.a.proofs.hear = full  # type: ignore[method-assign, assignment]
    hear_of_drill(stage.a, "b", "drill.ok", {"group": "good", "position": position, "drill": "0" * 15 + "2"})
    assert len(heard) == 1


def test_a_drill_is_read_again_however_much_it_says() -> None:
    """Of the longest texts that a command may have: what is taken is kept so that it can be read."""
    longest = DrillProof(
        version="v" * 63,
        hook="h" * 63,
        command="c" * CHECK_COMMAND_CHARS_MAX,
        user="u" * CHECK_USER_CHARS_MAX,
        exit_code=-1024,
        output="\u20ac" * CHECK_OUTPUT_CHARS_MAX,
        tools=("t" * TOOL_CHARS_MAX,) * TOOLS_MAX,
        digests=(VolumeDigest(volume="v", digest="d" * DIGEST_CHARS_MAX, size_bytes=(1 << 62) - 1),),
    )

    async def play() -> None:
        async with staged(names=("good",)) as stage:
            await carried_out(stage.a, BackupCreate(group="good", label="b1"))
            await stage.paired("good")
            recorded = await drilled(stage, proof=longest)
            (listed,) = (await carried_out(stage.b, DrillList())).drills
            assert listed == recorded
            assert listed.proof is not None
            assert [each.digest for each in listed.proof.digests] == ["d" * DIGEST_CHARS_MAX]

    asyncio.run(play())


def test_drills_between_two_sites() -> None:
    async def main() -> None:
        async with staged(("good", "bad")) as stage:
            await carried_out(stage.a, BackupCreate(group="good", label="b1"))
            await stage.paired("good")
            await the_other_knows(stage)
            await each_signs_its_own(stage)
            # The other group is paired with somebody else.
            stage.a.peer_of = lambda group: "b" if group == "good" else "c"  # type: ignore[method-assign]
            await both_of_one_nanosecond_are_listed(stage, str(stage.group("good").end))
            lies_are_left_out(stage, str(stage.group("good").end))
            a_full_disk_holds_up_no_news(stage, str(stage.group("good").end))

    asyncio.run(main())


async def plans_of(site: Any) -> None:
    with pytest.raises(UsageError, match="which check") as caught:
        await carried_out(site, DrillPlanSet(group="g", every_s=3600))
    assert caught.value.exit_code is ExitCode.USAGE
    with pytest.raises(UsageError, match="how often"):
        await carried_out(site, DrillPlanSet(group="g", hook="sqlite"))
    with pytest.raises(UsageError, match="too often"):
        await carried_out(site, DrillPlanSet(group="g", every_s=1, hook="sqlite"))
    await carried_out(site, DrillPlanSet(group="g", every_s=3600, hook="sqlite", args=("x",)))
    (plan,) = (await carried_out(site, DrillPlanSet(group="g", user="nobody"))).plans
    assert (plan.every_s, plan.hook, plan.args, plan.user) == (3600, "sqlite", ["x"], "nobody")
    assert (plan.is_due, plan.backup) == (True, "b1")
    due_s = copy_figures(site, site.groups["g"]).drill_due_s
    assert due_s is not None
    assert due_s >= 0
    record = DrillRecord(
        group="g",
        volumes=("v",),
        cut=CutPosition(timeline=site.groups["g"].end.timeline, position=site.groups["g"].end.position),
        started_utc_ns=site.clock.utc_ns(),
        ok=False,
        recovery_s=0.0,
        steps=(),
    )
    assert (await carried_out(site, record)).proof is None  # of a console of an earlier version
    (plan,) = (await carried_out(site, DrillPlans())).plans
    assert plan.is_due is False
    assert copy_figures(site, site.groups["g"]).drill_due_s is None
    await carried_out(site, DrillPlanSet(group="g", every_s=0))
    assert (await carried_out(site, DrillPlans(group="g"))).plans == []


def test_plans_and_a_damaged_key() -> None:
    async def main() -> None:

        site = await make_one_site(short_directory(), "a")
        try:
            await carried_out(site, VolumeCreate(group="g", volume="v", size_bytes=1 << 20))
            await carried_out(site, BackupCreate(group="g", label="b1"))
            await plans_of(site)
            first = signing_seed(site.disk)
            assert signing_seed(site.disk) == first
            path = site.directory / SIGNING_KEY_FILE
            assert path.stat().st_mode & 0o777 == 0o600
            path.write_text("short")
            with pytest.raises(Corruption):
                await carried_out(site, DrillKey())
            assert path.read_text() == "short"
        finally:
            await site.stop()

    asyncio.run(main())
