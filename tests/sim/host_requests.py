"""What a host of the simulator asks for, and how it stands on the wire."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.limits import SECTOR_BYTES
from protocol.nbd.constants import REQUEST_MAGIC, Command, CommandFlag
from protocol.nbd.requests import REQUEST
from protocol.positions import Cut
from tests.sim.content import SECTORS_PER_BLOCK, written_bytes
from tests.sim.history import ROOT
from tests.sim.oracle import Floor

WRITES = (Command.WRITE, Command.WRITE_ZEROES, Command.TRIM)


@dataclass(slots=True, kw_only=True)
class Request:
    """One request, in sectors. `error`: None until it is answered."""

    command: Command
    cookie: int
    first: int = 0
    count: int = 0
    tag: int = 0
    fua: bool = False
    error: int | None = None
    floor: Floor | None = None
    data: bytes = b""
    end: int = 0  # of its bytes in the connection's stream
    applied: bool = False  # in the journal; the reply comes when it is durable, or at the peer
    after: Cut = ROOT  # what stood before it in the journal

    def encode(self, volume: int) -> bytes:
        """As it stands on the wire."""
        flags = int(CommandFlag.FUA) if self.fua else 0
        offset, length = self.first * SECTOR_BYTES, self.count * SECTOR_BYTES
        head = REQUEST.pack(REQUEST_MAGIC, flags, int(self.command), self.cookie, offset, length)
        if self.command is Command.WRITE:
            return head + written_bytes(volume, self.first, self.count, self.tag)
        return head

    def changed(self) -> tuple[int, int]:
        """(first sector, sectors) that it writes: a trim leaves partly covered blocks alone."""
        if self.command is not Command.TRIM:
            return self.first, self.count
        first = -(-self.first // SECTORS_PER_BLOCK) * SECTORS_PER_BLOCK
        end = (self.first + self.count) // SECTORS_PER_BLOCK * SECTORS_PER_BLOCK
        return first, max(0, end - first)
