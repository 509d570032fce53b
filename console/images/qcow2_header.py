"""Which other files a qcow2 names, from its first cluster. Pure.

The start of the file, big-endian (QEMU's docs/interop/qcow2.txt):

    0    4  magic  Q F I 0xfb
    4    4  version, 2 or 3
    8    8  where the backing file's name is, 0 if there is none
   16    4  that name's length, at most 1023
   20    4  cluster_bits, 9 to 21: a cluster has 1 << cluster_bits bytes
   24    8  bytes of the disk
   32    4  encryption, 0 is none
   72    8  version 3: incompatible features; bit 2: the content is in an external data file
  100    4  version 3: the header's length, at least 104. Version 2 has 72 bytes

Then header extensions of (type 4, length 4, data padded to 8 bytes), up to type 0 or to the backing file's
name, or to the end of the first cluster if there is none. Names are not terminated.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from protocol.errors import FarshoreError

FIRST_CLUSTER_BYTES_MAX = 1 << 21

_MAGIC = b"QFI\xfb"
_NAME_BYTES_MAX = 1023
_VERSION_2_BYTES, _VERSION_3_BYTES_MIN = 72, 104
_EXTERNAL_DATA_FILE = 1 << 2
_EXTENSION_END = 0
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE = 0x44415441


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Header:
    """`backing_name` is empty if it stands for itself, `backing_format` if it does not say. `data_name` is
    that of the external data file if `external_data`; it may be missing."""

    backing_name: str
    backing_format: str
    external_data: bool
    data_name: str
    encrypted: bool
    size_bytes: int


def parse_header(data: bytes) -> Qcow2Header:
    """From the first `FIRST_CLUSTER_BYTES_MAX` of a file, or all of a shorter one. FarshoreError."""
    if len(data) < _VERSION_2_BYTES or data[:4] != _MAGIC:
        raise FarshoreError("it does not begin as one")
    version, name_at, name_bytes, cluster_bits = struct.unpack_from(">IQII", data, 4)
    if version not in {2, 3} or not 9 <= cluster_bits <= 21:
        raise FarshoreError(f"version {version} with clusters of {cluster_bits} bits is not known")
    cluster = data[: 1 << cluster_bits]
    size_bytes, encryption = struct.unpack_from(">QI", cluster, 24)
    features, header_bytes = 0, _VERSION_2_BYTES
    if version == 3:
        if len(cluster) < _VERSION_3_BYTES_MIN:
            raise FarshoreError("it ends within its header")
        (features,) = struct.unpack_from(">Q", cluster, 72)
        (header_bytes,) = struct.unpack_from(">I", cluster, 100)
        if header_bytes < _VERSION_3_BYTES_MIN:
            raise FarshoreError(f"its header has {header_bytes} bytes")
    if name_at and (name_bytes > _NAME_BYTES_MAX or name_at + name_bytes > len(cluster)):
        raise FarshoreError("the name of its backing file is outside of its first cluster")
    extensions = _extensions(cluster[: name_at or len(cluster)], header_bytes)
    return Qcow2Header(
        backing_name=_text(cluster[name_at : name_at + name_bytes]) if name_at else "",
        backing_format=extensions.get(_EXTENSION_BACKING_FORMAT, ""),
        external_data=bool(features & _EXTERNAL_DATA_FILE),
        data_name=extensions.get(_EXTENSION_DATA_FILE, ""),
        encrypted=encryption != 0,
        size_bytes=size_bytes,
    )


def _extensions(area: bytes, at: int) -> dict[int, str]:
    found: dict[int, str] = {}
    while at + 8 <= len(area):
        kind, length = struct.unpack_from(">II", area, at)
        at += 8
        if kind == _EXTENSION_END:
            break
        if length > len(area) - at:
            raise FarshoreError("one of its header extensions is too long")
        if kind in {_EXTENSION_BACKING_FORMAT, _EXTENSION_DATA_FILE}:
            found[kind] = _text(area[at : at + length])
        at += -(-length // 8) * 8
    return found


def _text(name: bytes) -> str:
    """Up to a NUL, where QEMU's strings end."""
    return os.fsdecode(name.partition(b"\0")[0])
