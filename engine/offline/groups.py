"""A dead site's group, opened to be read: its journal and what is left of its index, with no daemon.

It goes through the same recovery as a start of the daemon, on a disk and a store that keep every change to
themselves. What a start would refuse is taken as far as it goes, and said in `notes`: an index that is gone
or damaged (the journal alone will do, unless some of it was truncated), and a journal that is damaged further
on (everything before that can be read). What cannot be read in full stays `Corruption`, never half of it.
"""

from __future__ import annotations

import pathlib
import random
from dataclasses import dataclass, field

from engine.group.group import Group
from engine.group.recovery import recover_group
from engine.group.settings import GroupSettings
from engine.group.site_state import SiteState
from engine.index.requests import IndexerDone, IndexRequest
from engine.journal.format import JOURNAL_DIRECTORY
from engine.offline.offline_disk import OfflineDisk
from engine.offline.offline_index import load_index, no_use
from engine.offline.offline_salvage import leave_out, salvage
from engine.offline.offline_state import load_state
from engine.ports.clock import Clock
from engine.ports.memory_store import MemoryStore
from engine.ports.store import Store
from protocol.errors import Corruption, FarshoreError, NotFound, ProtocolError, WrongState
from protocol.positions import POSITION_MAX, Cut

GROUPS_DIRECTORY = "groups"
# More places than this at which a journal does not go on are no accident of a disk.
DAMAGE_TRIES = 32
FOR_EVER_S = 1e9


@dataclass(slots=True)
class OfflineGroup:
    """`group` can be read and nothing else; `notes` say what is missing, for people. With `since`, blocks
    that were not written from there on are among that."""

    group: Group
    state: SiteState
    store: Store
    notes: list[str] = field(default_factory=list)
    since: Cut | None = None

    def close(self) -> None:
        """Close every file."""
        self.group.close()
        self.store.close()


def offline_groups(directory: pathlib.Path) -> list[str]:
    """Names of the groups in a site's directory. NotFound if there are none."""
    groups = directory / GROUPS_DIRECTORY
    found = sorted(each.parent.name for each in groups.glob(f"*/{JOURNAL_DIRECTORY}") if each.is_dir())
    if not found:
        raise NotFound(
            f"{directory} holds no group's journal",
            subject=str(directory),
            next_step="name a site's data directory, or a copy of one",
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadSite:
    """A site's `directory` and, in it, `state_file`; `site_id` tells which frames were its own, and may
    be unknown. Without `with_index` the groups' indexes are left out. With `partial`, what a journal still
    holds will do, where the index that knew the rest is lost."""

    directory: pathlib.Path
    state_file: pathlib.Path
    site_id: str = ""
    with_index: bool = True
    partial: bool = False


def open_offline(site: DeadSite, name: str, clock: Clock) -> OfflineGroup:
    """Open a group. NotFound; Corruption if what it takes is not there."""
    directory = site.directory
    place = directory / GROUPS_DIRECTORY / name
    if not (place / JOURNAL_DIRECTORY).is_dir():
        raise NotFound(
            f"{directory} has no group {name}",
            subject=name,
            next_step=f"it has {', '.join(offline_groups(directory))}",
        )
    notes: list[str] = []
    store = load_index(place, notes) if site.with_index else None
    if store is not None:
        try:
            return _open(site, name, store, clock, notes)
        except (FarshoreError, ProtocolError) as error:
            store.close()
            notes.append(no_use(error))
    try:
        return _open(site, name, MemoryStore(), clock, list(notes))
    except Corruption as error:
        if site.partial:
            return _salvaged(site, name, clock, notes)
        why = "; ".join([*notes, error.message])
        raise Corruption(
            f"the journal alone does not do: {why}",
            subject=error.subject,
            position=error.position,
            next_step="read the volumes at the peer; --partial gives the blocks that the journal still has",
        ) from error


def _salvaged(site: DeadSite, name: str, clock: Clock, notes: list[str]) -> OfflineGroup:
    disk, store = OfflineDisk(site.directory / GROUPS_DIRECTORY / name), MemoryStore()
    state = load_state(name, disk, store, site.state_file, notes)
    group = _group(name, site.site_id, disk, store, state, clock)
    found = salvage(group, state.group(name).head)
    group.reclaim.close()
    if found.since is not None:
        notes.append(f"blocks that were not written since {found.since} are missing: they read as zeroes")
    return OfflineGroup(group, state, store, notes + found.notes + group.unread.notes(), found.since)


class _NoIndexer:
    """Nobody writes the index."""

    def start(self, request: IndexRequest, done: IndexerDone) -> None:
        """See `Indexer.start`."""
        done(WrongState("the group is only read"), ())


def _open(site: DeadSite, name: str, store: Store, clock: Clock, notes: list[str]) -> OfflineGroup:
    disk = OfflineDisk(site.directory / GROUPS_DIRECTORY / name)
    state = load_state(name, disk, store, site.state_file, notes)
    first: Corruption | None = None
    for _ in range(DAMAGE_TRIES):
        group = _group(name, site.site_id, disk, store, state, clock)
        try:
            found = recover_group(group)
        except Corruption as error:
            group.close()
            first = first or error
            if not leave_out(disk, error):
                raise first from None
            notes.append(f"{error}; what follows there was left out")
            continue
        except BaseException:
            group.close()
            raise
        # Nothing is to happen by itself from here on.
        group.reclaim.close()
        for spans in state.drops(name).values():
            group.dropping |= dict(spans)
        if found.torn_bytes:
            notes.append(
                f"the journal ends at {found.torn_at}: {found.torn_bytes} bytes there are no whole frame"
            )
        return OfflineGroup(group, state, store, notes + group.unread.notes())
    raise first or Corruption(f"group {name} cannot be opened", subject=name)


def _group(name: str, site_id: str, disk: OfflineDisk, store: Store, state: SiteState, clock: Clock) -> Group:
    return Group(
        name=name,
        site=site_id,
        disk=disk,
        clock=clock,
        store=store,
        indexer=_NoIndexer(),
        state=state,
        rng=random.Random(0),
        settings=GroupSettings(journal_limit_bytes=POSITION_MAX, reserve_bytes=0, window_s=FOR_EVER_S),
        emit=lambda *_, **__: None,
    )
