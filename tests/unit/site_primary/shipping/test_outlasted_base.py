"""A base that takes longer than the journal has room for is gone on with: what changed since follows it, and
never all of it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.base_messages import BaseBegin, BaseFrames
from protocol.limits import BLOCK_BYTES
from protocol.positions import POSITION_MAX
from site_primary.shipping import comparison
from tests.unit.engine.retention.test_truncation_model import KEEP_NOTHING
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair


@pytest.fixture
def shipping(directory: Path, tiny_segments: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShippingPair]:
    monkeypatch.setattr(comparison, "HISTORY_SHIPPED_BYTES_MAX", 0)
    monkeypatch.setattr("site_primary.shipping.base_sender.BASE_PAYLOAD_BYTES", 4 * BLOCK_BYTES)
    made = ShippingPair(directory)
    yield made
    made.close()


def bases(shipping: ShippingPair) -> list[BaseBegin]:
    found: dict[int, BaseBegin] = {}
    for _, message, _ in shipping.heard:
        if isinstance(message, BaseBegin):
            found.setdefault(message.base, message)
    return list(found.values())


def sent_blocks(shipping: ShippingPair, base: int) -> int:
    frames = [(m, payload) for _, m, payload in shipping.heard if isinstance(m, BaseFrames)]
    return sum(len(payload or b"") for m, payload in frames if m.base == base) // BLOCK_BYTES


def begin_base(shipping: ShippingPair) -> None:
    """One is on its way, and cannot be installed yet."""
    for block in range(60):
        shipping.one.write(shipping.volume, block, b"%d" % block)
    shipping.start_one()
    shipping.other.indexer.hold = True
    shipping.until(lambda: bool(bases(shipping)))


def fill_journal(shipping: ShippingPair) -> None:
    """So much is written to four blocks that the writer's journal lets go of what the base's end needs."""
    one = shipping.one
    for number in range(400):
        one.write(shipping.volume, number % 4, b"x%d" % number)
        one.sync()
    one.checkpoint()
    used = one.group.segments.total_bytes()
    one.group.settings = replace(KEEP_NOTHING, journal_limit_bytes=used)
    before = told(shipping)
    shipping.until(lambda: told(shipping) > before)
    shipping.world.run_for(30.0)
    one.group.settings = replace(KEEP_NOTHING, journal_limit_bytes=POSITION_MAX)


def told(shipping: ShippingPair) -> int:
    return len([kind for kind, _ in shipping.one.events if kind == "base.outlasted"])


def let_go_on(shipping: ShippingPair, until: int) -> None:
    """The receiving site answers again, until so many bases were begun."""

    def reached() -> bool:
        shipping.other.indexer.answer()
        return len(bases(shipping)) >= until

    shipping.until(reached)


def test_what_changed_follows_it(shipping: ShippingPair) -> None:
    begin_base(shipping)
    fill_journal(shipping)
    (first,) = bases(shipping)
    assert first.start is None
    assert not shipping.one.group.kept.journal_reaches(first.cut), "there was room after all"
    shipping.other.indexer.hold = False
    shipping.other.indexer.answer()
    shipping.until_paired()
    shipping.assert_same()
    _, second = bases(shipping)
    assert second.start == first.cut
    assert sent_blocks(shipping, first.base) >= 60
    assert sent_blocks(shipping, second.base) <= 8


def test_again_and_again_says_what_to_do(shipping: ShippingPair) -> None:
    """Each stands on the one before; from the second on the operator is told what would help."""
    begin_base(shipping)
    fill_journal(shipping)
    let_go_on(shipping, 2)
    fill_journal(shipping)
    shipping.other.indexer.hold = False
    shipping.other.indexer.answer()
    shipping.until_paired()
    shipping.assert_same()
    first, second, third = bases(shipping)
    assert (second.start, third.start) == (first.cut, second.cut)
    reasons = [str(fields["reason"]) for kind, fields in shipping.one.events if kind == "base.outlasted"]
    assert ["journal_limit_bytes" in reason for reason in reasons] == [False, True]


def test_the_writer_restarts_before_the_next_one(shipping: ShippingPair) -> None:
    """What the peer has is known after that, and readable."""
    begin_base(shipping)
    fill_journal(shipping)
    (first,) = bases(shipping)
    shipping.other.indexer.hold = False
    shipping.other.indexer.answer()
    shipping.until(lambda: shipping.other.end == first.cut and len(bases(shipping)) > 1)
    shipping.world.seed += 1  # its ids are others
    shipping.restart_one()
    shipping.until_paired()
    shipping.assert_same()
    assert all(each.start == first.cut for each in bases(shipping)[1:])


def test_what_a_run_wrote_down_for_its_base_does_not_stay(
    shipping: ShippingPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended in the middle of one, and the next one needs none: nothing keeps the cut any more."""
    monkeypatch.setattr(comparison, "HISTORY_SHIPPED_BYTES_MAX", 1 << 40)
    group = shipping.one.group
    group.kept.leases.hold("peer:base:par", shipping.one.end, durable=True)
    shipping.start_one()
    shipping.until_paired()
    assert not bases(shipping)
    assert "peer:base:par" not in group.state.leases("g")
