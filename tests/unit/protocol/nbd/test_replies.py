"""Replies byte for byte, and that what the protocol forbids cannot be made."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError
from protocol.nbd.constants import BlockState, NbdError, nbd_error
from protocol.nbd.replies import (
    CHUNK_HEADER_BYTES,
    SIMPLE_REPLY_BYTES,
    block_status,
    done_chunk,
    error_chunk,
    error_reply,
    offset_data_header,
    read_reply_header,
    simple_replies,
    simple_reply,
)

COOKIE = 0x1122334455667788
COOKIE_HEX = "1122334455667788"


def test_simple_reply() -> None:
    assert simple_reply(COOKIE) == bytes.fromhex("67446698 00000000" + COOKIE_HEX)
    assert simple_reply(COOKIE, NbdError.ENOSPC) == bytes.fromhex("67446698 0000001c" + COOKIE_HEX)
    assert len(simple_reply(COOKIE)) == SIMPLE_REPLY_BYTES


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=50))
def test_many_simple_replies_are_the_single_ones_joined(cookies: list[int]) -> None:
    assert simple_replies(cookies) == b"".join(simple_reply(cookie) for cookie in cookies)


def test_done_chunk() -> None:
    assert done_chunk(COOKIE) == bytes.fromhex("668e33ef 0001 0000" + COOKIE_HEX + "00000000")
    assert len(done_chunk(COOKIE)) == CHUNK_HEADER_BYTES


def test_offset_data() -> None:
    done = bytes.fromhex("668e33ef 0001 0001" + COOKIE_HEX + "00001008 0000010000000200")
    more = bytes.fromhex("668e33ef 0000 0001" + COOKIE_HEX + "00001008 0000010000000200")
    assert offset_data_header(COOKIE, (1 << 40) + 512, 4096, done=True) == done
    assert offset_data_header(COOKIE, (1 << 40) + 512, 4096, done=False) == more
    assert len(done) == CHUNK_HEADER_BYTES + 8


def test_a_read_in_one_piece() -> None:
    assert read_reply_header(COOKIE, 512, 4096, False) == simple_reply(COOKIE)
    assert read_reply_header(COOKIE, 512, 4096, True) == offset_data_header(COOKIE, 512, 4096, done=True)


def test_an_empty_read_never_makes_an_empty_data_chunk() -> None:
    assert read_reply_header(COOKIE, 512, 0, True) == done_chunk(COOKIE)
    assert read_reply_header(COOKIE, 512, 0, False) == simple_reply(COOKIE)
    with pytest.raises(LocalProtocolError):
        offset_data_header(COOKIE, 512, 0, done=True)


def test_block_status() -> None:
    extents = [(4096, 0), (8192, int(BlockState.HOLE | BlockState.ZERO))]
    expected = bytes.fromhex(
        "668e33ef 0001 0005" + COOKIE_HEX + "00000014 00000001 00001000 00000000 00002000 00000003"
    )
    assert block_status(COOKIE, 1, extents, done=True) == expected
    assert block_status(COOKIE, 1, extents, done=False) == expected[:4] + b"\0\0" + expected[6:]


def test_block_status_refuses_what_a_client_would_hang_up_on() -> None:
    with pytest.raises(LocalProtocolError):
        block_status(COOKIE, 1, [], done=True)
    with pytest.raises(LocalProtocolError):
        block_status(COOKIE, 1, [(512, 0), (0, 0)], done=True)
    with pytest.raises(LocalProtocolError):
        block_status(COOKIE, 1, [(512, 0)] * ((1 << 20) + 1), done=True)


def test_error_chunk() -> None:
    plain = bytes.fromhex("668e33ef 0001 8001" + COOKIE_HEX + "00000009 00000016 0003") + b"bad"
    assert error_chunk(COOKIE, NbdError.EINVAL, "bad") == plain


def test_error_reply_follows_what_was_negotiated() -> None:
    assert error_reply(COOKIE, NbdError.EPERM, "no", structured=True) == error_chunk(
        COOKIE, NbdError.EPERM, "no"
    )
    assert error_reply(COOKIE, NbdError.EPERM, "no", structured=False) == simple_reply(COOKIE, NbdError.EPERM)


def test_an_error_without_an_error_is_ours() -> None:
    for structured in (False, True):
        with pytest.raises(LocalProtocolError):
            error_reply(COOKIE, 0, structured=structured)


@given(st.text(max_size=6000))
def test_messages_are_utf8_printable_and_at_most_4096_bytes(text: str) -> None:
    chunk = error_chunk(COOKIE, NbdError.EIO, text)
    (length,) = struct.unpack_from(">I", chunk, 16)
    (message_length,) = struct.unpack_from(">H", chunk, 24)
    message = chunk[26:]
    assert length == len(chunk) - CHUNK_HEADER_BYTES
    assert message_length == len(message) <= 4096
    assert message.decode().isprintable()


@pytest.mark.parametrize(
    ("system", "wire"),
    [
        (errno.EPERM, NbdError.EPERM),
        (errno.EACCES, NbdError.EPERM),
        (errno.EROFS, NbdError.EPERM),
        (errno.ENOSPC, NbdError.ENOSPC),
        (errno.EDQUOT, NbdError.ENOSPC),
        (errno.EFBIG, NbdError.ENOSPC),
        (errno.ENOMEM, NbdError.ENOMEM),
        (errno.EIO, NbdError.EIO),
        (errno.ESTALE, NbdError.EIO),
        (errno.ENOTSUP, NbdError.EIO),
        (None, NbdError.EIO),
    ],
)
def test_errno_map(system: int | None, wire: NbdError) -> None:
    assert nbd_error(system) is wire
