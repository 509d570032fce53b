"""A connection's own decoder: however a host's bytes are cut, the same replies, and the same volume.

Random requests of every kind, whole and cut anywhere, with garbage behind: what is answered and what the
volume holds are those of the plain parser and of a byte array.
"""

from __future__ import annotations

import random
import shutil
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.events import LAST_DATA_KIND
from protocol.frames import Frame, decode_rows
from protocol.limits import BLOCK_BYTES
from protocol.nbd.constants import Command
from protocol.nbd.requests import Request, encode_request, request_check
from tests.unit.engine.group_rig import GroupRig, memory_directory
from tests.unit.protocol.nbd.other_side import parse_requests
from tests.unit.site_primary.nbd.nbd_rig import NbdHost, NbdServed

BLOCKS = 8
SIZE = BLOCKS * BLOCK_BYTES
U64_MAX = (1 << 64) - 1
LENGTHS = st.sampled_from([0, 1, 511, 512, 4095, 4096, 4097, 9000, SIZE, SIZE + 1, 1 << 25, (1 << 32) - 1])
PLACES = st.sampled_from(
    [0, 1, 511, 4095, 4096, SIZE - 4096, SIZE - 1, SIZE, SIZE + 1, U64_MAX - 4095, U64_MAX]
)
FLAGS = st.sampled_from([0, 0, 0, 0, 1, 2, 4, 8, 16, 0xFFFF])
COMMANDS = st.sampled_from([0, 1, 1, 1, 3, 4, 5, 6, 6, 7, 8, 65_535])


def _request(flags: int, command: int, offset: int, length: int, seed: int) -> Request:
    payload = b""
    if command == Command.WRITE:
        length = min(length, SIZE + 1)
        payload = random.Random(seed).randbytes(length)
    return Request(flags=flags, command=command, cookie=seed, offset=offset, length=length, payload=payload)


REQUESTS = st.lists(
    st.builds(_request, FLAGS, COMMANDS, PLACES, LENGTHS, st.integers(1, U64_MAX)), min_size=1, max_size=8
)
TAILS = st.sampled_from([b"", b"", b"\x25\x60\x95\x13", b"x" * 28]) | st.binary(max_size=40)


def left_by(requests: list[Request], structured: bool) -> bytes:
    """The volume after them."""
    content = bytearray(SIZE)
    check = request_check(
        size_bytes=SIZE, read_only=False, structured_replies=structured, contexts=structured
    )
    for request in requests:
        offset, end = request.offset, request.offset + request.length
        if check(request.flags, request.command, offset, request.length):
            continue
        if request.command == Command.TRIM:
            offset, end = -(-offset // BLOCK_BYTES) * BLOCK_BYTES, end // BLOCK_BYTES * BLOCK_BYTES
        if request.command in (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES) and offset < end:
            content[offset:end] = request.payload or bytes(end - offset)
    return bytes(content)


class Talk:
    """One host's bytes at a fresh group, in given pieces."""

    def __init__(self, data: bytes, cuts: list[int], structured: bool) -> None:
        rig = GroupRig(memory_directory())
        rig.open()
        try:
            served = NbdServed(rig, BLOCKS)
            frames: list[Frame] = []
            rig.group.listeners.frame.append(frames.append)
            host = NbdHost(served, "host", structured)
            host.received = self._received  # type: ignore[method-assign]
            self.replies = bytearray()
            points = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
            for start, end in pairwise(points):
                host.send(data[start:end])
                if start % 3:
                    served.rig.settle(0)
            host.settle()  # what came while the daemon did not read is delivered when it does again
            served.rig.settle()
            self.closed = host.wire.closed
            self.content = served.read()
            self.rows = [row for frame in frames for row in decode_rows(frame.prefix, frame.raw)]
            host.connection.connection_lost(None)
            assert served.budget.lent_bytes == 0
        finally:
            rig.drop()
            shutil.rmtree(rig.directory)

    def _received(self, data: bytes) -> None:
        self.replies += data


@settings(max_examples=40, deadline=None)
@given(REQUESTS, TAILS, st.lists(st.integers(0, 1 << 20), max_size=10), st.booleans())
@example([_request(0, 7, 0, 1, 1), _request(0, 1, 0, 1, 1)], b"", [28], True)
@example([_request(0, 1, 0, 1, 1), _request(0, 1, 0, 0, 1), _request(0, 7, 0, 1, 1)], b"", [29], True)
def test_c1_however_requests_are_cut_the_volume_is_what_they_say(
    requests: list[Request], tail: bytes, cuts: list[int], structured: bool
) -> None:
    data = b"".join(encode_request(request) for request in requests) + tail
    whole, pieces = Talk(data, [], structured), Talk(data, cuts, structured)
    parsed = []
    try:
        for request in parse_requests(data):
            parsed.append(request)
    except RemoteProtocolError:
        pass
    for talk in (whole, pieces):
        assert talk.content == left_by(parsed, structured)
        for row in talk.rows:
            assert row[0] <= LAST_DATA_KIND
            assert row[3] >= 1
            assert row[2] + row[3] <= BLOCKS
    assert whole.closed == pieces.closed
    if whole.closed and all(request.command != Command.DISC for request in parsed):
        return  # garbage: what came with it in one wake-up is carried out, and not answered any more
    # A READ beside writes of the same wake-up may see either: only the sizes must be the same. So may a
    # BLOCK_STATUS, and of what it says the size differs, too.
    asked = {request.command for request in parsed}
    if asked.isdisjoint({Command.READ, Command.BLOCK_STATUS}):
        assert sorted(_answers(whole.replies)) == sorted(_answers(pieces.replies))
    if Command.BLOCK_STATUS not in asked:
        assert len(whole.replies) == len(pieces.replies)


def _answers(replies: bytearray) -> list[bytes]:
    """Replies, cut apart: of what these tests ask, all but READ's have lengths that are on the wire."""
    found = []
    at = 0
    while at < len(replies):
        simple = replies[at : at + 4] == b"\x67\x44\x66\x98"
        end = at + 16 if simple else at + 20 + int.from_bytes(replies[at + 16 : at + 20], "big")
        found.append(bytes(replies[at:end]))
        at = end
    return found
