"""Replies of any form and order become the answers asked for; what was not asked for is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.limits import NBD_REQUEST_BYTES_MAX
from protocol.nbd.client_transmission import Answer, ClientTransmission
from protocol.nbd.constants import Command
from protocol.nbd.replies import (
    block_status,
    done_chunk,
    error_chunk,
    offset_data_header,
    simple_reply,
)
from tests.unit.protocol.nbd.other_side import error_offset_chunk, offset_hole, parse_requests


def asked(client: ClientTransmission, command: Command, offset: int, length: int) -> tuple[Answer, int]:
    """A request's answer to come, and its cookie."""
    answer, raw = client.request(command, offset, length, b"w" * length if command == Command.WRITE else b"")
    (request,) = parse_requests(raw)
    return answer, request.cookie


@given(st.integers(1, 30), st.booleans())
def test_replies_in_any_pieces_and_order(piece: int, structured: bool) -> None:
    client = ClientTransmission()
    read, read_cookie = asked(client, Command.READ, 4096, 100)
    write, write_cookie = asked(client, Command.WRITE, 0, 10)
    status, status_cookie = asked(client, Command.BLOCK_STATUS, 0, 4096)
    data = simple_reply(write_cookie) + block_status(status_cookie, 7, [(512, 1), (3584, 0)], done=True)
    if structured:
        data += offset_hole(read_cookie, 4160, 36, done=False)
        data += offset_data_header(read_cookie, 4096, 64, done=False) + b"r" * 64 + done_chunk(read_cookie)
    else:
        data += simple_reply(read_cookie) + b"r" * 64 + bytes(36)
    for at in range(0, len(data), piece):
        client.receive(data[at : at + piece])
    assert (read.done, write.done, status.done, client.in_flight) == (True, True, True, 0)
    assert read.data == b"r" * 64 + bytes(36)
    assert status.extents == {7: [(512, 1), (3584, 0)]}


def test_errors_of_each_form() -> None:
    client = ClientTransmission()
    one, one_cookie = asked(client, Command.READ, 0, 100)
    client.receive(error_chunk(one_cookie, 5, "the disk"))
    two, two_cookie = asked(client, Command.READ, 0, 100)
    client.receive(offset_data_header(two_cookie, 0, 50, done=False) + b"x" * 50)
    client.receive(error_offset_chunk(two_cookie, 5, 50, "half of it"))
    three, three_cookie = asked(client, Command.WRITE, 0, 10)
    client.receive(simple_reply(three_cookie, 28))
    assert [(a.done, a.error, a.message) for a in (one, two, three)] == [
        (True, 5, "the disk"),
        (True, 5, "half of it"),
        (True, 28, ""),
    ]


def test_what_was_not_asked_for_is_refused() -> None:
    def refuse(command: Command, *chunks: bytes) -> None:
        client = ClientTransmission()
        _, cookie = asked(client, command, 4096, 100)
        assert cookie == 1
        with pytest.raises(RemoteProtocolError):
            client.receive(b"".join(chunks))

    refuse(Command.READ, b"\0" * 16)
    refuse(Command.READ, simple_reply(2))
    refuse(Command.READ, offset_data_header(1, 4095, 10, done=True) + b"x" * 10)
    refuse(Command.READ, offset_data_header(1, 4190, 10, done=True) + b"x" * 10)
    refuse(Command.READ, offset_data_header(1, 4096, 99, done=True) + b"x" * 99)
    refuse(Command.READ, offset_hole(1, 0, 1 << 31, done=True))
    refuse(Command.READ, block_status(1, 1, [(512, 0)], done=True))
    refuse(Command.WRITE, offset_data_header(1, 4096, 100, done=True) + b"x" * 100)
    refuse(Command.BLOCK_STATUS, done_chunk(1))
    refuse(Command.BLOCK_STATUS, bytes.fromhex("668e33ef00010005000000000000000100000004") + bytes(4))
    refuse(Command.READ, bytes.fromhex("668e33ef000100010000000000000001ffffffff"))


def test_a_read_has_a_limit() -> None:
    with pytest.raises(LocalProtocolError):
        ClientTransmission().request(Command.READ, 0, NBD_REQUEST_BYTES_MAX + 1)
