"""Fixtures of the engine's tests: a directory where syncs cost little, and segments small enough to fill."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.journal import room
from engine.retention import truncation
from tests.unit.engine.group_rig import GroupRig, follow, memory_directory

SMALL_SEGMENT_BYTES = 1 << 18
TINY_SEGMENT_BYTES = 64 << 10


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MiB a segment would make every copy and every new timeline slow. Frames here stay far below."""
    monkeypatch.setattr(room, "SEGMENT_BYTES", SMALL_SEGMENT_BYTES)
    monkeypatch.setattr(room, "SEGMENT_BYTES_MIN", SMALL_SEGMENT_BYTES // 4)


@pytest.fixture
def tiny_segments(monkeypatch: pytest.MonkeyPatch, small_segments: None) -> None:
    """So that short stories truncate many of them, each by several requests."""
    monkeypatch.setattr(room, "SEGMENT_BYTES", TINY_SEGMENT_BYTES)
    monkeypatch.setattr(room, "SEGMENT_BYTES_MIN", TINY_SEGMENT_BYTES)
    monkeypatch.setattr(truncation, "BLOCKS_MAX", 20)
    monkeypatch.setattr(truncation, "WINDOW_BLOCKS", 5)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose syncs cost little."""
    path = memory_directory()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make_rig(directory: Path) -> Iterator[Callable[..., GroupRig]]:
    """Opens groups, one a name; all are dropped at the end."""
    made: list[GroupRig] = []

    def make(name: str = "one", **options: object) -> GroupRig:
        rig = GroupRig(directory / name, **options)  # type: ignore[arg-type]
        rig.open()
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.drop()


@pytest.fixture
def rig(make_rig: Callable[..., GroupRig]) -> GroupRig:
    """A new group, open and empty."""
    return make_rig()


@pytest.fixture
def sites(make_rig: Callable[..., GroupRig]) -> tuple[GroupRig, GroupRig]:
    """A writer with a volume, and a follower with all of it."""
    one = make_rig("one")
    other = make_rig("other", site="par", world=one.world, seed=2)
    one.create("root", 8)
    follow(one, other)
    return one, other
