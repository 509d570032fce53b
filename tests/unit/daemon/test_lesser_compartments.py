"""Failure has a compartment: what ends a session, a connection or a question only, not its group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import pytest
import zmq
import zmq.asyncio

from console.demo.host import Host
from daemon import operations
from daemon.control import ControlServer
from daemon.operations import dispatch
from daemon.operations.registry import OPERATIONS
from protocol.commands import COMMANDS
from protocol.commands.pair import PairSet
from protocol.commands.site import SiteStatus
from protocol.envelopes import REQUEST_ID_BYTES, Request, decode_answer, decode_request, encode_request
from protocol.errors import FarshoreError, NotFound, Unreachable
from tests.support.hostile_messages import Mint, Pool
from tests.unit.daemon.stage import BLOCK, PATIENCE_S, Bang, Stage, answered, bang, staged

# -- what ends a session or a connection only


async def receiver_message(stage: Stage) -> Callable[[], None]:
    receiver: Any = stage.b.receivers["bad"]
    was, receiver.on_message = receiver.on_message, bang
    await stage.write("bad")
    await stage.until(lambda: stage.said(stage.b, "peer.session_failed"))
    return lambda: setattr(receiver, "on_message", was)


async def shipper_message(stage: Stage) -> Callable[[], None]:
    link: Any = stage.a.shippers["bad"].session
    was, link._on_message = link._on_message, bang
    before = link.id
    await stage.write("bad")
    await stage.until(lambda: link.id != before)
    return lambda: setattr(link, "_on_message", was)


async def door(stage: Stage) -> Callable[[], None]:
    """A question, and the report that every asker begins with."""
    peer_door: Any = stage.b._door
    was, peer_door._report = peer_door._report, bang
    asking = asyncio.ensure_future(stage.a.ask_peer("bad").report())
    await asyncio.sleep(0)
    await stage.write("good")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return lambda: setattr(peer_door, "_report", was)


async def host_read(stage: Stage) -> Callable[[], None]:
    await stage.write("bad")
    export: Any = next(export for (name, _), export in stage.a.exports.live.items() if name == "bad")
    view, export.view = export.view, _Broken()
    with pytest.raises(OSError):
        await stage.host("bad", lambda host: host.read(0, BLOCK))
    return lambda: setattr(export, "view", view)


async def store_read(stage: Stage) -> Callable[[], None]:
    await stage.write("bad")
    group = stage.group("bad")
    export: Any = next(export for (name, _), export in stage.a.exports.live.items() if name == "bad")
    was, export.view._store = export.view._store, _Broken()
    group.memtable.layers[-1].volumes.clear()
    with pytest.raises(OSError):
        await stage.host("bad", lambda host: host.read(0, BLOCK))
    await dispatch(stage.a, SiteStatus())
    return lambda: setattr(export.view, "_store", was)


async def state_store(stage: Stage) -> Callable[[], None]:
    """A commit of the site's state, under a command."""
    state: Any = stage.a.state
    was, state.put_notes = state.put_notes, bang
    with pytest.raises(Bang):
        await dispatch(stage.a, PairSet(group="bad", mode="sync"))
    return lambda: setattr(state, "put_notes", was)


async def questions_link(stage: Stage) -> Callable[[], None]:
    """What an asker hears: its link ends, and the question with it."""
    requests: Any = stage.a.ask_peer("bad")
    was, requests._on_message = requests._on_message, bang
    with pytest.raises(Unreachable):
        await asyncio.wait_for(requests.report(), PATIENCE_S)
    return lambda: setattr(requests, "_on_message", was)


async def question_answered(stage: Stage) -> Callable[[], None]:
    """A question behind it, about another group, is answered all the same."""
    answers: Any = stage.b._door._answers
    was, answers._answer = answers._answer, bang
    with pytest.raises(FarshoreError, match="defect"):
        await asyncio.wait_for(stage.a.ask_peer("bad").cut_at(1), PATIENCE_S)
    answers._answer = was
    with pytest.raises(NotFound):
        await asyncio.wait_for(stage.a.ask_peer("good").cut_at(1), PATIENCE_S)
    return lambda: None


async def hello(stage: Stage) -> Callable[[], None]:
    peer_door: Any = stage.b._door
    was, peer_door._receiver_for = peer_door._receiver_for, bang
    shipper: Any = stage.a.shippers["bad"]
    shipper._connect()
    await stage.until(lambda: stage.said(stage.b, "peer.session_failed"))
    peer_door._receiver_for = was
    return lambda: None


async def host_turn(stage: Stage) -> Callable[[], None]:
    """A turn that a connection asked for: the loop calls it back."""
    door: Any = stage.a.nbd
    loop = asyncio.get_running_loop()

    def talk(host: Host) -> None:
        host.write(0, b"t" * BLOCK)
        connection: Any = next(each for e in stage.a.exports.live.values() for each in e.connections)
        connection._take_turn = bang
        loop.call_soon_threadsafe(connection._ask_turn)
        host.read(0, BLOCK)

    with pytest.raises(OSError):
        await stage.host("bad", talk)
    assert not door.budget._turns
    return lambda: None


async def host_answer(stage: Stage) -> Callable[[], None]:
    """What a flush is answered with, called back by the group's journal."""

    def talk(host: Host) -> None:
        host.write(0, b"t" * BLOCK)
        for export in stage.a.exports.live.values():
            for connection in export.connections:
                connection._answer = bang  # type: ignore[attr-defined]
        host.flush()

    with pytest.raises(OSError):
        await stage.host("bad", talk)
    return lambda: None


class _Broken:
    """A view of which everything throws."""

    def __getattr__(self, name: str) -> Any:
        raise Bang(name)


ENDS_LESS = [
    receiver_message,
    shipper_message,
    door,
    hello,
    questions_link,
    question_answered,
    host_read,
    store_read,
    state_store,
    host_turn,
    host_answer,
]


@pytest.mark.parametrize("throw", ENDS_LESS, ids=lambda each: each.__name__)
def test_a_defect_in_a_session_or_connection_ends_that_one(throw: Any) -> None:
    async def play() -> None:
        async with staged() as stage:
            mend = await throw(stage)
            await stage.check_others()
            mend()
            # The group itself never stopped, and goes on once the defect is gone.
            await stage.write("bad", b"y")
            await stage.paired("bad")
            assert not stage.group("bad").failed
            assert not stage.group("bad", "b").failed

    asyncio.run(play())


def _made(hint: Any) -> Any:
    """A value of a type, as small as it may be."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint(**{each.name: _made(each.type) for each in msgspec.structs.fields(hint) if each.required})
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(bare) is tuple and get_args(bare)[-1] is Ellipsis:
        bounds = get_args(hint)[1:] if bare is not hint else ()
        return (_made(get_args(bare)[0]),) * max((each.min_length or 0 for each in bounds), default=0)
    if get_origin(hint) in (Union, UnionType):
        return _made(get_args(hint)[0])
    return Mint(1, Pool([1, BLOCK], ["g", "async", "0" * 16, "uid:1"]))._value(hint)


def _request(kind: Any) -> bytes:
    request = Request(
        id=bytes(REQUEST_ID_BYTES), deadline_s=PATIENCE_S, command=_made(kind), idempotency_key=""
    )
    return encode_request(decode_request(encode_request(request)))


def test_a_defect_in_any_command_is_its_answer_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every command that there is, through the control server's own socket."""
    kinds = {kind: _request(kind) for kind in COMMANDS}
    assert set(kinds) == set(OPERATIONS)

    async def play() -> None:
        async with staged() as stage:
            loop = asyncio.get_running_loop()
            control = ControlServer(
                loop, f"ipc://{stage.a.directory / 'control.sock'}", partial(answered, stage.a)
            )
            control.start()
            broken = dict.fromkeys(OPERATIONS, bang)
            with (
                monkeypatch.context() as patched,
                zmq.asyncio.Context() as context,
                context.socket(zmq.DEALER) as client,
            ):
                patched.setattr(operations, "OPERATIONS", broken)
                client.linger = 0
                client.connect(f"ipc://{stage.a.directory / 'control.sock'}")
                for raw in kinds.values():
                    await client.send(raw)
                    answer = decode_answer(await asyncio.wait_for(client.recv(), PATIENCE_S))
                    assert "failed inside the daemon" in str(answer)
            await control.close()
            await stage.check_others()

    asyncio.run(play())
