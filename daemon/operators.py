"""Who may command this site over the network, and what: operators with keys and roles, from site.toml.

Whoever opens the control socket on this machine may do everything (mode 0600); over the network a command
needs at least the role that it says (`protocol.roles`). A role is looked up with each command: one that was
taken away holds for connections that are there already.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping

from daemon.config import CONFIG_FILE, OperatorConfig
from engine.acting import OVER_THE_NETWORK, actor
from engine.ports.disk import Disk
from protocol.commands.base import Command, command_name
from protocol.errors import NotAllowed, NotFound, UsageError
from protocol.roles import OperatorRole
from protocol.toml_text import toml_lines, toml_string

_HEADER = re.compile(r"\s*\[")


class Operators:
    """By name. `on_change` gets the public keys (Z85) by name, whenever they have changed."""

    def __init__(self, rows: Mapping[str, OperatorConfig]) -> None:
        self.rows = rows
        self.on_change: Callable[[Mapping[str, str]], None] = lambda _: None

    @property
    def keys(self) -> dict[str, str]:
        """Public keys (Z85) by name."""
        return {name: each.key for name, each in self.rows.items()}

    def set_rows(self, rows: Mapping[str, OperatorConfig]) -> None:
        """Others take their place."""
        self.rows = rows
        self.on_change(self.keys)

    def check(self, command: Command) -> None:
        """That whoever causes what happens now may give this command. NotAllowed."""
        by = actor()
        if not by.startswith(OVER_THE_NETWORK):
            return
        name = by.removeprefix(OVER_THE_NETWORK)
        row = self.rows.get(name)
        role = None if row is None else OperatorRole.named(row.role)
        if role is not None and role >= command.needs:
            return
        said = f"is {role.word}" if role is not None else "is no operator of this site any more"
        raise NotAllowed(
            f"{command_name(command)} needs the role {command.needs.word}; {name} {said}",
            subject=name,
            next_step="an admin of the site may change the role: [operators.NAME] in its site.toml",
        )


def with_operator(disk: Disk, name: str, row: OperatorConfig) -> bytes:
    """site.toml with one operator more. UsageError if there is one of that name."""
    text = disk.read_file(CONFIG_FILE).decode("utf-8")
    if name in tomllib.loads(text).get("operators", {}):
        raise UsageError(
            f"there is an operator {name} already", subject=name, next_step=f"farshore operator remove {name}"
        )
    lines = [f"[operators.{toml_string(name)}]", *toml_lines({"key": row.key, "role": row.role})]
    return ("\n".join([text.rstrip("\n"), "", *lines]) + "\n").encode()


def without_operator(disk: Disk, name: str) -> bytes:
    """site.toml less one operator, its other lines as they are. NotFound; UsageError where the table is not
    written in a way that can be taken out."""
    text = disk.read_file(CONFIG_FILE).decode("utf-8")
    before = tomllib.loads(text)
    if name not in before.get("operators", {}):
        raise NotFound(f"there is no operator {name} here", subject=name, next_step="farshore operator list")
    headers = (f"[operators.{name}]", f"[operators.{toml_string(name)}]")
    kept, inside = [], False
    for line in text.splitlines():
        if _HEADER.match(line):
            inside = line.split("#")[0].strip() in headers
        if not inside:
            kept.append(line)
    del before["operators"][name]
    left = "\n".join(kept) + "\n"
    if tomllib.loads(left) != {key: value for key, value in before.items() if value != {}}:
        raise UsageError(
            f"{name} cannot be taken out of {CONFIG_FILE} by itself",
            subject=name,
            next_step=f"delete [operators.{name}] in an editor, then reload the daemon (SIGHUP)",
        )
    return left.encode()
