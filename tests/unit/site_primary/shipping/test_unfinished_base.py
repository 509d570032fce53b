"""A base that does not come to its end: its room is given back, and who lacks room says so and can do
without."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.group.holds import Holder
from engine.history.base_rows import load_pending
from engine.index.base_requests import BaseDrop, BaseInstall
from engine.index.indexer import HANDLERS
from engine.journal.format import BASE_SPARE_PATH
from engine.peering.pair_states import PairState
from engine.peering.takeover_plan import plan_takeover, require_takeable
from protocol.base_messages import BaseFrames
from protocol.errors import WrongState
from protocol.limits import BLOCK_BYTES
from site_primary.shipping import comparison
from site_secondary.receiver import Receiver
from tests.unit.engine.group_rig import GroupRig
from tests.unit.site_primary.shipping.base_pair import BasePair
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair


class FullDisk:
    """What the indexer meets while `full`, at requests of these kinds."""

    def __init__(self, patch: pytest.MonkeyPatch, *kinds: str) -> None:
        self.full = True
        for kind in kinds:
            patch.setitem(HANDLERS, kind, self._meets(HANDLERS[kind]))

    def _meets(self, handler: Any) -> Any:
        def handle(*args: Any) -> tuple[int, ...]:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            done: tuple[int, ...] = handler(*args)
            return done

        return handle


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("site_primary.shipping.base_sender.BASE_PAYLOAD_BYTES", 4 * BLOCK_BYTES)
    monkeypatch.setattr("engine.history.base_intake.BASE_INDEX_BYTES", 8 * BLOCK_BYTES)


@pytest.fixture
def pair(directory: Path, small: None) -> Iterator[BasePair]:
    made = BasePair(directory)
    yield made
    made.close()


@pytest.fixture
def shipping(directory: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShippingPair]:
    monkeypatch.setattr(comparison, "HISTORY_SHIPPED_BYTES_MAX", 0)
    made = ShippingPair(directory)
    made.write(60)
    yield made
    made.close()


def pending_timeline(rig: GroupRig) -> int:
    with rig.group.store.read() as transaction:
        pending = load_pending(transaction)
    return pending.timeline if pending else 0


def files_of(rig: GroupRig, timeline: int) -> list[str]:
    directory = rig.directory / "g" / "journal" / f"{timeline:016x}"
    return [path.name for path in directory.iterdir()] if directory.exists() else []


def half_received(pair: BasePair, timeline: int = 0) -> int:
    """X of a base of which some is indexed at `other`, and the line is dead."""
    volume = pair.one.create("root", 64)
    pair.one.write(volume, 0, *(bytes([65 + n]) for n in range(40)))
    sender = pair.start_sender(None)
    sender.timeline = timeline or sender.timeline
    pair.connect()
    assert pair.world.run_until(lambda: pair.receiver.received_bytes > 12 * BLOCK_BYTES, 60.0)
    assert not sender.done
    pair.disconnect()
    timeline = pending_timeline(pair.other)
    assert timeline == sender.timeline
    assert files_of(pair.other, timeline)
    return timeline


@pytest.mark.parametrize("chosen", [0, 1, 2, 3, (1 << 64) - 1])
def test_what_no_peer_will_finish_goes(pair: BasePair, chosen: int) -> None:
    timeline = half_received(pair, chosen)
    pair.receiver.close()
    pair.other.group.remains.drop()
    assert not files_of(pair.other, timeline)
    assert not pair.other.group.disk.exists(BASE_SPARE_PATH)
    assert not pending_timeline(pair.other)
    assert [kind for kind, _ in pair.other.events].count("base.dropped") == 1
    pair.start_receiver()
    pair.copy(None)
    assert pair.other.letters("root") == pair.one.letters("root")


def test_a_start_goes_on_with_that(pair: BasePair) -> None:
    """After a crash between the files and the rows of it."""
    timeline = half_received(pair)
    pair.receiver.close()
    fails = OSError(errno.EIO, "an error of the disk")
    pair.other.indexer.failures = [None, fails]  # type: ignore[list-item]
    pair.other.group.remains.drop()
    assert not files_of(pair.other, timeline)
    assert pending_timeline(pair.other)
    pair.other.reopen()
    assert pair.other.group.remains.here
    pair.other.group.remains.drop()
    assert not pending_timeline(pair.other)
    pair.other.reopen()
    assert not pair.other.group.remains.here


def test_another_begins_while_it_goes(pair: BasePair) -> None:
    """Answers that were on the way when the next one begins are none to act upon."""
    half_received(pair)
    pair.receiver.close()
    pair.other.indexer.hold = True
    pair.other.group.remains.drop()
    pair.start_receiver()
    sender = pair.start_sender(None)
    pair.connect()
    for _ in range(200):
        pair.world.run_for(0.05)
        pair.other.indexer.answer()
    assert sender.done
    assert pair.other.letters("root") == pair.one.letters("root")
    asked = [each for each in pair.other.indexer.requests if isinstance(each, BaseDrop)]
    assert all(each.timeline != sender.timeline for each in asked)


def test_the_journal_comes_after_all(shipping: ShippingPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next session of the writer leads on by the journal: what came of the base is for nothing."""
    shipping.start_one()
    shipping.until(lambda: sum(isinstance(m, BaseFrames) for _, m, _ in shipping.heard) > 4)
    timeline = pending_timeline(shipping.other)
    assert files_of(shipping.other, timeline)
    monkeypatch.setattr(comparison, "HISTORY_SHIPPED_BYTES_MAX", 1 << 40)
    shipping.restart_one()
    shipping.until_paired()
    shipping.assert_same()
    assert not files_of(shipping.other, timeline)
    assert not pending_timeline(shipping.other)


def test_no_room_to_install_it(shipping: ShippingPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so and what to do; nothing else is held up, and it goes on by itself."""
    disk = FullDisk(monkeypatch, BaseInstall.kind())
    shipping.start_one()
    shipping.until(lambda: bool(shipping.receiver.trouble))
    shipping.world.run_for(60.0)
    told = [fields for kind, fields in shipping.other.events if kind == "base.delayed"]
    assert len(told) == 1
    assert "No space left" in str(told[0]["error"])
    assert shipping.receiver.state is PairState.SUSPENDED
    assert "cannot be installed" in shipping.receiver.reason
    assert "make room" in shipping.receiver.reason
    group = shipping.other.group
    assert Holder.INSTALL not in group.holds
    shipping.other.group.state.set_role("g", shipping.other.group.state.group("g").role.SECONDARY)
    with pytest.raises(WrongState, match="No space left") as refused:
        require_takeable(group, "lon", shipping.receiver)
    assert "make room" in refused.value.next_step
    assert "No space left" in plan_takeover(group, shipping.receiver).statement
    disk.full = False
    shipping.until_paired()
    shipping.assert_same()
    assert not shipping.receiver.trouble


def test_no_room_to_store_it(shipping: ShippingPair, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("engine.history.base_intake.BaseIntake.take", full)
        shipping.start_one()
        shipping.until(lambda: bool(shipping.receiver.trouble))
        assert shipping.receiver.state is PairState.SUSPENDED
        state = shipping.other.group.state
        state.set_role("g", state.group("g").role.SECONDARY)
        with pytest.raises(WrongState, match="No space left") as refused:
            require_takeable(shipping.other.group, "lon", shipping.receiver)
        assert "make room" in refused.value.next_step
    shipping.until_paired()
    shipping.assert_same()


def test_no_room_to_index_it(shipping: ShippingPair, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(monkeypatch, "base-part")
    shipping.start_one()
    shipping.until(lambda: bool(shipping.receiver.trouble))
    assert shipping.receiver.state is PairState.SUSPENDED
    assert "cannot be indexed" in shipping.receiver.reason
    disk.full = False
    shipping.until_paired()
    shipping.assert_same()


def test_who_cannot_install_it_can_do_without(pair: BasePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two tries this site is as it was, and may be written: the base is never installed then."""
    volume = pair.one.create("root", 64)
    pair.one.write(volume, 0, b"a", b"b")
    pair.copy(None)
    pair.one.reopen()
    pair.one.write(volume, 1, *(bytes([65 + n]) for n in range(30)))
    FullDisk(monkeypatch, BaseInstall.kind())
    sender = pair.start_sender(pair.other.end)
    pair.connect()
    assert pair.world.run_until(lambda: bool(pair.receiver.trouble), 60.0)
    assert not pair.receiver.installing
    timeline = sender.timeline
    pair.receiver.close()
    pair.other.group.remains.drop()
    pair.world.run_for(30.0)
    assert not files_of(pair.other, timeline)
    assert not pending_timeline(pair.other)
    assert pair.other.letters("root", pair.other.end)[:3] == "ab."


@pytest.mark.parametrize("same_sender", [True, False])
def test_another_receiver_while_one_is_installed(shipping: ShippingPair, same_sender: bool) -> None:
    """The pair was deleted here and begun again by the writer, or the peer renamed, just then: what comes
    waits until the base is in place, and nothing of that is cut back."""
    indexer = shipping.other.indexer
    shipping.start_one()
    shipping.until(lambda: bool(pending_timeline(shipping.other)))
    indexer.hold = True

    def asked() -> bool:
        if not any(isinstance(each, BaseInstall) for each in indexer.requests):
            indexer.answer()
        return any(isinstance(each, BaseInstall) for each in indexer.requests)

    shipping.until(asked)
    shipping.receiver.close()
    shipping.receiver = Receiver(shipping.other.group, "lon")
    if same_sender:
        shipping.network.cut("lon", "par")
    else:
        shipping.world.seed += 1
        shipping.restart_one()
    shipping.world.run_for(20.0)
    indexer.hold = False
    indexer.answer()
    shipping.write(5)
    shipping.until_paired()
    shipping.assert_same()
    shipping.restart_other()
    shipping.write(3)
    shipping.until_paired()
    shipping.assert_same()
