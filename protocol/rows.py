"""Small msgpack arrays for what is stored or sent beside frames: index rows, indexer messages, site messages.

Scalars and nested arrays only; no maps, no extension types, bounded in size. A reader checks the shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import msgspec

from protocol.errors import RemoteProtocolError
from protocol.limits import MESSAGE_HEADER_BYTES_MAX, TIMELINES_MAX
from protocol.wire import encode_plain


def pack_row(row: Sequence[object] | msgspec.Struct) -> bytes:
    """One array, or what is declared as one, as bytes."""
    return encode_plain(row)


def unpack_row(data: bytes | memoryview, limit_bytes: int = MESSAGE_HEADER_BYTES_MAX) -> tuple[Any, ...]:
    """The array in `data`, nested arrays as tuples. RemoteProtocolError if it is anything else."""
    if len(data) > limit_bytes:
        raise RemoteProtocolError(f"a row of {len(data)} bytes is over its limit of {limit_bytes}")
    try:
        row = msgpack.unpackb(
            data,
            use_list=False,
            raw=False,
            max_array_len=TIMELINES_MAX,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise RemoteProtocolError(f"a row does not decode: {error}") from error
    if type(row) is not tuple:
        raise RemoteProtocolError("a row must be an array")
    return row


def check_row(row: tuple[Any, ...], *types: type) -> tuple[Any, ...]:
    """The row if it has exactly these types in order; RemoteProtocolError otherwise."""
    if (
        type(row) is not tuple
        or len(row) != len(types)
        or any(type(v) is not t for v, t in zip(row, types, strict=True))
    ):
        raise RemoteProtocolError("a row has the wrong fields")
    return row
