"""The child that answers scrapes: `launch.py daemon.metrics.server HOST:PORT`.

For a scrape it writes a line to standard output, and a snapshot comes as a line of JSON; scrapes that come
within `FRESH_S` share one. Few are answered at a time, and none may take long. At the end of its input it
ends.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from daemon.metrics.exposition import metrics_of
from daemon.metrics.snapshot_rows import Snapshot, decode_snapshot
from engine.ports.clock import monotonic_s

FRESH_S = 1.0
ANSWER_S = 10.0
SCRAPES_MAX = 8


class Snapshots:
    """Asks the daemon."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._came = threading.Condition()
        self._newest: Snapshot | None = None
        self._number = 0
        self._at_s = float("-inf")

    def read(self) -> None:
        """Take what comes, until the daemon has gone."""
        for line in sys.stdin.buffer:
            snapshot = decode_snapshot(line)
            with self._came:
                self._newest, self._at_s = snapshot, monotonic_s()
                self._number += 1
                self._came.notify_all()
        os._exit(0)

    def fresh(self) -> Snapshot | None:
        """One of now; None if the daemon does not answer."""
        with self._asking, self._came:
            if self._newest is not None and monotonic_s() - self._at_s < FRESH_S:
                return self._newest
            before = self._number
            sys.stdout.buffer.write(b"scrape\n")
            sys.stdout.buffer.flush()
            came = self._came.wait_for(lambda: self._number != before, ANSWER_S)
            return self._newest if came else None


class _Collected(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        return metrics_of(self._snapshot)


class Server(ThreadingHTTPServer):
    """At most `SCRAPES_MAX` at a time; more are hung up on."""

    daemon_threads = True

    def __init__(self, host: str, port: int, snapshots: Snapshots) -> None:
        self.snapshots = snapshots
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(SCRAPES_MAX)
        super().__init__((host, port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """See `ThreadingMixIn`."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See `ThreadingMixIn`."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class Handler(BaseHTTPRequestHandler):
    """GET /metrics."""

    timeout = ANSWER_S
    server: Server

    def do_GET(self) -> None:
        """A scrape."""
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, "text/plain", b"/metrics\n")
            return
        snapshot = self.server.snapshots.fresh()
        if snapshot is None:
            self._answer(503, "text/plain", b"the daemon does not answer\n")
            return
        registry = CollectorRegistry()
        registry.register(_Collected(snapshot))
        self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


def main() -> None:
    """Until standard input ends."""
    host, _, port = sys.argv[1].rpartition(":")
    snapshots = Snapshots()
    server = Server(host.strip("[]"), int(port), snapshots)
    threading.Thread(target=snapshots.read, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
