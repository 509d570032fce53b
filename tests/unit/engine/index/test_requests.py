"""Requests to the indexer: each survives its row as it always was, and nothing out of range is taken."""

from __future__ import annotations

from typing import Any

import pytest

from engine.index.indexer import HANDLERS, REQUEST_BYTES_MAX
from engine.index.requests import IndexRequest, encode_request
from protocol.errors import RemoteProtocolError
from protocol.positions import POSITION_MAX
from protocol.rows import unpack_row
from tests.golden.encoded import load
from tests.golden.engine_samples import REQUESTS

KEPT = load()["index requests"]
NAMES = [f"{request.kind()} {number}" for number, request in enumerate(REQUESTS)]


@pytest.mark.parametrize(("request_", "data"), list(zip(REQUESTS, KEPT, strict=True)), ids=NAMES)
def test_a_request_is_read_as_before(request_: IndexRequest, data: bytes) -> None:
    kind, *fields = unpack_row(data, REQUEST_BYTES_MAX)
    assert kind == request_.kind()
    found = type(request_).from_row(tuple(fields))
    assert found == request_
    assert encode_request(found) == data


def test_there_is_a_sample_of_every_kind() -> None:
    assert {request.kind() for request in REQUESTS} == set(HANDLERS)


def each_number_replaced(row: tuple[Any, ...], by: object) -> list[tuple[Any, ...]]:
    """The row, each time with one of its numbers another."""
    places = [at for at, value in enumerate(row) if type(value) is int]
    return [(*row[:at], by, *row[at + 1 :]) for at in places]


@pytest.mark.parametrize("request_", REQUESTS, ids=NAMES)
def test_what_is_out_of_range_or_of_another_type_is_refused(request_: IndexRequest) -> None:
    row = request_.to_row()
    bad = [*each_number_replaced(row, -1), *each_number_replaced(row, "1"), *each_number_replaced(row, True)]
    for fields in (*bad, (*row, None), (None, *row)):
        with pytest.raises(RemoteProtocolError):
            type(request_).from_row(fields)


def test_positions_end_where_positions_do() -> None:
    plan = REQUESTS[0]
    timeline, position, *rest = plan.to_row()
    with pytest.raises(RemoteProtocolError):
        type(plan).from_row((timeline, POSITION_MAX + 1, *rest))
    with pytest.raises(RemoteProtocolError):
        type(plan).from_row((0.5, position, *rest))
