"""A site's daemon that writes down what it is sent and what it answers, peer by peer, before it is encrypted.

python -m tests.golden.tap site run DIR     appends rows to DIR.tap: (from the peer, header, payload or nil)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from daemon.__main__ import main
from engine.ports.zmq_transport import _Caller
from protocol.rows import pack_row
from site_secondary.peer_door import PeerDoor


def tap(path: Path) -> None:
    """Have both directions written to a file."""
    file = path.open("ab", buffering=0)
    hear, say = PeerDoor.on_message, _Caller.send

    def on_message(door: PeerDoor, caller: Any, header: bytes, payload: bytes | None) -> None:
        file.write(pack_row((True, header, payload)))
        hear(door, caller, header, payload)

    def send(caller: _Caller, header: bytes, payload: Any = None) -> None:
        file.write(pack_row((False, header, None if payload is None else bytes(payload))))
        say(caller, header, payload)

    PeerDoor.on_message = on_message  # type: ignore[method-assign, assignment]
    _Caller.send = send  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    tap(Path(sys.argv[3] + ".tap"))
    sys.exit(main(["run", sys.argv[3]]))
