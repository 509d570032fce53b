"""What the handshake needs to know of an export, and what it hands over when a client moves to transmission.

The handshake asks an `ExportLookup` and treats the answer as a description: nothing is opened for a client
that has not passed the handshake. `token` is the server's own; it is never looked into here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from protocol.limits import BLOCK_BYTES, NBD_REQUEST_BYTES_MAX, SECTOR_BYTES
from protocol.nbd.constants import BASE_ALLOCATION, TransmissionFlag

# CAN_MULTI_CONN is a promise that a FLUSH on one connection covers the writes acknowledged on all others: it
# holds because one daemon orders all connections of a volume.
_FLAGS_ALWAYS = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
    | TransmissionFlag.SEND_FAST_ZERO
    | TransmissionFlag.SEND_CACHE
    | TransmissionFlag.CAN_MULTI_CONN
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportInfo:
    """One export as a client may see it.

    `meta_contexts` are the context names on offer. One that ends in `/` is a family: `x:since/` offers every
    `x:since/ANYTHING` for which `check_context` (full name) returns; a `FarshoreError` that it raises instead
    is told to the client. Without `check_context` every member is accepted.

    `trims`: TRIM is on offer, and what was trimmed reads as zeroes. That is more than the protocol asks for,
    but nbdfuse makes a TRIM of a hole that is punched.
    """

    name: str
    size_bytes: int
    read_only: bool = False
    trims: bool = True
    description: str = ""
    token: object = None
    meta_contexts: tuple[str, ...] = (BASE_ALLOCATION,)
    check_context: Callable[[str], object] | None = None
    block_bytes_preferred: int = BLOCK_BYTES
    block_bytes_max: int = NBD_REQUEST_BYTES_MAX

    @property
    def block_bytes_min(self) -> int:
        """The least that a client should ask for. A size that is no multiple of it stops QEMU at its end."""
        return 1 if self.size_bytes % SECTOR_BYTES else SECTOR_BYTES

    def transmission_flags(self, *, structured_replies: bool) -> int:
        """The 16 bits of "Transmission flags". DF must stay clear until structured replies are negotiated."""
        flags = _FLAGS_ALWAYS
        if self.read_only:
            flags |= TransmissionFlag.READ_ONLY
        if not self.trims:
            flags &= ~TransmissionFlag.SEND_TRIM
        if structured_replies:
            flags |= TransmissionFlag.SEND_DF
        return int(flags)


class ExportLookup(Protocol):
    """The exports of a server. Both calls answer at once and open nothing: a client may make thousands."""

    def names(self) -> list[str]:
        """Names for NBD_OPT_LIST. A `FarshoreError` raised is told to the client."""
        ...

    def find(self, name: str) -> ExportInfo:
        """The export `name` (never empty). `NotFound` and any other `FarshoreError` is told to the client."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiated:
    """The outcome of a handshake. `meta_contexts` maps context id (from 1) to name; none: no BLOCK_STATUS."""

    export: ExportInfo
    structured_replies: bool
    no_zeroes: bool
    meta_contexts: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
