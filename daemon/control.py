"""The control server: one ZeroMQ ROUTER that takes typed requests and answers each by its id.

A request runs as a task; what the command does is the dispatch function's business. Here: bounds, deadlines,
idempotency keys and the shape of errors. A key stands for one execution: a request with the key of a running
one joins it, with the key of a finished one gets its reply. Failures are not remembered, so trying again with
the same key tries again. An execution that nobody waits for any more (every deadline passed) is cancelled;
dispatch functions must stand that at each await.

Unix sockets are guarded by their mode (0600, or as site.toml says) and their directory; TCP needs CURVE and
known operator keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
import zmq
import zmq.asyncio
from msgspec import Raw

from engine.acting import OVER_THE_NETWORK, acting
from engine.group.compartment import attempt_async
from engine.ports.unix_sockets import SocketAccess, bound_socket, remove_dead_socket
from engine.ports.zap import Authenticator
from engine.ports.zmq_guard import StrangerGuard
from protocol.commands.base import Command, Query, command_name
from protocol.endpoints import check_endpoint, check_listen_endpoint, ipc_path, is_ipc
from protocol.envelopes import (
    API_VERSION,
    Answer,
    Request,
    decode_request,
    decode_request_head,
    encode_answer,
    error_answer,
    ok_answer,
    request_decoder,
)
from protocol.errors import (
    Busy,
    ExitCode,
    FarshoreError,
    NotAllowed,
    TimedOut,
    UsageError,
    machine_refused,
    system_error,
)
from protocol.limits import CONTROL_MESSAGE_BYTES_MAX, CONTROL_REQUESTS_IN_FLIGHT_MAX

FINISHED_KEYS_MAX = 1024
CLOSE_LINGER_MS = 200
CLOSE_WAIT_S = 2.0
# As many as libzmq lets wait by itself.
BACKLOG = 100
PRIVATE = SocketAccess(mode=0o600)
ZAP_DOMAIN = "control"

# What is answered is the reply, encoded.
Dispatch = Callable[[Command], Awaitable[Raw]]

log = structlog.get_logger("control")


class InternalError(FarshoreError):
    """A bug: the exception itself is in the daemon's log."""

    exit_code = ExitCode.FAILED
    code = "internal"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlKeys:
    """CURVE keys of a TCP control server (Z85): its own pair, and the public key of each operator by name."""

    secret_key: str = field(repr=False)
    public_key: str
    operators: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class _Execution:
    """One run of a command and how many requests wait for it."""

    command: Command
    task: asyncio.Task[Raw]
    waiters: int = 0


class ControlServer:
    """Serves `dispatch` on one endpoint. Everything happens on `loop`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: str,
        dispatch: Dispatch,
        *,
        keys: ControlKeys | None = None,
        access: SocketAccess = PRIVATE,
        in_flight_max: int = CONTROL_REQUESTS_IN_FLIGHT_MAX,
    ) -> None:
        self._loop = loop
        # Of one with keys the host may be `*`.
        self._endpoint = check_endpoint(endpoint) if keys is None else check_listen_endpoint(endpoint)
        self._dispatch = dispatch
        self._keys = keys
        self._access = access
        self._in_flight_max = in_flight_max
        self._authenticator: Authenticator | None = None
        self._guard: StrangerGuard | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[Exception | None]] = set()
        self._executions: set[asyncio.Task[Raw]] = set()
        self._running: dict[str, _Execution] = {}
        self._finished: OrderedDict[str, tuple[Command, Raw]] = OrderedDict()

    def start(self) -> None:
        """Listen. Call on the loop's thread while it runs.

        Raises Busy when another daemon answers there, NotAllowed for TCP without keys or a socket in a place
        that others can change.
        """
        request_decoder()  # made now, not while hosts wait
        keys = None if is_ipc(self._endpoint) else self._checked_keys()
        self._authenticator = Authenticator(self._loop)
        # The same context, for sockets that are awaited.
        context = zmq.asyncio.Context.shadow(self._authenticator.context)
        server: zmq.asyncio.Socket = context.socket(zmq.ROUTER)
        self._socket = server
        server.linger = CLOSE_LINGER_MS
        server.setsockopt(zmq.MAXMSGSIZE, CONTROL_MESSAGE_BYTES_MAX)
        server.setsockopt(zmq.SNDHWM, self._in_flight_max)
        server.setsockopt(zmq.RCVHWM, self._in_flight_max)
        try:
            if keys is None:
                _make_room(ipc_path(self._endpoint))
            else:
                _protect(self._authenticator, server, keys)
                # Of the same socket, without asyncio: the guard has a pump of its own.
                plain: zmq.Socket[bytes] = zmq.Socket(shadow=server.underlying)
                plain.context = self._authenticator.context
                self._guard = StrangerGuard(self._loop, plain)
            _bind(server, self._endpoint, self._access)
        except BaseException:
            self._close_sockets()
            raise
        self._receiver = self._loop.create_task(self._receive(server), name="control receiver")
        self._receiver.add_done_callback(_report_defect)
        log.info("control listening", endpoint=self._endpoint)

    async def close(self) -> None:
        """Stop listening and cancel every request; twice is fine."""
        tasks: set[asyncio.Task[object]] = {*self._answers, *self._executions}
        if self._receiver is not None:
            tasks.add(self._receiver)
            self._receiver = None
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=CLOSE_WAIT_S)
            if stuck:
                log.error("commands ignored their cancellation", tasks=sorted(t.get_name() for t in stuck))
        self._close_sockets()

    def _close_sockets(self) -> None:
        if self._socket is None or self._authenticator is None:
            return
        if self._guard is not None:
            self._guard.close()
        self._socket.close()
        self._authenticator.close()
        self._socket = self._authenticator = None
        if is_ipc(self._endpoint):
            # libzmq leaves the file; the next daemon and the client then need not guess whether it is alive.
            # Where it cannot be removed, on a disk that has become read-only, they do guess.
            with contextlib.suppress(OSError):
                remove_dead_socket(ipc_path(self._endpoint))

    def _checked_keys(self) -> ControlKeys:
        if self._keys is None:
            raise NotAllowed(
                f"control on {self._endpoint} needs keys",
                subject=self._endpoint,
                next_step="leave `control` as it is, and set `remote_control` in site.toml",
            )
        return self._keys

    def allow(self, operators: Mapping[str, str]) -> None:
        """Who may connect from now on: public keys by name. Who is not among them any more is nobody's
        operator (see `_client_of`), though its connection stands."""
        if self._authenticator is not None:
            self._authenticator.allow(ZAP_DOMAIN, dict(operators))

    async def _receive(self, server: zmq.asyncio.Socket) -> None:
        while True:
            parts: list[zmq.Frame] = await server.recv_multipart(copy=False)
            if len(parts) != 2:
                log.warning("control message dropped", parts=len(parts))
                continue
            caller, raw = parts[0].bytes, parts[1].bytes
            if max(len(self._answers), len(self._executions)) >= self._in_flight_max:
                await self._refuse_busy(server, caller, raw)
                continue
            answer = attempt_async(
                "control.message_failed", self._answer(server, caller, raw, self._client_of(parts[1]))
            )
            task = self._loop.create_task(answer)
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    async def _refuse_busy(self, server: zmq.asyncio.Socket, caller: bytes, raw: bytes) -> None:
        head = decode_request_head(raw)
        if head is not None:
            busy = Busy(f"{self._in_flight_max} requests are running", next_step="try again later")
            await server.send_multipart([caller, encode_answer(error_answer(head.id, busy))])

    def _client_of(self, message: zmq.Frame) -> str:
        """Who sent a message (see engine.acting): by what the kernel says of a unix socket's other end, or by
        the key that was proven. Without either, `unknown` here and nobody's operator over the network."""
        try:
            if self._keys is not None and self._authenticator is not None:
                key = str(message.get("User-Id"))
                if self._guard is not None:
                    self._guard.proven(message, key)
                return OVER_THE_NETWORK + (self._authenticator.name_of(ZAP_DOMAIN, key) or key)
            # libzmq adds `:UID:GID:PID` to a unix socket's address.
            *_, uid, _gid, _pid = str(message.get("Peer-Address")).rsplit(":", 3)
            return f"uid:{int(uid)}"
        except (zmq.ZMQError, ValueError):
            return "unknown" if self._keys is None else f"{OVER_THE_NETWORK}?"

    async def _answer(self, server: zmq.asyncio.Socket, caller: bytes, raw: bytes, client: str) -> None:
        try:
            request = decode_request(raw)
        except UsageError as refusal:
            head = decode_request_head(raw)
            if head is None:
                log.warning("control message dropped", bytes=len(raw))
                return
            await server.send_multipart(
                [caller, encode_answer(error_answer(head.id, _explain(refusal, head.api)))]
            )
            return
        await server.send_multipart([caller, await self._encoded_reply(request, client)])

    async def _encoded_reply(self, request: Request[Command], client: str) -> bytes:
        """Never raises but for cancellation: whatever went wrong is the reply."""
        name = command_name(request.command)
        try:
            return encode_answer(await self._reply(request, client))
        # The edge of the daemon: a bug in one command is logged, answered, and must not end the others.
        except Exception:
            log.exception("command failed", command=name, request=request.id.hex())
            failed = InternalError(f"{name} failed inside the daemon", next_step="see the daemon's log")
            return encode_answer(error_answer(request.id, failed))

    async def _reply(self, request: Request[Command], client: str) -> Answer:
        try:
            return ok_answer(request.id, await self._execute(request, client))
        except FarshoreError as error:
            return error_answer(request.id, error)

    async def _execute(self, request: Request[Command], client: str) -> Raw:
        """The command's data: of a finished or running execution with the same key, or of a new one."""
        command = request.command
        key = "" if isinstance(command, Query) else request.idempotency_key
        if key in self._finished:
            known, data = self._finished[key]
            _check_same(known, command, key)
            self._finished.move_to_end(key)
            return data
        execution = self._running.get(key) if key else None
        if execution is None:
            execution = self._begin(command, key, client)
        _check_same(execution.command, command, key)
        execution.waiters += 1
        try:
            done, _ = await asyncio.wait({execution.task}, timeout=request.deadline_s)
            if not done:
                raise TimedOut(
                    f"{command_name(command)} did not end within {request.deadline_s:g} s",
                    next_step="farshore status",
                )
            if execution.task.cancelled():
                raise TimedOut(f"{command_name(command)} was cancelled", next_step="try again")
            return execution.task.result()
        finally:
            execution.waiters -= 1
            if not execution.waiters and not execution.task.done():
                # Out of the table at once: a later request with this key must not join what is being undone.
                self._running.pop(key, None)
                execution.task.cancel()

    def _begin(self, command: Command, key: str, client: str) -> _Execution:
        task = self._loop.create_task(self._run(command, client), name=f"command {command_name(command)}")
        execution = _Execution(command=command, task=task)
        self._executions.add(task)
        if key:
            self._running[key] = execution
        task.add_done_callback(lambda _done: self._ended(execution, key))
        return execution

    async def _run(self, command: Command, client: str) -> Raw:
        with acting(client):
            return await self._dispatch(command)

    def _ended(self, execution: _Execution, key: str) -> None:
        task = execution.task
        self._executions.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not execution.waiters and not isinstance(failure, FarshoreError):
            log.error("command failed after its deadline", command=task.get_name(), exc_info=failure)
        if not key or self._running.get(key) is not execution:
            return
        del self._running[key]
        if failure is None and not task.cancelled():
            self._finished[key] = (execution.command, task.result())
            if len(self._finished) > FINISHED_KEYS_MAX:
                self._finished.popitem(last=False)


def _report_defect(task: asyncio.Task[None]) -> None:
    """Without its receiver the daemon would serve on, and nobody could command it."""
    if not task.cancelled() and (defect := task.exception()) is not None:
        context = {"message": "the control server ended", "exception": defect}
        task.get_loop().call_exception_handler(context)


def _check_same(known: Command, command: Command, key: str) -> None:
    if known != command:
        raise UsageError(f"idempotency key {key!r} was used for another command", next_step="use a new key")


def _explain(refusal: UsageError, api: int) -> UsageError:
    if api == API_VERSION:
        return refusal
    return UsageError(
        f"this daemon speaks control API {API_VERSION}, not {api}",
        next_step="use the farshore command of the daemon's version",
    )


def _protect(authenticator: Authenticator, server: zmq.asyncio.Socket, keys: ControlKeys) -> None:
    authenticator.allow(ZAP_DOMAIN, dict(keys.operators))
    authenticator.protect(server, ZAP_DOMAIN)
    server.setsockopt(zmq.CURVE_SECRETKEY, keys.secret_key.encode())
    server.setsockopt(zmq.CURVE_PUBLICKEY, keys.public_key.encode())


def _make_room(path: str) -> None:
    """See to it that only this user can change the socket's directory, and that nothing has its name."""
    directory = os.path.dirname(path)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise FarshoreError(f"{directory}: {error.strerror}", subject=directory) from error
    mode = os.stat(directory).st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        raise NotAllowed(
            f"{directory} can be changed by other users, who could answer in the daemon's place",
            subject=directory,
            next_step=f"chmod go-w {directory}",
        )
    if not remove_dead_socket(path):
        raise Busy(f"a daemon answers on {path} already", subject=path, next_step="farshore status")
    if os.path.lexists(path):
        raise NotAllowed(f"{path} is no socket", subject=path, next_step="move it away")


def _bind(server: zmq.asyncio.Socket, endpoint: str, access: SocketAccess) -> None:
    try:
        if is_ipc(endpoint):
            # libzmq itself would remove whatever has the name by now, and sets no mode.
            with bound_socket(ipc_path(endpoint), access) as listening:
                listening.listen(BACKLOG)
                server.setsockopt(zmq.USE_FD, listening.fileno())
                server.bind(endpoint)
                listening.detach()  # libzmq closes it
        else:
            server.bind(endpoint)
    except (OSError, zmq.ZMQError) as error:
        if isinstance(error, OSError) and machine_refused(error):
            error.filename = error.filename or ipc_path(endpoint)
            raise system_error(error) from error
        hint = "choose another --control" if error.errno == errno.EADDRINUSE else ""
        raise Busy(
            f"cannot listen on {endpoint}: {error.strerror}", subject=endpoint, next_step=hint
        ) from error
