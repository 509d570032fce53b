"""What a site must not forget, over a restart of its process."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.group.site_state import SITE_TABLES, GroupRow, PairRow, Role, SiteState
from engine.peering.pair_states import Mode, PairState
from engine.ports.lmdb_store import LmdbStore
from protocol.errors import Corruption, NotFound
from protocol.rows import pack_row

GROUP = GroupRow(name="vm1", group_id="0" * 16, role=Role.PRIMARY, head=0, created_utc_ns=5)
PAIR = PairRow(group="vm1", peer="par", mode=Mode.ASYNC, state=PairState.COPYING, reason="")


class Disk:
    """A state store that can be opened again."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state.mdb"
        self.store = self.open()

    def open(self) -> LmdbStore:
        return LmdbStore(self.path, 1 << 24, SITE_TABLES)

    @property
    def state(self) -> SiteState:
        """As a process that starts now sees it."""
        self.store.close()
        self.store = self.open()
        return SiteState(self.store)


@pytest.fixture
def disk(directory: Path) -> Disk:
    return Disk(directory)


def test_a_group_is_kept_with_its_role_and_head(disk: Disk) -> None:
    disk.state.put_group(GROUP)
    assert disk.state.group("vm1") == GROUP
    disk.state.set_head("vm1", (1 << 64) - 1)
    found = disk.state.group("vm1")
    assert (found.head, found.role, found.created_utc_ns) == ((1 << 64) - 1, Role.PRIMARY, 5)


def test_groups_are_listed_by_name(disk: Disk) -> None:
    assert disk.state.groups() == []
    for name in ("b", "a", "c"):
        disk.state.put_group(
            GroupRow(name=name, group_id="1" * 16, role=Role.SECONDARY, head=1, created_utc_ns=1)
        )
    assert [row.name for row in disk.state.groups()] == ["a", "b", "c"]


def test_c4_a_row_that_is_bad_names_itself_and_hides_no_other(disk: Disk) -> None:
    def pack(*row: object) -> bytes:
        return pack_row(row)

    state = disk.state
    state.put_group(GROUP)
    state.put_pair(PAIR)
    rows = {
        b"../../x": pack("0" * 16, "primary", 0, 5),
        b"/srv/any": pack("0" * 16, "secondary", 0, 5),
        b"vm1/.": pack("0" * 16, "secondary", 0, 5),
        b"\xff": pack("0" * 16, "secondary", 0, 5),
        b"role": pack("0" * 16, "king", 0, 5),
        b"head": pack("0" * 16, "primary", 1 << 64 - 1, -5)[:-1],
        b"minus": pack("0" * 16, "primary", -1, 5),
        b"short": pack("0" * 16),
        b"bytes": b"\xc1",
        b"paired": pack("0" * 16, "primary", 0, 5),
    }
    state.put_notes("groups", rows)
    state.put_notes("pairs", {b"paired": pack("par", "psychic", "paired", "", False)})
    assert [row.name for row in disk.state.groups()] == ["vm1"]
    bad = disk.state.bad_groups()
    assert set(bad) == {key.decode("utf-8", "backslashreplace") for key in rows}
    assert all(name in error.message and error.subject == name for name, error in bad.items())
    assert disk.state.peers_of_pairs() == {"par"}
    with pytest.raises(Corruption, match="pairs"):
        disk.state.pair("paired")


def test_a_group_that_is_not_there_is_not_found(disk: Disk) -> None:
    with pytest.raises(NotFound, match="vm2"):
        disk.state.group("vm2")


@pytest.mark.parametrize("state", PairState)
def test_a_pair_is_kept_in_any_state(disk: Disk, state: PairState) -> None:
    row = PairRow(group="vm1", peer="par", mode=Mode.ASYNC, state=state, reason="why")
    disk.state.put_pair(row)
    assert disk.state.pair("vm1") == row
    assert disk.state.pair("vm2") is None


def test_closed_exports_stay_closed_until_opened(disk: Disk) -> None:
    """Hosts hold caches of what was before a restore: a restart of the daemon must not let them in again."""
    disk.state.set_closed("vm1", [7, 8], "turned back")
    assert disk.state.closed("vm1", 7) == "turned back"
    assert disk.state.closed("vm1", 9) is None
    assert disk.state.closed("vm2", 7) is None
    disk.state.set_closed("vm1", [7], None)
    assert (disk.state.closed("vm1", 7), disk.state.closed("vm1", 8)) == (None, "turned back")
    disk.state.set_closed("vm1", [7], None)
