"""Sites on one network, real or simulated, for the tests of transports."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.ports.disk import Buffer
from engine.ports.transport import Caller, Link, PeerAddress, Transport
from engine.ports.zmq_transport import ZmqTransport, generate_keypair
from tests.contract.drivers import Driver, LoopDriver, SimDriver
from tests.sim.sim_network import SimNetwork, SimTransport

MESSAGE_BYTES_MAX = 5 << 20
# Names, endpoint, keys.
MakeTransport = Callable[[str, str, tuple[str, str]], Transport]


@dataclass
class Site:
    """One end and what it received: (peer, header, payload) as a listener, (header, payload) as a dialler."""

    rig: Rig
    transport: Transport
    keys: tuple[str, str]
    heard: list[tuple[str, bytes, Buffer | None]] = field(default_factory=list)
    answers: list[tuple[bytes, Buffer | None]] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)

    def listen(self, echo: bool = False) -> None:
        def on_message(caller: Caller, header: bytes, payload: Buffer | None) -> None:
            self.heard.append((caller.peer, header, payload))
            self.callers.append(caller)
            if echo:
                caller.send(b"re:" + header, payload)

        self.transport.listen(self.rig.driver.watch(on_message))

    def address(self, public_key: str = "") -> PeerAddress:
        endpoint: str = self.transport.bound_endpoint  # type: ignore[attr-defined]
        return PeerAddress(name="x", endpoint=endpoint, public_key=public_key or self.keys[0])

    def dial(self, address: PeerAddress) -> Link:
        def on_message(header: bytes, payload: Buffer | None) -> None:
            self.answers.append((header, payload))

        return self.transport.dial(address, self.rig.driver.watch(on_message))

    def headers(self) -> list[bytes]:
        return [header for _, header, _ in self.heard]


@dataclass
class Rig:
    """Makes sites on one network."""

    driver: Driver
    make_transport: MakeTransport
    sites: list[Site] = field(default_factory=list)

    def site(
        self, name: str, endpoint: str = "tcp://127.0.0.1:*", keys: tuple[str, str] | None = None
    ) -> Site:
        keys = keys or generate_keypair()
        made = Site(self, self.make_transport(name, endpoint, keys), keys)
        self.sites.append(made)
        return made

    def pair(self, echo: bool = False) -> tuple[Site, Site]:
        """A listener that allows the second."""
        server, client = self.site("server"), self.site("client")
        server.transport.allow({"client": client.keys[0]})
        server.listen(echo)
        return server, client

    def wait(self, condition: Callable[[], bool]) -> None:
        self.driver.run_until(condition)

    def wait_count(self, received: Sequence[object], count: int) -> None:
        self.wait(lambda: len(received) == count)

    def close(self) -> None:
        for site in self.sites:
            site.transport.close()


def simulated_rig() -> Rig:
    """On the simulator's network."""
    driver = SimDriver()
    network = SimNetwork(driver.world)
    ports = iter(range(1, 100))

    def make(name: str, endpoint: str, keys: tuple[str, str]) -> Transport:
        endpoint = endpoint.replace("*", str(next(ports)))
        return SimTransport(network, name, endpoint, keys[0], MESSAGE_BYTES_MAX)

    return Rig(driver, make)


def real_rig(driver: LoopDriver) -> Rig:
    """On TCP over loopback, at an address of this process's own: a test that listens again at a port it gave
    up would otherwise now and then find that a test in another process was given it."""
    process = os.getpid()
    host = f"127.{1 + (process >> 16) % 254}.{(process >> 8) % 256}.{1 + process % 254}"

    def make(_: str, endpoint: str, keys: tuple[str, str]) -> Transport:
        endpoint = endpoint.replace("127.0.0.1", host)
        return ZmqTransport(driver.loop, endpoint, *keys, MESSAGE_BYTES_MAX)

    return Rig(driver, make)
