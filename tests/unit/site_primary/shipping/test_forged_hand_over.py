"""A site that starts takes in what its peer has of it, and no word of its own that it never gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.group.head_moves import begin_timeline, hand_over
from protocol.errors import NotAllowed
from protocol.events import HandOver, TimelineBegan
from protocol.frames import Frame, encode_frame
from site_primary.shipping.yielding import check_yield
from tests.unit.engine.group_rig import GroupRig, follow
from tests.unit.site_primary.shipping.shipping_pair import ShippingPair

MakeRig = Callable[..., GroupRig]
HANDED = HandOver(to="par").to_row()


def forged(rig: GroupRig, row: tuple[object, ...], timeline: int) -> Frame:
    """A frame that continues what a site has, made there by whoever has its key."""
    group = rig.group
    return encode_frame(
        timeline=timeline,
        position=group.writer.written,
        utc_ns=group.head.utc_ns,
        durable=0,
        previous_digest=group.head.digest,
        rows=[row],
        payload=(),
        payload_bytes=0,
    )


def began(rig: GroupRig, writer: str) -> tuple[object, ...]:
    """The first event of a timeline that leaves a site's end."""
    end = rig.end
    return TimelineBegan(
        parent=end.timeline, fork=end.position, generation=1, writer=writer, group="g", sealed=True
    ).to_row()


@pytest.mark.parametrize("new_run", [False, True])
def test_a_hand_over_that_the_peer_brings_is_nobodys_word(shipping: ShippingPair, new_run: bool) -> None:
    """It sent the hosts away for good, and the site obeyed the peer's next HELLO whatever its operator had
    said of takeovers."""
    shipping.write(3)
    shipping.start_one()
    shipping.until_paired()
    shipping.stop_one()
    other = shipping.other
    if new_run:
        frame = forged(other, began(other, "lon"), 77)
        other.group.follow(frame.prefix, frame.raw)
    frame = forged(other, HANDED, other.end.timeline)
    other.group.follow(frame.prefix, frame.raw)
    assert other.group.handed_to == "par"
    shipping.one.open()
    shipping.start_one()
    shipping.until(lambda: shipping.one.end == other.end)
    for _ in range(3):
        assert shipping.one.group.handed_to == ""
        with pytest.raises(NotAllowed):
            check_yield(shipping.one.group, shipping.shipper, "par", to_takeover=False)
        shipping.one.checkpoint()
        shipping.restart_one()
    shipping.until_paired()
    shipping.write(1)
    shipping.until_paired()
    shipping.assert_same()


def test_whoever_is_said_to_have_written_it(make_rig: MakeRig) -> None:
    """What WELCOME says of writers, and what the frames then say, need not be the same."""
    rig = make_rig("one")
    rig.create("root", 4)
    frame = forged(rig, began(rig, "par"), 77)
    rig.group.follow(frame.prefix, frame.raw, history=True)
    frame = forged(rig, HANDED, 77)
    rig.group.follow(frame.prefix, frame.raw, history=True)
    assert rig.group.handed_to == ""
    rig.group.begin_writing()


def test_an_old_copy_learns_of_a_real_one_as_history(make_rig: MakeRig, directory: Path) -> None:
    """Who writes it is told by the peer that took it, or by nobody: then the operator who put the copy back
    has the last word."""
    one = make_rig("one")
    other = make_rig("other", site="par", world=one.world, seed=2)
    one.create("root", 4)
    follow(one, other)
    one.sync()
    one.drop()
    old = one.copy_to(directory / "old")
    one.open()
    hand_over(one.group, "par")
    follow(one, other)
    assert (one.group.handed_to, other.group.handed_to) == ("par", "par")
    old.open()
    follow(other, old, history=True)
    assert old.end == one.end
    assert old.group.handed_to == ""
    generation = old.group.generation
    old.group.begin_writing()
    assert old.group.generation == generation
    old.drop()


def test_a_takeover_outranks_what_a_hand_over_may_have_given(make_rig: MakeRig) -> None:
    rig = make_rig("one")
    rig.create("root", 4)
    frame = forged(rig, began(rig, "par"), 77)
    rig.group.follow(frame.prefix, frame.raw)
    frame = forged(rig, HANDED, 77)
    rig.group.follow(frame.prefix, frame.raw)
    generation = rig.group.generation
    begin_timeline(rig.group, authority=True)
    assert rig.group.generation == generation + 2
