"""Lines of `--json` against the types that console/kinds.py gives their kinds."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from console.kinds import ERROR, reply_types


def check_lines(text: str) -> None:
    """Every line has exactly the fields of a type of its kind. Raises AssertionError."""
    for line in map(json.loads, text.splitlines()):
        kind = line["kind"]
        types = reply_types(kind)
        for data in line["errors"] if kind == ERROR else [line["data"]]:
            if not any(is_exactly(data, each) for each in types):
                raise AssertionError(f"{kind} is none of {types}: {data}")


def is_exactly(data: Any, kind: type) -> bool:
    """Whether nothing is missing, of another type, or unknown."""
    try:
        read: Any = msgspec.convert(data, kind)
    except msgspec.ValidationError:
        return False
    # By way of text, as `data` came: a tuple is a list there.
    return bool(json.loads(json.dumps(msgspec.to_builtins(read))) == data)
