"""How long certificates are good, as people are shown it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from console.certificates import until_text
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import STATUS, StubSite

Run = Callable[..., Ran]


@pytest.mark.parametrize(
    ("left_days", "text"),
    [
        (None, "then"),
        (31.0, "then"),
        (29.6, "then (30 days)"),
        (0.4, "then (0 days)"),
        (-2.0, "then (ended)"),
    ],
)
def test_when_one_ends(left_days: float | None, text: str) -> None:
    assert until_text("then", left_days) == text


@pytest.mark.parametrize(
    ("expires", "said"),
    [
        (None, ""),
        ("2027-12-01T00:00:00Z", ""),
        ("2026-11-30T00:00:00Z", "this site's certificate ends in 9 days"),
        ("2026-11-20T00:00:00Z", "this site's certificate has ended"),
    ],
)
def test_status_has_a_line_of_one_that_ends(
    stub: StubSite, farshore: Run, expires: str | None, said: str
) -> None:
    """By the site's clock, whatever it is here."""
    stub.replies["site.status"] = replace(STATUS, time="2026-11-21T00:00:00Z", certificate_expires=expires)
    out = farshore("status", "--site", str(stub.directory)).out
    assert ("hosts' TLS" in out) == bool(said)
    assert said in out
    assert not said or f"farshore --site {stub.directory} site cert init" in out
