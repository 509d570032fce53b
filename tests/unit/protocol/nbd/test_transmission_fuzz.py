"""Decoders of the transmission phase: whatever bytes come, the same values, one kind of error, or none.

The server's own loop, which unpacks requests in place, is in tests/unit/site_primary/nbd/test_stream_fuzz.py.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.limits import NBD_REQUEST_BYTES_MAX
from protocol.nbd.client_transmission import ClientTransmission
from protocol.nbd.constants import REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, Command
from protocol.nbd.replies import (
    block_status,
    done_chunk,
    error_chunk,
    error_reply,
    offset_data_header,
    read_reply_header,
    simple_replies,
    simple_reply,
)
from protocol.nbd.requests import REQUEST, Request, encode_request
from tests.unit.protocol.nbd.other_side import error_offset_chunk, offset_hole, parse_requests

U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
U64 = st.integers(0, (1 << 64) - 1)
COMMANDS = st.sampled_from([int(command) for command in Command]) | U16
LENGTHS = st.sampled_from([0, 1, 511, 512, 4095, 4096, NBD_REQUEST_BYTES_MAX, (1 << 32) - 1]) | U32


def _request(flags: int, command: int, cookie: int, offset: int, length: int, payload: bytes) -> Request:
    if command == Command.WRITE:
        length = len(payload)
    return Request(
        flags=flags,
        command=command,
        cookie=cookie,
        offset=offset,
        length=length,
        payload=payload if command == Command.WRITE else b"",
    )


REQUESTS = st.builds(_request, U16, COMMANDS, U64, U64, LENGTHS, st.binary(max_size=300))


@settings(max_examples=300, deadline=None)
@given(st.lists(REQUESTS, max_size=8))
def test_what_is_encoded_is_parsed_back(requests: list[Request]) -> None:
    data = b"".join(encode_request(request) for request in requests)
    ends = next((at for at, each in enumerate(requests) if each.command == Command.DISC), len(requests))
    assert list(parse_requests(data)) == requests[: ends + 1]


@settings(max_examples=500, deadline=None)
@given(
    st.lists(REQUESTS, max_size=3),
    st.binary(max_size=80)
    | st.builds(REQUEST.pack, st.just(REQUEST_MAGIC), U16, COMMANDS, U64, U64, LENGTHS),
)
def test_any_bytes_are_requests_or_the_other_sides_mistake(requests: list[Request], tail: bytes) -> None:
    data = b"".join(encode_request(request) for request in requests) + tail
    found = 0
    try:
        for request in parse_requests(data):
            found += 1
            assert len(request.payload) == (request.length if request.command == Command.WRITE else 0)
    except RemoteProtocolError:
        assert found <= len(requests) + len(tail) // REQUEST.size


CHUNK_TYPES = st.sampled_from([0, 1, 2, 5, 0x8001, 0x8002, 6, 0x8003])
SMALL = st.sampled_from([0, 1, 2, 3])  # cookies: those of the requests in flight, and others
CHUNKS = st.builds(
    lambda flags, kind, cookie, length, body: (
        struct.pack(
            ">IHHQI", STRUCTURED_REPLY_MAGIC, flags, kind, cookie, len(body) if length < 0 else length
        )
        + body
    ),
    st.sampled_from([0, 1, 0xFFFF]),
    CHUNK_TYPES,
    SMALL,
    st.just(-1) | LENGTHS,
    st.binary(max_size=60),
)
OFFSETS = st.sampled_from([0, 1, 4095, 4096, 4196, (1 << 64) - 1])
PLAIN = st.builds(struct.pack, st.just(">IIQ"), st.just(SIMPLE_REPLY_MAGIC), st.sampled_from([0, 5]), SMALL)
GOOD = st.one_of(
    st.builds(lambda cookie: done_chunk(cookie), SMALL),
    st.builds(lambda cookie, error: error_chunk(cookie, error, "", done=False), SMALL, st.integers(1, 9)),
    st.builds(
        lambda cookie, offset: error_offset_chunk(cookie, 5, offset, "ü" * 3000, done=True), SMALL, OFFSETS
    ),
    st.builds(lambda cookie, offset, length: offset_hole(cookie, offset, length, done=False), SMALL, OFFSETS,
              st.integers(1, 5000)),
    st.builds(
        lambda cookie, offset, data: offset_data_header(cookie, offset, len(data), done=True) + data,
        SMALL,
        OFFSETS,
        st.binary(min_size=1, max_size=100),
    ),
    st.builds(
        lambda cookie, extents: block_status(cookie, 1, extents, done=True),
        SMALL,
        st.lists(st.tuples(st.integers(1, 5000), U32), min_size=1, max_size=3),
    ),
)  # fmt: skip
REPLIES = st.lists(CHUNKS | PLAIN | GOOD | st.binary(max_size=30), min_size=1, max_size=6).map(b"".join)


def _in_flight() -> ClientTransmission:
    client = ClientTransmission()
    client.request(Command.READ, 4096, 100)
    client.request(Command.BLOCK_STATUS, 0, 4096)
    client.request(Command.WRITE, 0, 3, b"abc")
    return client


@settings(max_examples=600, deadline=None)
@given(REPLIES, st.lists(st.integers(0, 300), max_size=8))
def test_any_bytes_from_a_server_are_answers_or_its_mistake(data: bytes, cuts: list[int]) -> None:
    """However they are cut: the same answers, or the same refusal."""
    outcomes = []
    for points in ([0, len(data)], sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})):
        client = _in_flight()
        answers = list(client._answers.values())
        failed = False
        try:
            for start, end in pairwise(points):
                client.receive(data[start:end])
        except RemoteProtocolError:
            failed = True
        for answer in answers:
            if answer.done and not answer.error and answer.command == Command.READ:
                assert len(answer.data) == answer.length
        done = [(a.done, a.error, bytes(a.data), a.extents) for a in answers if a.done]
        outcomes.append((failed, done, client.in_flight))
    assert outcomes[0] == outcomes[1]


@settings(max_examples=300, deadline=None)
@given(U64, U32, U64, st.integers(0, NBD_REQUEST_BYTES_MAX), st.booleans(), st.lists(U64, max_size=5))
def test_replies_of_any_values_are_whole(
    cookie: int, error: int, offset: int, length: int, structured: bool, cookies: list[int]
) -> None:
    """No value of a request makes its reply unencodable: that would end more than its connection."""
    assert len(simple_reply(cookie, error)) == 16
    assert len(simple_replies(cookies)) == 16 * len(cookies)
    header = read_reply_header(cookie, offset, length, structured)
    assert len(header) == (16 if not structured else 28 if length else 20)
    try:
        assert error_reply(cookie, error, "text", structured=structured)
    except LocalProtocolError:
        assert error == 0
