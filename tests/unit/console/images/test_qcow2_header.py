"""What other files the start of a qcow2 names, whatever its bytes are."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.images.qcow2_header import parse_header
from protocol.errors import FarshoreError
from tests.unit.console.images.qcow2_bytes import EXTERNAL_DATA_FILE, qcow2


@pytest.mark.parametrize("version", [2, 3])
def test_backing_file_and_its_format(version: int) -> None:
    found = parse_header(qcow2(b"../base.img", b"raw", version=version))
    assert (found.backing_name, found.backing_format) == ("../base.img", "raw")
    assert not found.external_data
    assert not found.encrypted


def test_one_that_stands_for_itself() -> None:
    found = parse_header(qcow2())
    assert (found.backing_name, found.backing_format, found.data_name) == ("", "", "")
    assert not found.external_data


def test_external_data_file() -> None:
    """The bit decides, as in QEMU: a name alone has nothing opened."""
    found = parse_header(qcow2(data_file=b"/etc/shadow", features=EXTERNAL_DATA_FILE))
    assert (found.external_data, found.data_name) == (True, "/etc/shadow")
    assert parse_header(qcow2(features=EXTERNAL_DATA_FILE)).external_data
    assert not parse_header(qcow2(data_file=b"/etc/shadow")).external_data


def test_encryption() -> None:
    assert parse_header(qcow2(encryption=2)).encrypted


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"QFI\xfb" + bytes(20),
        b"QFI\xfa" + qcow2()[4:],
        qcow2()[:100],
        qcow2(version=4),
        qcow2()[:20] + struct.pack(">I", 22) + qcow2()[24:],
        qcow2()[:100] + struct.pack(">I", 80) + qcow2()[104:],
        qcow2(b"base", b"raw")[:16] + struct.pack(">I", 1024) + qcow2(b"base", b"raw")[20:],
        qcow2()[:8] + struct.pack(">QI", 510, 4) + qcow2()[20:],
        qcow2()[:104] + struct.pack(">II", 0x44415441, 500) + qcow2()[112:],
    ],
)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(FarshoreError):
        parse_header(data)


@given(st.binary(max_size=600), st.sampled_from([2, 3]), st.integers(9, 10))
def test_any_bytes_are_a_header_or_an_error(rest: bytes, version: int, cluster_bits: int) -> None:
    start = b"QFI\xfb" + struct.pack(">I", version) + rest[:12] + struct.pack(">I", cluster_bits)
    try:
        parse_header(start + rest[12:])
    except FarshoreError:
        pass
