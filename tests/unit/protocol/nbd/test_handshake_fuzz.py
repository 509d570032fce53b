"""Whatever a client sends and however it is cut: the same answers, one kind of error, bounded memory."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import NotFound, RemoteProtocolError
from protocol.limits import NBD_OPTION_BYTES_MAX
from protocol.nbd.client import encode_info_body, encode_meta_body, encode_option
from protocol.nbd.constants import BASE_ALLOCATION, Option
from protocol.nbd.handshake import ExportInfo, HandshakeState, ServerHandshake

READING = (HandshakeState.CLIENT_FLAGS, HandshakeState.OPTIONS)


class Volumes:
    def names(self) -> list[str]:
        return ["vm1/root", "vm1/data"]

    def find(self, name: str) -> ExportInfo:
        if name not in self.names():
            raise NotFound(f"no volume {name}")
        return ExportInfo(name=name, size_bytes=1 << 30)


NAMES = st.sampled_from(["vm1/root", "vm1/data", "", "vm9/x", "ü" * 3000])
INFOS = st.lists(st.integers(0, 5), max_size=4).map(tuple)
QUERIES = st.lists(st.sampled_from(["base:", BASE_ALLOCATION, "x:y", ""]), max_size=4).map(tuple)
BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    st.builds(encode_info_body, NAMES, INFOS),
    st.builds(encode_meta_body, NAMES, QUERIES),
    st.sampled_from([bytes(NBD_OPTION_BYTES_MAX), bytes(NBD_OPTION_BYTES_MAX + 1)]),
)
OPTIONS = st.one_of(
    st.builds(encode_option, st.sampled_from([3, 6, 6, 8, 8, 9, 10, 10]), BODIES),
    st.builds(encode_option, st.integers(0, 13), BODIES),
)
FLAGS = st.sampled_from([1, 3, 3, 3]).map(lambda flags: struct.pack(">I", flags))
SCRIPTS = st.builds(lambda flags, options: flags + b"".join(options), FLAGS, st.lists(OPTIONS, max_size=6))


def run(data: bytes, cuts: list[int]) -> tuple[ServerHandshake, bytes, bytes]:
    """Feed pieces until the handshake ends: (handshake, what it sent, bytes for transmission)."""
    handshake = ServerHandshake(Volumes(), tls_available=True)
    sent = b""
    points = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in pairwise(points):
        sent += handshake.receive(data[start:end])
        assert handshake.buffered_bytes <= NBD_OPTION_BYTES_MAX
        if handshake.state not in READING:
            return handshake, sent, handshake.leftover + data[end:]
    return handshake, sent, b""


@settings(max_examples=150, deadline=None)
@given(SCRIPTS, st.lists(st.integers(0, 400), max_size=12))
def test_cutting_changes_nothing(data: bytes, cuts: list[int]) -> None:
    try:
        whole, sent, rest = run(data, [])
    except RemoteProtocolError:
        return
    pieces, sent_in_pieces, rest_in_pieces = run(data, cuts)
    assert sent_in_pieces == sent
    assert pieces.state is whole.state
    assert pieces.result == whole.result
    if whole.result is not None:
        assert rest_in_pieces == rest


def test_byte_by_byte_equals_at_once() -> None:
    data = struct.pack(">I", 3) + b"".join(
        [
            encode_option(Option.LIST),
            encode_option(Option.STRUCTURED_REPLY),
            encode_option(Option.GO, encode_info_body("vm9/x")),
            encode_option(99, b"unknown"),
            encode_option(Option.SET_META_CONTEXT, encode_meta_body("vm1/root", (BASE_ALLOCATION,))),
            encode_option(Option.INFO, encode_info_body("vm1/root", (0, 1, 2, 3))),
            encode_option(Option.GO, encode_info_body("vm1/root", (3,))),
            b"the first requests",
        ]
    )
    whole, sent, rest = run(data, [])
    pieces, sent_in_pieces, rest_in_pieces = run(data, list(range(len(data))))
    assert whole.result is not None
    assert whole.result == pieces.result
    assert sent == sent_in_pieces
    assert rest == rest_in_pieces == b"the first requests"


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\0\0\0\x03", b"\0\0\0\x03IHAVEOPT", b"\0\0\0\x03IHAVEOPT\0\0\0"]),
)
def test_garbage_raises_nothing_else(tail: bytes, head: bytes) -> None:
    handshake = ServerHandshake(Volumes(), tls_available=True)
    try:
        handshake.receive(head + tail)
    except RemoteProtocolError:
        assert handshake.state is HandshakeState.FAILED
        assert handshake.buffered_bytes == 0


@settings(max_examples=150, deadline=None)
@given(SCRIPTS, st.integers(0, 600), st.integers(1, 255))
def test_one_wrong_byte_anywhere_raises_nothing_else(data: bytes, at: int, flip: int) -> None:
    broken = bytearray(data)
    broken[at % len(broken)] ^= flip
    handshake = ServerHandshake(Volumes(), tls_available=True)
    try:
        handshake.receive(broken)
    except RemoteProtocolError:
        assert handshake.state is HandshakeState.FAILED
