"""A connection by a site's own key that the site knows nothing of: what whoever stole the key can say, or a
site that is not what it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import lmdb
import zmq

from protocol.messages import Message, decode_message
from protocol.rows import unpack_row
from tests.support.sites import Site

ANSWER_MS = 5_000


def group_id(site: Site, name: str) -> str:
    """Of a group, as the site has it on disk."""
    with lmdb.open(
        str(site.directory / "state.mdb"), subdir=False, readonly=True, lock=False, max_dbs=20
    ) as state:
        groups = state.open_db(b"groups", create=False)
        with state.begin(groups) as transaction:
            row = transaction.get(name.encode())
            assert row is not None
            return str(unpack_row(row)[0])


@contextlib.contextmanager
def connection(
    own: Site, target: Site, *, queued: int = 1_000, unread: int = 1_000, again: bool = True
) -> Iterator[zmq.Socket[bytes]]:
    """By the key of `own`, to `target`; `queued` and `unread` messages wait here at most. If it is lost,
    another is made `again`."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.sndhwm = queued
        dealer.rcvhwm = unread
        if not again:
            dealer.reconnect_ivl = -1
        dealer.curve_publickey = (own.directory / "keys" / "public").read_bytes()
        dealer.curve_secretkey = (own.directory / "keys" / "secret").read_bytes()
        dealer.curve_serverkey = (target.directory / "keys" / "public").read_bytes()
        dealer.connect(f"tcp://127.0.0.1:{target.replication_port}")
        yield dealer


def answer(dealer: zmq.Socket[bytes]) -> Message | None:
    """The next one; None if none came in time."""
    return decode_message(dealer.recv_multipart()[0]) if dealer.poll(ANSWER_MS) else None
