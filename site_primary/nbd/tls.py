"""TLS at the edge of a host's connection: a protocol to the socket's transport, a transport to who serves.

So there is one way of a host's bytes: above this, a handshake or `NbdConnection` is the same with and without
TLS, and on a socket without it no line of this file runs.

Rules. What the client sends is decrypted in pieces of `FEED_BYTES` out of one buffer that all connections
share, straight into the buffer that the host was lent, and what it is sent is encrypted in such pieces, so
that an idle connection holds little (docs/decisions/0028). What was not decrypted yet when reading had to
stop counts as lent. All that waits to be sent waits in the transport below, whose size is what is said of
it. The time that a handshake may take is its caller's.

Sources: RFC 8446; OpenSSL's BIO_s_mem(3), whose memory never shrinks.
"""

from __future__ import annotations

import asyncio
import pathlib
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from engine.group.compartment import attempt
from engine.ports.clock import Clock
from engine.ports.disk import Buffer
from farshore.plain_files import require_plain
from protocol.bounds import NAME
from protocol.errors import NotAllowed
from site_primary.nbd.host_budget import HostBudget

FEED_BYTES = 16 << 10  # what a record of TLS may hold
_NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpRules:
    """How hosts may come on TCP: over TLS if there is a `context`, without it if `plain`. Certificates with
    one of the serial numbers `revoked` (hex, as `ssl` has them) are refused. The server's ends at
    `server_end_ns` (UTC; 0: it is not known when) by `clock`."""

    context: ssl.SSLContext | None = None
    plain: bool = True
    revoked: frozenset[str] = field(default_factory=frozenset)
    server_end_ns: int = 0
    clock: Clock | None = None

    def end_in_use_ns(self, addresses: Iterable[str]) -> int | None:
        """When the certificate ends by which hosts at these doors know the site; None if none is in use, or
        if that is not known."""
        used = self.context is not None and any(each.startswith("tcp:") for each in addresses)
        return self.server_end_ns or None if used else None

    @property
    def ended(self) -> bool:
        """Whether the server's certificate has: hosts refuse it, and say so in words of their own."""
        return self.clock is not None and 0 < self.server_end_ns <= self.clock.utc_ns()

    @property
    def nobody(self) -> bool:
        """Whether there is no way in."""
        return self.context is None and not self.plain


def server_context(server_file: str, ca_file: str) -> ssl.SSLContext:
    """TLS 1.3 only, for who has a certificate of that authority; the server's file has its key and its
    certificate. OSError (`ssl.SSLError` too) if they cannot be read, or do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    # A ticket would let a client in again without its certificate being looked at.
    context.num_tickets = 0
    for file in (server_file, ca_file):
        require_plain(pathlib.Path(file))
    context.load_cert_chain(server_file)
    context.load_verify_locations(cafile=ca_file)
    return context


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """See the module's docstring. `on_up` is called when the client has shown who it is, `on_failed` with the
    reason if TLS ends otherwise than by a goodbye; the connection is then closed."""

    def __init__(
        self,
        below: asyncio.Transport,
        above: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        budget: HostBudget,
        on_up: Callable[[TlsTransport], None],
        on_failed: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._below = below
        self._above = above
        self._budget = budget
        self._on_up = on_up
        self._on_failed = on_failed
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unfed = _NOTHING  # came, and is not decrypted yet; of the shared buffer only while it is used
        self._held_bytes = 0  # of it, counted as lent
        self._up = False
        self._reading = True
        self._over = False

    # -- asyncio.BufferedProtocol, for the transport below

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: all connections share it, as none leaves anything in it."""
        wire = self._budget.wire()
        return wire[:FEED_BYTES] if self._budget.tight else wire

    def buffer_updated(self, nbytes: int) -> None:
        """Decrypt what came, and hand it on."""
        came = self._budget.wire()[:nbytes]
        self._unfed = memoryview(bytes(self._unfed) + came) if self._unfed else came
        self._go_on()

    def eof_received(self) -> bool:
        """The host is gone; close our side too."""
        return False

    def pause_writing(self) -> None:
        """The host does not take what it is sent."""
        if isinstance(self._above, asyncio.Protocol | asyncio.BufferedProtocol):
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        if isinstance(self._above, asyncio.Protocol | asyncio.BufferedProtocol):
            self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone."""
        self._over = True
        self._unfed = _NOTHING
        self._count_held()
        self._above.connection_lost(exc)

    # -- from the wire

    def _go_on(self) -> None:
        try:
            if not self._over and (self._up or self._shake()):
                self._deliver()
            if self._outgoing.pending:
                self._flush()
        except ssl.SSLError as error:
            self._fail(error)
        finally:
            if self._over:
                self._unfed = _NOTHING
            elif self._unfed:
                self._unfed = memoryview(bytes(self._unfed))
            self._count_held()

    def _count_held(self) -> None:
        if self._held_bytes != len(self._unfed):
            self._budget.add_held(len(self._unfed) - self._held_bytes)
            self._held_bytes = len(self._unfed)

    def _feed(self) -> bool:
        """Give TLS the next piece; false if there is none."""
        if not self._unfed:
            return False
        self._incoming.write(self._unfed[:FEED_BYTES])
        self._unfed = self._unfed[FEED_BYTES:]
        return True

    def _shake(self) -> bool:
        """Go on with TLS's own handshake; whether it is done."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                if not self._feed():
                    return False
        self._flush()
        self._up = True
        self._on_up(self)
        return True

    def _deliver(self) -> None:
        """Hand on what can be decrypted, as much at once as there is room for: one wake-up is one batch."""
        more = True
        while more and self._reading and not self._over:
            above = self._above
            if isinstance(above, asyncio.BufferedProtocol):
                view = memoryview(above.get_buffer(-1))
                if not view:
                    raise RuntimeError("no room for what came")
                filled, more = self._fill(view)
                # Also of nothing: what was lent for it is then given back.
                above.buffer_updated(filled)
            elif isinstance(above, asyncio.Protocol):
                scratch = bytearray(FEED_BYTES)
                filled, more = self._fill(memoryview(scratch))
                if filled:
                    above.data_received(bytes(scratch[:filled]))

    def _fill(self, view: memoryview) -> tuple[int, bool]:
        """Bytes put into it, and whether there may be more."""
        filled = 0
        while filled < len(view):
            try:
                count = int(self._tls.read(len(view) - filled, view[filled:]))
            except ssl.SSLWantReadError:
                if not self._feed():
                    return filled, False
                continue
            except ssl.SSLZeroReturnError:
                count = 0
            if not count:  # the client says goodbye
                self._say_goodbye()
                return filled, False
            filled += count
        return filled, True

    def _fail(self, error: ssl.SSLError) -> None:
        if self._over:
            return
        said = getattr(error, "verify_message", "") or error.reason or str(error)
        self._on_failed(str(said).replace("_", " ").lower())
        self._flush()  # the alert, which tells the client why
        self.abort()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._below.is_closing():
            self._below.write(self._outgoing.read())

    # -- asyncio.Transport, for whoever serves

    @property
    def host_name(self) -> str:
        """The name in the client's certificate. NotAllowed if it has none, or one that no host may have."""
        names = [value for key, value in self._subject() if key == "commonName"]
        if len(names) != 1 or not NAME.fullmatch(names[0]):
            raise NotAllowed(
                "the certificate does not name one host", next_step="`farshore site cert issue --help`"
            )
        return names[0]

    @property
    def serial(self) -> str:
        """The serial number of the client's certificate, in hex."""
        return str((self._tls.getpeercert() or {}).get("serialNumber", ""))

    def _subject(self) -> Iterable[tuple[str, str]]:
        subject: Any = (self._tls.getpeercert() or {}).get("subject", ())
        return [(str(key), str(value)) for part in subject for key, value in part]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the socket below."""
        return self._below.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Who gets what comes from now on."""
        self._above = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who gets what comes."""
        return self._above

    def pause_reading(self) -> None:
        """Hand on nothing more; what came already waits."""
        self._reading = False
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Hand on what waits, and what comes."""
        if not self._reading:
            self._reading = True
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        # Not asyncio's to catch: it would leave the connection open.
        if attempt("connection.defect", self._resume_now) is not None:
            self.abort()

    def _resume_now(self) -> None:
        if self._reading and not self._over:
            self._go_on()
        if self._reading and not self._over:
            self._below.resume_reading()

    def is_reading(self) -> bool:
        """Whether what comes is handed on."""
        return self._reading

    def write(self, data: Buffer) -> None:
        """Encrypt and send."""
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        """Encrypt and send, as few records as it takes: a batch of replies is many small pieces."""
        if self._over:
            return
        data, sealed = memoryview(b"".join(list_of_data)), []
        try:
            for at in range(0, len(data), FEED_BYTES):
                self._tls.write(data[at : at + FEED_BYTES])
                sealed.append(self._outgoing.read())
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._below.writelines(sealed)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of what waits to be sent."""
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Of what waits to be sent: low and high."""
        return self._below.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        return self._below.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        """TLS has no half that closes."""
        return False

    def is_closing(self) -> bool:
        """Whether it is over."""
        return self._over or self._below.is_closing()

    def close(self) -> None:
        """Say goodbye, send what waits, and close."""
        if not self._over:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        self._over = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # its own goodbye is not waited for
        self._flush()
        self._below.close()

    def abort(self) -> None:
        """Close at once."""
        self._over = True
        self._below.abort()
