"""Commands that pause a pair, turn it round, or deal with histories that parted.

PAIR is the shape of `pair.show`, CUT as in `protocol.commands`.
BRANCH is {"timeline": hex16 (names the branch), "from": CUT (where it left this site's history), "to": CUT
(its end), "bytes": int (journal), "frames": int, "writer": str (site name, or id if unknown),
"began": str|null, "ended": str|null, "backups": [str], "exports": ["G/V@TIMELINE:POSITION"]}.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.command_base import BaseCommand, Confirm, Name, PairMode, ResyncSource, Rows, WaitSeconds
from protocol.pages import PagedCommand

TimelineText = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]


class PairSplit(BaseCommand, frozen=True, tag="pair.split"):
    """Pause replication at a position. `confirm` is `G`, needed to leave sync-strict while the peer does not
    answer. PAIR"""

    group: Name
    confirm: Confirm = ""


class PairResync(BaseCommand, frozen=True, tag="pair.resync"):
    """Go on from the split. With `source` null, refused as diverged if both sites wrote since; "local"
    keeps this site's history, "remote" takes the peer's in; what the other had stays as a branch there.
    PAIR"""

    group: Name
    source: ResyncSource | None = None


class PairSet(BaseCommand, frozen=True, tag="pair.set"):
    """Change a pair while it runs; null leaves a setting as it is. `confirm` is `G`, needed to leave
    sync-strict while the peer does not answer. PAIR"""

    group: Name
    mode: PairMode | None = None
    confirm: Confirm = ""


class PairDelete(BaseCommand, frozen=True, tag="pair.delete"):
    """End the pair at this site; the peer keeps its copy. `confirm` is `G`. {"group", "peer": str}"""

    group: Name
    confirm: Confirm = ""


class Switchover(BaseCommand, frozen=True, tag="switchover"):
    """Hand the writing over to the peer: hosts' doors close, everything drains to a marker, the roles swap.
    Answers when the peer writes, or after `timeout_s` (the hand-over then goes on by itself). PAIR and
    {"done": bool, "position": CUT (the marker), "took_ms": float}"""

    group: Name
    confirm: Confirm = ""
    timeout_s: WaitSeconds = 30.0


class Takeover(BaseCommand, frozen=True, tag="takeover"):
    """Write here from now on because the peer is gone; refused while it answers. `plan` only says what would
    be. Refused while the first copy is on its way, and as unsafe if more than `max_loss_s` would be lost.
    `confirm` is `G`. {"group", "done": bool, "position": CUT (where this site goes on), "nothing_lost":
    bool, "none_lost_until": str|null, "known_lost_bytes": int, "age_s": float|null (of `none_lost_until`),
    "statement": str, "peer": str, "took_ms": float|null}"""

    group: Name
    plan: bool = False
    max_loss_s: Annotated[float, Meta(ge=0)] | None = None
    confirm: Confirm = ""


class Failback(BaseCommand, frozen=True, tag="failback"):
    """Prepare the site that came back: it takes this site's history from the fork on, what it alone had
    stays there as a branch. The role moves by switchover. PAIR and {"fork": CUT|null, "tail_bytes": int}"""

    group: Name


class BranchList(PagedCommand, frozen=True, tag="branch.list"):
    """Histories held here that are not on the way to the head. {"branches": [BRANCH]}"""

    group: Name


class BranchDiff(BaseCommand, frozen=True, tag="branch.diff"):
    """What a branch has that the head has not: its frames, and where the volumes' contents differ at the
    ends of both. {"branch": BRANCH, "frames": [{"position": "TIMELINE:POSITION", "time", "bytes": int,
    "events": int}] (the first `limit`), "volumes": [{"volume", "differing_bytes": int, "extents": [[offset,
    length]] (the first `limit`)}]}"""

    group: Name
    timeline: TimelineText
    limit: Rows = 100


class BranchDrop(BaseCommand, frozen=True, tag="branch.drop"):
    """Forget a branch and give its space back. `confirm` is its timeline. {"branch": BRANCH, "freed_bytes":
    int}"""

    group: Name
    timeline: TimelineText
    confirm: Confirm = ""
