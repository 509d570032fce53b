"""`farshore seed`, and what `volume import --seed` writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from console.images.raw_file import RawSource
from console.images.seed_files import write_seed
from console.images.seed_import import place_of
from protocol.content_digest import ContentDigest, data_runs
from protocol.errors import NotAllowed, Refused
from protocol.seed_limits import SEED_CHUNK_BYTES
from protocol.seeds import LACKING, chunk_digest, chunks_of, digest_at, size_in
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import StubSite


@pytest.mark.parametrize(("verb", "words"), [("list", ()), ("remove", ("vm1/root",))])
def test_they_ask_the_site(
    home: Path, stub: StubSite, farshore: Callable[..., Ran], verb: str, words: tuple[str, ...]
) -> None:
    ran = farshore("seed", verb, *words, "--site", str(home / "lon"))
    assert ran.code == 0, ran
    assert "vm1/root" in ran.out


def test_an_empty_image_is_no_seed(home: Path, stub: StubSite, farshore: Callable[..., Ran]) -> None:
    (home / "x.img").touch()
    words = ("volume", "import", str(home / "x.img"), "vm1/root", "--seed")
    ran = farshore(*words, "--site", str(home / "lon"))
    assert ran.code == 2
    assert stub.asked == []


@pytest.mark.parametrize("path", ["/etc/passwd", "/x/root.unfinished", "/x/other.00.img.unfinished", ""])
def test_a_site_does_not_say_which_file_is_written(path: str) -> None:
    """A site over the network had any file that was there overwritten, with the rights of who imports."""
    with pytest.raises(Refused, match="is no file that an import"):
        place_of("/srv/lon", "vm1", "root.disk" if "root" in path else "root", path)


def test_a_file_of_a_seed_is_where_the_site_is() -> None:
    given = "/elsewhere/seeds/vm1/root.0123456789abcdef.img.unfinished"
    expected = "/srv/lon/seeds/vm1/root.0123456789abcdef.img.unfinished"
    assert place_of("/srv/lon", "vm1", "root", given) == expected


def test_a_site_that_is_known_by_its_endpoint_alone_is_refused(
    home: Path, stub: StubSite, farshore: Callable[..., Ran]
) -> None:
    (home / "x.img").write_bytes(b"x" * 4096)
    words = ("volume", "import", str(home / "x.img"), "vm1/root", "--seed")
    ran = farshore(*words, "--site", f"ipc://{home}/lon/control.sock")
    assert (ran.code, "--site DIR" in ran.err) == (Refused.exit_code, True)
    assert stub.asked == []


def written(tmp_path: Path, content: bytes) -> tuple[Path, Path, str]:
    source, image, digests = (tmp_path / name for name in ("source", "image", "digests"))
    with source.open("wb") as file:
        for start, end in data_runs(content):
            file.seek(start)
            file.write(content[start:end])
        file.truncate(len(content))
    for path in (image, digests):
        path.touch()
    with RawSource(source) as raw:
        found = write_seed(raw, str(image), str(digests), lambda _: None)
    return image, digests, found.text(len(content))


@pytest.mark.parametrize("size", [1, 4096, 70_000, 3 * SEED_CHUNK_BYTES, 40 * SEED_CHUNK_BYTES + 5])
def test_the_files_are_as_the_daemon_reads_them(tmp_path: Path, size: int) -> None:
    content = bytearray(os.urandom(size))
    content[SEED_CHUNK_BYTES : 30 * SEED_CHUNK_BYTES] = bytes(
        len(content[SEED_CHUNK_BYTES : 30 * SEED_CHUNK_BYTES])
    )
    image, digests, said = written(tmp_path, bytes(content))
    assert image.read_bytes() == content
    raw = digests.read_bytes()
    assert size_in(raw[:16]) == size
    assert len(raw) == digest_at(chunks_of(size))
    for chunk in range(chunks_of(size)):
        data = content[chunk * SEED_CHUNK_BYTES : (chunk + 1) * SEED_CHUNK_BYTES]
        assert raw[digest_at(chunk) : digest_at(chunk + 1)] == chunk_digest(data)
    digest = ContentDigest()
    digest.add(0, content, data_runs(content))
    assert said == digest.text(size)


def test_holes_stay_holes(tmp_path: Path) -> None:
    content = bytes(64 << 20) + b"x" * 4096
    image, digests, _ = written(tmp_path, content)
    assert image.stat().st_blocks * 512 < 1 << 20
    assert digests.read_bytes()[16:-16] == LACKING * 1024


def test_another_machines_files_are_not_written(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 5000)
    with RawSource(tmp_path / "source") as raw, pytest.raises(Refused, match="not on this machine"):
        write_seed(raw, str(tmp_path / "no" / "image"), str(tmp_path / "digests"), lambda _: None)
    assert not (tmp_path / "digests").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_files_of_another_user_are_not_written(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 5000)
    (tmp_path / "image").touch(0o400)
    with RawSource(tmp_path / "source") as raw, pytest.raises(NotAllowed, match="cannot be written"):
        write_seed(raw, str(tmp_path / "image"), str(tmp_path / "digests"), lambda _: None)
