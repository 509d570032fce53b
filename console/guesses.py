"""What people type first who know other tools, as the words that Farshore has for it. Pure.

Words are exchanged before they are parsed, so a guess asks for what its command asks for: `promote vm1` wants
the same confirmation as `takeover vm1`. A guess that no single command answers is refused with those that do.
"""

from __future__ import annotations

import re

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
    "list": ("volume", "list"),
    "info": ("status",),
    "ps": ("status",),
    "start": ("site", "run"),
    "tail": ("events", "--follow"),
    "demote": ("switchover",),
    "resync": ("pair", "resync"),
    "split": ("pair", "split"),
    "pause": ("pair", "split"),
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
    "ls": ("list", "show"),
    "list": ("show",),
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
# What a noun does with a name where no verb stands before it.
_VERB_OF = {
    "backup": "create",
    "branch": "list",
    "drill": "run",
    "files": "versions",
    "group": "show",
    "job": "show",
    "journal": "show",
    "pair": "show",
    "schedule": "show",
    "volume": "show",
}
_NAME = re.compile(r"[a-z][a-z0-9._-]*")
_TURNED_BACK = frozenset({"volume", "group", "files"})


def guessed(words: list[str]) -> list[str]:
    """The words of a command line as Farshore has them. UsageError for a guess that has no single answer."""
    if not words:
        return words
    if words[0] == "help":
        return [*guessed(words[1:]), "--help"]
    if words[-1] == "-h":
        return [*words[:-1], "--help"]
    first = [*FIRST_WORDS.get(words[0], words[:1]), *words[1:]]
    if noun := PLURALS.get(words[0]):
        first = [noun, *(words[1:] or ["list"])]
    match first:
        case ["ls"]:
            return ["volume", "list"]
        case ["ls", group] if _NAME.fullmatch(group):
            return ["volume", "list", group]
        case ["ls" | "cat" as verb, place, *rest] if "@" not in place and "/" in place:
            volume, _, path = place.partition(":")
            return [verb, f"{volume}@latest:{path or '/'}", *rest]
        case ["files", "ls", *rest]:
            return guessed(["ls", *rest])
        case ["pair", "list" | "ls" | "status"] | ["site", "status"]:
            return ["status"]
        case ["status", place] if "/" in place:
            return ["status", place.partition("/")[0]]
        case ["volume", "create", name, size, *rest] if size[:1].isdigit() and "--size" not in rest:
            return ["volume", "create", name, "--size", size, *rest]
        case ["backup", "restore" | "revert" | "rollback", *rest]:
            return guessed(["restore", *rest])
        case ["restore", "file", *rest]:
            return ["restore", "files", *rest]
        case ["restore", name] if name not in _TURNED_BACK and _NAME.fullmatch(name.replace("/", "")):
            raise UsageError(
                f"back to which cut of {name}? Its backups are some",
                subject=name,
                next_step=f"farshore backup list {name.partition('/')[0]}",
            )
        case ["restore", name, *rest] if name not in _TURNED_BACK and name.count("@") == 1:
            return guessed(["restore", *name.split("@"), *rest])
        case ["restore", "volume" | "group" as kind, name, *rest] if not name.startswith("-"):
            return ["restore", kind, name, *_at(rest)]
        case ["restore", name, *rest] if name not in _TURNED_BACK and not name.startswith("-"):
            return ["restore", "volume" if "/" in name else "group", name, *_at(rest)]
        case ["drill", "run", name, *rest] if not name.startswith("-"):
            return ["drill", "run", name, *_at(rest)]
        case ["backup", "verify", *rest]:
            raise _verified(rest)
        case ["verify", volume, *_] if "/" in volume:
            raise _whole(volume.partition("/")[0], volume)
        case ["verify", group, label, *_] if not group.startswith("-") and not label.startswith("-"):
            raise _verified([group, label])
    return first


def with_verb(noun: str, words: list[str]) -> list[str]:
    """What stands behind a noun, with the verb for a name that stands there without one."""
    verb = _VERB_OF.get(noun)
    if verb is None or words[0].startswith("-"):
        return words
    return guessed([noun, verb, *words])[1:]


def _at(rest: list[str]) -> list[str]:
    """With a cut that stands without its option; a span back like `-10m` is one."""
    if not rest or "--at" in rest or (rest[0].startswith("-") and not rest[0][1:2].isdigit()):
        return rest
    return ["--at", *rest]


def _whole(group: str, subject: str) -> UsageError:
    return UsageError(
        "what a group holds is verified as a whole",
        subject=subject,
        next_step=f"farshore verify {group} --deep",
    )


def _verified(words: list[str]) -> UsageError:
    """A backup has no bytes of its own to be verified."""
    names = [word for word in words if not word.startswith("-")]
    group, label = [*names, *("G", "CUT")[len(names) :]][:2]
    return UsageError(
        "what a group holds is verified as a whole; one backup is proven by a drill",
        subject=group,
        next_step=f"`farshore verify {group} --deep`, or `farshore drill run {group} --at {label}`",
    )
