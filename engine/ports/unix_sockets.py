"""Unix sockets that a server listens on: a path that a killed run left taken, and who may connect.

The mode is set between bind() and listen(): until then every connection is refused, so nobody comes in under
another mode. The umask stays as it is. It is the whole process's, and other threads make files.
"""

from __future__ import annotations

import os
import socket
import stat


def remove_dead_socket(path: str) -> bool:
    """Remove a socket that nobody listens on. False if somebody does. What is no socket stays, and has
    `bound_socket` fail. OSError if it cannot be told or removed."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return True
        with socket.socket(socket.AF_UNIX) as probe:
            # A server whose backlog is full is alive, and must not be waited for.
            probe.setblocking(False)
            probe.connect(path)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    except ConnectionRefusedError:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        return True
    return False


def bound_socket(path: str, mode: int) -> socket.socket:
    """A socket at a path, with that mode, which does not listen yet. OSError (EADDRINUSE) if anything is
    there."""
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(path)
        os.chmod(path, mode)
    except OSError:
        bound.close()
        raise
    return bound
