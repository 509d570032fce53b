"""Questions between sites: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.compress import Compression
from protocol.errors import RemoteProtocolError
from protocol.limits import LEASE_S_MAX, QUESTION_BLOCKS_MAX
from protocol.messages import decode_message
from protocol.positions import POSITION_MAX, Cut
from protocol.question_messages import (
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
    QuestionKind,
    QuestionMessage,
    Release,
)
from protocol.rows import pack_row

positions = st.integers(0, POSITION_MAX)
timelines = st.integers(1, (1 << 64) - 1)
texts = st.text(max_size=63)
names = st.text(min_size=1, max_size=63)
cuts = st.builds(Cut, timelines, positions)
sessions = st.integers(1, (1 << 62) - 1)
about = {"session": sessions, "group": texts, "group_id": texts}
packed = st.sampled_from(Compression)
blocks = st.lists(positions, max_size=8).map(tuple)

messages = st.one_of(
    st.builds(Hold, **about, name=names, cut=cuts, for_s=st.integers(1, LEASE_S_MAX)),
    st.builds(Release, **about, name=texts),
    st.builds(Find, **about, utc_ns=positions),
    st.builds(Blocks, **about, volume=positions, cut=cuts, blocks=blocks),
    st.builds(Changes, **about, volume=positions, before=cuts, after=cuts, first=positions),
    st.builds(Journal, **about, timeline=timelines, start=positions, end=positions),
    st.builds(Held, session=sessions, cut=cuts),
    st.builds(
        BlockContents,
        session=sessions,
        contents=st.lists(st.sampled_from(Content), max_size=8).map(bytes),
        compression=packed,
    ),
    st.builds(Changed, session=sessions, next_block=positions, done=st.booleans(), compression=packed),
    st.builds(Frames, session=sessions, compression=packed),
    st.builds(NoAnswer, session=sessions, code=texts, message=texts, position=texts),
)


@given(messages)
def test_what_goes_in_comes_out(message: QuestionMessage) -> None:
    assert decode_message(message.encode()) == message


ABOUT = (7, 1, "g", "00")


@pytest.mark.parametrize(
    "row",
    [
        (QuestionKind.HOLD, *ABOUT, "name", 1, 5, LEASE_S_MAX + 1),
        (QuestionKind.HOLD, *ABOUT, "", 1, 5, 60),
        (QuestionKind.HOLD, *ABOUT, "name", 0, 5, 60),
        (QuestionKind.HOLD, 7, 2, "g", "00", "name", 1, 5, 60),
        (QuestionKind.BLOCKS, *ABOUT, 3, 1, 5, tuple(range(QUESTION_BLOCKS_MAX + 1))),
        (QuestionKind.BLOCKS, *ABOUT, 3, 1, 5, (-1,)),
        (QuestionKind.BLOCKS, *ABOUT, 3, 1, 5, ("1",)),
        (QuestionKind.CHANGES, *ABOUT, 3, 1, 5, 1),
        (QuestionKind.JOURNAL, *ABOUT, 3),
        (QuestionKind.CONTENT, 7, b"\x09", 0),
        (QuestionKind.FRAMES, 7, 9),
        (QuestionKind.FIND,),
        (49, *ABOUT),
        (60, 7),
    ],
)
def test_nothing_else_gets_in(row: tuple[object, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(pack_row([int(row[0]), *row[1:]]))  # type: ignore[call-overload]
