"""Seeds: copies of volumes that a site was given as files, from which a base takes what it need not be sent
(protocol.seeds has the format, site_secondary.base_seeds what becomes of them).

Files below the site's data directory, those of one group in a directory of their own:

    seeds/GROUP/VOLUME.img        the copy
    seeds/GROUP/VOLUME.digests    its digests; without them the copy is not used
    seeds/GROUP/*.unfinished      what an import has not finished

Nothing that was read from a seed is believed: a chunk counts only if it has the digest that it had when it
was imported, and what is made of it only if a frame's own digest fits. So a seed is given up by removing its
digests, in no particular order and without a sync: one that comes back after a crash is looked at again.
"""

from __future__ import annotations

import re

from engine.group.compartment import attempt
from engine.ports.clock import Clock
from engine.ports.disk import Disk, DiskFile
from protocol.bounds import NAME
from protocol.limits import DIGEST_BYTES
from protocol.seed_limits import SEED_CHUNK_BYTES, SEED_REMOVED_BYTES
from protocol.seeds import (
    DIGESTS,
    HEADER_BYTES,
    IMAGE,
    LACKING,
    SEEDS,
    UNFINISHED,
    chunk_digest,
    chunks_of,
    digest_at,
    size_in,
)

REMOVE_PAUSE_S = 0.005
_UNFINISHED = re.compile(rf"({NAME.pattern})\.[0-9a-f]{{16}}({re.escape(IMAGE)}|{re.escape(DIGESTS)})")


class SpoiltSeed(Exception):
    """A seed that cannot be used; the text says why."""


def directory_of(group: str) -> str:
    """Where the seeds of a group are."""
    return f"{SEEDS}/{group}"


def image_of(group: str, volume: str) -> str:
    """The copy of a volume."""
    return f"{SEEDS}/{group}/{volume}{IMAGE}"


def digests_of(group: str, volume: str) -> str:
    """Its digests."""
    return f"{SEEDS}/{group}/{volume}{DIGESTS}"


def unfinished(path: str, token: str) -> str:
    """What the file at a path is called while one import writes it; `token` is 16 hex digits."""
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}.{token}{dot}{suffix}{UNFINISHED}"


class Seed:
    """One that is open. SpoiltSeed if its files do not fit each other, or cannot be read."""

    def __init__(self, disk: Disk, group: str, volume: str) -> None:
        self.volume = volume
        self.size_bytes = self.chunks = 0
        self._digests: DiskFile | None = None
        self._image: DiskFile | None = None
        self._last: tuple[int, bytes] = (-1, b"")  # the chunk that was read last
        try:
            self._digests = disk.open(digests_of(group, volume))
            self._image = disk.open(image_of(group, volume))
            self.size_bytes = size_in(self._digests.pread(HEADER_BYTES, 0))
            self.chunks = chunks_of(self.size_bytes)
            whole = self._image.size() == self.size_bytes and self._digests.size() == digest_at(self.chunks)
        except (OSError, ValueError) as error:
            self.close()
            raise SpoiltSeed(f"the seed of {volume} cannot be read: {error}") from error
        if not whole:
            self.close()
            raise SpoiltSeed(f"the files of the seed of {volume} are not as long as they were")

    def digests(self, first: int, count: int) -> bytes:
        """Those of so many chunks, end to end. SpoiltSeed."""
        wanted_bytes = max(0, min(count, self.chunks - first)) * DIGEST_BYTES
        data = self._read(self._digests, wanted_bytes, digest_at(first))
        if len(data) != wanted_bytes:
            raise SpoiltSeed(f"the digests of the seed of {self.volume} end early")
        return data

    def chunk(self, number: int) -> bytes:
        """One chunk, `SEED_CHUNK_BYTES`. SpoiltSeed unless it is what was imported."""
        at, data = self._last
        if at == number:
            return data
        wanted = self.digests(number, 1)
        data = self._read(self._image, SEED_CHUNK_BYTES, number * SEED_CHUNK_BYTES)
        if wanted == LACKING or chunk_digest(data) != wanted:
            raise SpoiltSeed(
                f"the seed of {self.volume} is not what was imported, at {number * SEED_CHUNK_BYTES}"
            )
        self._last = (number, data.ljust(SEED_CHUNK_BYTES, b"\0"))
        return self._last[1]

    def _read(self, file: DiskFile | None, length: int, offset: int) -> bytes:
        try:
            return file.pread(length, offset) if file is not None else b""
        except OSError as error:
            raise SpoiltSeed(f"the seed of {self.volume} cannot be read: {error}") from error

    def close(self) -> None:
        """Close its files; twice is fine."""
        for file in (self._digests, self._image):
            if file is not None:
                file.close()


def seeds_of(disk: Disk, group: str) -> list[str]:
    """The volumes of a group that have a seed, by name. OSError."""
    names = disk.list_directory(directory_of(group))
    found = [name.removesuffix(DIGESTS) for name in names if name.endswith(DIGESTS)]
    return [name for name in found if NAME.fullmatch(name) and f"{name}{IMAGE}" in names]


def give_up(disk: Disk, group: str, volume: str) -> None:
    """Use the seed of a volume no more. Its copy stays until `SeedRemoval`. OSError."""
    path = digests_of(group, volume)
    if disk.exists(path):
        disk.remove(path)


class SeedRemoval:
    """Removes seeds of a group and what unfinished imports left (or only that), one volume's or all, without
    holding the loop for long. One that fails leaves the rest for the next."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        group: str,
        volume: str | None = None,
        *,
        only_unfinished: bool = False,
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._directory = directory_of(group)
        self._paths = [
            f"{self._directory}/{name}"
            for name in disk.list_directory(self._directory)
            if (volume is None or _volume_of(name) == volume)
            and (name.endswith(UNFINISHED) or not only_unfinished)
        ]
        self._paths.sort(key=lambda path: not path.endswith(DIGESTS))

    @property
    def left(self) -> int:
        """Files that are to go."""
        return len(self._paths)

    def begin(self) -> None:
        """Digests go at once, so that no seed is found any more; copies a piece at a time. OSError."""
        while self._paths and self._paths[0].endswith(DIGESTS):
            self._disk.remove(self._paths.pop(0))
        self._next()

    def _next(self) -> None:
        if attempt("seed.not_removed", self._piece) is None and self._paths:
            self._clock.call_later(REMOVE_PAUSE_S, self._next)

    def _piece(self) -> None:
        """Give back so much, in as many files as that takes."""
        room = SEED_REMOVED_BYTES
        while self._paths and room > 0:
            try:
                room -= self._shorten(self._paths[0], room)
                if room >= 0:
                    self._disk.remove(self._paths.pop(0))
            except FileNotFoundError:
                self._paths.pop(0)  # removed by another
        empty = not self._paths and not self._disk.list_directory(self._directory)
        if empty and self._disk.exists(self._directory):
            self._disk.remove(self._directory)

    def _shorten(self, path: str, room: int) -> int:
        """Bytes of a file; if more than `room`, it is made shorter by that."""
        file = self._disk.open(path)
        try:
            size = file.size()
            if size > room:
                file.truncate(size - room)
            return size
        finally:
            file.close()


def _volume_of(name: str) -> str:
    """The volume that a file of the directory is about."""
    if name.endswith(UNFINISHED):
        found = _UNFINISHED.fullmatch(name.removesuffix(UNFINISHED))
        return found[1] if found else ""
    return name.removesuffix(IMAGE) if name.endswith(IMAGE) else name.removesuffix(DIGESTS)
