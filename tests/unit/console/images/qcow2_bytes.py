"""The start of a qcow2, byte by byte, as nobody's program would write it."""

from __future__ import annotations

import struct

BACKING_FORMAT, DATA_FILE = 0xE2792ACA, 0x44415441
EXTERNAL_DATA_FILE = 1 << 2


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def qcow2(
    backing: bytes = b"",
    backing_format: bytes = b"",
    *,
    data_file: bytes = b"",
    features: int = 0,
    encryption: int = 0,
    version: int = 3,
) -> bytes:
    """Header and extensions, then the name; the rest of a first cluster of 512 bytes is zeroes."""
    extensions = extension(BACKING_FORMAT, backing_format) if backing_format else b""
    extensions += extension(DATA_FILE, data_file) if data_file else b""
    extensions += extension(0, b"")
    header_bytes = 104 if version == 3 else 72
    name_at = header_bytes + len(extensions) if backing else 0
    header = struct.pack(">4sIQIIQI", b"QFI\xfb", version, name_at, len(backing), 9, 1 << 20, encryption)
    header = header.ljust(72, b"\0")
    if version == 3:
        header += struct.pack(">Q", features).ljust(28, b"\0") + struct.pack(">I", header_bytes)
    return (header + extensions + backing).ljust(512, b"\0")
