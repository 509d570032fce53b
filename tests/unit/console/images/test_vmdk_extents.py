"""VMDKs whose content is in files beside them: what is read, and what a descriptor cannot have read (C49)."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from console.images.backing_chain import Layer, opened_chain
from console.images.vmdk_extents import EXTENTS_MAX, Extent, extents_in
from protocol.errors import FarshoreError, NotFound, Refused

HEAD = b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="twoGbMaxExtentSparse"\n'
SECTOR = 512


def described(directory: Path, *lines: str) -> Path:
    path = directory / "disk.vmdk"
    path.write_bytes(HEAD + b"".join(os.fsencode(line) + b"\n" for line in lines))
    return path


def opened(path: Path) -> Layer:
    """What it comes to with `--chain`; the descriptor that QEMU is given is checked while it is open."""
    with opened_chain(path, "vmdk") as (layer,):
        text = os.pread(layer.descriptor, 1 << 16, 0).decode()
        named = [line.split('"')[1] for line in text.splitlines() if line.startswith("RW ")]
        assert named == [f"/proc/self/fd/{part.descriptor}" for part in layer.parts]
        assert all(os.path.samestat(os.fstat(each.descriptor), each.path.stat()) for each in layer.parts)
        return layer


def test_c49_the_parts_of_a_disk_are_read_in_order(tmp_path: Path) -> None:
    text = HEAD + b'RW 8 FLAT "a" 16\nRW 4 SPARSE "b c.vmdk"\n\nddb.adapterType = "ide"\n'
    assert extents_in(text, tmp_path) == (
        Extent(sectors=8, kind="FLAT", name="a", first=16),
        Extent(sectors=4, kind="SPARSE", name="b c.vmdk", first=0),
    )


@pytest.mark.parametrize(
    "line",
    [
        "RW 8 ZERO",
        'RDONLY 8 FLAT "a" 0',
        'NOACCESS 8 FLAT "a" 0',
        'RW 8 VMFSRDM "a"',
        'RW 8 SESPARSE "a"',
        'RW 0 FLAT "a" 0',
        'RW 9999999999999999999 FLAT "a" 0',
        'RW 8 FLAT "a" -1',
        'RW 8 FLAT "a" 0 "device"',
        'RW 8 FLAT "a',
        'RW 8 VMFS "a" 8',
    ],
)
def test_c49_a_part_that_qemu_would_pass_over_is_refused(tmp_path: Path, line: str) -> None:
    """All that follows it would be moved."""
    (tmp_path / "a").write_bytes(bytes(8 * SECTOR))
    path = described(tmp_path, 'RW 8 FLAT "a" 0', line)
    with pytest.raises(Refused) as refused:
        opened(path)
    assert "qemu-img convert" in refused.value.next_step


def test_c49_files_beside_the_descriptor_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(24 * SECTOR))
    (tmp_path / "b").symlink_to("a")
    layer = opened(described(tmp_path, 'RW 8 FLAT "a" 16', 'RW 24 VMFS "b"'))
    assert [part.path.name for part in layer.parts] == ["a", "b"]


@pytest.mark.parametrize("name", ["/{}/secret", "../secret", "sub/../../secret", "link", "", "..", "nbd:x"])
def test_c49_a_name_that_leads_out_of_the_directory_is_named_and_not_read(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 8 * SECTOR)
    (home / "link").symlink_to("../secret")
    said = name.format(str(tmp_path).strip("/"))
    with pytest.raises((Refused, NotFound)) as refused:
        opened(described(home, f'RW 8 FLAT "{said}" 0'))
    assert said in refused.value.message
    assert "not beside it" in refused.value.message


def test_c49_a_missing_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(8 * SECTOR))
    path = described(tmp_path, 'RW 8 FLAT "a" 0', 'RW 8 FLAT "disk-f002.vmdk" 0')
    with pytest.raises(NotFound, match=r"disk-f002\.vmdk, which is not beside it") as missing:
        opened(path)
    assert "copy disk-f002.vmdk into the directory" in missing.value.next_step


def test_c49_a_part_that_is_too_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(8 * SECTOR - 1))
    with pytest.raises(FarshoreError, match="shorter than the 4096 bytes"):
        opened(described(tmp_path, 'RW 8 FLAT "a" 0'))


def test_c49_a_part_that_names_files_itself_is_refused(tmp_path: Path) -> None:
    """QEMU would open what an extent with an embedded descriptor names."""
    embedded = struct.pack("<4sIIQQQ", b"KDMV", 1, 3, 0, 128, 1).ljust(SECTOR, b"\0")
    (tmp_path / "a").write_bytes(embedded + HEAD + b'RW 8 FLAT "/etc/shadow" 0\n')
    with pytest.raises(Refused, match="in other files again"):
        opened(described(tmp_path, 'RW 8 SPARSE "a"'))


def test_c49_a_disk_in_too_many_parts(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(SECTOR))
    with pytest.raises(Refused, match=f"names {EXTENTS_MAX + 1} files"):
        opened(described(tmp_path, *['RW 1 FLAT "a" 0'] * (EXTENTS_MAX + 1)))


def test_c49_without_chain_every_part_is_named(tmp_path: Path) -> None:
    path = described(tmp_path, *[f'RW 1 FLAT "part{number}" 0' for number in range(9)])
    with pytest.raises(Refused) as refused, opened_chain(path, "vmdk", alone=True):
        pass
    assert all(f"part{number}" in refused.value.message for number in range(9))
    assert "--chain" in refused.value.next_step
