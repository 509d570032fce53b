"""What people type first who know other tools, as the words that Farshore has for it. Pure.

Words are exchanged before they are parsed, so a guess asks for what its command asks for: `promote vm1` wants
the same confirmation as `takeover vm1`. A guess that no single command answers is refused with those that do.
"""

from __future__ import annotations

from protocol.errors import UsageError

FIRST_WORDS = {
    "snapshot": ("backup",),
    "snap": ("backup",),
    "promote": ("takeover",),
    "failover": ("takeover",),
    "fail-over": ("takeover",),
    "take-over": ("takeover",),
    "switch-over": ("switchover",),
    "fail-back": ("failback",),
    "unmount": ("umount",),
    "event": ("events",),
    "log": ("events",),
    "logs": ("events",),
    "init": ("site", "init"),
    "vol": ("volume",),
    "file": ("files",),
}
# Alone, what is there of them.
PLURALS = {
    "snapshots": "backup",
    "branches": "branch",
    **{f"{noun}s": noun for noun in ("backup", "volume", "pair", "group", "peer", "clone", "site")},
    **{f"{noun}s": noun for noun in ("schedule", "job", "drill", "operator")},
}
# A noun's verbs by other names: the first that the noun has counts.
VERBS = {
    "ls": ("list",),
    "show": ("list",),
    "info": ("show", "list"),
    "status": ("show",),
    "get": ("show",),
    "rm": ("delete", "remove", "drop"),
    "remove": ("delete", "drop"),
    "delete": ("remove", "drop"),
    "del": ("delete", "remove", "drop"),
    "new": ("create", "add"),
    "add": ("create",),
    "create": ("add",),
}
_TURNED_BACK = frozenset({"volume", "group", "files"})


def guessed(words: list[str]) -> list[str]:
    """The words of a command line as Farshore has them. UsageError for a guess that has no single answer."""
    if not words:
        return words
    if words[0] == "help":
        return [*guessed(words[1:]), "--help"]
    first = [*FIRST_WORDS.get(words[0], words[:1]), *words[1:]]
    if noun := PLURALS.get(words[0]):
        first = [noun, *(words[1:] or ["list"])]
    match first:
        case ["ls"]:
            return ["volume", "list"]
        case ["pair", "list" | "ls" | "status"]:
            return ["status"]
        case ["backup", "restore" | "revert" | "rollback", *rest]:
            return guessed(["restore", *rest])
        case ["restore", "volume" | "group" as kind, name, *rest] if not name.startswith("-"):
            return ["restore", kind, name, *_at(rest)]
        case ["restore", name, *rest] if name not in _TURNED_BACK and not name.startswith("-"):
            return ["restore", "volume" if "/" in name else "group", name, *_at(rest)]
        case ["drill", "run", name, *rest] if not name.startswith("-"):
            return ["drill", "run", name, *_at(rest)]
        case ["backup", "verify", *rest]:
            raise _verified(rest)
        case ["verify", group, label, *_] if not group.startswith("-") and not label.startswith("-"):
            raise _verified([group, label])
    return first


def _at(rest: list[str]) -> list[str]:
    """With a cut that stands without its option; a span back like `-10m` is one."""
    if not rest or "--at" in rest or (rest[0].startswith("-") and not rest[0][1:2].isdigit()):
        return rest
    return ["--at", *rest]


def _verified(words: list[str]) -> UsageError:
    """A backup has no bytes of its own to be verified."""
    names = [word for word in words if not word.startswith("-")]
    group, label = [*names, *("G", "CUT")[len(names) :]][:2]
    return UsageError(
        "what a group holds is verified as a whole; one backup is proven by a drill",
        subject=group,
        next_step=f"farshore verify {group} --deep, or farshore drill run {group} --at {label}",
    )
