"""Drills that a peer ran, as it tells of them in its news (`drill.ok`, `drill.failed`), so that both sites
know.

A peer is believed what it says of itself and no more: only of a group that is paired with it, each value
within its bounds, and kept apart from this site's own drills. A report of this site never signs one of
them. One of an earlier version tells of those that failed, and says less: what it leaves out stays empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import Meta

from daemon.site import Site
from engine.integrity.proofs import ToldDrill
from protocol.bounds import LabelOrNone, Name, NameOrNone
from protocol.commands.drill import Seconds
from protocol.errors import UsageError
from protocol.positions import parse_cut
from protocol.printable import printable

KINDS = frozenset({"drill.ok", "drill.failed"})


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of such an event."""

    group: Name
    position: str
    drill: Annotated[str, Meta(pattern=r"^[0-3][0-9a-f]{15}\Z")]
    recovery_s: Seconds = 0.0
    data_age_s: Seconds | Annotated[str, Meta(max_length=0)] = ""
    backup: Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{16})?\Z")] = ""
    label: LabelOrNone = ""
    check: NameOrNone = ""
    given_by: Annotated[str, Meta(max_length=200)] = ""
    digest: Annotated[str, Meta(pattern=r"^(?:sha256:[0-9a-f]{64})?\Z")] = ""


def hear_of_drill(site: Site, peer: str, kind: str, fields: Mapping[str, object]) -> None:
    """Keep it; what is no drill, is out of bounds or finds the disk full is only the event that it is
    anyway."""
    if kind not in KINDS:
        return
    with suppress(msgspec.ValidationError, UsageError, OSError):
        told = msgspec.convert(dict(fields), _Told)
        cut = parse_cut(told.position)
        if told.group not in site.groups or site.peer_of(told.group) != peer:
            return
        age_s = told.data_age_s
        site.proofs.hear(
            told.group,
            int(told.drill, 16),
            ToldDrill(
                site=peer,
                timeline=cut.timeline,
                position=cut.position,
                ok=kind == "drill.ok",
                recovery_ms=round(told.recovery_s * 1e3),
                data_age_ms=-1 if isinstance(age_s, str) else round(age_s * 1e3),
                by=printable(told.given_by)[:200],
                label=told.label,
                backup=told.backup,
                hook=told.check,
                digest=told.digest,
            ),
        )
