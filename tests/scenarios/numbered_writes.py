"""A host that writes numbered blocks one after another, and the oracle that replays them.

Write number n goes to one of the volumes and names itself in every 16 bytes of its block, so the newest
number in an image says up to which write it must hold everything, and not one write more. That makes a backup
taken in the middle of writes checkable byte for byte.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path
from struct import Struct

from console.demo.host import Host
from tests.support.sites import Site

BLOCK_BYTES = 4096
_STAMP = Struct(">QQ")


class NumberedWriter:
    """Writes to `volumes` of `site` in turn, at random blocks, from a thread while the `with` body runs."""

    def __init__(self, site: Site, volumes: Sequence[str], blocks: int, *, seed: int) -> None:
        self.volumes = list(volumes)
        self.blocks = blocks
        self.acknowledged = 0
        self.sent = 0
        self._socket = site.nbd_socket
        self._rng = random.Random(seed)
        self._targets: list[tuple[str, int]] = []  # of write number i + 1
        self._stop = threading.Event()
        self._moved = threading.Condition()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def __enter__(self) -> NumberedWriter:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60)
        if self._failure is not None:
            raise AssertionError(f"a write failed: {self._failure}") from self._failure

    def wait_for(self, count: int) -> None:
        """Until `count` more writes are acknowledged."""
        with self._moved:
            target = self.acknowledged + count
            moved = self._moved.wait_for(lambda: self.acknowledged >= target or self._failure, 60)
        assert moved, f"stuck at write {self.acknowledged}"
        assert self._failure is None, f"a write failed: {self._failure}"

    def _run(self) -> None:
        try:
            hosts = [(name, Host(self._socket, name)) for name in self.volumes]
            try:
                while not self._stop.is_set():
                    self._write_next(*hosts[self.sent % len(hosts)])
            finally:
                for _, host in hosts:
                    host.close()
        except Exception as error:
            with self._moved:
                self._failure = error
                self._moved.notify_all()

    def _write_next(self, name: str, host: Host) -> None:
        block = self._rng.randrange(self.blocks)
        self._targets.append((name, block))
        self.sent += 1
        host.write(block * BLOCK_BYTES, content(block, self.sent))
        with self._moved:
            self.acknowledged = self.sent
            self._moved.notify_all()

    def image(self, volume: str, number: int) -> bytes:
        """The oracle: a volume after write `number`, of all volumes' writes."""
        image = bytearray(self.blocks * BLOCK_BYTES)
        for at, (name, block) in enumerate(self._targets[:number], 1):
            if name == volume:
                image[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = content(block, at)
        return bytes(image)


def content(block: int, number: int) -> bytes:
    """A block's bytes: the pair (block, number) over and over."""
    return _STAMP.pack(block, number) * (BLOCK_BYTES // _STAMP.size)


def newest_number(*images: Path) -> int:
    """The newest write that any of the images holds."""
    newest = 0
    for path in images:
        data = path.read_bytes()
        newest = max(newest, *(_STAMP.unpack_from(data, at)[1] for at in range(0, len(data), BLOCK_BYTES)))
    return newest
