"""What a file's name says of its format, and what its first bytes may not decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.images.formats import FORMATS, format_of, require_disk
from protocol.errors import Refused, UsageError


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.vmdk", "vmdk"), ("A.VMDK", "vmdk"), ("a.vdi", "vdi"), ("a.vhdx", "vhdx"), ("a.vhd", "vhd"),
        ("a.qcow2", "qcow2"), ("a.img", "raw"), ("a.iso", "raw"), ("disk", "raw"), ("/dev/loop0", "raw"),
    ],
)  # fmt: skip
def test_c49_a_suffix_says_the_format(name: str, kind: str) -> None:
    assert format_of(Path(name), None) == kind
    assert format_of(Path(name), "raw") == "raw"


@pytest.mark.parametrize("name", ["a.ova", "a.img.gz", "a.qed", "a.dmg", "a.raw.zst"])
def test_c49_what_is_no_disk_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(Refused, match="no disk") as refusal:
        format_of(Path(name), None)
    assert refusal.value.next_step.endswith("or --format raw")
    assert format_of(Path(name), "raw") == "raw"


def test_c49_an_unknown_format_is_refused_by_the_known_ones() -> None:
    with pytest.raises(UsageError) as refusal:
        format_of(Path("a"), "vpc2")
    assert all(name in refusal.value.next_step for name in FORMATS)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"QFI\xfb", "qcow2"), (b"KDMV", "vmdk"), (b"COWD", "vmdk"), (b"# Disk DescriptorFile", "vmdk"),
        (bytes(64) + b"\x7f\x10\xda\xbe", "vdi"), (b"vhdxfile", "vhdx"), (b"conectix", "vhd"),
    ],
)  # fmt: skip
def test_c49_a_container_without_a_telling_name_is_no_disk(head: bytes, kind: str) -> None:
    with pytest.raises(Refused, match=f"begins like a {kind}") as refusal:
        require_disk(head.ljust(512, b"\0"), "disk.img")
    assert refusal.value.next_step.startswith(f"--format {kind}; or --format raw")


def test_c49_anything_else_is_a_disk() -> None:
    require_disk(b"", "a")
    require_disk(b"\xeb\x3c\x90MSDOS5.0".ljust(512, b"\0"), "a")
