"""Sizes and spans as people write them, wherever they do."""

from __future__ import annotations

import pytest

from protocol.errors import UsageError
from protocol.quantities import parse_bytes, parse_span


@pytest.mark.parametrize(
    ("text", "whole", "rest"), [("50G", 50 << 30, 0), ("1.5 KiB", 1536, 0), ("7", 7, 0), ("0.5", 0, 5)]
)
def test_bytes(text: str, whole: int, rest: int) -> None:
    assert parse_bytes(text, "size") == (whole, rest)


@pytest.mark.parametrize("text", ["", "50GB", "-1", "1e9", "٣G"])
def test_what_is_no_size_is_called_by_its_noun(text: str) -> None:
    with pytest.raises(UsageError, match="is no rate"):
        parse_bytes(text, "rate")


def test_spans() -> None:
    assert parse_span("2d1h30m0.5s") == 2 * 86_400 + 5400.5
    with pytest.raises(UsageError, match="span"):
        parse_span("30")
