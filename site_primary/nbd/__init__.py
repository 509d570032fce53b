"""Hosts' connections: NBD sockets, requests and replies, and what one host may take of the daemon.

`listener` accepts, `server` counts the connections and moves the handshake's bytes, `connection` serves one
host: `stream` is its receiving half, `answers` says when what is acknowledged, `large_requests` takes and
answers piece by piece what is too large to hold, `block_status` tells what holds data or changed. `exports`
is what a host is connected to. `host_budget` and `log_budget` bound what all hosts together may take.

The protocol itself is in `protocol/nbd`; what a write becomes is `site_primary/write_path.py`'s to know.
"""
