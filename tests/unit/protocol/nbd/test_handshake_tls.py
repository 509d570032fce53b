"""STARTTLS: what it drops, what it forgets, and what comes before it."""

from __future__ import annotations

import pytest

from protocol.errors import (
    LocalProtocolError,
    NotAllowed,
)
from protocol.limits import NBD_OPTION_BYTES_MAX
from protocol.nbd.client import encode_info_body, encode_meta_body, encode_option
from protocol.nbd.constants import BASE_ALLOCATION, Option, OptionReply
from protocol.nbd.handshake import (
    ServerHandshake,
)
from tests.unit.protocol.nbd.handshake_talk import (
    Volumes,
    ask,
    error_of,
    opened,
    reply,
)


def test_starttls_unavailable() -> None:
    assert error_of(opened(), Option.STARTTLS) == OptionReply.ERR_UNSUP
    with pytest.raises(LocalProtocolError):
        ServerHandshake(Volumes(), tls_required=True)
    with pytest.raises(LocalProtocolError):
        opened().tls_started()


def test_starttls_drops_what_came_in_the_clear() -> None:
    handshake = opened(tls=True)
    ask(handshake, Option.STRUCTURED_REPLY)
    ask(handshake, Option.SET_META_CONTEXT, encode_meta_body("vm1/root", (BASE_ALLOCATION,)))
    injected = encode_option(Option.GO, encode_info_body("vm1/data"))
    assert handshake.receive(encode_option(Option.STARTTLS) + injected) == reply(5, 1)
    assert handshake.starttls_requested
    assert handshake.leftover == b""
    assert handshake.buffered_bytes == 0
    with pytest.raises(LocalProtocolError):
        handshake.receive(injected)
    handshake.tls_started()
    assert error_of(handshake, Option.STARTTLS) == OptionReply.ERR_INVALID
    ask(handshake, Option.GO, encode_info_body("vm1/root"))
    assert handshake.result is not None
    assert not handshake.result.structured_replies
    assert dict(handshake.result.meta_contexts) == {}


def test_starttls_takes_no_data() -> None:
    assert error_of(opened(tls=True), Option.STARTTLS, b"x") == OptionReply.ERR_INVALID


@pytest.mark.parametrize("option", [3, 6, 7, 8, 9, 10, 11, 77])
def test_required_tls_comes_before_everything(option: int) -> None:
    handshake = opened(tls=True, tls_required=True)
    for body in (b"", b"junk", bytes(NBD_OPTION_BYTES_MAX + 1)):
        assert error_of(handshake, option, body) == OptionReply.ERR_TLS_REQD
    handshake.receive(encode_option(Option.STARTTLS))
    handshake.tls_started()
    ask(handshake, Option.GO, encode_info_body("vm1/root"))
    assert handshake.result is not None


def test_required_tls_closes_on_export_name_and_allows_abort() -> None:
    handshake = opened(tls=True, tls_required=True)
    assert handshake.receive(encode_option(Option.EXPORT_NAME, b"vm1/root")) == b""
    assert isinstance(handshake.refusal, NotAllowed)
    handshake = opened(tls=True, tls_required=True)
    assert handshake.receive(encode_option(Option.ABORT)) == reply(2, 1)
