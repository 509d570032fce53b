"""Messages between sites of every declared kind, good ones and mutated ones, made from the types themselves.

A kind that is added to `protocol.messages.Message` is made here without a word more. Values come from a pool
of what means something at the site that is attacked, and from the bounds of each type and what lies past
them.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from enum import IntEnum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from protocol.base_messages import BaseDigests, BaseFrames, BaseHoled, BasePart
from protocol.compress import compress
from protocol.messages import Fetched, FrameMessage, Message
from protocol.peer_requests import BlockContents, Changed, Frames
from protocol.positions import Cut
from protocol.wire import AnyCut, WireRow

KINDS: tuple[type[WireRow], ...] = get_args(Message)
WITH_PAYLOAD = (
    FrameMessage,
    Fetched,
    BasePart,
    BaseFrames,
    BaseDigests,
    BaseHoled,
    BlockContents,
    Changed,
    Frames,
)
PAST = [-1, 0, 1, 2, 255, 1 << 16, (1 << 31) - 1, 1 << 32, 1 << 50, (1 << 62) - 1, 1 << 62, (1 << 63) - 1,
        1 << 63, (1 << 64) - 1, -(1 << 63)]  # fmt: skip
JUNK: list[Any] = [
    None, True, 1.5, float("nan"), "", "x" * 70, "\x1b]52;c;x\x07", "../../../x", "/etc/x", "g/.", "G",
    "é" * 300, "\U0001f600" * 200, b"", bytes(15), bytes(17), bytes(4096), (), ((),) * 50, (1, 2), {"a": 1},
    [[[[[]]]]],
]  # fmt: skip


@dataclass
class Pool:
    """What means something at the site: its numbers, words and payloads."""

    numbers: list[int] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=lambda: [bytes(16)])
    payloads: list[bytes] = field(default_factory=list)


class Mint:
    """Makes messages. `about` has the fields that a session or a question fixes."""

    def __init__(self, seed: int, pool: Pool) -> None:
        self.rng = random.Random(seed)
        self.pool = pool
        self._hints = {kind: get_type_hints(kind, include_extras=True) for kind in KINDS}

    def good(self, kind: type[WireRow], about: dict[str, Any]) -> list[Any]:
        """The row of a message whose every field is in bounds."""
        for _ in range(200):
            values = {
                name: about[name] if name in about else self._value(hint)
                for name, hint in self._hints[kind].items()
                if name in kind.__struct_fields__
            }
            try:
                return list(kind(**values).to_row())
            except ValueError:
                continue  # two fields that must fit each other
        raise AssertionError(f"no {kind.__name__} could be made")

    def _value(self, hint: Any) -> Any:
        rng, pool = self.rng, self.pool
        if hint in (Cut, AnyCut):
            return Cut(abs(rng.choice(pool.numbers)) or 1, abs(rng.choice(pool.numbers)) % (1 << 60))
        if hint == Cut | None:
            return rng.choice([None, self._value(Cut)])
        metas: list[msgspec.Meta] = []
        while get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            metas += [each for each in more if isinstance(each, msgspec.Meta)]
        origin, args = get_origin(hint), get_args(hint)
        if origin is Literal:
            return args[0]
        if origin in (Union, UnionType):
            return self._value(rng.choice(args))
        if origin is tuple:
            if args[-1] is Ellipsis:
                least = max([m.min_length for m in metas if m.min_length is not None] + [0])
                most = min([m.max_length for m in metas if m.max_length is not None] + [least + 3])
                return tuple(self._value(args[0]) for _ in range(rng.randint(least, most)))
            return tuple(self._value(each) for each in args)
        if isinstance(hint, type) and issubclass(hint, IntEnum):
            return rng.choice(list(hint))
        if hint is bool:
            return rng.random() < 0.5
        if hint in (int, float):
            return self._number(metas)
        if hint is bytes:
            return self._bytes(metas)
        if hint is str:
            return self._word(metas)
        raise AssertionError(f"no value for {hint}")

    def _number(self, metas: list[msgspec.Meta]) -> int:
        low = max([int(m.ge) for m in metas if m.ge is not None] or [-(1 << 63)])
        high = min(
            [int(m.le) for m in metas if m.le is not None]
            + [int(m.lt) - 1 for m in metas if m.lt is not None]
            or [(1 << 64) - 1]
        )
        step = max([int(m.multiple_of) for m in metas if m.multiple_of is not None] or [1])
        numbers = (each // step * step for each in (*self.pool.numbers, low, high, low + step))
        fitting = [each for each in numbers if low <= each <= high]
        return self.rng.choice(fitting)

    def _bytes(self, metas: list[msgspec.Meta]) -> bytes:
        least = max([m.min_length for m in metas if m.min_length is not None] or [0])
        most = min([m.max_length for m in metas if m.max_length is not None] or [16])
        fitting = [each for each in self.pool.digests if least <= len(each) <= most]
        return self.rng.choice([*fitting, bytes(least), bytes(self.rng.choices(range(3), k=most))])

    def _word(self, metas: list[msgspec.Meta]) -> str:
        patterns = [m.pattern for m in metas if m.pattern is not None]
        most = min([m.max_length for m in metas if m.max_length is not None] or [1 << 14])
        fitting = [
            each
            for each in self.pool.words
            if len(each) <= most and all(re.search(pattern, each) for pattern in patterns)
        ]
        return self.rng.choice(fitting)

    def mutated(self, kind: type[WireRow], about: dict[str, Any]) -> tuple[bytes, bytes | None]:
        """A message of a kind, changed once or a few times; some stay good, out of place."""
        rng = self.rng
        row: list[Any] = self.good(kind, about)
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            at = rng.randrange(1, len(row)) if len(row) > 1 else 0
            match rng.randrange(9):
                case 0 | 1:
                    row[at] = rng.choice(PAST)
                case 2:
                    row[at] = rng.choice(JUNK)
                case 3:
                    row[at] = rng.choice(self.pool.numbers)
                case 4:
                    row[at] = rng.choice(self.pool.words)
                case 5:
                    del row[at]
                case 6:
                    row.insert(at, rng.choice([*JUNK, *PAST]))
                case 7:
                    row[0] = rng.choice([*(each.__struct_config__.tag for each in KINDS), *PAST])
                case 8:
                    row[1:2] = [rng.choice([1, 0, (1 << 62) - 1])]  # another session
            if not row:
                row = [0]
        header = bytearray(msgspec.msgpack.encode(row))
        if rng.random() < 0.1:
            del header[rng.randrange(len(header)) :]
        if rng.random() < 0.1 and header:
            header[rng.randrange(len(header))] ^= 1 << rng.randrange(8)
        return bytes(header), self._payload(kind)

    def _payload(self, kind: type[WireRow]) -> bytes | None:
        rng = self.rng
        if issubclass(kind, WITH_PAYLOAD) is (rng.random() < 0.1):
            return None
        raw = bytearray(rng.choice(self.pool.payloads))
        match rng.randrange(8):
            case 0:
                del raw[rng.randrange(len(raw) + 1) :]
            case 1 if raw:
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            case 2:
                raw += bytes(raw)
            case 3:
                return compress(bytes(raw)) or bytes(raw)
            case 4:
                return rng.randbytes(rng.choice([0, 1, 50, 5000]))
        return bytes(raw)
