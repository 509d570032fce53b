"""Reading a file that a person may have written, whatever stands in its place."""

from __future__ import annotations

import errno
import os
import pathlib
import stat

SETTINGS_BYTES_MAX = 16 << 20


def read_settings(path: pathlib.Path) -> bytes:
    """A file that a person may have written. OSError for what is none (a pipe would be waited for), or too
    large to be one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        code = 0
        if not stat.S_ISREG(status.st_mode):
            code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        elif status.st_size > SETTINGS_BYTES_MAX:
            code = errno.EFBIG
        if code:
            raise OSError(code, os.strerror(code), str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)
