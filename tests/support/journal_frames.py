"""A frame put into a stopped site's journal from outside, as another version of the program would have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from protocol.events import Row
from protocol.frames import MAGIC, FramePrefix, encode_frame, parse_prefix
from protocol.positions import Cut
from tests.support.sites import Site


def last_frame(site: Site, group: str) -> tuple[Path, int, FramePrefix]:
    """The file that a group's newest frame is in, where in it the frame ends, and its prefix."""
    found: list[tuple[int, Path, int, FramePrefix]] = []
    for path in (site.directory / "groups" / group / "journal").glob("*/*.seg"):
        data, at, prefix = path.read_bytes(), 0, None
        while data[at : at + len(MAGIC)] == MAGIC:
            prefix = parse_prefix(data, at)
            at += prefix.frame_bytes
        if prefix is not None:
            found.append((prefix.utc_ns, path, at, prefix))
    _, path, at, prefix = max(found, key=lambda each: (each[0], each[3].position))
    return path, at, prefix


def append_frame(site: Site, group: str, rows: Sequence[Row], payload: bytes = b"") -> Cut:
    """Whatever rows, as the frame that comes next, past every check; where it stands. The site must not
    run."""
    path, at, last = last_frame(site, group)
    frame = encode_frame(
        timeline=last.timeline,
        position=last.end,
        utc_ns=last.utc_ns + 1,
        durable=last.end,
        previous_digest=last.digest,
        rows=rows,
        payload=[payload] if payload else [],
        payload_bytes=len(payload),
    )
    with path.open("r+b") as file:
        file.seek(at)
        file.write(frame.raw)
    return Cut(last.timeline, last.end)
