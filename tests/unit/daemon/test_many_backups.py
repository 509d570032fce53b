"""Many backups at once: few frames, hosts in between, the peer none the wiser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from daemon.operations import dispatch
from daemon.operations.paging import TimeSlices
from daemon.operations.pruning import DELETIONS_A_FRAME
from daemon.operations.waiting import wait_durable
from engine.copies.copies import Copy
from engine.group.group import Group
from protocol.commands.backup import (
    BackupCreate,
    BackupDeleteMany,
    BackupList,
    BackupPin,
    BackupPrune,
)
from protocol.cut_text import CutLabel
from protocol.errors import NotFound, Refused, Unsafe
from protocol.frames import Frame
from site_primary.backup import delete_backups, pin_backup, take_backup
from tests.unit.daemon.stage import Stage, carried_out, staged

COUNT = 2 * DELETIONS_A_FRAME + 100


@asynccontextmanager
async def many() -> AsyncIterator[tuple[Stage, Group]]:
    """A paired group with labelled backups `b0`, `b1`, …."""
    async with staged(names=("good",)) as stage:
        group = stage.group("good")
        for number in range(COUNT):
            take_backup(group, volume=None, label=f"b{number}", cut=None, pinned=False, rng=stage.a.rng)
        await wait_durable(group)
        await stage.paired("good")
        yield stage, group


def frames_of(group: Group) -> list[Frame]:
    found: list[Frame] = []
    group.listeners.frame.append(found.append)
    return found


def labels(group: Group) -> list[str]:
    return [copy.label for copy in group.copies.at(group.spans())]


def named(*numbers: int) -> tuple[CutLabel, ...]:
    return tuple(CutLabel(label=f"b{number}") for number in numbers)


def test_several_are_deleted_in_few_frames_at_both_sites() -> None:
    async def play() -> None:
        async with many() as (stage, group):
            frames = frames_of(group)
            doomed = named(*range(COUNT - 1))
            reply = await carried_out(
                stage.a, BackupDeleteMany(group="good", cuts=(*doomed, doomed[0]), confirm="good")
            )
            assert [row.label for row in reply.deleted] == [f"b{number}" for number in range(COUNT - 1)]
            assert len(frames) == -(-(COUNT - 1) // DELETIONS_A_FRAME)
            assert labels(group) == [f"b{COUNT - 1}"]
            await stage.paired("good")
            assert labels(stage.group("good", "b")) == [f"b{COUNT - 1}"]
            assert len(stage.said(stage.a, "backup.deleted")) == COUNT - 1
            with pytest.raises(Refused, match="was deleted"):
                await dispatch(stage.a, BackupCreate(group="good", label="b0"))

    asyncio.run(play())


def test_none_is_deleted_if_one_may_not_be() -> None:
    async def play() -> None:
        async with many() as (stage, group):
            await dispatch(stage.a, BackupPin(group="good", cut=CutLabel(label="b7")))
            frames = frames_of(group)
            with pytest.raises(Refused, match="b7 of good is pinned"):
                await dispatch(stage.a, BackupDeleteMany(group="good", cuts=named(6, 7), confirm="good"))
            with pytest.raises(NotFound, match="b9999"):
                await dispatch(stage.a, BackupDeleteMany(group="good", cuts=named(6, 9999), confirm="good"))
            with pytest.raises(Unsafe, match="confirm"):
                await dispatch(stage.a, BackupDeleteMany(group="good", cuts=named(6), confirm="b6"))
            reply = await carried_out(stage.a, BackupDeleteMany(group="good", cuts=named(6), dry_run=True))
            assert ([row.label for row in reply.deleted], reply.unique_bytes) == (["b6"], 0)
            assert frames == []
            assert len(labels(group)) == COUNT

    asyncio.run(play())


def test_one_that_is_pinned_between_two_frames_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that are gone by then are told of."""

    async def play() -> None:
        async with many() as (stage, group):
            last = f"b{COUNT - 1}"

            def delete_and_pin(group: Group, copies: list[Copy]) -> None:
                delete_backups(group, copies)
                pin_backup(group, group.copies.find(group.spans(), last, group.name), pinned=True)

            monkeypatch.setattr("daemon.operations.pruning.delete_backups", delete_and_pin)
            cuts = named(*range(COUNT))
            with pytest.raises(Refused, match=f"{last} of good is pinned"):
                await dispatch(stage.a, BackupDeleteMany(group="good", cuts=cuts, confirm="good"))
            assert labels(group) == [f"b{number}" for number in range(2 * DELETIONS_A_FRAME, COUNT)]
            assert len(stage.said(stage.a, "backup.deleted")) == 2 * DELETIONS_A_FRAME

    asyncio.run(play())


def test_a_prune_says_no_more_than_a_reply_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with many() as (stage, group):
            monkeypatch.setattr("daemon.operations.pruning.PRUNE_ROWS_MAX", COUNT - 6)
            frames = frames_of(group)
            prune = BackupPrune(group="good", keep_last=10, labelled=True, confirm="good")
            reply = await carried_out(stage.a, prune)
            assert len(reply.deleted) == COUNT - 10, "what goes is said first"
            assert (len(reply.kept), reply.left_out) == (4, 6)
            assert len(frames) == -(-(COUNT - 10) // DELETIONS_A_FRAME)
            assert len(labels(group)) == 10
            await stage.paired("good")
            assert len(labels(stage.group("good", "b"))) == 10

    asyncio.run(play())


def test_hosts_have_turns_while_backups_are_deleted_and_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between every two frames, and every few backups that are looked at."""

    async def play() -> None:
        async with many() as (stage, _):
            steps = 0
            pause = TimeSlices.pause

            async def counted(slices: TimeSlices) -> None:
                nonlocal steps
                steps += 1
                await pause(slices)

            monkeypatch.setattr(TimeSlices, "pause", counted)
            await dispatch(stage.a, BackupPrune(group="good", keep_daily=1, labelled=True, dry_run=True))
            # Each is looked at, and is a row of the reply.
            assert steps >= 2 * COUNT
            steps = 0
            cuts = named(*range(COUNT))
            await dispatch(stage.a, BackupDeleteMany(group="good", cuts=cuts, confirm="good"))
            assert steps >= 3 * COUNT

    asyncio.run(play())


def test_a_page_of_backups_costs_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes before and after it."""

    async def play() -> None:
        async with many() as (stage, group):
            monkeypatch.setattr("daemon.operations.paging.CONTROL_PAGE_BYTES", 4096)
            looked_up = 0
            as_pinned = type(group.copies)._as_pinned

            def counted(table: object, here: object, copy: Copy) -> Copy:
                nonlocal looked_up
                looked_up += 1
                return as_pinned(table, here, copy)  # type: ignore[arg-type]

            monkeypatch.setattr(type(group.copies), "_as_pinned", counted)
            page = await carried_out(stage.a, BackupList(group="good", after=""))
            first = len(page.backups)
            middle = group.copies.of_cut(group.spans(), list(group.copies.every())[COUNT // 2].cut)[0]
            looked_up = 0
            after = f'[{-middle.utc_ns},"good",{-middle.position}]'
            page = await carried_out(stage.a, BackupList(group="good", after=after))
            assert page.backups[0].label == f"b{COUNT // 2 - 1}"
            assert looked_up <= len(page.backups) + 1 <= first + 2 < COUNT // 2

    asyncio.run(play())
