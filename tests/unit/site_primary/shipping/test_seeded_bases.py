"""What a peer has in a seed is not sent, and what its seed has wrong changes nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from protocol.base_messages import BaseAck, BaseDigests, BaseSeeds
from protocol.events import ZERO
from protocol.limits import BLOCK_BYTES
from protocol.seed_limits import SEED_CHUNK_BYTES
from tests.support.seed_files import flip, plant_seed
from tests.unit.engine.group_rig import follow
from tests.unit.site_primary.shipping.base_pair import BasePair

BLOCKS = 1024
CHUNK = SEED_CHUNK_BYTES // BLOCK_BYTES


class Disk:
    """A volume at `one`, in whose blocks is what cannot be compressed or guessed."""

    def __init__(self, pair: BasePair, blocks: int = BLOCKS, seed: int = 1) -> None:
        self.pair = pair
        self.rng = random.Random(seed)
        self.volume = pair.one.create("root", blocks)

    def fill(self, first: int, blocks: int) -> None:
        self.pair.one.write(
            self.volume, first, *(self.rng.randbytes(BLOCK_BYTES) for _ in range(blocks))
        )  # fmt: skip

    @property
    def content(self) -> bytes:
        return self.pair.one.read("root")


def is_seeded(pair: BasePair, content: bytes) -> Path:
    return plant_seed(pair.seed_disk.root, "g", "root", content)


def events(pair: BasePair, kind: str) -> list[dict[str, object]]:
    return [fields for each, fields in pair.other.events if each == kind]


def until_done(pair: BasePair, sessions: int = 5) -> int:
    """Copy, in as many sessions as it takes; how many those were."""
    sender = pair.start_sender(None)
    for session in range(1, sessions + 1):
        pair.failures.clear()
        pair.connect()
        pair.world.run_until(lambda: sender.done or bool(pair.failures), 60.0)
        if sender.done:
            return session
        pair.disconnect()
    raise AssertionError(f"no end: {pair.failures}")


def test_only_what_differs_from_the_seed_is_sent(pair: BasePair) -> None:
    disk = Disk(pair)
    disk.fill(0, 900)
    image = is_seeded(pair, disk.content)
    disk.fill(3 * CHUNK + 2, 1)
    disk.fill(20 * CHUNK, 2 * CHUNK)
    cut = pair.copy(None)
    assert pair.other.end == cut
    assert pair.other.read("root") == disk.content
    changed = 3 * SEED_CHUNK_BYTES
    assert changed < pair.wire_bytes < changed + 20_000
    [seeded] = events(pair, "base.seeded")
    assert seeded["seeded_bytes"] == 900 * BLOCK_BYTES - changed
    assert not image.exists()
    assert not (pair.seed_disk.root / "seeds" / "g").exists()
    pair.other.reopen()
    assert pair.other.read("root") == disk.content


def test_what_is_stored_is_the_same_as_without_a_seed(directory: Path) -> None:
    """X byte for byte: a seed is how it travels, and nothing else."""
    stored = []
    for name in ("seeded", "plain"):
        pair = BasePair(directory / name)
        disk = Disk(pair)
        disk.fill(5, 700)
        if name == "seeded":
            is_seeded(pair, disk.content)
        disk.fill(300, 40)
        pair.copy(None)
        assert pair.sender is not None
        place = pair.other.directory / "g" / "journal" / f"{pair.sender.timeline:016x}"
        stored.append({path.name: path.read_bytes() for path in sorted(place.glob("*.seg"))})
        assert (pair.wire_bytes < 1 << 20) is (name == "seeded")
        pair.close()
    assert stored[0] == stored[1]
    assert stored[0]


def test_blocks_here_and_there_are_taken_from_whole_chunks(pair: BasePair) -> None:
    """A file system writes four blocks of a chunk: the others are zeroes in the seed too."""
    disk = Disk(pair)
    for chunk in range(0, BLOCKS // CHUNK, 2):
        disk.fill(chunk * CHUNK + 3, 4)
        disk.fill(chunk * CHUNK + 9, 1)
    is_seeded(pair, disk.content)
    disk.fill(10 * CHUNK + 4, 1)
    pair.copy(None)
    assert pair.other.read("root") == disk.content
    assert pair.wire_bytes < 5 * BLOCK_BYTES + 10_000


@pytest.mark.parametrize("seed_blocks", [1, 17, 500, 1024, 2000])
def test_a_seed_of_another_length_serves_as_far_as_it_goes(pair: BasePair, seed_blocks: int) -> None:
    disk = Disk(pair, 1000)
    disk.fill(0, 1000)
    is_seeded(pair, disk.content.ljust(2000 * BLOCK_BYTES, b"\0")[: seed_blocks * BLOCK_BYTES])
    pair.copy(None)
    assert pair.other.read("root") == disk.content
    whole = min(seed_blocks, 1000) // CHUNK * CHUNK
    assert pair.wire_bytes <= (1000 - whole) * BLOCK_BYTES + 20_000


def test_a_base_on_what_is_here_uses_one_too(pair: BasePair) -> None:
    disk = Disk(pair)
    disk.fill(0, 100)
    follow(pair.one, pair.other)
    start = pair.other.end
    pair.other.sync()
    disk.fill(50, 500)
    pair.one.append([(ZERO, disk.volume, 10, 5)])
    is_seeded(pair, disk.content)
    pair.copy(start)
    assert pair.other.read("root") == disk.content
    assert pair.wire_bytes < 50_000


def test_a_source_of_an_earlier_version_is_not_told(pair: BasePair) -> None:
    disk = Disk(pair)
    disk.fill(0, 100)
    is_seeded(pair, disk.content)
    pair.reads_seeds = False
    pair.copy(None)
    assert set(pair.said) == {BaseAck}
    assert pair.wire_bytes > 100 * BLOCK_BYTES
    assert pair.other.read("root") == disk.content


def test_seeds_are_told_before_the_first_acknowledgement(pair: BasePair) -> None:
    disk = Disk(pair)
    disk.fill(0, 100)
    is_seeded(pair, disk.content)
    pair.copy(None)
    assert pair.said[0] is BaseSeeds
    assert BaseDigests in pair.said


@pytest.mark.parametrize("offset", [0, 70_000, 400 * BLOCK_BYTES])
def test_a_bit_that_rotted_costs_a_session(pair: BasePair, offset: int) -> None:
    disk = Disk(pair)
    disk.fill(0, 900)
    flip(is_seeded(pair, disk.content), offset)
    assert until_done(pair) == 2
    assert pair.other.read("root") == disk.content
    [aside] = events(pair, "seed.set_aside")
    assert f"at {offset // SEED_CHUNK_BYTES * SEED_CHUNK_BYTES}" in str(aside["reason"])


def test_digests_that_lie_cost_a_session(pair: BasePair) -> None:
    """The digests say what the source has, and the image has that too: but a frame's own digest does not fit,
    as if two chunks had the same."""
    disk = Disk(pair)
    disk.fill(0, 300)
    is_seeded(pair, disk.content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.history.seeds.Seed.chunk", lambda self, number: b"x" * SEED_CHUNK_BYTES)
        assert until_done(pair) == 2
    assert pair.other.read("root") == disk.content
    [aside] = events(pair, "seed.set_aside")
    assert "is not what was sent" in str(aside["reason"])


@pytest.mark.parametrize("cut_to", [0, 10, 5000])
@pytest.mark.parametrize("suffix", ["img", "digests"])
def test_a_seed_that_was_cut_off_is_set_aside(pair: BasePair, suffix: str, cut_to: int) -> None:
    disk = Disk(pair)
    disk.fill(0, 900)
    image = is_seeded(pair, disk.content)
    path = image.with_suffix(f".{suffix}")
    with path.open("r+b") as file:
        file.truncate(min(cut_to, path.stat().st_size - 1))
    assert until_done(pair) == 1
    assert pair.other.read("root") == disk.content
    assert len(events(pair, "seed.set_aside")) == 1


def test_a_seed_that_goes_in_the_middle_costs_a_session_at_most(pair: BasePair) -> None:
    disk = Disk(pair)
    disk.fill(0, 900)
    image = is_seeded(pair, disk.content)
    sender = pair.start_sender(None)
    pair.connect()
    pair.world.run_until(lambda: BaseDigests in pair.said, 60.0)
    with image.open("r+b") as file:
        file.truncate(100)
    pair.world.run_until(lambda: sender.done or bool(pair.failures), 60.0)
    assert pair.failures
    assert not sender.done
    pair.disconnect()
    pair.failures.clear()
    pair.connect()
    assert pair.world.run_until(lambda: sender.done, 60.0)
    assert pair.other.read("root") == disk.content


@pytest.mark.parametrize("messages", range(1, 16))
def test_a_restart_of_the_receiver_anywhere(
    pair: BasePair, monkeypatch: pytest.MonkeyPatch, messages: int
) -> None:
    monkeypatch.setattr("site_primary.shipping.base_sender.BASE_PAYLOAD_BYTES", 40 * BLOCK_BYTES)
    monkeypatch.setattr("engine.history.base_intake.BASE_INDEX_BYTES", 80 * BLOCK_BYTES)
    disk = Disk(pair, 512)
    disk.fill(7, 400)
    is_seeded(pair, disk.content)
    disk.fill(100, 50)
    sender = pair.start_sender(None)
    pair.connect()
    pair.cut_after = messages
    pair.one.settle(10.0)
    pair.restart_other()
    if not pair.other.group.head.timeline:
        pair.connect()
        assert pair.world.run_until(lambda: sender.done or bool(pair.failures), 60.0)
        assert not pair.failures
    assert pair.other.read("root") == disk.content
    assert pair.wire_bytes < 3 * 80 * BLOCK_BYTES
