"""What a base takes from the seeds of its group (engine.history.seeds) at the site that gets it.

In each session the source is told once which seeds there are, and the digests that it asks for; it leaves out
of the frames what has such a digest, and that is put back here before a frame is looked at.

A seed can make no base wrong, and none fail for ever. A chunk must have the digest that it had when it was
imported; if it has not, or a frame that was put together is none, the seeds in it are set aside, durably
enough, before the session ends. The next one goes on from where the base is, without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.group.listeners import Emit
from engine.history.seeds import Seed, SeedRemoval, SpoiltSeed, give_up, seeds_of
from engine.ports.clock import Clock
from engine.ports.disk import Buffer, Disk
from protocol.base_holes import check_holes, put_back
from protocol.base_messages import BaseDigests, BaseHoled, BaseSeeds, BaseWant
from protocol.compress import Compression, decompress
from protocol.errors import RemoteProtocolError
from protocol.frames import FrameError
from protocol.limits import VOLUMES_PER_GROUP_MAX
from protocol.seed_limits import SEED_DIGESTS_TOLD_MAX


class BaseSeedUse:
    """The seeds of one group, over any number of sessions. `disk` is rooted in the data directory. `taken`:
    bytes that frames took from seeds, of the base that is under way."""

    def __init__(self, disk: Disk, clock: Clock, group: str, emit: Emit) -> None:
        self.taken = 0
        self._disk = disk
        self._clock = clock
        self._group = group
        self._emit = emit
        self._told: list[tuple[str, int]] = []  # to this session's source: volume, chunks
        self._asked: dict[int, int] = {}  # the last window of each that was asked for in this session
        self._open: Seed | None = None

    def begin(self, session: int, base: int) -> BaseSeeds | None:
        """What to tell the source in a session that begins; None if there is no seed."""
        self.end()
        for volume in self._names():
            if len(self._told) < VOLUMES_PER_GROUP_MAX and (seed := self._opened(volume)) is not None:
                self._told.append((volume, seed.chunks))
        return BaseSeeds(session=session, base=base, seeds=tuple(self._told)) if self._told else None

    def end(self) -> None:
        """The session is over."""
        self._told = []
        self._asked = {}
        self._close()

    def _names(self) -> list[str]:
        try:
            return seeds_of(self._disk, self._group)
        except OSError:
            return []

    def _opened(self, volume: str) -> Seed | None:
        """The seed of a volume; None, and it is set aside, if it is none."""
        if self._open is None or self._open.volume != volume:
            self._close()
            try:
                self._open = Seed(self._disk, self._group, volume)
            except SpoiltSeed as error:
                self._set_aside([volume], str(error))
        return self._open

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def digests(self, want: BaseWant) -> tuple[BaseDigests, bytes]:
        """The answer to a source, and its payload. RemoteProtocolError if it may not ask so."""
        if want.seed >= len(self._told) or want.chunk <= self._asked.get(want.seed, -1):
            raise RemoteProtocolError(
                f"digests of seed {want.seed} from {want.chunk} on were asked for twice"
            )
        self._asked[want.seed] = want.chunk
        volume = self._told[want.seed][0]
        digests = b""
        try:
            if (seed := self._opened(volume)) is not None:
                digests = seed.digests(want.chunk, SEED_DIGESTS_TOLD_MAX)
        except SpoiltSeed as error:
            self._set_aside([volume], str(error))
        answer = BaseDigests(session=want.session, base=want.base, seed=want.seed, chunk=want.chunk)
        return answer, digests

    def take(self, message: BaseHoled, payload: Buffer, take: Callable[[bytearray], None]) -> None:
        """Put a frame back together and have it taken. RemoteProtocolError if it cannot be: what it named is
        set aside then. What `take` raises, but for FrameError."""
        named = [seed for _, _, seed, _ in message.holes]
        try:
            check_holes(message.holes, message.frame_bytes, [chunks for _, chunks in self._told])
            left = decompress(payload) if message.compression is Compression.ZSTD else payload
            frame = put_back(left, message.holes, message.frame_bytes, self._chunk)
            take(frame)
        except SpoiltSeed as error:
            raise self._refused(named, str(error)) from error
        except RemoteProtocolError as error:
            raise self._refused(named, f"a frame from seeds was sent wrongly: {error}") from error
        except FrameError as error:
            raise self._refused(named, f"a frame from seeds is not what was sent: {error}") from error
        self.taken += sum(length for _, length, _, _ in message.holes)

    def _chunk(self, number: int, chunk: int) -> bytes:
        volume = self._told[number][0]
        seed = self._opened(volume)
        if seed is None:
            raise SpoiltSeed(f"the seed of {volume} is not there any more")
        return seed.chunk(chunk)

    def _refused(self, numbers: Iterable[int], why: str) -> RemoteProtocolError:
        named = {self._told[number][0] for number in numbers if number < len(self._told)}
        self._set_aside(sorted(named) or [volume for volume, _ in self._told], why)
        return RemoteProtocolError(why)

    def _set_aside(self, volumes: list[str], why: str) -> None:
        self._close()
        for volume in volumes:
            try:
                give_up(self._disk, self._group, volume)
            except OSError as error:
                why = f"{why}; it cannot be removed: {error}"
            self._emit("seed.set_aside", group=self._group, object=f"{self._group}/{volume}", reason=why)

    def installed(self) -> int:
        """The base is installed: no seed is needed any more. The bytes that came from them."""
        self.end()
        taken, self.taken = self.taken, 0
        try:
            SeedRemoval(self._disk, self._clock, self._group).begin()
        except OSError as error:
            self._emit("seed.not_removed", group=self._group, error=str(error))
        return taken
