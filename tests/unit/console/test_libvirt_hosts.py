"""Disks for libvirt: devices of their own, and sockets that its QEMU reaches."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from console.host_configs import Export, target_at, target_index
from console.libvirt_hosts import disk_text, unreachable
from protocol.errors import UsageError
from tests.conftest import missing

EXPORT = Export(name="g/v", unix="/run/f/nbd.sock", host="", port=0, tls=False, read_only=False)


def test_c48_targets_are_counted_as_libvirt_does() -> None:
    names = [target_at(index) for index in range(60)]
    assert names[:3] == ["vda", "vdb", "vdc"]
    assert names[25:28] == ["vdz", "vdaa", "vdab"]
    assert [target_index(name) for name in names] == list(range(60))
    assert target_at(target_index("sdb") + 1, "sdb") == "sdc"


def test_c48_past_the_last_disk_there_is_none() -> None:
    """It came to `vd{a`, which libvirt refuses as XML that does not validate."""
    assert target_at(target_index("vdzy") + 1) == "vdzz"
    for style in ("libvirt", "libvirt-commandline"):
        with pytest.raises(UsageError, match="past sdzz"):
            disk_text(style, EXPORT, "sdzz", 1, reconnect=False)


@pytest.mark.parametrize("target", ["", "vd", "hda", "vd1", "vdabc", "vdä", "/dev/vda"])
def test_c48_what_is_no_disk_of_libvirts_is_refused(target: str) -> None:
    with pytest.raises(UsageError):
        target_index(target)


def test_c48_reconnect_is_there_where_it_is_asked_for() -> None:
    for reconnect in (False, True):
        disk = ElementTree.fromstring(disk_text("libvirt", EXPORT, "sda", 1, reconnect=reconnect))
        found = disk.find("source/reconnect")
        assert (found is not None and found.get("delay") == "60") == reconnect
        target = disk.find("target")
        assert target is not None
        assert target.attrib == {"dev": "sdb", "bus": "scsi"}


def test_c48_words_for_qemu_have_slots_of_their_own() -> None:
    texts = [disk_text("libvirt-commandline", EXPORT, "vda", index, reconnect=False) for index in range(11)]
    assert "reconnect-delay=60" in texts[0]
    assert len({text.partition("addr=")[2].partition(",")[0] for text in texts}) == len(texts)
    with pytest.raises(UsageError, match="no slot"):
        disk_text("libvirt-commandline", EXPORT, "vda", 11, reconnect=False)


def test_c48_a_socket_that_another_user_cannot_reach_is_said(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("other users' files need root")
    above, place = tmp_path / "site", tmp_path / "site/nbd.sock"
    above.mkdir()
    place.touch()
    for each in (tmp_path, *tmp_path.parents):
        if each != Path("/tmp") and each.is_relative_to("/tmp"):
            each.chmod(0o755)
    above.chmod(0o700)
    assert unreachable(str(place), "nobody") == f"nobody may not pass through {above}"
    above.chmod(0o755)
    place.chmod(0o660)
    assert f"nobody may not connect to {place} (mode 0660, group " in unreachable(str(place), "nobody")
    os.chown(place, 0, 65534)
    assert unreachable(str(place), "nobody") == ""
    place.chmod(0o600)
    assert unreachable(str(place), "nobody")
    assert unreachable(str(place), "no-such-user") == ""
    assert unreachable(str(above / "none"), "nobody") == ""
