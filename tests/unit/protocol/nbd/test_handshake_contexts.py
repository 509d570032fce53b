"""Metadata contexts: listing, selecting, and when a selection counts."""

from __future__ import annotations

import struct

import pytest

from protocol.nbd.client import encode_info_body, encode_meta_body
from protocol.nbd.constants import BASE_ALLOCATION, Option, OptionReply
from tests.unit.protocol.nbd.handshake_talk import (
    ask,
    error_of,
    opened,
)


@pytest.mark.parametrize("option", [Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT])
def test_contexts_need_structured_replies_first(option: Option) -> None:
    assert error_of(opened(), option, encode_meta_body("vm1/root")) == OptionReply.ERR_INVALID


@pytest.mark.parametrize(
    ("queries", "listed", "selected"),
    [
        ((), ["base:allocation", "farshore:changed-since/"], []),
        (("base:",), ["base:allocation"], []),
        (("farshore:",), ["farshore:changed-since/"], []),
        (("base:allocation",), ["base:allocation"], ["base:allocation"]),
        (("base:alloc", "base:allocation2", "x-other:y", "nocolon", ""), [], []),
        (("farshore:changed-since/",), [], []),
        (("base:allocation", "base:allocation"), ["base:allocation"], ["base:allocation"]),
        (
            ("farshore:changed-since/c1", "base:allocation"),
            ["farshore:changed-since/c1", "base:allocation"],
            ["farshore:changed-since/c1", "base:allocation"],
        ),
    ],
)
def test_contexts(queries: tuple[str, ...], listed: list[str], selected: list[str]) -> None:
    handshake = opened()
    ask(handshake, Option.STRUCTURED_REPLY)
    body = encode_meta_body("vm1/root", queries)
    expected = [(9, 4, struct.pack(">I", 0) + name.encode()) for name in listed]
    assert ask(handshake, Option.LIST_META_CONTEXT, body) == [*expected, (9, 1, b"")]
    expected = [(10, 4, struct.pack(">I", n) + name.encode()) for n, name in enumerate(selected, 1)]
    assert ask(handshake, Option.SET_META_CONTEXT, body) == [*expected, (10, 1, b"")]
    ask(handshake, Option.GO, encode_info_body("vm1/root"))
    assert handshake.result is not None
    assert dict(handshake.result.meta_contexts) == dict(enumerate(selected, 1))


def test_contexts_of_another_export_do_not_count() -> None:
    handshake = opened()
    ask(handshake, Option.STRUCTURED_REPLY)
    ask(handshake, Option.SET_META_CONTEXT, encode_meta_body("vm1/root", (BASE_ALLOCATION,)))
    ask(handshake, Option.GO, encode_info_body("vm1/data"))
    assert handshake.result is not None
    assert dict(handshake.result.meta_contexts) == {}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (encode_meta_body("vm1/root", ("farshore:changed-since/gone",)), OptionReply.ERR_POLICY),
        (encode_meta_body("vm9/x", (BASE_ALLOCATION,)), OptionReply.ERR_UNKNOWN),
        (encode_meta_body("vm1/root", (BASE_ALLOCATION,))[:-1], OptionReply.ERR_INVALID),
        (encode_meta_body("vm1/root", (BASE_ALLOCATION,)) + b"x", OptionReply.ERR_INVALID),
        (struct.pack(">I8sI", 8, b"vm1/root", 0xFFFFFFFF), OptionReply.ERR_INVALID),
        (struct.pack(">I8sII", 8, b"vm1/root", 1, 0xFFFFFFFF), OptionReply.ERR_INVALID),
        (
            encode_meta_body("vm1/root", tuple(f"farshore:changed-since/{n}" for n in range(17))),
            OptionReply.ERR_TOO_BIG,
        ),
    ],
)
def test_setting_contexts_that_fails_leaves_none(body: bytes, kind: OptionReply) -> None:
    handshake = opened()
    ask(handshake, Option.STRUCTURED_REPLY)
    ask(handshake, Option.SET_META_CONTEXT, encode_meta_body("vm1/root", (BASE_ALLOCATION,)))
    assert error_of(handshake, Option.SET_META_CONTEXT, body) == kind
    ask(handshake, Option.GO, encode_info_body("vm1/root"))
    assert handshake.result is not None
    assert dict(handshake.result.meta_contexts) == {}
