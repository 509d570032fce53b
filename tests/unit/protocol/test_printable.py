"""What a person may see of strings from elsewhere."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from protocol.printable import printable, printable_json


def line(text: str) -> str:
    return printable_json(json.dumps({"path": text}, ensure_ascii=False, separators=(",", ":")))


@given(st.text())
def test_json_is_printable_and_says_the_same(text: str) -> None:
    assert line(text).isprintable()
    assert json.loads(line(text)) == {"path": text}


@given(st.text())
def test_c12_nothing_unprintable_is_shown(text: str) -> None:
    assert printable(text).isprintable()


def test_c12_codes_of_terminals() -> None:
    """C1's CSI, a right-to-left override, and one that takes two escapes."""
    assert line("\x9b2J\u202e\U000e0001ü") == '{"path":"\\u009b2J\\u202e\\udb40\\udc01ü"}'
