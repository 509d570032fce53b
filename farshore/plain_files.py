"""Reading a file that a person may have put there, whatever stands in its place. Standard library only.

Settings, keys and certificates are read by name. A pipe would be waited for, a device read for ever; both are
refused as what they are.
"""

from __future__ import annotations

import errno
import os
import pathlib
import stat

PLAIN_BYTES_MAX = 16 << 20
CHUNK_BYTES = 64 << 10


def read_plain(path: pathlib.Path, most: int = PLAIN_BYTES_MAX) -> bytes:
    """All of a file. OSError for what is none, or has more bytes than such a file can have."""
    descriptor = _open_plain(path)
    data = bytearray()
    try:
        while len(data) <= most and (part := os.read(descriptor, CHUNK_BYTES)):
            data += part
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return bytes(data)


def require_plain(path: pathlib.Path) -> None:
    """OSError unless it is a file that can be read, for a library that opens it by itself."""
    os.close(_open_plain(path))


def _open_plain(path: pathlib.Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, "it is no file" if code == errno.EINVAL else os.strerror(code), str(path))
