"""Messages between sites: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.compress import Compression
from protocol.errors import RemoteProtocolError
from protocol.limits import GENERATION_MAX, LINEAGE_TIMELINES_MAX
from protocol.messages import (
    WIRE_VERSION,
    Ack,
    Ask,
    ClockTold,
    Fetch,
    Fetched,
    FrameMessage,
    Heartbeat,
    Hello,
    MakeDurable,
    Message,
    MessageKind,
    Refused,
    Report,
    Reset,
    Welcome,
    decode_message,
    refusal_of,
)
from protocol.positions import POSITION_MAX
from protocol.rows import pack_row

positions = st.integers(0, POSITION_MAX)
ids = st.integers(0, (1 << 64) - 1)
timelines = st.integers(1, (1 << 64) - 1)
generations = st.integers(1, GENERATION_MAX)
sessions = st.integers(1, (1 << 62) - 1)
times = st.integers(0, (1 << 63) - 1)
texts = st.text(max_size=63)
names = st.from_regex(r"[a-z][a-z0-9._-]{0,62}", fullmatch=True)
hex_ids = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)

lineages = st.lists(st.tuples(timelines, ids, positions, generations, hex_ids), max_size=4).map(tuple)

messages = st.one_of(
    st.builds(
        Hello,
        session=sessions,
        group=names,
        group_id=hex_ids,
        site=hex_ids,
        lineage=lineages,
        written=positions,
        adopt=st.booleans(),
    ),
    st.builds(
        Welcome,
        session=sessions,
        lineage=lineages,
        written=positions,
        durable=positions,
        digest=st.binary(min_size=16, max_size=16),
    ),
    st.builds(FrameMessage, session=sessions, compression=st.sampled_from(Compression)),
    st.builds(Ack, session=sessions, timeline=ids, written=positions, durable=positions),
    st.builds(
        Heartbeat,
        session=sessions,
        timeline=ids,
        written=positions,
        utc_ns=times,
        state=texts,
        mode=texts,
    ),
    st.builds(Refused, session=sessions, code=texts, message=texts),
    st.builds(Reset, session=sessions, reason=texts),
    st.builds(Fetch, session=sessions, timeline=ids, position=positions),
    st.builds(Fetched, session=sessions, done=st.booleans()),
    st.builds(Ask, session=sessions, group=names, group_id=hex_ids),
    st.builds(
        Report,
        session=sessions,
        role=texts,
        generation=st.just(0) | generations,
        timeline=ids,
        written=positions,
        durable=positions,
    ),
    st.builds(MakeDurable, session=sessions, position=positions),
    st.builds(ClockTold, session=sessions, utc_ns=times, heard_ns=times, held_ns=st.integers(0, 60 * 10**9)),
)
EXAMPLES: list[Message] = [
    Hello(session=1, group="g", group_id="0" * 16, site="s", lineage=((1, 0, 0, 1, "s"),), written=9),
    Welcome(session=1, lineage=((2, 0, 0, 1, "s"),), written=9, durable=8, digest=bytes(16)),
    FrameMessage(session=1),
    FrameMessage(session=1, compression=Compression.ZSTD),
    Ack(session=1, timeline=2, written=9, durable=8),
    Heartbeat(session=1, timeline=2, written=9, utc_ns=3, state="paired", mode="async"),
    Refused(session=1, code="failed", message="no"),
    Reset(session=1, reason="lost"),
    Fetch(session=1, timeline=2, position=9),
    Fetched(session=1, done=True),
    Ask(session=1, group="g", group_id="0" * 16),
    Report(session=1, role="primary", generation=1, timeline=2, written=9, durable=8),
    MakeDurable(session=1, position=9),
    ClockTold(session=1, utc_ns=1_700_000_000_000_000_000, heard_ns=0, held_ns=0),
]


@given(messages)
def test_a_message_survives(message: Message) -> None:
    assert decode_message(message.encode()) == message
    assert decode_message(memoryview(message.encode())) == message


def test_the_numbers_of_kinds_never_change() -> None:
    assert [kind.name for kind in sorted(MessageKind)] == [
        "HELLO",
        "WELCOME",
        "FRAME",
        "ACK",
        "HEARTBEAT",
        "REFUSED",
        "RESET",
        "FETCH",
        "FETCHED",
        "ASK",
        "REPORT",
        "MAKE_DURABLE",
        "CLOCK_TOLD",
    ]
    assert [int(kind) for kind in sorted(MessageKind)] == list(range(1, 14))


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_cut_short_or_carried_on_is_refused(message: Message) -> None:
    header = message.encode()
    for length in range(len(header)):
        with pytest.raises(RemoteProtocolError):
            decode_message(header[:length])
    with pytest.raises(RemoteProtocolError):
        decode_message(header + b"\0")


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_flipped_byte_is_refused_or_a_message(message: Message) -> None:
    """Nothing but RemoteProtocolError may come of what a peer sends: anything else would end the receiver."""
    header = message.encode()
    for at in range(len(header)):
        for bit in range(8):
            damaged = bytearray(header)
            damaged[at] ^= 1 << bit
            try:
                decode_message(bytes(damaged))
            except RemoteProtocolError:
                continue


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    try:
        decode_message(noise)
    except RemoteProtocolError:
        return


HELLO = (1, 9, WIRE_VERSION, "g", "0" * 16, "s")


@pytest.mark.parametrize(
    "row",
    [
        (),
        (1,),
        (8, 1),
        (0, 1),
        ("1", 1),
        (3, "1"),
        (3, True),
        (3, 1, 2),
        (3, 1, -1),
        (3, 1, "1"),
        (3, 1, True),
        (3, 1, 1, 0),
        (4, 1, 2, 3),
        (4, 1, 2, 3, "4"),
        (5, 1, 2, 3, 4, 5),
        (6, 1, 2, "text"),
        (7, 1, None),
        (2, 1, 2, 3, 4, bytes(15)),
        (2, 1, 2, 3, 4, "0" * 16),
        (1, 1),
        (1, 9, WIRE_VERSION + 1, "g", "0" * 16, "s", (), 0),
        (*HELLO, (), "0"),
        (*HELLO, 5, 0),
        (*HELLO, (5,), 0),
        (*HELLO, ("lineage",), 0),
        (*HELLO, ((1, 0, 0),), 0),
        (*HELLO, ((1, 0, 0, "1"),), 0),
        (*HELLO, (), 0),
        (*HELLO, (), -1, False),
        (*HELLO, (), POSITION_MAX + 1, False),
        (*HELLO, ((0, 0, 0, 1, "s"),), 0, False),
        (*HELLO, ((1, 0, 0, 0, "s"),), 0, False),
        (*HELLO, ((1, 0, -1, 1, "s"),), 0, False),
        (*HELLO, ((1, 0, 0, 1, "../s"),), 0, False),
        (1, 0, *HELLO[2:], (), 0, False),
        (1, 1 << 62, *HELLO[2:], (), 0, False),
        (4, 1, 2, -3, 4),
        (4, 1, 2, 3, 1 << 62),
        (5, 1, 2, 3, -1, "paired", "async", 0),
        (5, 1, 2, 3, 1 << 63, "paired", "async", 0),
        (5, 1, 2, 3, 4, "p" * 64, "async", 0),
        (11, 1, "primary", GENERATION_MAX + 1, 1, 1, 1),
        (12, 1, 1 << 63),
    ],
)
def test_a_message_of_another_shape_is_refused(row: tuple[object, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(pack_row(row))


def test_a_lineage_longer_than_any_can_be_is_refused() -> None:
    """It would be over the limit of a header, too; the count is checked for itself."""
    lineage = ((1, 0, 0, 1, "s"),) * (LINEAGE_TIMELINES_MAX + 1)
    hello = Hello(session=1, group="g", group_id="0" * 16, site="s", lineage=lineage, written=0)
    with pytest.raises(RemoteProtocolError, match=r"limit|length"):
        decode_message(hello.encode())


@pytest.mark.parametrize(
    "group", ["/any/dir", "../../../x", "vm1/.", "vm1\n", "", ".", "..", "VM1", "v" * 64, "é"]
)
def test_a_group_that_is_no_name_is_refused_c4(group: str) -> None:
    """C4: its directory was made wherever the name led."""
    for header in (
        Hello(session=5, group=group, group_id="0" * 16, site="s", lineage=(), written=0).encode(),
        Ask(session=5, group=group, group_id="0" * 16).encode(),
    ):
        with pytest.raises(RemoteProtocolError):
            decode_message(header)


@pytest.mark.parametrize("generation", [(1 << 64) - 1, (1 << 63) - 1, GENERATION_MAX + 1, 0])
def test_a_generation_that_cannot_be_outranked_is_refused_c5(generation: int) -> None:
    lineage = ((1, 0, 0, generation, "s"),)
    hello = Hello(session=5, group="g", group_id="0" * 16, site="s", lineage=lineage, written=0)
    with pytest.raises(RemoteProtocolError):
        decode_message(hello.encode())


def refusal(header: bytes) -> Message | None:
    """What is answered to a header that cannot be decoded."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_message(header)
    answer = refusal_of(header, caught.value)
    return None if answer is None else decode_message(answer)


def test_a_bad_hello_gets_a_refusal_of_its_session_c4_c5() -> None:
    bad = Hello(session=77, group="../../../x", group_id="0" * 16, site="s", lineage=(), written=0)
    answer = refusal(bad.encode())
    assert isinstance(answer, Refused)
    assert (answer.session, answer.code) == (77, "bad-message")


def test_a_hello_of_another_version_is_told_so() -> None:
    answer = refusal(pack_row((1, 9, WIRE_VERSION + 1, "g", "0" * 16, "s", (), 0, False, "more")))
    assert isinstance(answer, Refused)
    assert "version" in answer.message


@pytest.mark.parametrize(
    "header",
    [b"", b"\xc1", pack_row((4, 9, 1)), pack_row((1,)), pack_row((1, 0)), pack_row((1, "x")), b"\x91" * 300],
)
def test_what_says_no_session_or_is_no_question_gets_no_answer(header: bytes) -> None:
    assert refusal(header) is None
