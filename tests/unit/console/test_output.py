"""What a person may see of strings from elsewhere."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from console.output import json_line


@given(st.text())
def test_json_is_printable_and_says_the_same(text: str) -> None:
    line = json_line({"path": text})
    assert line.isprintable()
    assert json.loads(line) == {"path": text}


def test_c12_codes_of_terminals() -> None:
    """C1's CSI, a right-to-left override, and one that takes two escapes."""
    assert json_line({"name": "\x9b2J\u202e\U000e0001ü"}) == '{"name":"\\u009b2J\\u202e\\udb40\\udc01ü"}'
