"""The control server over TCP: keys, and whose command it is."""

from __future__ import annotations

import asyncio
import socket

import pytest
import zmq

from console.client import Client, OperatorKeys
from daemon.control import ControlKeys, ControlServer
from daemon.operators import Operators
from engine.acting import acting
from protocol.commands.site import SiteToken
from protocol.commands.volume import VolumeOnline
from protocol.errors import Busy, NotAllowed
from tests.unit.daemon.test_control import in_loop, plain


def tcp_keys() -> tuple[ControlKeys, OperatorKeys, OperatorKeys]:
    """A server's keys, those of an operator that it knows, and a stranger's."""
    server_public, server_secret = zmq.curve_keypair()
    operator_public, operator_secret = zmq.curve_keypair()
    stranger_public, stranger_secret = zmq.curve_keypair()
    return (
        ControlKeys(
            secret_key=server_secret.decode(),
            public_key=server_public.decode(),
            operators={"ann": operator_public.decode()},
        ),
        OperatorKeys(public_key=operator_public, secret_key=operator_secret, server_key=server_public),
        OperatorKeys(public_key=stranger_public, secret_key=stranger_secret, server_key=server_public),
    )


def free_endpoint() -> str:
    """A TCP endpoint that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@in_loop
async def test_tcp_needs_keys_and_knows_its_operators() -> None:
    endpoint, loop = free_endpoint(), asyncio.get_running_loop()
    with pytest.raises(NotAllowed, match="needs keys"):
        ControlServer(loop, endpoint, plain).start()
    keys, operator, stranger = tcp_keys()
    server = ControlServer(loop, endpoint, plain, keys=keys)
    server.start()
    try:
        with Client(endpoint, keys=operator) as client:
            assert (await asyncio.to_thread(client.call, SiteToken())).site == "SiteToken"
        with Client(endpoint, keys=stranger) as client, pytest.raises(NotAllowed, match="does not know"):
            await asyncio.to_thread(client.call, VolumeOnline(group="g", volume="v"))
        with Client(endpoint) as client, pytest.raises(NotAllowed, match="keys"):
            client.call(SiteToken())
        assert keys.secret_key not in repr(keys)
    finally:
        await server.close()


@in_loop
async def test_a_caller_without_a_known_key_is_nobodys_operator() -> None:
    """Without its key it was taken for someone at this machine, who may do everything."""

    class Nameless:
        """A message of which libzmq says nothing."""

        def get(self, _: str) -> str:
            raise zmq.ZMQError(zmq.EINVAL)

    keys, _, _ = tcp_keys()
    server = ControlServer(asyncio.get_running_loop(), free_endpoint(), plain, keys=keys)
    server.start()
    try:
        assert server._client_of(Nameless()) == "operator:?"  # type: ignore[arg-type]
    finally:
        await server.close()
    operators = Operators({})
    with acting("operator:?"), pytest.raises(NotAllowed):
        operators.check(SiteToken())


@in_loop
async def test_a_port_in_use_is_one_clear_error() -> None:
    keys, _, _ = tcp_keys()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Busy, match="cannot listen"):
            ControlServer(asyncio.get_running_loop(), endpoint, plain, keys=keys).start()
