"""Files that a VMDK names, as QEMU would look for them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from console.images.backing_chain import opened_chain
from console.images.vmdk_header import DESCRIPTOR_BYTES_MAX, VmdkNames, descriptors_at, names_in
from protocol.errors import Refused

TEXT = b'# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'


def sparse(*, capacity: int, sector: int) -> bytes:
    """The header of a file that holds its content, or that of others at capacity 0."""
    return struct.pack("<4sIIQQQ", b"KDMV", 1, 3, capacity, 128, sector).ljust(512, b"\0")


def names(data: bytes) -> VmdkNames:
    parts = [data[at : at + DESCRIPTOR_BYTES_MAX] for at in descriptors_at(data)]
    return names_in(data, b"\n".join(parts))


def test_c49_a_descriptor_names_the_files_that_it_describes() -> None:
    found = names(TEXT + b'RW 8 FLAT "/etc/shadow" 0\n  RDONLY 8 SPARSE "b.vmdk"\nRW 8 ZERO\n')
    assert found.elsewhere
    assert found.extents == (("FLAT", "/etc/shadow"), ("SPARSE", "b.vmdk"))


@pytest.mark.parametrize(("says", "lies"), [(1, 1), (30, 30), (30, 1)])
def test_c49_what_a_file_builds_on_is_found_where_qemu_looks(says: int, lies: int) -> None:
    """Where the header says, and in the second sector whatever it says."""
    hint = b'parentCID=12345678\nparentFileNameHint="/etc/shadow"\n'
    data = sparse(capacity=8, sector=says) + bytes(512 * (lies - 1)) + hint
    assert names(data).parent == "/etc/shadow"
    assert not names(data).elsewhere


def test_c49_one_without_capacity_describes_others() -> None:
    data = sparse(capacity=0, sector=1) + TEXT + b'RW 8 FLAT "secret" 0\n'
    assert names(data) == VmdkNames(elsewhere=True, extents=(("FLAT", "secret"),), parent="")


def test_c49_one_that_stands_for_itself() -> None:
    data = sparse(capacity=8, sector=1) + TEXT + b'RW 8 SPARSE "whatever.vmdk"\n'
    assert names(data) == VmdkNames(elsewhere=False, extents=(), parent="")
    assert names(sparse(capacity=8, sector=1) + b"parentCID=0badcafe\n").parent == "?"


def test_c49_one_that_builds_on_another_is_read_with_and_without_chain_by_nobody(tmp_path: Path) -> None:
    built = tmp_path / "built.vmdk"
    built.write_bytes(sparse(capacity=8, sector=1) + b'parentFileNameHint="nbd:host:1"\n')
    for alone in (True, False):
        with pytest.raises(Refused, match="nbd:host:1"), opened_chain(built, "vmdk", alone=alone):
            pass
