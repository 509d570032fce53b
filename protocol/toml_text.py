"""TOML that this program writes: strings, numbers, arrays of strings; quoted, so that a value stays a value.

JSON's escapes are not TOML's: a character above U+FFFF has one escape and not two, and DEL must be escaped.
Source: TOML 1.0.0, sections "String" and "Array".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocol.errors import UsageError

Value = str | bool | int | float | Sequence[str]


def toml_string(text: str) -> str:
    """A basic string. Raises UsageError for what TOML cannot hold: bytes of a path that are not UTF-8."""
    return f'"{"".join(map(_escaped, text))}"'


def toml_lines(fields: Mapping[str, Value]) -> list[str]:
    """One line a field; its name must be a bare key."""
    return [f"{key} = {_value(value)}" for key, value in fields.items()]


def _value(value: Value) -> str:
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return "[" + ", ".join(map(toml_string, value)) + "]"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        raise UsageError("not UTF-8, so it cannot be kept in a TOML file", next_step="use a UTF-8 name")
    if character in '"\\':
        return "\\" + character
    # Line ends of Unicode and what turns text are escaped too: a person reads the file.
    return character if character.isprintable() else f"\\U{code:08X}"
