"""The simulated network loses what it may lose: the other side of the transport's contract."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest

from engine.ports.disk import Buffer
from engine.ports.transport import Caller, Link, PeerAddress
from tests.contract.drivers import SimDriver
from tests.sim.sim_network import SimNetwork, SimTransport
from tests.sim.world import Crashed


@dataclass
class Sim:
    """Two simulated sites on one network, the second linked to the first."""

    driver: SimDriver
    network: SimNetwork
    heard: list[bytes]
    answers: list[bytes]
    server: SimTransport
    client: SimTransport
    link: Link

    def dial(self) -> Link:
        address = PeerAddress(name="server", endpoint="tcp://s:1", public_key="S")
        return self.client.dial(address, lambda header, _: self.answers.append(header))


def simulated(seed: int) -> Sim:
    driver = SimDriver(seed)
    network = SimNetwork(driver.world)
    server = SimTransport(network, "server", "tcp://s:1", "S")
    client = SimTransport(network, "client", "tcp://c:1", "C")
    server.allow({"client": "C"})
    heard: list[bytes] = []

    def on_message(caller: Caller, header: bytes, payload: Buffer | None) -> None:
        heard.append(header)
        driver.world.note("heard", header)
        caller.send(header)

    server.listen(on_message)
    # A field's placeholder for the moment: `dial` needs the object.
    sim = Sim(driver, network, heard, [], server, client, link=None)  # type: ignore[arg-type]
    sim.link = sim.dial()
    sim.link.send(b"first")
    driver.run_until(lambda: sim.answers == [b"first"])
    return sim


def test_sim_a_cut_leaves_a_prefix() -> None:
    lengths: set[int] = set()
    for seed in range(50):
        sim = simulated(seed)
        numbers = [b"%d" % number for number in range(20)]
        for number in numbers:
            sim.link.send(number)
        sim.driver.world.run_for(0.005)
        sim.network.cut("client", "server")
        sim.link.send(b"after")
        sim.driver.world.run_for(20.0)
        received = sim.heard[1:]
        assert received == numbers[: len(received)]
        lengths.add(len(received))
        sim.dial().send(b"new")
        sim.driver.run_until(partial(sim.answers.__contains__, b"new"))
    assert len(lengths) > 5


def test_sim_a_parted_site_comes_back_with_a_new_link() -> None:
    sim = simulated(1)
    sim.network.part("client", "server")
    link = sim.dial()
    link.send(b"waits")
    sim.driver.world.run_for(60.0)
    assert sim.heard == [b"first"]
    sim.network.heal("client", "server")
    sim.driver.run_until(lambda: sim.answers == [b"first", b"waits"])


@pytest.mark.parametrize(("outage_s", "survives"), [(3.0, True), (10.0, False)])
def test_sim_a_blackhole_one_way(outage_s: float, survives: bool) -> None:
    sim = simulated(1)
    sim.network.blackhole("server", "client")
    sim.link.send(b"heard but not answered")
    sim.driver.world.run_for(outage_s)
    assert sim.heard == [b"first", b"heard but not answered"]
    assert sim.answers == [b"first"]
    sim.network.heal("server", "client")
    sim.driver.world.run_for(5.0)
    assert (sim.answers == sim.heard) is survives


def test_sim_a_crashed_process_is_dead() -> None:
    sim = simulated(1)
    sim.client.crash()
    with pytest.raises(Crashed):
        sim.link.send(b"zombie")
    with pytest.raises(Crashed):
        sim.dial()
    sim.server.crash()
    again = SimTransport(sim.network, "server", "tcp://s:1", "S")
    again.listen(lambda *_: None)


def test_sim_a_payload_changed_after_sending_is_found() -> None:
    sim = simulated(1)
    payload = bytearray(b"before")
    sim.link.send(b"x", payload)
    payload[0] = 0
    with pytest.raises(AssertionError, match="changed after it was sent"):
        sim.driver.world.run_for(1.0)


def test_sim_one_seed_gives_one_run() -> None:
    def run(seed: int) -> str:
        sim = simulated(seed)
        for number in range(50):
            sim.link.send(b"%d" % number)
            sim.driver.world.run_for(0.001)
        sim.network.cut("client", "server")
        sim.dial().send(b"last")
        sim.driver.world.run_for(5.0)
        return sim.driver.world.trace_hash()

    assert [run(seed) for seed in range(5)] == [run(seed) for seed in range(5)]
    assert run(1) != run(2)
