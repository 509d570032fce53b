"""The server's side of the handshake, byte for byte, option by option."""

from __future__ import annotations

import struct

import pytest

from protocol.errors import (
    LocalProtocolError,
    NotFound,
    RemoteProtocolError,
)
from protocol.limits import NBD_EXPORT_NAME_BYTES_MAX, NBD_OPTION_BYTES_MAX, NBD_OPTIONS_AT_ONCE_MAX
from protocol.nbd.client import encode_info_body, encode_option
from protocol.nbd.constants import InfoType, Option, OptionReply, TransmissionFlag
from protocol.nbd.handshake import (
    SKIP_BYTES_MAX,
    ExportInfo,
    HandshakeState,
    ServerHandshake,
)
from tests.unit.protocol.nbd.handshake_talk import (
    FIXED,
    FLAGS,
    FLAGS_DF,
    ROOT,
    SIZE,
    Volumes,
    ask,
    error_of,
    opened,
    replies,
    reply,
)


def test_greeting() -> None:
    assert ServerHandshake(Volumes()).greeting() == b"NBDMAGICIHAVEOPT\x00\x03"


def test_flags_of_an_export() -> None:
    assert ROOT.transmission_flags(structured_replies=False) == FLAGS
    assert ROOT.transmission_flags(structured_replies=True) == FLAGS_DF
    copy = ExportInfo(name="vm1/root@nightly", size_bytes=SIZE, read_only=True)
    assert copy.transmission_flags(structured_replies=False) == FLAGS | TransmissionFlag.READ_ONLY
    assert (copy.block_bytes_min, copy.block_bytes_preferred, copy.block_bytes_max) == (512, 4096, 32 << 20)
    keeps = ExportInfo(name="vm1/root", size_bytes=SIZE, trims=False)
    assert keeps.transmission_flags(structured_replies=False) == FLAGS & ~TransmissionFlag.SEND_TRIM


@pytest.mark.parametrize("flags", [4, 7, 1 << 31])
def test_unknown_client_flags_end_the_connection(flags: int) -> None:
    handshake = ServerHandshake(Volumes())
    with pytest.raises(RemoteProtocolError):
        handshake.receive(struct.pack(">I", flags))
    assert handshake.state is HandshakeState.FAILED
    with pytest.raises(LocalProtocolError):
        handshake.receive(b"")


@pytest.mark.parametrize(("flags", "pad"), [(0, 124), (1, 124), (2, 0), (3, 0)])
def test_export_name(flags: int, pad: int) -> None:
    handshake = opened(flags=struct.pack(">I", flags))
    sent = handshake.receive(encode_option(Option.EXPORT_NAME, b"vm1/root"))
    assert sent == struct.pack(">QH", SIZE, FLAGS) + bytes(pad)
    assert handshake.result is not None
    assert handshake.result.export.token == "vm1/root"
    assert handshake.result.no_zeroes is (pad == 0)
    assert not handshake.result.structured_replies


def test_export_name_that_does_not_exist_closes_without_a_word() -> None:
    handshake = opened()
    assert handshake.receive(encode_option(Option.EXPORT_NAME, b"vm9/x") + b"more") == b""
    assert handshake.finished_abort
    assert isinstance(handshake.refusal, NotFound)
    assert handshake.result is None


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\0b"])
def test_export_name_that_is_no_string(name: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        opened().receive(encode_option(Option.EXPORT_NAME, name))


def test_an_export_name_over_4096_bytes_is_refused_at_its_header() -> None:
    with pytest.raises(RemoteProtocolError):
        opened().receive(
            struct.pack(">QII", 0x49484156454F5054, Option.EXPORT_NAME, NBD_EXPORT_NAME_BYTES_MAX + 1)
        )
    long_name = "n" * (NBD_EXPORT_NAME_BYTES_MAX + 1)
    assert error_of(opened(), Option.GO, encode_info_body(long_name)) == OptionReply.ERR_TOO_BIG
    assert error_of(opened(), Option.GO, encode_info_body(long_name[1:])) == OptionReply.ERR_UNKNOWN


def test_abort_is_acknowledged_and_its_data_ignored() -> None:
    for body in (b"", b"bye"):
        handshake = opened()
        assert handshake.receive(encode_option(Option.ABORT, body) + b"junk") == reply(
            Option.ABORT, OptionReply.ACK
        )
        assert handshake.finished_abort
        assert handshake.refusal is None
        with pytest.raises(LocalProtocolError):
            handshake.receive(b"")


def test_list() -> None:
    expected = b"".join(
        reply(Option.LIST, OptionReply.SERVER, struct.pack(">I", len(name)) + name)
        for name in (b"vm1/root", b"vm1/data", b"vm1/root@nightly")
    )
    assert opened().receive(encode_option(Option.LIST)) == expected + reply(Option.LIST, OptionReply.ACK)
    assert error_of(opened(), Option.LIST, b"x") == OptionReply.ERR_INVALID


def test_info_answers_what_was_asked_and_stays_in_the_handshake() -> None:
    handshake = opened()
    wanted = (InfoType.BLOCK_SIZE, InfoType.NAME, InfoType.DESCRIPTION, 99, InfoType.NAME)
    expected = [
        struct.pack(">HQH", 0, SIZE, FLAGS),
        b"\x00\x01vm1/root",
        b"\x00\x02system disk",
        struct.pack(">HIII", 3, 512, 4096, 32 << 20),
    ]
    sent = handshake.receive(encode_option(Option.INFO, encode_info_body("vm1/root", wanted)))
    assert sent == b"".join(reply(6, 3, body) for body in expected) + reply(6, 1)
    assert handshake.state is HandshakeState.OPTIONS
    sent = handshake.receive(encode_option(Option.INFO, encode_info_body("vm1/root")))
    assert sent == reply(6, 3, expected[0]) + reply(6, 1)


def test_go_enters_transmission_and_leaves_what_follows() -> None:
    handshake = opened(flags=FIXED)
    ask(handshake, Option.STRUCTURED_REPLY)
    sent = handshake.receive(encode_option(Option.GO, encode_info_body("vm1/root@nightly")) + b"requests")
    flags = FLAGS_DF | TransmissionFlag.READ_ONLY
    assert sent == reply(7, 3, struct.pack(">HQH", 0, SIZE, flags)) + reply(7, 1)
    assert handshake.leftover == b"requests"
    assert handshake.buffered_bytes == 0
    result = handshake.result
    assert result is not None
    assert result.structured_replies
    assert not result.no_zeroes
    assert result.export.read_only
    assert dict(result.meta_contexts) == {}
    with pytest.raises(LocalProtocolError):
        handshake.receive(b"x")


@pytest.mark.parametrize("option", [Option.INFO, Option.GO])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0",
        struct.pack(">I", 8) + b"vm1/roo",
        struct.pack(">I", 8) + b"vm1/root",
        struct.pack(">I", 8) + b"vm1/root\0",
        struct.pack(">I8sH", 8, b"vm1/root", 1),
        struct.pack(">I8sHH", 8, b"vm1/root", 0, 1),
        struct.pack(">I8sHHH", 8, b"vm1/root", 1, 1, 1),
        struct.pack(">I8sH", 8, b"vm1/root", 65535),
        struct.pack(">I", 0xFFFFFFFF) + b"vm1/root\0\0",
        struct.pack(">I2sH", 2, b"\xff\xff", 0),
        struct.pack(">I2sH", 2, b"a\0", 0),
    ],
)
def test_malformed_info_and_go(option: Option, body: bytes) -> None:
    handshake = opened()
    assert error_of(handshake, option, body) == OptionReply.ERR_INVALID
    assert ask(handshake, Option.GO, encode_info_body("vm1/root"))[-1][1] == OptionReply.ACK


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("vm9/x", OptionReply.ERR_UNKNOWN, "no volume vm9/x"),
        ("remote", OptionReply.ERR_POLICY, "remote is a secondary; connect to site a"),
        ("usage", OptionReply.ERR_INVALID, "not a name"),
        ("closing", OptionReply.ERR_SHUTDOWN, "the site stops"),
        ("", OptionReply.ERR_UNKNOWN, "no default export among 3; give the name of the export in the URI"),
    ],
)
def test_refusals_carry_the_operators_words(name: str, kind: OptionReply, text: str) -> None:
    handshake = opened()
    expected = reply(Option.GO, kind, text.encode())
    assert handshake.receive(encode_option(Option.GO, encode_info_body(name))) == expected
    assert handshake.state is HandshakeState.OPTIONS


def test_the_only_export_is_the_default() -> None:
    handshake = ServerHandshake(Volumes("vm1/root"))
    handshake.receive(FIXED + encode_option(Option.GO, encode_info_body("", (InfoType.NAME,))))
    assert handshake.result is not None
    assert handshake.result.export.name == "vm1/root"


@pytest.mark.parametrize("option", [0, Option.PEEK_EXPORT, Option.EXTENDED_HEADERS, 12, 0xFFFFFFFF])
def test_unknown_options_are_unsupported(option: int) -> None:
    for body in (b"", b"some data", bytes(NBD_OPTION_BYTES_MAX + 1)):
        assert error_of(opened(), option, body) == OptionReply.ERR_UNSUP


def test_structured_reply_takes_no_data() -> None:
    assert error_of(opened(), Option.STRUCTURED_REPLY, b"x") == OptionReply.ERR_INVALID
    assert opened().receive(encode_option(Option.STRUCTURED_REPLY)) == reply(8, 1)


@pytest.mark.parametrize("option", [Option.LIST, Option.GO, Option.ABORT, 99])
def test_without_fixed_newstyle_only_export_name_is_valid(option: int) -> None:
    with pytest.raises(RemoteProtocolError):
        opened(flags=bytes(4)).receive(encode_option(option))


def test_wrong_option_magic() -> None:
    handshake = opened()
    with pytest.raises(RemoteProtocolError):
        handshake.receive(b"IHAVEOPS" + bytes(8))
    assert handshake.state is HandshakeState.FAILED


def test_an_option_too_long_to_keep_is_skipped_and_answered() -> None:
    handshake = opened()
    data = encode_option(Option.GO, bytes(SKIP_BYTES_MAX))
    for at in range(0, len(data) - 1, 65536):
        assert handshake.receive(data[at : min(at + 65536, len(data) - 1)]) == b""
        assert handshake.buffered_bytes <= NBD_OPTION_BYTES_MAX
    [(option, kind, _)] = replies(handshake.receive(data[-1:]))
    assert (option, kind) == (Option.GO, OptionReply.ERR_TOO_BIG)
    ask(handshake, Option.GO, encode_info_body("vm1/root"))
    assert handshake.result is not None


@pytest.mark.parametrize("length", [SKIP_BYTES_MAX + 1, 0xFFFFFFFF])
def test_an_option_of_4_gib_ends_the_connection_at_its_header(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        opened().receive(struct.pack(">QII", 0x49484156454F5054, Option.GO, length))


def test_a_flood_of_options_is_cut_off_before_its_replies_fill_memory() -> None:
    handshake = ServerHandshake(Volumes(*(f"group/volume-{number:04}" for number in range(1000))))
    handshake.receive(FIXED)
    with pytest.raises(RemoteProtocolError):
        handshake.receive(encode_option(Option.LIST) * (1 << 16))
    assert handshake.buffered_bytes == 0


def test_a_flood_of_options_is_cut_off_before_its_answers_take_the_loop() -> None:
    """Each costs a look-up, and is answered in a few bytes."""
    asked = 0

    class Counting(Volumes):
        def names(self) -> list[str]:
            nonlocal asked
            asked += 1
            return []

    handshake = ServerHandshake(Counting())
    handshake.receive(FIXED)
    with pytest.raises(RemoteProtocolError):
        handshake.receive(encode_option(Option.LIST) * (1 << 14))
    assert asked <= NBD_OPTIONS_AT_ONCE_MAX + 1


def test_a_truncated_option_waits() -> None:
    handshake = opened()
    data = encode_option(Option.GO, encode_info_body("vm1/root"))
    assert handshake.receive(data[:-1]) == b""
    assert handshake.state is HandshakeState.OPTIONS
    assert len(replies(handshake.receive(data[-1:]))) == 2
