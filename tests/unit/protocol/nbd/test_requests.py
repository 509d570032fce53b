"""What the edge lets through, and what it answers otherwise."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.limits import NBD_REQUEST_BYTES_MAX
from protocol.nbd.constants import REQUEST_MAGIC, Command, CommandFlag, NbdError
from protocol.nbd.requests import (
    REQUEST,
    REQUEST_BYTES,
    Request,
    encode_request,
    request_check,
)
from tests.unit.protocol.nbd.other_side import parse_requests

SIZE = 1 << 30
GIB_4 = (1 << 32) - 1
RANGED = (
    Command.READ,
    Command.WRITE,
    Command.TRIM,
    Command.CACHE,
    Command.WRITE_ZEROES,
    Command.BLOCK_STATUS,
)
WRITES = (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)


def check(
    command: int,
    offset: int = 0,
    length: int = 4096,
    *,
    flags: int = 0,
    size_bytes: int = SIZE,
    read_only: bool = False,
    structured: bool = True,
    contexts: bool = True,
) -> int:
    checked = request_check(
        size_bytes=size_bytes, read_only=read_only, structured_replies=structured, contexts=contexts
    )
    return checked(flags, command, offset, length)


def test_the_header_is_28_bytes_in_the_order_of_the_protocol() -> None:
    request = Request(
        flags=1, command=Command.WRITE, cookie=0x1122334455667788, offset=512, length=3, payload=b"abc"
    )
    expected = bytes.fromhex("25609513 0001 0001 1122334455667788 0000000000000200 00000003") + b"abc"
    assert REQUEST_BYTES == 28
    assert encode_request(request) == expected
    assert list(parse_requests(expected)) == [request]


@pytest.mark.parametrize("command", RANGED)
def test_inside_the_volume_is_accepted_up_to_its_last_byte(command: Command) -> None:
    assert check(command, SIZE - 4096) == 0
    assert check(command, SIZE - 1, 1) == 0
    assert check(command, 7, 13) == 0


@pytest.mark.parametrize("command", RANGED)
@pytest.mark.parametrize(
    ("offset", "length"), [(SIZE - 4095, 4096), (SIZE, 1), (SIZE + 1, 0), ((1 << 64) - 1, 4096)]
)
def test_beyond_the_end(command: Command, offset: int, length: int) -> None:
    full = command in (Command.WRITE, Command.WRITE_ZEROES)
    assert check(command, offset, length) == (NbdError.ENOSPC if full else NbdError.EINVAL)


@pytest.mark.parametrize("command", RANGED)
def test_c1_length_zero_does_nothing_but_a_status_without_extents_is_invalid(command: Command) -> None:
    expected = NbdError.EINVAL if command is Command.BLOCK_STATUS else 0
    assert check(command, 0, 0) == expected
    assert check(command, SIZE, 0) == expected


@pytest.mark.parametrize("command", list(Command))
def test_read_only_refuses_exactly_the_writes(command: Command) -> None:
    length = 0 if command in (Command.FLUSH, Command.DISC) else 512
    assert check(command, 0, length, read_only=True) == (NbdError.EPERM if command in WRITES else 0)


def test_read_only_is_told_before_the_end_of_the_volume() -> None:
    assert check(Command.WRITE, SIZE, 4096, read_only=True) == NbdError.EPERM


def test_data_is_limited_to_32_mib_and_ranges_without_data_are_not() -> None:
    big = 1 << 40
    assert check(Command.READ, 0, NBD_REQUEST_BYTES_MAX, size_bytes=big) == 0
    assert check(Command.WRITE, 0, NBD_REQUEST_BYTES_MAX, size_bytes=big) == 0
    assert check(Command.READ, 0, NBD_REQUEST_BYTES_MAX + 1, size_bytes=big) == NbdError.EOVERFLOW
    assert check(Command.WRITE, 0, GIB_4, size_bytes=big) == NbdError.EINVAL
    for command in (Command.TRIM, Command.WRITE_ZEROES, Command.CACHE, Command.BLOCK_STATUS):
        assert check(command, 4096, GIB_4, size_bytes=big) == 0


@pytest.mark.parametrize("command", [8, 9, 255, 65535])
def test_unknown_commands(command: int) -> None:
    assert check(command) == NbdError.EINVAL


def test_what_was_not_negotiated_is_invalid() -> None:
    df = int(CommandFlag.DF)
    assert check(Command.READ, flags=df) == 0
    assert check(Command.READ, flags=df, structured=False, contexts=False) == NbdError.EINVAL
    assert check(Command.READ, structured=False, contexts=False) == 0
    assert check(Command.BLOCK_STATUS) == 0
    assert check(Command.BLOCK_STATUS, contexts=False) == NbdError.EINVAL
    assert check(Command.DISC, contexts=False) == 0


def test_each_flag_is_accepted_only_where_the_protocol_documents_it() -> None:
    documented = {
        (Command.READ, CommandFlag.DF),
        (Command.WRITE_ZEROES, CommandFlag.NO_HOLE),
        (Command.WRITE_ZEROES, CommandFlag.FAST_ZERO),
        (Command.BLOCK_STATUS, CommandFlag.REQ_ONE),
    }
    for command in RANGED:
        for bit in range(16):
            allowed = bit == 0 or (command, 1 << bit) in documented
            assert check(command, flags=1 << bit) == (0 if allowed else NbdError.EINVAL), (command, bit)


def test_flush_takes_no_range_and_disconnect_is_never_refused() -> None:
    assert check(Command.FLUSH, 0, 0, flags=CommandFlag.FUA) == 0
    assert check(Command.FLUSH, 0, 512) == NbdError.EINVAL
    assert check(Command.FLUSH, 512, 0) == NbdError.EINVAL
    assert check(Command.DISC, 1 << 63, GIB_4, flags=0xFFFF) == 0


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, GIB_4),
    st.integers(0, 1 << 50),
    st.booleans(),
    st.booleans(),
)
def test_whatever_passes_lies_inside(
    flags: int, command: int, offset: int, length: int, size_bytes: int, read_only: bool, structured: bool
) -> None:
    error = check(
        command,
        offset,
        length,
        flags=flags,
        size_bytes=size_bytes,
        read_only=read_only,
        structured=structured,
        contexts=False,
    )
    if error:
        assert error in set(NbdError)
    elif command != Command.DISC:
        assert offset + length <= size_bytes
        assert not (read_only and command in WRITES)
        assert command != Command.BLOCK_STATUS
        assert structured or not flags & CommandFlag.DF
        assert length <= NBD_REQUEST_BYTES_MAX or command not in (Command.READ, Command.WRITE)


def test_parsing_stops_at_disconnect() -> None:
    disc = encode_request(Request(flags=0, command=Command.DISC, cookie=0, offset=0, length=0))
    flush = encode_request(Request(flags=0, command=Command.FLUSH, cookie=9, offset=0, length=0))
    assert [request.command for request in parse_requests(flush + disc + b"junk")] == [
        Command.FLUSH,
        Command.DISC,
    ]


@pytest.mark.parametrize(
    "data",
    [
        REQUEST.pack(0x25609514, 0, 0, 0, 0, 0),
        REQUEST.pack(REQUEST_MAGIC, 0, 0, 0, 0, 0)[:-1],
        REQUEST.pack(REQUEST_MAGIC, 0, Command.WRITE, 0, 0, 4) + b"abc",
        REQUEST.pack(REQUEST_MAGIC, 0, Command.WRITE, 0, 0, GIB_4),
    ],
    ids=["magic", "header cut", "data cut", "4 GiB write"],
)
def test_broken_requests(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        list(parse_requests(data))


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda tail: struct.pack(">I", REQUEST_MAGIC) + tail),
    )
)
def test_garbage_raises_nothing_else(data: bytes) -> None:
    try:
        for request in parse_requests(data):
            assert len(request.payload) <= len(data)
    except RemoteProtocolError:
        pass
