"""Questions between sites: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.compress import Compression
from protocol.errors import RemoteProtocolError
from protocol.limits import BLOCKS_MAX, LEASE_NAME_BYTES_MAX, LEASE_S_MAX, PEER_REQUEST_BLOCKS_MAX
from protocol.messages import decode_message, refusal_of
from protocol.peer_requests import (
    BlockContents,
    Blocks,
    Changed,
    Changes,
    Content,
    Find,
    Frames,
    Held,
    Hold,
    Journal,
    NoAnswer,
    PeerRequestKind,
    PeerRequestMessage,
    Release,
)
from protocol.positions import POSITION_MAX, Cut
from protocol.rows import pack_row

positions = st.integers(0, POSITION_MAX)
timelines = st.integers(1, (1 << 64) - 1)
texts = st.text(max_size=63)
names = st.text(min_size=1, max_size=63)
groups = st.from_regex(r"[a-z][a-z0-9._-]{0,62}", fullmatch=True)
hex_ids = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
block_numbers = st.integers(0, BLOCKS_MAX - 1)
cuts = st.builds(Cut, timelines, positions)
sessions = st.integers(1, (1 << 62) - 1)
about = {"session": sessions, "group": groups, "group_id": hex_ids}
packed = st.sampled_from(Compression)
blocks = st.lists(block_numbers, max_size=8).map(tuple)

messages = st.one_of(
    st.builds(Hold, **about, name=names, cut=cuts, for_s=st.integers(1, LEASE_S_MAX)),
    st.builds(Release, **about, name=names),
    st.builds(Find, **about, utc_ns=positions),
    st.builds(Blocks, **about, volume=positions, cut=cuts, blocks=blocks),
    st.builds(Changes, **about, volume=positions, before=cuts, after=cuts, first=block_numbers),
    st.builds(Journal, **about, timeline=timelines, start=positions, end=positions),
    st.builds(Held, session=sessions, cut=cuts),
    st.builds(
        BlockContents,
        session=sessions,
        contents=st.lists(st.sampled_from(Content), max_size=8).map(bytes),
        compression=packed,
    ),
    st.builds(Changed, session=sessions, next_block=block_numbers, done=st.booleans(), compression=packed),
    st.builds(Frames, session=sessions, compression=packed),
    st.builds(NoAnswer, session=sessions, code=texts, message=texts, position=texts),
)


@given(messages)
def test_what_goes_in_comes_out(message: PeerRequestMessage) -> None:
    assert decode_message(message.encode()) == message


ABOUT = (7, 1, "g", "0" * 16)


@pytest.mark.parametrize(
    "row",
    [
        (PeerRequestKind.HOLD, *ABOUT, "name", 1, 5, LEASE_S_MAX + 1),
        (PeerRequestKind.HOLD, *ABOUT, "", 1, 5, 60),
        (PeerRequestKind.HOLD, *ABOUT, "name", 0, 5, 60),
        (PeerRequestKind.HOLD, 7, 2, "g", "0" * 16, "name", 1, 5, 60),
        (PeerRequestKind.HOLD, *ABOUT, "name", 1, 5, 0),
        (PeerRequestKind.HOLD, *ABOUT, "name", 1, -5, 60),
        (PeerRequestKind.HOLD, *ABOUT, "n" * (LEASE_NAME_BYTES_MAX + 1), 1, 5, 60),
        (PeerRequestKind.HOLD, 7, 1, "../x", "0" * 16, "name", 1, 5, 60),
        (PeerRequestKind.RELEASE, *ABOUT, ""),
        (PeerRequestKind.FIND, *ABOUT, -1),
        (PeerRequestKind.FIND, *ABOUT, 1 << 63),
        (PeerRequestKind.BLOCKS, *ABOUT, 3, 1, 5, (BLOCKS_MAX,)),
        (PeerRequestKind.BLOCKS, *ABOUT, -3, 1, 5, (1,)),
        (PeerRequestKind.CHANGES, *ABOUT, 3, 1, 5, 1, 6, BLOCKS_MAX + 1),
        (PeerRequestKind.JOURNAL, *ABOUT, 0, 1, 5),
        (PeerRequestKind.JOURNAL, *ABOUT, 1, -1, 5),
        (PeerRequestKind.CHANGED, 7, -1, True, 0),
        (PeerRequestKind.BLOCKS, *ABOUT, 3, 1, 5, tuple(range(PEER_REQUEST_BLOCKS_MAX + 1))),
        (PeerRequestKind.BLOCKS, *ABOUT, 3, 1, 5, (-1,)),
        (PeerRequestKind.BLOCKS, *ABOUT, 3, 1, 5, ("1",)),
        (PeerRequestKind.CHANGES, *ABOUT, 3, 1, 5, 1),
        (PeerRequestKind.JOURNAL, *ABOUT, 3),
        (PeerRequestKind.CONTENT, 7, b"\x09", 0),
        (PeerRequestKind.FRAMES, 7, 9),
        (PeerRequestKind.FIND,),
        (49, *ABOUT),
        (60, 7),
    ],
)
def test_nothing_else_gets_in(row: tuple[object, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(pack_row([int(row[0]), *row[1:]]))  # type: ignore[call-overload]


def test_questions_with_bad_values_get_an_error_reply_c6() -> None:
    """C6: a name of 200 characters that has 800 bytes made a key that LMDB refuses; a scan from block -1
    could not pack its key. Either stopped the daemon for every group."""
    bad = [
        (PeerRequestKind.HOLD, *ABOUT, "\U0001f600" * 200, 1, 197, 1000),
        (PeerRequestKind.RELEASE, *ABOUT, "\U0001f600" * 200),
        (PeerRequestKind.CHANGES, *ABOUT, 3, 1, 197, 1, 269, -1),
    ]
    for row in bad:
        header = pack_row([int(row[0]), *row[1:]])
        with pytest.raises(RemoteProtocolError) as caught:
            decode_message(header)
        answer = decode_message(refusal_of(header, caught.value) or b"")
        assert isinstance(answer, NoAnswer)
        assert (answer.session, answer.code) == (7, "bad-message")


def test_the_longest_lease_name_in_bytes_is_taken_c6() -> None:
    name = "\U0001f600" * (LEASE_NAME_BYTES_MAX // 4)
    hold = Hold(session=7, group="g", group_id="0" * 16, name=name, cut=Cut(1, 5), for_s=60)
    assert decode_message(hold.encode()) == hold
