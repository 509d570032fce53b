"""One file of the simulated disk: what is read, and what is durable.

Model. The content is what a reader sees. Each change has a sequence number. For every 512-byte sector with
changes not yet durable the file keeps the sector as it was before each of them, oldest first; the first of
these is what the platter holds. The size is kept in the same way.
- A crash gives each pending change its own fate: lost, applied, or torn, where each sector draws for itself.
  A sector is only ever one of the states that it had. Sizes are metadata and keep their order: with one of
  them all earlier ones are applied, and where a cut is lost, so is what was written after it in its range.
- A failed sync forgets that the sectors were dirty. They never become durable, yet may be read until
  `drop_caches` or a crash; the next sync succeeds. A sector written again is dirty again, as a whole.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from protocol.limits import SECTOR_BYTES

FATES = ("lost", "applied", "torn")
# Preallocated zeroes are looked over in pieces of this size.
CHUNK_BYTES = 128 * SECTOR_BYTES


@dataclass(slots=True, eq=False)
class Inode:
    """One file. `pending` (by sector) and `sizes` hold (sequence, state before); `lost` what the platter has
    of sectors that no longer count as dirty."""

    content: bytearray
    pending: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    lost: dict[int, bytes] = field(default_factory=dict)

    def write(self, data: bytes, offset: int, sequence: int) -> None:
        """Change the content; not durable."""
        end = offset + len(data)
        self._remember(range(offset // SECTOR_BYTES, -(-end // SECTOR_BYTES)), sequence)
        if end > len(self.content):
            self.sizes.append((sequence, len(self.content)))
            self.content.extend(bytes(end - len(self.content)))
        self.content[offset:end] = data

    def truncate(self, size_bytes: int, sequence: int) -> None:
        """Cut the content; not durable."""
        if size_bytes > len(self.content):
            raise ValueError("truncate only cuts")
        first = size_bytes // SECTOR_BYTES
        kept = [sector for sector in sorted({*self.pending, *self.lost}) if sector >= first]
        self._remember(sorted({*kept, *self._sectors_in_use(first)}), sequence)
        self.sizes.append((sequence, len(self.content)))
        del self.content[size_bytes:]

    def sector(self, sector: int) -> bytes:
        """What a reader sees of it; shorter at the end of the file."""
        return bytes(self.content[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])

    def make_durable(self, sequence: int) -> None:
        """Changes up to `sequence` are on the platter."""
        for sector, states in list(self.pending.items()):
            if states[-1][0] <= sequence:
                del self.pending[sector]
            elif states[0][0] <= sequence:
                self.pending[sector] = [state for state in states if state[0] > sequence]
        self.sizes = [size for size in self.sizes if size[0] > sequence]

    def lose_dirty(self, sequence: int, rng: random.Random) -> None:
        """A sync of the changes up to `sequence` failed: sizes are taken as metadata that got through."""
        for sector in list(self.pending):
            states = self.pending[sector]
            newer = [state for state in states if state[0] > sequence]
            if newer:
                # Dirty again: the whole cached sector will be written, over what is on the platter now.
                self.pending[sector] = [(newer[0][0], states[0][1]), *newer[1:]]
                continue
            del self.pending[sector]
            length = len(self.sector(sector))
            if length and rng.random() < 0.7:
                self.lost[sector] = states[0][1][:length]
        self.sizes = [size for size in self.sizes if size[0] > sequence]

    def drop_caches(self) -> None:
        """Read from the platter from now on where nothing is dirty."""
        for sector, state in self.lost.items():
            self._restore(sector, state)
        self.lost.clear()

    def crash(self, rng: random.Random) -> None:
        """Keep what was durable, and of the rest what chance leaves."""
        self.drop_caches()
        fates: dict[int, str] = {}
        size_bytes, lost_cuts = self._crash_size(fates, rng)
        longest = max([len(self.content), *(before for _, before in self.sizes)])
        self.content.extend(bytes(longest - len(self.content)))
        for sector in sorted(self.pending):
            states = self.pending[sector]
            version = 0
            for index, (sequence, _) in enumerate(states):
                fate = fates.setdefault(sequence, rng.choice(FATES))
                if fate == "applied" or (fate == "torn" and rng.random() < 0.5):
                    version = index + 1
            for cut_sequence, first in lost_cuts:
                if sector >= first:
                    version = min(version, sum(1 for sequence, _ in states if sequence < cut_sequence))
            if version < len(states):
                self._restore(sector, states[version][1])
        self.pending.clear()
        self.sizes.clear()
        del self.content[size_bytes:]

    def _crash_size(self, fates: dict[int, str], rng: random.Random) -> tuple[int, list[tuple[int, int]]]:
        """The size after a crash, and each lost cut as (sequence, first sector of its range). A kept cut's
        fate is settled as applied."""
        settled = 0
        for index, (sequence, _) in enumerate(self.sizes):
            fates[sequence] = rng.choice(FATES)
            if fates[sequence] == "applied" or (fates[sequence] == "torn" and rng.random() < 0.5):
                settled = index + 1
        states = [*(before for _, before in self.sizes), len(self.content)]
        lost_cuts = []
        for index, (sequence, before) in enumerate(self.sizes):
            after = states[index + 1]
            if after < before and index < settled:
                fates[sequence] = "applied"
            elif after < before:
                lost_cuts.append((sequence, after // SECTOR_BYTES))
        return states[settled], lost_cuts

    def _remember(self, sectors: range | list[int], sequence: int) -> None:
        pending, lost = self.pending, self.lost
        with memoryview(self.content) as content:
            for sector in sectors:
                before = lost.pop(sector, None) if lost else None
                if before is None:
                    before = bytes(content[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES])
                pending.setdefault(sector, []).append((sequence, before))

    def _sectors_in_use(self, first: int) -> list[int]:
        """Sectors from `first` on that are not zeroes: only these have something to come back."""
        sectors = []
        for start in range(first * SECTOR_BYTES, len(self.content), CHUNK_BYTES):
            chunk = self.content[start : start + CHUNK_BYTES]
            if chunk.count(0) != len(chunk):
                last = -(-(start + len(chunk)) // SECTOR_BYTES)
                sectors += [
                    sector for sector in range(start // SECTOR_BYTES, last) if any(self.sector(sector))
                ]
        return sectors

    def _restore(self, sector: int, state: bytes) -> None:
        """Put an earlier state back, within the size."""
        start = sector * SECTOR_BYTES
        end = min(start + SECTOR_BYTES, len(self.content))
        self.content[start:end] = state.ljust(SECTOR_BYTES, b"\0")[: end - start]
