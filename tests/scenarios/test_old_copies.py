"""An old copy of a site's directory is put back in place, in the same inode: whatever then calls itself
paired holds every flushed write, at both sites (C53).

    tool      how the copy was made and put back: cp -a, tar, rsync
    site      whose directory it is: a, which writes, or b, which follows
    peer      up all the time, or down as well until the old copy has been started and tried
    mode      async, sync, sync-strict
    witness   kept: what the site keeps outside its directory is as new as ever; old: it was turned back too,
              as on a virtual machine that goes back to a snapshot

By default as many of the 72 as hold every pair of values; FARSHORE_FULL=1 takes all. Daemons are forked and
commands are sent by the client, so that a case costs seconds and not minutes of processor time.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest
from msgspec import convert

from console.demo.host import Host
from daemon.data_directory import adopt_site
from protocol.commands.backup import BackupCreate, BackupList
from protocol.commands.branch import BranchList
from protocol.commands.pair import PairCreate, PairShow, WaitFor
from protocol.commands.role import Takeover
from protocol.commands.volume import VolumeCreate
from protocol.errors import FarshoreError, Unsafe
from tests.support.clients import MIB
from tests.support.forked import ForkedSite, forked_sites
from tests.support.oracle import Oracle, content
from tests.support.pairs import POLL_S

SIZE_BYTES = 4 * MIB
FLUSHED_WRITES = 10
SETTLED_WITHIN_S = 40.0
# So long a state must stay before it counts as where things end: a retry after a refusal takes five seconds.
SETTLED_FOR_S = 6.0
SETTINGS = "start_wait_s = 1.0\nsync_timeout_s = 2.0\n"
NOTICED = frozenset({"group.turned_back", "timeline.turned_back"})
LATER = "later"


@dataclass(frozen=True, slots=True)
class Case:
    """See the module's docstring."""

    tool: str
    site: str
    peer: str
    mode: str
    witness: str

    def __str__(self) -> str:
        return "-".join(astuple(self))


EVERY = [
    Case(*values)
    for values in itertools.product(
        ("cp", "tar", "rsync"), ("a", "b"), ("up", "down"), ("async", "sync", "sync-strict"), ("kept", "old")
    )
]


def pairs_of(case: Case) -> set[tuple[tuple[int, str], ...]]:
    """Every two of its values."""
    return set(itertools.combinations(enumerate(astuple(case)), 2))


def pairwise() -> Iterator[Case]:
    """Some of all cases that hold every pair of values."""
    left = set().union(*map(pairs_of, EVERY))
    while left:
        best = max(EVERY, key=lambda case: len(pairs_of(case) & left))
        left -= pairs_of(best)
        yield best


CASES = EVERY if os.environ.get("FARSHORE_FULL") == "1" else list(pairwise())


def run(*words: str | Path) -> None:
    """A command that must succeed."""
    subprocess.run(list(map(str, words)), check=True, capture_output=True, timeout=120)


class OldCopy:
    """A copy of a stopped site's directory, and of what it keeps outside."""

    def __init__(self, site: ForkedSite, tool: str) -> None:
        self._site = site
        self._tool = tool
        parent = site.directory.parent
        self._kept, self._state = parent / "kept", parent / "state-kept"
        match tool:
            case "cp":
                run("cp", "-a", site.directory, self._kept)
            case "tar":
                run("tar", "-C", site.directory, "-cf", self._kept, ".")
            case _:
                run("rsync", "-a", f"{site.directory}/", f"{self._kept}/")
        run("cp", "-a", site.state_directory, self._state)

    def put_back(self, *, witness: bool) -> None:
        """Into the same directory, which stays; `witness`: the site's witness goes back too."""
        directory = self._site.directory
        inode = directory.stat().st_ino
        if self._tool == "rsync":
            run("rsync", "-a", "--delete", f"{self._kept}/", f"{directory}/")
        else:
            run("find", directory, "-mindepth", "1", "-delete")
            if self._tool == "cp":
                run("cp", "-a", f"{self._kept}/.", directory)
            else:
                run("tar", "-C", directory, "-xf", self._kept)
        assert directory.stat().st_ino == inode
        if witness:
            shutil.rmtree(self._site.state_directory)
            run("cp", "-a", self._state, self._site.state_directory)


def flushed(site: ForkedSite, oracle: Oracle, count: int) -> None:
    """Writes, each of them flushed."""
    with Host(site.nbd_socket, "g/v") as host:
        for block in oracle.some_blocks(count):
            oracle.write(host, [block])
            host.flush()


def tried(site: ForkedSite, oracle: Oracle) -> bool:
    """One flushed write more, if the site lets a host do that; whether it did. If it does not answer for
    certain nobody may care what became of it."""
    after = oracle.copy(seed=7)
    try:
        flushed(site, after, 1)
    except (FarshoreError, OSError):
        return False
    oracle.image = after.image
    return True


def settled(*sites: ForkedSite) -> tuple[str, ...]:
    """The states at both sites, once they stay."""
    began = since = time.monotonic()
    before: tuple[str, ...] = ()
    while True:
        seen = tuple(site.call(PairShow(group="g")).state for site in sites)
        now = time.monotonic()
        if seen != before:
            before, since = seen, now
        elif now - since > SETTLED_FOR_S and ("diverged" in seen or set(seen) == {"paired"}):
            return seen
        assert now - began < SETTLED_WITHIN_S, f"still {seen}"
        time.sleep(POLL_S)


def newest(site: ForkedSite) -> bytes:
    """The volume at the end of what a site holds."""
    head = site.call(PairShow(group="g")).head
    return content(site, f"g/v@{head.timeline}:{head.position}")


def backups(site: ForkedSite) -> list[str]:
    """Labels of those that a site has."""
    return sorted(row.label or row.id for row in site.call(BackupList(group="g")).backups)


def both_have_all(a: ForkedSite) -> None:
    """The pair is paired, and b has everything that a made durable."""
    a.call(WaitFor(group="g", state="paired", timeout_s=60.0))
    a.call(WaitFor(group="g", timeout_s=60.0))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_calls_itself_paired_lacks_nothing_c53(case: Case) -> None:
    with forked_sites("a", "b", settings=SETTINGS) as (a, b):
        a.call(VolumeCreate(group="g", volume="v", size_bytes=SIZE_BYTES))
        a.call(convert({"group": "g", "peer": "b", "mode": case.mode}, PairCreate))
        both_have_all(a)
        oracle = Oracle(SIZE_BYTES, seed=53)
        flushed(a, oracle, 3)
        both_have_all(a)
        old, other = (a, b) if case.site == "a" else (b, a)
        assert old.stop() == 0
        copy = OldCopy(old, case.tool)
        old.start()
        both_have_all(a)
        flushed(a, oracle, FLUSHED_WRITES)
        a.call(BackupCreate(group="g", label=LATER))
        both_have_all(a)
        for site in (a, b):
            site.expected_errors |= NOTICED
        if case.witness == "kept":
            old.stop()  # else the witness may be five seconds behind
        old.kill()
        if case.peer == "down":
            other.kill()
        copy.put_back(witness=case.witness == "old")
        old.start()
        before = tried_alone(case, old, oracle)
        if case.peer == "down":
            other.start()
        seen = settled(a, b)
        print(f"{case}: {before}, then {seen}")
        check(case, seen, a, b, oracle)
        for site in (a, b):
            assert site.stop() == 0
            site.check_log()


def tried_alone(case: Case, old: ForkedSite, oracle: Oracle) -> str:
    """What a host or an operator gets from the old copy before its peer is back."""
    if case.site == "a":
        return "written" if tried(old, oracle) else "held back"
    if case.peer == "up":
        return "followed"
    try:
        old.call(Takeover(group="g", confirm="g"))
    except Unsafe:
        assert case.witness == "kept"
        return "takeover refused"
    assert case.witness == "old", "an old copy may not be taken over unasked"
    return "taken over"


def check(case: Case, seen: tuple[str, ...], a: ForkedSite, b: ForkedSite, oracle: Oracle) -> None:
    """Nothing flushed is missing from what is called paired; what is not, is said."""
    if set(seen) == {"paired"}:
        for site in (a, b):
            assert newest(site) == oracle.image, f"{site.name} lacks what was flushed"
            assert backups(site) == [LATER], f"{site.name} lacks the backup"
            assert site.call(BranchList(group="g")).branches == []
        with Host(a.nbd_socket, "g/v"):
            pass  # hosts are served, without a word of an operator
        return
    if case.site == "a":
        assert NOTICED & {entry["event"] for site in (a, b) for entry in site.log()}, "nobody was told"
    keeper = b if case.site == "a" else a
    assert backups(keeper) == [LATER], "the newest history is on no head"


@pytest.mark.slow
def test_a_machines_image_started_twice_c38() -> None:
    """Two daemons with one identity, both written: it is said, and who calls itself paired has what b has."""
    with forked_sites("a", "b", settings=SETTINGS) as (a, b):
        a.call(VolumeCreate(group="g", volume="v", size_bytes=SIZE_BYTES))
        a.call(PairCreate(group="g", peer="b"))
        both_have_all(a)
        assert a.stop() == 0
        twin = ForkedSite(a.directory.parent / "twin", "twin")
        run("cp", "-a", a.directory, twin.directory)
        adopt_site(twin.directory)  # here the inode differs; in a copied machine it would not
        config = twin.directory / "site.toml"
        config.write_text(config.read_text().replace(str(a.replication_port), str(twin.replication_port)))
        try:
            a.start()
            both_have_all(a)
            twin.start()
            oracles = {site: Oracle(SIZE_BYTES, seed) for seed, site in enumerate((a, twin))}
            for site in (a, b, twin):
                site.expected_errors |= NOTICED | {"peer.two_daemons"}
            deadline = time.monotonic() + SETTLED_WITHIN_S
            while not (NOTICED | {"peer.two_daemons"}) & {e["event"] for s in (a, b, twin) for e in s.log()}:
                assert time.monotonic() < deadline, "nobody was told"
                for site, oracle in oracles.items():
                    tried(site, oracle)
            time.sleep(SETTLED_FOR_S)
            seen = {site.name: site.call(PairShow(group="g")) for site in oracles}
            print({name: (pair.state, pair.reason) for name, pair in seen.items()})
            paired = [name for name, pair in seen.items() if pair.state == "paired"]
            assert len(paired) < 2
            at_b = b.call(PairShow(group="g")).head
            for name in paired:
                assert seen[name].head == at_b
            for site in (a, twin, b):
                assert site.stop() == 0
                site.check_log()
        finally:
            twin.kill()


def test_the_default_holds_every_pair_of_values() -> None:
    chosen = list(pairwise())
    assert len(chosen) < len(EVERY) / 3
    assert set().union(*map(pairs_of, chosen)) == set().union(*map(pairs_of, EVERY))
