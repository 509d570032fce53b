"""qemu-nbd is handed images as open files: neither their names nor their headers lead it elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from console.images.formats import QCOW2, RAW
from console.images.qcow2 import create, served
from protocol.errors import FarshoreError, Refused
from tests.support.clients import MIB, succeed

DATA = b"what is below" * 1000


def test_names_that_qemu_would_take_apart(scratch: Path, tool: Callable[[str], str]) -> None:
    """Colons, commas, quotes, bytes that are no text."""
    tool("qemu-nbd")
    (scratch / "base:0,.img").write_bytes(DATA.ljust(MIB, b"\0"))
    image = scratch / os.fsdecode(b'json:{"a",nbd:\xe9.qcow2')
    create(image, MIB, "./base:0,.img", RAW)
    with served(image, read_only=True) as read:
        assert next(read.read([(0, len(DATA))])) == (0, DATA)


def test_an_external_data_file_as_qemu_writes_it(scratch: Path, tool: Callable[[str], str]) -> None:
    secret, image = scratch / "secret.raw", scratch / "evil.qcow2"
    secret.write_bytes(DATA.ljust(MIB, b"\0"))
    options = f"data_file={secret},data_file_raw=on"
    succeed(tool("qemu-img"), "create", "-q", "-f", QCOW2, "-o", options, image, "1M")
    with pytest.raises(Refused, match=str(secret)), served(image, read_only=True):
        pass


def test_qemus_complaint_has_the_operators_names(scratch: Path, tool: Callable[[str], str]) -> None:
    tool("qemu-nbd")
    image = scratch / "v.qcow2"
    create(image, MIB, "", RAW)
    with (
        served(image, read_only=False),  # it has the write lock
        pytest.raises(FarshoreError, match=r"v\.qcow2") as error,
        served(image, read_only=False),
    ):
        pass
    assert "json:" not in error.value.message
    assert "/proc/" not in error.value.message
