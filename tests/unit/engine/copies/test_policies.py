"""The policy that counts is the newest on the head's lineage."""

from __future__ import annotations

from msgspec.structs import replace

from engine.copies.policies import Policies
from engine.group.settings import GroupSettings
from engine.history.timelines import Span
from protocol.events import NO_POLICY

HERE = [Span(1, 0, 0, 1000)]
SETTINGS = GroupSettings(journal_limit_bytes=1 << 40, reserve_bytes=0, window_s=60.0, window_bytes=1 << 20)


def test_the_newest_of_the_lineage_counts() -> None:
    policies = Policies()
    assert policies.at(HERE) == (0, NO_POLICY)
    assert not policies.ever_set
    policies.apply(1, 100, 5_000, replace(NO_POLICY, every_s=60))
    assert policies.ever_set
    policies.apply(1, 300, 7_000, replace(NO_POLICY, every_s=90))
    policies.apply(2, 500, 9_000, replace(NO_POLICY, every_s=10))
    assert policies.at(HERE) == (7_000, replace(NO_POLICY, every_s=90))
    assert policies.at([Span(1, 0, 0, 200)])[1].every_s == 60
    policies.forget(1, 200)
    assert policies.at(HERE)[1].every_s == 60


def test_the_window_is_the_policys_or_else_the_sites() -> None:
    policies = Policies()
    assert policies.window(HERE, SETTINGS) == (60.0, 1 << 20)
    policies.apply(1, 100, 5_000, replace(NO_POLICY, window_s=0))
    assert policies.window(HERE, SETTINGS) == (0.0, 1 << 20)
    policies.apply(1, 200, 6_000, replace(NO_POLICY, window_bytes=4096))
    assert policies.window(HERE, SETTINGS) == (60.0, 4096)
