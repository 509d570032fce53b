"""What a base's source leaves out of its frames because the peer has it in a seed (protocol.seeds).

The peer says in each session of which volumes it has seeds, and then the digests of their chunks, a window of
them at a time, as the walk over the volumes comes to them. A chunk of a volume that has the digest of the
seed's chunk at the same place is not sent: in the frame there is a hole. A chunk of which a frame has only
some blocks counts too, by what all of it holds at the cut.

A frame is judged a few chunks at a time: those that must be read for it are read beside hosts.
"""

from __future__ import annotations

from typing import NamedTuple

from protocol.base_holes import cut_out
from protocol.base_messages import BaseDigests, BaseSeeds, BaseWant, Hole
from protocol.events import WRITE, Row
from protocol.frames import Buffer, Frame
from protocol.limits import BLOCK_BYTES, DIGEST_BYTES
from protocol.seed_limits import SEED_CHUNK_BYTES, SEED_DIGESTS_TOLD_MAX, SEED_READS_A_STEP
from protocol.seeds import LACKING, chunk_digest
from site_primary.shipping.base_walk import VolumeWalk
from site_primary.shipping.session import Session

_CHUNK_BLOCKS = SEED_CHUNK_BYTES // BLOCK_BYTES


class _Piece(NamedTuple):
    """Blocks of one chunk that stand together in a frame: from `offset` on there, `first` in the volume."""

    offset: int
    first: int
    blocks: int

    @property
    def chunk(self) -> int:
        return self.first // _CHUNK_BLOCKS


class JudgedFrame:
    """A frame that was made, and its `holes`. `walk` reads the volume whose blocks are in it."""

    def __init__(self, frame: Frame, rows: list[Row], walk: VolumeWalk) -> None:
        self.raw: Buffer = frame.raw
        self.walk = walk
        self.holes: list[Hole] = []
        self.judged = 0  # pieces
        self.pieces: list[_Piece] = []
        offset = frame.prefix.frame_bytes - frame.prefix.payload_bytes
        for kind, _, first, count in rows:
            end = first + count if kind == WRITE else first
            while first < end:
                blocks = min(end, (first // _CHUNK_BLOCKS + 1) * _CHUNK_BLOCKS) - first
                self.pieces.append(_Piece(offset, first, blocks))
                offset += blocks * BLOCK_BYTES
                first += blocks

    def content(self, piece: _Piece) -> tuple[bytes, bool]:
        """The chunk that a piece is of, and whether it had to be read. FarshoreError or OSError."""
        first = piece.chunk * _CHUNK_BLOCKS
        blocks = min(_CHUNK_BLOCKS, self.walk.blocks - first)
        if piece.blocks == blocks:
            return bytes(memoryview(self.raw)[piece.offset : piece.offset + blocks * BLOCK_BYTES]), False
        with self.walk.after.batch() as batch:
            return self.walk.after.read(batch, first * BLOCK_BYTES, blocks * BLOCK_BYTES), True

    def cut(self, piece: _Piece, seed: int) -> None:
        """A hole where a piece is, one with that before it if they are neighbours in both."""
        offset, length, at = piece.offset, piece.blocks * BLOCK_BYTES, piece.first * BLOCK_BYTES
        if self.holes:
            before, had, number, from_ = self.holes[-1]
            if (before + had, number, from_ + had) == (offset, seed, at):
                self.holes[-1] = (before, had + length, seed, from_)
                return
        self.holes.append((offset, length, seed, at))

    def left(self) -> bytes:
        """What is to be sent of it."""
        return cut_out(self.raw, self.holes)


class Seeding:
    """The seeds of one base's peer, in one session at a time."""

    def __init__(self, session: Session, base: int) -> None:
        self._session = session
        self._base = base
        self.reset()

    def reset(self) -> None:
        """The session is over: what it said of seeds may not be so in the next."""
        self._seeds: dict[str, tuple[int, int]] = {}  # by volume: the seed's number, and its chunks
        self._window: tuple[int, int] | None = None  # a seed's number, and the first chunk of `_digests`
        self._digests = b""
        self._wanted: tuple[int, int] | None = None  # asked for, and not here yet

    def on_message(self, message: BaseSeeds | BaseDigests, payload: Buffer | None) -> None:
        """What the peer says. A digest that is not one only makes a frame that is sent whole, or refused by
        the peer, which then sets the seed aside: nothing of it is checked here."""
        if message.base != self._base:
            return
        if isinstance(message, BaseSeeds):
            self._seeds = {name: (number, chunks) for number, (name, chunks) in enumerate(message.seeds)}
        elif (message.seed, message.chunk) == self._wanted:
            self._window, self._wanted = self._wanted, None
            self._digests = bytes((payload or b"")[: SEED_DIGESTS_TOLD_MAX * DIGEST_BYTES])

    def judge(self, frame: JudgedFrame) -> bool:
        """Go on finding a frame's holes. False: not done, but so much was read that hosts have their turn, or
        the peer was asked for digests (`waiting`). FarshoreError or OSError if the volume cannot be read."""
        number, chunks = self._seeds.get(frame.walk.volume.name, (0, 0))
        reads = 0
        while frame.judged < len(frame.pieces):
            piece = frame.pieces[frame.judged]
            if piece.chunk < chunks:
                digest = self._digest(number, piece.chunk)
                if digest is None or reads == SEED_READS_A_STEP:
                    return False
                if digest != LACKING:
                    content, read = frame.content(piece)
                    reads += read
                    if chunk_digest(content) == digest:
                        frame.cut(piece, number)
            frame.judged += 1
        return True

    @property
    def waiting(self) -> bool:
        """Whether the peer was asked for digests and has not answered."""
        return self._wanted is not None

    def _digest(self, number: int, chunk: int) -> bytes | None:
        """What the seed has there; None if the peer must be asked first."""
        window = (number, chunk // SEED_DIGESTS_TOLD_MAX * SEED_DIGESTS_TOLD_MAX)
        if self._window != window:
            if self._wanted is None:
                self._wanted = window
                want = BaseWant(session=self._session.id, base=self._base, seed=number, chunk=window[1])
                self._session.send(want.encode())
            return None
        at = (chunk - window[1]) * DIGEST_BYTES
        digest = self._digests[at : at + DIGEST_BYTES]
        return digest if len(digest) == DIGEST_BYTES else LACKING
