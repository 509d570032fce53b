"""TOML that we write reads back as what it was made from."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import UsageError
from protocol.toml_text import toml_lines, toml_string

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.lists(TEXT, max_size=4)


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True), VALUES | st.floats(allow_nan=False)))
def test_it_reads_back(fields: dict[str, str | bool | int | float | list[str]]) -> None:
    assert tomllib.loads("\n".join(toml_lines(fields))) == fields


@given(TEXT)
def test_a_string_is_one_line_and_a_key(text: str) -> None:
    quoted = toml_string(text)
    assert quoted.isprintable()
    assert tomllib.loads(f"[t.{quoted}]\nx = 1") == {"t": {text: {"x": 1}}}


def test_what_is_not_unicode_is_refused() -> None:
    with pytest.raises(UsageError, match="UTF-8"):
        toml_string("/srv/\udcff")
