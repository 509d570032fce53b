"""Seeds as an import leaves them, below any directory."""

from __future__ import annotations

from pathlib import Path

from protocol.seed_limits import SEED_CHUNK_BYTES
from protocol.seeds import chunk_digest, digests_header


def plant_seed(data_directory: Path, group: str, volume: str, content: bytes) -> Path:
    """A seed that holds `content`; its image."""
    directory = data_directory / "seeds" / group
    directory.mkdir(parents=True, exist_ok=True)
    digests = [
        chunk_digest(content[at : at + SEED_CHUNK_BYTES]) for at in range(0, len(content), SEED_CHUNK_BYTES)
    ]
    (directory / f"{volume}.digests").write_bytes(digests_header(len(content)) + b"".join(digests))
    image = directory / f"{volume}.img"
    image.write_bytes(content)
    return image


def flip(image: Path, offset: int) -> None:
    """Let one bit of a file have rotted."""
    with image.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
