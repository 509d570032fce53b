"""The indexer of a simulated site: another process, with files of its own, that answers after a while.

What it does with a plan is production's (`engine.index.indexer.answer_to`), the encoding between the two
included. It runs at one instant: the journal below its plan does not change, and its commit is one step
anyway. It may die by itself, before or after the commit, and before a second one if there is one, or outlive
the daemon by a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.index import indexer
from engine.index.requests import IndexerDone, IndexRequest, Unanswered, encode_request
from engine.index.versions import TABLES
from engine.journal.segments import SegmentMap
from protocol.errors import FarshoreError
from protocol.rows import check_row
from tests.sim.history import Violation
from tests.sim.sim_store import SimStore
from tests.sim.world import SimClock, SimTimer

if TYPE_CHECKING:
    from tests.sim.sim_site import SimSite

DIES_ALONE = 0.03
# How far one that dies has come: to the end, up to its first commit, or not so far.
AFTER_ONE_COMMIT, BEFORE_ANY = 0.25, 0.5
OUTLIVES_DAEMON = 0.5


class SimIndexer:
    """See `engine.index.requests.Indexer`."""

    def __init__(self, site: SimSite, clock: SimClock) -> None:
        self._site = site
        self._clock = clock
        self._segments = SegmentMap(site.disk)
        self._store = SimStore(site.index_file, TABLES)
        self._request: bytes | None = None
        self._waiting: list[tuple[IndexRequest, IndexerDone]] = []
        self._timer: SimTimer | None = None

    def start(self, request: IndexRequest, done: IndexerDone) -> None:
        """See `Indexer.start`."""
        self._waiting.append((request, done))
        self._waiting.sort(key=lambda item: not item[0].URGENT)
        self._next()

    def _next(self) -> None:
        if self._request is not None or not self._waiting:
            return
        request, done = self._waiting.pop(0)
        rng = self._site.world.random
        self._request = encode_request(request)
        delay_s = rng.uniform(*self._site.knobs.indexer_delay_s)
        self._timer = self._clock.call_later(delay_s, lambda: self._run(done))

    def _run(self, done: IndexerDone) -> None:
        rng = self._site.world.random
        dies = rng.random() < DIES_ALONE
        lived = rng.random() if dies else 0.0
        if lived < AFTER_ONE_COMMIT:
            answer = self._answer()
        elif lived < BEFORE_ANY:
            with self._site.index_file.dies_after_one_commit():
                self._answer()
        if dies:
            # The next one is a new process, with files and segments opened anew.
            self._segments = SegmentMap(self._site.disk)
            self._request = None
            done(Unanswered("the indexer process ended"), ())
        elif answer[0] == "done":
            figures = check_row(answer, str, *(int for _ in answer[1:]))[1:]
            self._clock.call_later(0.001, lambda: done(None, figures))
        else:
            done(FarshoreError(" ".join(str(part) for part in answer[1:])), ())
        self._next()

    def _answer(self) -> tuple[object, ...]:
        request, self._request = self._request, None
        if request is None:
            return ("failed", "no request")
        answer = indexer.answer_to(self._store, self._segments, request)
        self._site.world.note(self._site.name, "indexer", *answer)
        if answer[0] == "failed" and answer[1] in ("corruption", "wrong-state"):
            raise Violation(f"the indexer of {self._site.name}: {answer}")
        return answer

    async def stop(self) -> None:
        """See `GroupIndexer.stop`. What it is at is carried out, and nobody is told."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._request is not None:
            self._answer()

    def orphan(self) -> None:
        """The daemon died: a plan under way is carried out, or not."""
        if self._request is not None and self._site.world.random.random() < OUTLIVES_DAEMON:
            self._answer()
