"""Making a group: its row is durable before it is opened, or a crash in between would leave files that belong
to nobody. What then does not open is taken back. If not even that can be done, its name stays taken: a name
that is free while its row is there would be given to whoever says it next.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.group.compartment import attempt
from engine.group.group import Group
from engine.group.site_state import GroupRow, SiteState
from protocol.errors import FarshoreError


def make_group(
    row: GroupRow,
    state: SiteState,
    open_group: Callable[[GroupRow], Group],
    set_aside: Callable[[str, FarshoreError], None],
) -> Group:
    """Store the row and open the group. Whatever `open_group` raises passes, once nothing of the row is left,
    or its name is `set_aside`. Files of the try are the caller's."""
    name = row.name
    state.put_group(row)
    opened = False
    try:
        group = open_group(row)
        opened = True
    finally:
        if not opened and attempt("group.not_taken_back", state.remove_group, name) is not None:
            text = f"group {name} did not open when it was made, and that could not be taken back"
            set_aside(name, FarshoreError(text, subject=name, next_step="restart the site's daemon"))
    return group
