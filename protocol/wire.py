"""Rows with a declared type: what is decoded passes its bounds here, once, or is refused.

    class Ack(WireRow, frozen=True, kw_only=True, tag=4):       [4, session, timeline, written, durable]
        session: Session
        timeline: AnyTimeline
        ...

A row is a msgpack array: its kind, then the fields in order. A field of type `Cut` stands as two numbers,
timeline and position; `Cut | None` too, where timeline 0 is None, and `AnyCut`, where timeline 0 is allowed.
On the wire every field is there, also one that has a default in Python; but a kind with `omit_defaults` may
lack those at its end, and writes its row itself.

`RowType` is the same for rows without a kind and without names: those of the stores.

Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import reduce
from operator import or_
from typing import Annotated, Any, Generic, TypeVar, cast, get_type_hints

import msgspec
from msgspec import Meta

from protocol.bounds import AnyTimeline, Position, TimelineId
from protocol.errors import RemoteProtocolError
from protocol.limits import MESSAGE_HEADER_BYTES_MAX
from protocol.positions import NO_TIMELINE, Cut

T = TypeVar("T")
Row = tuple[Any, ...]
AnyCut = Annotated[Cut, Meta(title="timeline 0: none")]

# What decoding raises for a stranger's bytes: bad UTF-8 and deep nesting have their own errors.
_BAD_BYTES = (msgspec.MsgspecError, ValueError, RecursionError)
_ERROR_CHARS_MAX = 200
_CONVERT_BYTES_MAX = 64 << 20
_CUT_TIMELINES = {Cut: TimelineId, AnyCut: AnyTimeline, Cut | None: AnyTimeline}

encode_plain = msgspec.msgpack.Encoder().encode


class WireRow(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True, weakref=False
):
    """Base of every kind of row; the kind is the Struct's tag."""

    def encode(self) -> bytes:
        """As bytes."""
        return encode_plain(WireRow.to_row(self) if type(self) in _WITH_CUTS else self)

    def to_row(self) -> Row:
        """As a tuple of plain values, kind first."""
        row: list[object] = [self.__struct_config__.tag]
        for value in msgspec.structs.astuple(self):
            if value is None:
                row += (NO_TIMELINE, 0)
            elif isinstance(value, Cut):
                row += (value.timeline, value.position)
            else:
                row.append(int(value) if isinstance(value, IntEnum) else value)
        return tuple(row)


_WITH_CUTS: set[type] = set()


class WireDecoder(Generic[T]):
    """Decodes rows of the given kinds."""

    def __init__(self, *kinds: type[T]) -> None:
        forms: list[type] = []
        self._remake: dict[type, Callable[[Any], T]] = {}
        for kind in kinds:
            form, remake = _form_of(cast("type[WireRow]", kind))
            forms.append(form)
            if remake is not None:
                self._remake[form] = remake
        self._decode: Callable[[bytes | memoryview], Any] = msgspec.msgpack.Decoder(reduce(or_, forms)).decode

    def decode(self, data: bytes | memoryview, limit_bytes: int = MESSAGE_HEADER_BYTES_MAX) -> T:
        """The row in these bytes. RemoteProtocolError if it is none, or breaks a bound."""
        if len(data) > limit_bytes:
            raise RemoteProtocolError(f"a row of {len(data)} bytes is over its limit of {limit_bytes}")
        try:
            found: Any = self._decode(data)
            remake = self._remake.get(type(found))
            return found if remake is None else remake(found)
        except _BAD_BYTES as error:
            raise bad_row(error) from error

    def convert(self, row: Row) -> T:
        """The row in a tuple of plain values. RemoteProtocolError as `decode`."""
        return self.decode(_encoded(row), _CONVERT_BYTES_MAX)


class RowType(Generic[T]):
    """Decodes rows that are a tuple of declared types."""

    def __init__(self, kind: type[T]) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def decode(self, data: bytes | memoryview, limit_bytes: int = MESSAGE_HEADER_BYTES_MAX) -> T:
        """See `WireDecoder.decode`."""
        if len(data) > limit_bytes:
            raise RemoteProtocolError(f"a row of {len(data)} bytes is over its limit of {limit_bytes}")
        try:
            return self._decode(data)
        except _BAD_BYTES as error:
            raise bad_row(error) from error

    def convert(self, row: Row) -> T:
        """See `WireDecoder.convert`."""
        return self.decode(_encoded(row), _CONVERT_BYTES_MAX)


def _encoded(row: Row) -> bytes:
    """By way of bytes: `msgspec.convert` makes its plan anew for every call, and takes ten times as long."""
    try:
        return encode_plain(row)
    except (TypeError, OverflowError, ValueError, RecursionError) as error:
        raise bad_row(error) from error


def bad_row(error: Exception) -> RemoteProtocolError:
    """What a decoder's error is to whoever asked: short, whatever the bytes were."""
    return RemoteProtocolError(f"a row does not decode: {str(error)[:_ERROR_CHARS_MAX]}")


def _form_of(kind: type[WireRow]) -> tuple[type, Callable[[Any], Any] | None]:
    """The Struct that stands on the wire for a kind, and what makes the kind of it; None if it is the same
    one."""
    hints = get_type_hints(kind, include_extras=True)
    names = kind.__struct_fields__
    cuts = {name for name in names if hints[name] in _CUT_TIMELINES}
    if cuts:
        _WITH_CUTS.add(kind)
    if not cuts and (not kind.__struct_defaults__ or kind.__struct_config__.omit_defaults):
        return kind, None
    fields: list[tuple[str, Any]] = []
    for name in names:
        if name in cuts:
            fields += [(f"{name}_timeline", _CUT_TIMELINES[hints[name]]), (f"{name}_position", Position)]
        else:
            fields.append((name, hints[name]))
    form = msgspec.defstruct(
        kind.__name__,
        fields,
        tag=kind.__struct_config__.tag,
        array_like=True,
        forbid_unknown_fields=True,
        frozen=True,
    )

    def remake(found: Any) -> Any:
        values = {}
        for name in names:
            if name not in cuts:
                values[name] = getattr(found, name)
                continue
            cut = Cut(getattr(found, f"{name}_timeline"), getattr(found, f"{name}_position"))
            if cut.timeline == NO_TIMELINE and hints[name] != AnyCut:
                if cut.position:
                    raise ValueError(f"{name}: no timeline, but a position")
                values[name] = None
            else:
                values[name] = cut
        return kind(**values)

    return form, remake
