"""Who may be served: reasons kept by holder, and asked at every write."""

from __future__ import annotations

import pytest

from engine.group.holds import Holder, Holds
from protocol.errors import WrongState
from tests.unit.engine.group_rig import GroupRig


def test_the_gravest_reason_is_shown_and_each_holder_lifts_its_own() -> None:
    changes = []
    holds = Holds(lambda: changes.append(bool(holds)))
    holds.put(Holder.START, "asks")
    holds.put(Holder.FENCED, "fenced")
    assert holds.reason == "fenced"
    holds.lift(Holder.FENCED)
    assert holds.reason == "asks"
    holds.lift(Holder.TAKEOVER)
    assert holds
    holds.lift(Holder.START)
    assert not holds
    assert changes == [True, False]


def test_nothing_is_written_while_anyone_holds_the_group_back(rig: GroupRig) -> None:
    volume = rig.create("root", 4)
    rig.group.holds.put(Holder.INSTALL, "installs a copy")
    rig.group.holds.put(Holder.START, "asks par")
    rig.group.holds.lift(Holder.INSTALL)
    with pytest.raises(WrongState, match="asks par"):
        rig.write(volume, 0, b"a")
    rig.group.holds.lift(Holder.START)
    rig.write(volume, 0, b"a")
    assert rig.letters("root") == "a..."
