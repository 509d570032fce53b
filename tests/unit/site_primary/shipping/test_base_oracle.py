"""Random histories, bases at random moments, restarts of both sites: every cut that a site may show is what
it was, and every other one is refused (L4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.history.bases import gap_at
from protocol.errors import Trimmed
from protocol.limits import BLOCK_BYTES
from protocol.positions import Cut
from site_primary.resize_volume import resize
from site_primary.restore_volume import carry_out, plan_restore
from tests.unit.engine.group_rig import follow
from tests.unit.engine.random_history import RandomHistory, assert_equal
from tests.unit.site_primary.shipping.base_pair import BasePair

pytestmark = pytest.mark.usefixtures("run_sizes")


@pytest.mark.parametrize("seed", range(10))
def test_every_cut_is_what_it_was_or_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("site_primary.shipping.base_sender.BASE_PAYLOAD_BYTES", 20 * BLOCK_BYTES)
    monkeypatch.setattr("engine.history.base_intake.BASE_INDEX_BYTES", 64 * BLOCK_BYTES)
    pair = BasePair(directory, seed)
    try:
        _run(pair, seed)
    finally:
        pair.close()


def _run(pair: BasePair, seed: int) -> None:
    history = RandomHistory(pair.one, seed)
    rng = history.rng
    held: set[Cut] = set()  # cuts that the other site must be able to show
    history.run(30)
    start: Cut | None = None
    if rng.random() < 0.7:
        follow(pair.one, pair.other)
        held.update(history.at)
        start = pair.other.end
    for _ in range(4):
        for _ in range(rng.randrange(5, 40)):
            history.step(sorted(history.at))
        if rng.random() < 0.3:
            pair.restart_other()
        cut = pair.copy(start)
        assert cut == history.remember()
        held.add(cut)
        if rng.random() < 0.5:
            pair.restart_other()
        # From here on turned back only to what the other site has: else it would need another base.
        seen = {each for each in history.at if each in held}
        for _ in range(rng.randrange(0, 25)):
            history.step(sorted(seen))
            end = pair.one.end
            if end in history.at:
                seen.add(end)
                held.add(end)
        follow(pair.one, pair.other)
        held.add(history.remember())
        if rng.random() < 0.5:
            pair.other.checkpoint()
        if rng.random() < 0.3:
            pair.restart_other()
        assert_equal(pair.other, pair.other.end, history.now)
        start = pair.other.end
    for cut, expected in history.at.items():
        if cut in held:
            assert gap_at(pair.other.group.timelines, cut) is None
            assert_equal(pair.other, cut, expected)
        elif expected and cut.timeline in pair.other.group.timelines:
            with pytest.raises(Trimmed):
                pair.other.read(sorted(expected)[0], cut)


def test_what_was_zeroed_past_the_end_is_zeroes_at_the_peer_too(directory: Path) -> None:
    """A base that ended where the volume did left it there, and the next one told only what changed since."""
    pair = BasePair(directory, 1)
    one, other = pair.one, pair.other
    try:
        volume = one.create("root", 4)
        empty = one.end
        one.write(volume, 3, b"d")
        follow(one, other)
        start = other.end
        resize(one.group, one.group.volume("root"), 2 * BLOCK_BYTES)
        between = pair.copy(start)
        carry_out(one.group, plan_restore(one.group, ["root"], empty, skip_missing=False))
        pair.copy(between)
        assert (one.letters("root"), other.letters("root")) == ("....", "....")
    finally:
        pair.close()
