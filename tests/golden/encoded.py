"""encoded.json: what every sample was as bytes, by kind and number."""

from __future__ import annotations

import json
from pathlib import Path

from engine.index.requests import encode_request
from protocol.base_messages import encode_parts
from protocol.rows import pack_row
from tests.golden.engine_samples import REQUESTS, control_messages, frames, index_rows, state_rows
from tests.golden.samples import (
    BASES,
    DATA_ROWS,
    MESSAGES,
    PEER_REQUESTS,
    RECORD_ROWS,
    RECORDS,
    TIMELINE_ROWS,
)

HERE = Path(__file__).parent
FILE = HERE / "encoded.json"


def encoded() -> dict[str, list[bytes]]:
    """Every sample as this version encodes it."""
    return {
        "events": [pack_row(row) for row in (*(record.to_row() for record in RECORDS), *DATA_ROWS)],
        "messages": [message.encode() for message in (*MESSAGES, *BASES, *PEER_REQUESTS)],
        "base parts": encode_parts(TIMELINE_ROWS, RECORD_ROWS),
        "index requests": [encode_request(request) for request in REQUESTS],
        "control": list(control_messages()),
        "frames": list(frames()),
        "state rows": list(state_rows()),
        "index rows": list(index_rows()),
    }


def load() -> dict[str, list[bytes]]:
    """What they were."""
    kept = json.loads(FILE.read_text(encoding="ascii"))
    return {kind: [bytes.fromhex(text) for text in texts] for kind, texts in kept.items()}


def save() -> None:
    """Make the file anew: only where a format is added, never to make a test pass."""
    texts = {kind: [data.hex() for data in each] for kind, each in encoded().items()}
    FILE.write_text(json.dumps(texts, indent=1) + "\n", encoding="ascii")


if __name__ == "__main__":
    save()
