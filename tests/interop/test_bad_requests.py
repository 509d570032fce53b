"""What a host may not do: each gets one clear error, and neither its connection nor another host suffers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.clients import MIB, call, nbdsh, succeed
from tests.support.sites import Site

# libnbd checks a request before it sends it; strict mode 0 lets it pass, so that the server has to.
PRELUDE = """
    import errno
    h.set_strict_mode(0)

    def refused(call, *allowed):
        try:
            call()
        except nbd.Error as error:
            assert error.errnum in allowed, (error.errnum, error.string)
        else:
            raise SystemExit("was not refused")
"""

BEYOND_THE_END = """
    size = h.get_size()
    refused(lambda: h.pwrite(bytes(4096), size), errno.ENOSPC, errno.EINVAL)
    refused(lambda: h.pwrite(bytes(8192), size - 4096), errno.ENOSPC, errno.EINVAL)
    refused(lambda: h.pread(4096, size), errno.EINVAL)
    refused(lambda: h.pread(8192, size - 4096), errno.EINVAL)
    refused(lambda: h.zero(8192, size - 4096), errno.ENOSPC, errno.EINVAL)
    refused(lambda: h.trim(8192, size - 4096), errno.EINVAL, errno.ENOSPC)
    refused(lambda: h.pread(4096, 1 << 62), errno.EINVAL)
    h.pwrite(b"z" * 4096, size - 4096)
    assert h.pread(4096, size - 4096) == b"z" * 4096
    print("fine")
"""

ODD_BYTES = """
    import random
    rng = random.Random(17)
    oracle = bytearray(65536)
    for turn in range(500):
        length = rng.choice([1, 3, 100, 511, 513, 4095, 4097, 9000])
        offset = rng.randrange(0, len(oracle) - length + 1)
        data = rng.randbytes(length)
        try:
            h.pwrite(data, offset)
        except nbd.Error as error:
            assert error.errnum == errno.EINVAL, error.string
        else:
            oracle[offset:offset + length] = data
    assert h.pread(len(oracle), 0) == oracle
    print("fine")
"""

TOO_LARGE = """
    try:
        h.pread(33 << 20, 0)
    except nbd.Error:
        print("refused")
    else:
        print("served")
"""


def test_beyond_the_end(site: Site, tool: Callable[[str], str]) -> None:
    tool("nbdsh")
    uri = site.create_volume("g/v", "1M")
    assert nbdsh(uri, PRELUDE, BEYOND_THE_END) == "fine\n"


def test_less_than_a_sector_is_refused_or_exact(site: Site, tool: Callable[[str], str]) -> None:
    """Below the announced 512 bytes a server may refuse; what it takes must be written to the byte."""
    tool("nbdsh")
    uri = site.create_volume("g/v", "1M")
    assert nbdsh(uri, PRELUDE, ODD_BYTES) == "fine\n"


def test_larger_than_a_request_may_be(site: Site, tool: Callable[[str], str]) -> None:
    """33 MiB is past the 32 MiB that the export announces; the volume must stay served."""
    tool("nbdsh")
    uri = site.create_volume("g/v", "64M")
    assert nbdsh(uri, PRELUDE, TOO_LARGE) == "refused\n"
    assert nbdsh(uri, f"assert h.get_size() == {64 * MIB}; print('served')") == "served\n"


@pytest.mark.parametrize("export", ["g/none", "none/v", "", "g", "../etc/passwd", "g/v@none", "x" * 4000])
def test_an_unknown_export_is_refused(site: Site, tool: Callable[[str], str], export: str) -> None:
    uri = site.create_volume("g/v", "1M")
    site.create_volume("g/w", "1M")
    wrong = f"nbd+unix:///{export}?socket={site.nbd_socket}"
    result = call(tool("nbdinfo"), wrong)
    assert result.returncode != 0
    assert result.stderr.strip()
    assert nbdsh(uri, "print(h.get_size())") == f"{MIB}\n"


def test_no_name_means_the_only_volume(site: Site, tool: Callable[[str], str]) -> None:
    """With one volume there is no choice; with two (see above) no name is refused."""
    site.create_volume("g/v", "1M")
    assert succeed(tool("nbdinfo"), "--size", f"nbd+unix:///?socket={site.nbd_socket}") == f"{MIB}\n"


def test_the_past_is_read_only(site: Site, tool: Callable[[str], str]) -> None:
    """An export at a cut refuses every write with EPERM, also to a client that does not ask first."""
    tool("nbdsh")
    uri = site.create_volume("g/v", "1M")
    nbdsh(uri, "h.pwrite(b'1' * 4096, 0)")
    site.farshore("backup", "create", "g", "--label", "one")
    nbdsh(uri, "h.pwrite(b'2' * 4096, 0)")
    script = """
        assert h.is_read_only()
        refused(lambda: h.pwrite(bytes(4096), 0), errno.EPERM)
        refused(lambda: h.zero(4096, 0), errno.EPERM)
        refused(lambda: h.trim(4096, 0), errno.EPERM)
        assert h.pread(4096, 0) == b"1" * 4096
        print("fine")
    """
    assert nbdsh(site.uri("g/v@one"), PRELUDE, script) == "fine\n"


def test_garbage_does_not_disturb_another_host(site: Site, tool: Callable[[str], str]) -> None:
    """Bytes that are no NBD at all, while another host holds its connection."""
    tool("nbdsh")
    uri = site.create_volume("g/v", "1M")
    script = f"""
        import os, socket
        h.pwrite(b"a" * 4096, 0)
        for length in (1, 4, 16, 100, 5000):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect({str(site.nbd_socket)!r})
                stranger.settimeout(5)
                try:
                    stranger.sendall(os.urandom(length))
                    stranger.shutdown(socket.SHUT_WR)
                    while stranger.recv(4096):
                        pass
                except OSError:
                    pass
            assert h.pread(4096, 0) == b"a" * 4096
        print("fine")
    """
    assert nbdsh(uri, script) == "fine\n"
