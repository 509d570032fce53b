"""qemu-nbd is handed images as open files: neither their names nor their headers lead it elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from console.file_systems.landlock import version
from console.images.backing_chain import Layer, _opened
from console.images.containers import _graph, _serving, create, served
from console.images.formats import QCOW2, RAW, VDI, VMDK
from protocol.errors import FarshoreError, NotFound, Refused
from tests.conftest import missing
from tests.support.clients import MIB, succeed
from tests.support.sites import ROOT

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


def test_c49_what_reads_an_image_has_no_other_file_and_few_rights(
    scratch: Path, tool: Callable[[str], str]
) -> None:
    """A VMDK that names another file, as if nobody had looked at its header before."""
    if not version():
        missing("the kernel has no Landlock")
    secret, image = scratch / "secret", scratch / "evil.vmdk"
    secret.write_bytes(DATA.ljust(MIB, b"\0"))
    image.write_text(
        f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        f'RW 2048 FLAT "{secret}" 0\n'
    )
    # Without the fence QEMU reads it.
    assert "virtual size: 1 MiB" in succeed(tool("qemu-img"), "info", "-f", VMDK, image)
    with pytest.raises(Refused, match=str(secret)), served(image, read_only=True, kind=VMDK):
        pass
    layer = Layer(path=image, format=VMDK, descriptor=_opened(image))
    words = [tool("qemu-nbd"), "--read-only", "--", _graph([layer])]
    try:
        with tempfile.TemporaryFile() as said, pytest.raises(FarshoreError, match="Permission denied"):
            _serving(words, [layer], said, image, read_only=True)
    finally:
        os.close(layer.descriptor)


def test_c49_what_reads_an_image_is_nobody_with_limits(scratch: Path, tool: Callable[[str], str]) -> None:
    tool("qemu-nbd")
    image = scratch / "v.vmdk"
    create(image, MIB, "", RAW, VMDK)
    image.chmod(0o600)
    before = set(children(os.getpid()))  # other tests' are here too
    with served(image, read_only=True, kind=VMDK):
        (child,) = set(children(os.getpid())) - before
        status = Path(f"/proc/{child}/status").read_text()
        limits = Path(f"/proc/{child}/limits").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["NoNewPrivs"] == "1"
        if os.geteuid() == 0:
            assert fields["Uid"].split() == ["65534"] * 4
            assert fields["CapEff"] == f"{1 << 2:016x}"  # CAP_DAC_READ_SEARCH
    for name in ("Max address space", "Max cpu time", "Max file size", "Max core file size"):
        line = next(line for line in limits.splitlines() if line.startswith(name))
        assert line[len(name) :].split()[0] != "unlimited", line
    assert set(children(os.getpid())) <= before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_c49_what_reads_an_image_ends_with_whoever_started_it(
    scratch: Path, tool: Callable[[str], str], number: signal.Signals
) -> None:
    tool("qemu-nbd")
    image = scratch / "v.vdi"
    create(image, MIB, "", RAW, VDI)
    script = (
        "import pathlib, sys, time\n"
        "from console.images.containers import served\n"
        "with served(pathlib.Path(sys.argv[1]), read_only=True, kind='vdi'):\n"
        "    print('there', flush=True)\n"
        "    time.sleep(1000)\n"
    )
    before = set(Path("/tmp").glob("farshore-*"))
    words = [sys.executable, "-c", script, str(image)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"there\n"
        (child,) = children(parent.pid)
        parent.send_signal(number)
        parent.wait(30)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.05)
    assert not {each for each in Path("/tmp").glob("farshore-*") if (each / "nbd.sock").exists()} - before


def test_c49_without_qemu_the_error_says_what_to_install(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = scratch / "v.vmdk"
    image.write_bytes(b"KDMV")
    monkeypatch.setenv("PATH", str(scratch))
    with (
        pytest.raises(NotFound, match="vmdk needs qemu-nbd") as error,
        served(image, read_only=True, kind=VMDK),
    ):
        pass
    assert "qemu-utils" in error.value.next_step
    with pytest.raises(NotFound, match="vmdk needs qemu-img"):
        create(scratch / "w.vmdk", MIB, "", RAW, VMDK)


def children(process: int) -> list[int]:
    """Processes that it started."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(each) for each in text.split()]
