"""Commands about clones: writable volumes of a site's own, begun at a cut and never shipped.

CUT as in `protocol.commands`. CLONE is {"clone": str (named like a group: its volumes are the exports
"CLONE/V"), "group": str, "volumes": [str], "cut": CUT (where it left the group), "created": str, "temporary":
bool (it goes when the daemon starts), "purpose": str, "bytes": int (its own journal), "hosts": int, "reason":
str (why it stopped, if it did), "exports": ["CLONE/V"]}.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.command_base import BaseCommand, Confirm, Name
from protocol.cut_text import NamedCut
from protocol.pages import PagedCommand

Purpose = Annotated[str, Meta(max_length=63)]


class CloneCreate(BaseCommand, frozen=True, tag="clone.create"):
    """A writable clone of a group (`volume` null), or of one of its volumes, at a cut. CLONE and {"took_ms":
    float}"""

    group: Name
    cut: NamedCut
    clone: Name
    volume: Name | None = None
    temporary: bool = False
    purpose: Purpose = ""


class CloneList(PagedCommand, frozen=True, tag="clone.list"):
    """Clones of a group, or of all. {"clones": [CLONE]}"""

    group: Name | None = None


class CloneDelete(BaseCommand, frozen=True, tag="clone.delete"):
    """Forget a clone; its space comes back in the background. `force`: although hosts are connected;
    `confirm` is the clone's name. CLONE"""

    clone: Name
    force: bool = False
    confirm: Confirm = ""
