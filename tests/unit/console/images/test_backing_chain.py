"""Chains of images on disk: what is followed, and what is refused before anything else may open it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from console.images.backing_chain import CHAIN_FILES_MAX, opened_chain
from protocol.errors import FarshoreError, NotFound, Refused
from tests.unit.console.images.qcow2_bytes import EXTERNAL_DATA_FILE, qcow2

EXTERNAL = qcow2(data_file=b"/etc/shadow", features=EXTERNAL_DATA_FILE)


def chain(path: Path, *, alone: bool = False) -> list[tuple[Path, str]]:
    with opened_chain(path, "qcow2", alone=alone) as layers:
        assert all(os.path.samestat(os.fstat(each.descriptor), each.path.stat()) for each in layers)
        return [(each.path, each.format) for each in layers]


def test_names_are_relative_to_the_file_that_has_them(tmp_path: Path) -> None:
    """Also from elsewhere, and a raw file is never looked into."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old/0.img").write_bytes(EXTERNAL)
    (tmp_path / "old/1.qcow2").write_bytes(qcow2(b"./0.img", b"raw"))
    (tmp_path / "2.qcow2").write_bytes(qcow2(b"old/1.qcow2", b"qcow2"))
    assert chain(tmp_path / "2.qcow2") == [
        (tmp_path / "2.qcow2", "qcow2"),
        (tmp_path / "old/1.qcow2", "qcow2"),
        (tmp_path / "old/0.img", "raw"),
    ]


def test_alone_no_name_is_followed(tmp_path: Path) -> None:
    """The file named need not be there, and the refusal says which."""
    image = tmp_path / "v.qcow2"
    image.write_bytes(qcow2(b"/nowhere/secret", b"raw"))
    with pytest.raises(Refused, match="/nowhere/secret") as refusal:
        chain(image, alone=True)
    assert "--chain" in refusal.value.next_step
    with pytest.raises(NotFound, match="/nowhere/secret"):
        chain(image)


@pytest.mark.parametrize("alone", [True, False])
def test_external_data_is_refused(tmp_path: Path, *, alone: bool) -> None:
    image = tmp_path / "v.qcow2"
    image.write_bytes(EXTERNAL)
    with pytest.raises(Refused, match="/etc/shadow"):
        chain(image, alone=alone)


@pytest.mark.parametrize(
    ("below", "said"),
    [
        (qcow2(b"nbd:unix:/run/sock", b"raw"), "no path"),
        (qcow2(b'json:{"driver":"file","filename":"/etc/shadow"}', b"raw"), "no path"),
        (qcow2(b"file:/etc/shadow", b"raw"), "no path"),
        (qcow2(b"disk", b"vmdk"), "the format vmdk"),
        (qcow2(b"disk"), "does not say"),
        (qcow2(b"disk", b"raw", encryption=1), "encrypted"),
        (EXTERNAL, "/etc/shadow"),
    ],
)
def test_what_is_refused_anywhere_in_a_chain(tmp_path: Path, below: bytes, said: str) -> None:
    """QEMU would take it for a protocol, guess at it, ask for a secret, or open what nobody looked at."""
    (tmp_path / "disk").write_bytes(b"")
    (tmp_path / "below").write_bytes(below)
    image = tmp_path / "v.qcow2"
    image.write_bytes(qcow2(b"below", b"qcow2"))
    with pytest.raises(Refused, match=said) as refusal:
        chain(image)
    assert refusal.value.subject == str(tmp_path / "below")


def test_a_chain_that_does_not_end(tmp_path: Path) -> None:
    image = tmp_path / "v.qcow2"
    image.write_bytes(qcow2(b"v.qcow2", b"qcow2"))
    with pytest.raises(Refused, match=f"{CHAIN_FILES_MAX} files"):
        chain(image)


def test_what_is_no_qcow2_says_its_name(tmp_path: Path) -> None:
    (tmp_path / "below").write_bytes(b"text")
    image = tmp_path / "v.qcow2"
    image.write_bytes(qcow2(b"below", b"qcow2"))
    with pytest.raises(FarshoreError, match="below is no qcow2"):
        chain(image)


@pytest.mark.timeout(30)
def test_a_pipe_below_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "below")
    image = tmp_path / "v.qcow2"
    image.write_bytes(qcow2(b"below", b"raw"))
    with pytest.raises(FarshoreError, match="below is neither"):
        chain(image)
