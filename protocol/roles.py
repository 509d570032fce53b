"""What an operator over the network may do; one at the control socket may do all of it. Sans-I/O.

    viewer      look: every command that changes nothing
    operator    run the service: volumes, backups, restores, drills, clones, the roles of the sites
    admin       also what destroys history, or changes whom the site trusts and how long it keeps what

A command says the least role that may give it (`BaseCommand.needs`).
"""

from __future__ import annotations

import enum
from typing import Literal

RoleName = Literal["viewer", "operator", "admin"]


class OperatorRole(enum.IntEnum):
    """A higher one may do what a lower one may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @classmethod
    def named(cls, name: RoleName) -> OperatorRole:
        """By its word in site.toml."""
        return cls[name.upper()]

    @property
    def word(self) -> str:
        """As site.toml has it."""
        return self.name.lower()
