"""C12: text from elsewhere made safe for a terminal, and JSON with the same values."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from protocol.printable import printable, printable_json

ANY_TEXT = st.text(st.characters())


def test_what_acts_on_a_terminal_is_shown() -> None:
    assert printable("a\x1b]52;c;eA==\x07b") == "a\\x1b]52;c;eA==\\x07b"
    assert printable("\x9b2J") == "\\x9b2J"
    assert printable("vm\u202e1\u2066x") == "vm\\u202e1\\u2066x"
    assert printable("one\ntwo\r\u2028\u2029\x85") == "one\\ntwo\\r\\u2028\\u2029\\x85"
    assert printable("\udcff") == "\\udcff"
    assert printable("Größe 10 → 日本\\n") == "Größe 10 → 日本\\n"


@given(ANY_TEXT)
def test_all_of_it_is_printable(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


@given(st.dictionaries(ANY_TEXT, ANY_TEXT))
def test_json_keeps_its_values(values: dict[str, str]) -> None:
    line = printable_json(json.dumps(values, ensure_ascii=False, separators=(",", ":")))
    assert line.isprintable()
    # Two lone surrogates side by side read back as the one character that they stand for.
    pair = re.compile("[\ud800-\udbff][\udc00-\udfff]")
    if not any(pair.search(text) for item in values.items() for text in item):
        assert json.loads(line) == values
