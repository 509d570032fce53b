"""The client library: one blocking call a command, over ZeroMQ, to one site's daemon.

A daemon that is away is told apart from one that is busy by the connection's own events: a refused or failed
connection ends the call at once, a lost one as soon as it is lost. Nothing is sent twice: whether a command
was carried out before its daemon went away is for the caller to find out, or to ask again with the same key.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass, field
from shlex import quote
from typing import Any, Self

import zmq
from msgspec import UNSET
from msgspec.structs import replace

from protocol.commands.base import BaseCommand, Command, Query, ReplyType, command_name
from protocol.commands.pages import MORE, PagedCommand, add_page, rows_field
from protocol.endpoints import check_endpoint, ipc_path, is_ipc
from protocol.envelopes import (
    REQUEST_ID_BYTES,
    Request,
    decode_answer,
    encode_request,
    read_data,
    read_reply,
)
from protocol.errors import NotAllowed, TimedOut, Unreachable, UsageError
from protocol.limits import CONTROL_MESSAGE_BYTES_MAX

CONNECT_TIMEOUT_S = 5.0
# Beyond what the daemon was asked to wait: one that is slow for a moment must not end a long wait.
WAIT_GRACE_S = 10.0
CALL_TIMEOUT_S = 30.0
# The daemon's own answer to a deadline should win over the client giving up.
REPLY_GRACE_S = 2.0

# Of a socket that is there, and is not for everybody.
MAY_NOT = "log in as its user or root, or as one of `control_socket_group`, which takes a new log-in"

_CONNECTED = zmq.EVENT_HANDSHAKE_SUCCEEDED
_REFUSED = (
    zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorKeys:
    """CURVE keys for a TCP endpoint, Z85: the operator's pair and the site's public key."""

    public_key: bytes
    secret_key: bytes = field(repr=False)
    server_key: bytes


def generate_operator_keys() -> tuple[str, str]:
    """A new pair for an operator, (public, secret), each 40 characters of Z85. The public one is typed behind
    `operator add`, so it does not begin like an option."""
    while True:
        public, secret = zmq.curve_keypair()
        if not public.startswith(b"-"):
            return public.decode("ascii"), secret.decode("ascii")


class Client:
    """A connection to one daemon; for one thread. Connects with the first call."""

    def __init__(self, endpoint: str, *, directory: str = "", keys: OperatorKeys | None = None) -> None:
        """`directory` is the site's, if known, for the hint how to start it. Raises UsageError."""
        self.endpoint = check_endpoint(endpoint)
        self._directory = directory
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection; twice is fine, and the next call connects anew."""
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close(linger=0)
        if self._monitor is not None:
            # Ending a context waits for each of its sockets, the monitor's included.
            self._monitor.close(linger=0)
        if self._context is not None:
            self._context.term()
        self._context = self._socket = self._monitor = None

    def call(
        self,
        command: BaseCommand[ReplyType],
        timeout_s: float = CALL_TIMEOUT_S,
        *,
        idempotency_key: str | None = None,
    ) -> ReplyType:
        """The reply. A list comes whole, however many pages it takes; each of them has `timeout_s`.

        Raises the FarshoreError of the site; Unreachable when no daemon answers or it goes away; TimedOut.
        """
        return read_reply(command, self._whole(command, timeout_s, idempotency_key))

    def first_page(self, command: PagedCommand[ReplyType], timeout_s: float) -> ReplyType:
        """As much of a list as fits into one reply. Raises as `call`."""
        data = self._call(replace(command, after=""), timeout_s, "")
        data.pop(MORE, None)
        return read_reply(command, data)

    def page(
        self, command: PagedCommand[ReplyType], rows: int | None, after: str | None, timeout_s: float
    ) -> ReplyType:
        """So many rows of a list at most, from behind `after` on; `next` of the reply goes on behind them.
        Raises as `call`; UsageError if the daemon knows no such pages."""
        name, whole, more = rows_field(command), dict[str, Any](), after or ""
        while True:
            left = UNSET if rows is None else rows - len(whole.get(name, ()))
            try:
                page = self._call(replace(command, after=more, rows=left), timeout_s, "")
            except UsageError as error:
                if "unknown field" not in error.message:
                    raise
                raise UsageError(
                    "the daemon is of an earlier version, which knows neither --limit nor --after here",
                    subject=self.endpoint,
                    next_step="leave both out",
                ) from error
            more = page.pop(MORE, None)
            add_page(whole, page)
            if more is None or (rows is not None and len(whole[name]) >= rows):
                break
        return read_reply(command, {**whole, "next": more})

    def _whole(self, command: Command, timeout_s: float, idempotency_key: str | None) -> dict[str, Any]:
        if not isinstance(command, PagedCommand):
            return self._call(command, timeout_s, idempotency_key)
        try:
            whole = self._call(replace(command, after=""), timeout_s, "")
        except UsageError:
            # A daemon of an earlier version knows no pages, and answers as much as fits into one reply.
            return self._call(command, timeout_s, "")
        while (more := whole.pop(MORE, None)) is not None:
            add_page(whole, self._call(replace(command, after=more), timeout_s, ""))
        return whole

    def _call(self, command: Command, timeout_s: float, idempotency_key: str | None) -> dict[str, Any]:
        if idempotency_key is None:
            idempotency_key = "" if isinstance(command, Query) else os.urandom(16).hex()
        request = Request(
            id=os.urandom(REQUEST_ID_BYTES),
            deadline_s=timeout_s,
            command=command,
            idempotency_key=idempotency_key,
        )
        raw = encode_request(request)
        try:
            connection, monitor = self._connected()
            connection.send(raw)
            return self._await_reply(connection, monitor, request)
        except BaseException:
            # What is on its way must not be taken for the reply to the next call.
            self.close()
            raise

    def _connected(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        if self._socket is not None and self._monitor is not None:
            return self._socket, self._monitor
        self._context = zmq.Context()
        connection = self._socket = self._context.socket(zmq.DEALER)
        connection.linger = 0
        connection.setsockopt(zmq.MAXMSGSIZE, CONTROL_MESSAGE_BYTES_MAX)
        connection.setsockopt(zmq.HANDSHAKE_IVL, int(CONNECT_TIMEOUT_S * 1000))
        self._set_keys(connection)
        monitor = self._monitor = connection.get_monitor_socket(_CONNECTED | _REFUSED)
        connection.connect(self.endpoint)
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while (remaining_s := deadline - time.monotonic()) > 0:
            if not monitor.poll(int(remaining_s * 1000) + 1):
                break
            event = _event(monitor)
            if event == _CONNECTED:
                return connection, monitor
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise NotAllowed(
                    f"the daemon at {self.endpoint} does not know this operator's key",
                    subject=self.endpoint,
                    next_step="`farshore operator key` prints it; "
                    "`farshore operator add NAME KEY` at the site",
                )
            raise self._unreachable(f"no daemon answers at {self.endpoint}")
        raise self._unreachable(f"the daemon at {self.endpoint} does not answer")

    def _set_keys(self, connection: zmq.Socket[bytes]) -> None:
        if is_ipc(self.endpoint):
            return
        if self._keys is None:
            raise NotAllowed(
                f"control over {self.endpoint} needs an operator's keys",
                subject=self.endpoint,
                next_step="name operator_key_file and server_key of the site in sites.toml",
            )
        connection.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public_key)
        connection.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret_key)
        connection.setsockopt(zmq.CURVE_SERVERKEY, self._keys.server_key)

    def _await_reply(
        self, connection: zmq.Socket[bytes], monitor: zmq.Socket[bytes], request: Request[Any]
    ) -> dict[str, Any]:
        name = command_name(request.command)
        deadline = time.monotonic() + request.deadline_s + REPLY_GRACE_S
        poller = zmq.Poller()
        poller.register(connection, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        while (remaining_s := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(int(remaining_s * 1000) + 1))
            if connection in ready:
                answer = decode_answer(connection.recv())
                if answer.id == request.id:
                    return read_data(answer.result())
            elif monitor in ready and _event(monitor) & _REFUSED:
                raise self._lost(name, request)
        raise TimedOut(
            f"{name}: no reply within {request.deadline_s:g} s",
            subject=self.endpoint,
            next_step="farshore status",
        )

    def _lost(self, name: str, request: Request[Any]) -> Unreachable:
        done = "" if isinstance(request.command, Query) else "; it may have been carried out"
        return self._unreachable(f"the daemon at {self.endpoint} went away during {name}{done}")

    def _unreachable(self, message: str) -> Unreachable:
        if is_ipc(self.endpoint) and (refused := _refused_here(ipc_path(self.endpoint))):
            return Unreachable(f"{message}: {refused}", subject=self.endpoint, next_step=MAY_NOT)
        start = f"farshore site run {quote(self._directory) if self._directory else 'DIR'}"
        if not is_ipc(self.endpoint):
            # A site that was given another key drops the connection without a word.
            start = "is it running, and server_key in sites.toml what operator list --json says there?"
        return Unreachable(message, subject=self.endpoint, next_step=start)


def _refused_here(path: str) -> str:
    """Why this user cannot ask a daemon that may well run there; empty otherwise."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except PermissionError as error:
            return error.strerror or str(error)
        except (OSError, ValueError):
            return ""
    return ""


def _event(monitor: zmq.Socket[bytes]) -> int:
    """What happened to a connection: the first two bytes of zmq_socket_monitor(3)'s first part. pyzmq's own
    reader of these loads asyncio first."""
    number, _endpoint = monitor.recv_multipart()
    return int.from_bytes(number[:2], sys.byteorder)
