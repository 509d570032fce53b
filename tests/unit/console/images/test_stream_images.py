"""A pipe as an image: all of it, no more, and nothing that comes twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from console.images.image import content_of, pieces_of
from console.images.stream_images import StreamImage
from protocol.errors import FarshoreError

CONTENT = os.urandom(3 << 20)[:-1000]


@contextmanager
def piped(content: bytes) -> Iterator[int]:
    """The end of a pipe to read from; in pieces, as pipes come."""
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            try:
                for at in range(0, len(content), 50_000):
                    pipe.write(content[at : at + 50_000])
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join()


def test_c49_a_pipe_is_read_as_it_comes() -> None:
    with piped(CONTENT) as pipe:
        image = StreamImage(pipe, len(CONTENT), "pipe")
        assert image.head(512) == CONTENT[:512]
        assert b"".join(data for _, data in image.read(pieces_of(image.data_ranges()))) == CONTENT


@pytest.mark.parametrize(("more", "said"), [(-1, "only a part"), (1, "more"), (-len(CONTENT), "only a part")])
def test_c49_a_pipe_with_another_size_is_an_error(more: int, said: str) -> None:
    content = CONTENT[:more] if more < 0 else CONTENT + bytes(more)
    with piped(content) as pipe, pytest.raises(FarshoreError, match=said):
        content_of(StreamImage(pipe, len(CONTENT), "pipe"))
