"""Figures of a site that events come of."""

from __future__ import annotations

import asyncio

from daemon.alerts.figures import pair_figures
from tests.unit.daemon.stage import open_site, staged


def test_what_a_peer_lacks_is_not_known_before_it_was_compared() -> None:
    """After a start the whole journal counted, and `pair.lagging` was sent of a pair that was equal."""

    async def play() -> None:
        async with staged(("good",)) as stage:
            await stage.write("good")
            await stage.paired("good")
            found = pair_figures(stage.a, stage.group("good"), frozenset())
            assert (found.lag_bytes, found.lag_s) == (0, 0.0)
            await stage.b.stop()
            await stage.write("good", b"n")
            found = pair_figures(stage.a, stage.group("good"), frozenset())
            assert found.lag_bytes  # it is known of a peer that went away
            await stage.a.stop()
            stage.a = open_site(stage.a.directory)
            await stage.a.start()
            found = pair_figures(stage.a, stage.group("good"), frozenset())
            assert (found.lag_bytes, found.lag_s) == (None, None)

    asyncio.run(play())
