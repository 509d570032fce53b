"""A site that hosts reach over TLS."""

from __future__ import annotations

from tests.support.sites import Site, free_port


def with_tls(site: Site) -> int:
    """Give a site a door on TCP, while it runs, and certificates; the port."""
    path, port = site.directory / "site.toml", free_port()
    doors = f'nbd = ["unix:{site.nbd_socket}", "tcp:127.0.0.1:{port}"]\n'
    path.write_text(doors + path.read_text())
    site.stop()
    site.start()
    made = site.json("site", "cert", "init")
    assert (made["in_use"], made["plain"]) == (True, False)
    return port
