"""replies.json: every kind that `--json` prints, and each field of it with its JSON types.

    python -m tests.golden.replies            what changed
    python -m tests.golden.replies --accept   also takes what is new into the file

New are kinds, fields and words of a set. A field that is gone, or of another type, breaks scripts, so it is
never accepted here: whoever means it changes the file by hand and says so in CHANGELOG.md.
tests/tidy/test_reply_kinds.py compares both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from console.kinds import KINDS, REFERENCE, schema

FILE = Path(__file__).parent / "replies.json"
ACCEPT = "python -m tests.golden.replies --accept"
# Of a field that may be left out.
ABSENT = "absent"
OR = " or "

# Kind to path to types, as `backup.list` to `data.backups[].label` to `null or string`.
Fields = Mapping[str, Mapping[str, str]]


def fields() -> dict[str, dict[str, str]]:
    """What this version prints."""
    return {kind: fields_of(schema(kind)) for kind in sorted(KINDS)}


def fields_of(line: Mapping[str, Any]) -> dict[str, str]:
    """Paths and types of a line's schema. A type that is a set of words is each of them, in quotes."""
    found: dict[str, set[str]] = {}
    for name, held in line["properties"].items():
        found |= _walk(held, name, line.get("$defs", {}))
    return {path: OR.join(sorted(types)) for path, types in found.items()}


def _walk(node: Mapping[str, Any], path: str, definitions: Mapping[str, Any]) -> dict[str, set[str]]:
    if "$ref" in node:
        return _walk(definitions[node["$ref"].removeprefix(REFERENCE)], path, definitions)
    if "anyOf" in node:
        return _either([_walk(each, path, definitions) for each in node["anyOf"]], path)
    if "enum" in node or "const" in node:
        return {path: {json.dumps(each) for each in node.get("enum", [node.get("const")])}}
    found = {path: {node["type"]}}
    for name, each in node.get("properties", {}).items():
        inner = _walk(each, f"{path}.{name}", definitions)
        if name not in node["required"]:
            inner[f"{path}.{name}"].add(ABSENT)
        found |= inner
    if "additionalProperties" in node:
        found |= _walk(node["additionalProperties"], f"{path}.*", definitions)
    for number, each in enumerate(node.get("prefixItems", ())):
        found |= _walk(each, f"{path}[{number}]", definitions)
    if node.get("items"):
        found |= _walk(node["items"], f"{path}[]", definitions)
    return found


def _either(ways: Sequence[dict[str, set[str]]], path: str) -> dict[str, set[str]]:
    """Several types in one place: a field that one of the objects lacks may be absent."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for way in ways:
        for each, types in way.items():
            found[each] |= types
    for way in ways:
        if "object" in way[path]:
            for each in found.keys() - way.keys():
                found[each].add(ABSENT)
    return dict(found)


def broken(kept: Fields, now: Fields) -> Iterator[str]:
    """What scripts relied on and is no more, one line each."""
    for kind, paths in kept.items():
        if kind not in now:
            yield f"{kind}: gone"
            continue
        for path, types in paths.items():
            if path not in now[kind]:
                yield f"{kind}: {path} ({types}) is gone"
            elif _changed(types, now[kind][path]):
                yield f"{kind}: {path} was {types}, is {now[kind][path]}"


def added(kept: Fields, now: Fields) -> Iterator[str]:
    """What is new and breaks nobody, one line each."""
    for kind, paths in now.items():
        for path, types in paths.items():
            before = kept.get(kind, {}).get(path)
            if before is None:
                yield f"{kind}: {path} ({types}) is new"
            elif before != types and not _changed(before, types):
                yield f"{kind}: {path} was {before}, is {types}"


def _changed(before: str, after: str) -> bool:
    """Whether more than words of a set came."""
    old, new = set(before.split(OR)), set(after.split(OR))
    is_set = any(each.startswith('"') for each in old)
    return bool(old - new) or not all(is_set and each.startswith('"') for each in new - old)


def load() -> dict[str, dict[str, str]]:
    """What an earlier version printed."""
    kept: dict[str, dict[str, str]] = json.loads(FILE.read_text(encoding="utf-8"))
    return kept


def main(words: Sequence[str] | None = None) -> int:
    """Show what changed, and take in what is new; 1 if scripts would break."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.replies")
    parser.add_argument("--accept", action="store_true", help="take what is new into replies.json")
    accept = parser.parse_args(words).accept
    kept, now = (load() if FILE.exists() else {}), fields()
    breaks = list(broken(kept, now))
    for line in (*breaks, *added(kept, now)):
        print(line)
    if breaks:
        print(f"scripts would break; if that is meant, change {FILE.name} by hand", file=sys.stderr)
        return 1
    if accept:
        FILE.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
