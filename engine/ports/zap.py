"""Who may connect: ZeroMQ's authentication (ZAP, RFC 27) with an explicit list of keys for each domain.

A CURVE server whose context has no ZAP handler accepts any client key, so a listening socket takes its
context from an `Authenticator` and nowhere else. The handler runs on the loop, not in a thread of its own. A
refused key gets status 400, which ends the attempt at once; status 300 would leave the connection idle until
the handshake times out. Who wants to try again, in case an operator adds the key, makes a new socket.

It knows keys and names, not what they may do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from struct import error as StructError
from types import MappingProxyType
from typing import Any

import structlog
import zmq
from zmq.utils import z85

from engine.ports.zmq_pump import Parts, SocketPump
from protocol.errors import UsageError

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
ACCEPTED = b"200"
REFUSED = b"400"
KEY_CHARS = 40
# Strangers may try as many keys as they like; the log names this many.
REFUSED_KEYS_LOGGED_MAX = 64
NONE_COMING: Mapping[str, str] = MappingProxyType({})

log = structlog.get_logger()


class Authenticator:
    """The process's ZeroMQ context and its ZAP handler.

    A message that came through a socket of a domain has the client's public key (Z85) as its `User-Id`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._allowed: dict[str, dict[str, str]] = {}
        self._refused_keys: set[str] = set()
        handler = self.context.socket(zmq.REP)
        handler.set(zmq.LINGER, 0)
        handler.bind(ZAP_ENDPOINT)
        self._pump = SocketPump(loop, handler, self._answer)

    def allow(self, domain: str, peers: Mapping[str, str], coming: Mapping[str, str] = NONE_COMING) -> None:
        """Set who may connect to sockets of `domain`: name to public key (Z85), and to the one that is to
        take its place. UsageError for a malformed key or one that two names share. Connections of keys that
        are gone stay open; see `name_of`."""
        names: dict[str, str] = {}
        for name, key in (*peers.items(), *coming.items()):
            check_key(key, name)
            if key in names:
                raise UsageError(
                    f"{names[key]} and {name} have the same public key",
                    subject=name,
                    next_step="compare `farshore site token` at each site with `farshore peer list` here",
                )
            names[key] = name
        self._allowed[domain] = names

    def name_of(self, domain: str, key: str) -> str | None:
        """The name that `key` has in `domain` now; None if it may not connect (any more)."""
        return self._allowed.get(domain, {}).get(key)

    def socket(self, kind: zmq.SocketType) -> zmq.Socket[bytes]:
        """A new socket of the context, which drops what it holds when it is closed. RuntimeError once
        the handler is gone: a CURVE server would then accept any key."""
        if self._pump.closed:
            raise RuntimeError("the authenticator is closed")
        socket = self.context.socket(kind)
        socket.set(zmq.LINGER, 0)
        return socket

    def protect(self, socket: zmq.Socket[Any], domain: str) -> None:
        """Make `socket`, not yet bound, a CURVE server that asks this handler."""
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.ZAP_DOMAIN, domain.encode())
        # Without this, libzmq asks nobody when the handler is missing, and lets the client in.
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def close(self) -> None:
        """Stop answering and end the context, whose other sockets must be closed; twice is fine."""
        self._pump.close()
        self.context.term()

    def _answer(self, parts: Parts) -> None:
        """One request: version, request id, domain, address, routing id, mechanism, credentials."""
        fields = [part.bytes for part in parts]
        request_id = fields[1] if len(fields) > 1 else b""
        key = self._accepted_key(fields)
        if key is None:
            reply = [ZAP_VERSION, request_id, REFUSED, b"not allowed", b"", b""]
        else:
            reply = [ZAP_VERSION, request_id, ACCEPTED, b"OK", key.encode(), b""]
        self._pump.socket.send_multipart(reply, zmq.NOBLOCK)

    def _accepted_key(self, fields: list[bytes]) -> str | None:
        if len(fields) != 7 or fields[0] != ZAP_VERSION or fields[5] != b"CURVE" or len(fields[6]) != 32:
            return None
        domain = fields[2].decode("ascii", "replace")
        key = z85.encode(fields[6]).decode("ascii")
        if self.name_of(domain, key) is not None:
            return key
        if key not in self._refused_keys and len(self._refused_keys) < REFUSED_KEYS_LOGGED_MAX:
            self._refused_keys.add(key)
            log.warning("key refused", domain=domain, address=fields[3].decode("ascii", "replace"), key=key)
        return None


def generate_keypair() -> tuple[str, str]:
    """A new CURVE key pair as (public, secret), each 40 characters of Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode("ascii"), secret.decode("ascii")


def public_key_of(secret: str) -> str:
    """The public key that belongs to a secret one, both in Z85."""
    return zmq.curve_public(secret.encode()).decode("ascii")


def check_key(key: str, name: str) -> bytes:
    """The 32 bytes of a Z85 `key` of `name`; UsageError if it is none."""
    try:
        if len(key) != KEY_CHARS:
            raise ValueError(f"{len(key)} characters instead of {KEY_CHARS}")
        return z85.decode(key.encode("ascii"))
    except (ValueError, KeyError, StructError) as error:  # five characters may say more than 32 bits
        raise UsageError(
            f"not a CURVE key of {name}: {error}",
            subject=name,
            next_step="`farshore site token` prints a site's public key",
        ) from error


def check_keypair(public: str, secret: str) -> None:
    """UsageError unless both are keys of this site, and belong together."""
    check_key(public, "this site")
    check_key(secret, "this site")
    if public_key_of(secret) != public:
        raise UsageError(
            "this site's public and secret key do not belong together",
            subject="keys",
            next_step="restore keys/ from a copy of the directory: peers know this site by them",
        )
