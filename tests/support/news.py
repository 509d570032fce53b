"""Events of two sites: what happened at each, and what it was told of the other."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.support.receivers import until
from tests.support.sites import Site

Event = dict[str, Any]
PATIENCE_S = 90.0


def events(site: Site, kind: str, at: str | None) -> list[Event]:
    """Those of a kind that happened at a site; None: here."""
    found = site.json("events", "--limit", "1000")["events"]
    return [each for each in found if (each["kind"], each["site"]) == (kind, at)]


def told(site: Site, kind: str, at: str | None, count: int) -> Event:
    """The newest of these, once there are so many. One more is an error."""
    until(lambda: len(events(site, kind, at)) >= count, PATIENCE_S)
    found = events(site, kind, at)
    assert len(found) == count, found
    return found[-1]


def repeated(site: Site, *kinds: str) -> dict[str, int]:
    """Events of a site, less their own numbers and times, that are there more than once."""
    found = [each for each in site.json("events", "--limit", "1000")["events"] if each["kind"] in kinds]
    said = Counter(
        json.dumps([each[key] for key in ("kind", "group", "object", "site", "fields")]) for each in found
    )
    return {each: count for each, count in said.items() if count > 1}
