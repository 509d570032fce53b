"""What each image format gives (C49): every kind is made by QEMU's tools, imported, exported and compared.
The result is the table in docs/images.md.

    FARSHORE_WRITE_DOCS=1 .venv/bin/pytest tests/interop/test_image_formats_table.py

writes the table anew.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from console.images.formats import FORMATS
from protocol.errors import ExitCode
from tests.support.clients import MIB, call, patchy_image, succeed
from tests.support.mounting import loop_device, require_mounting
from tests.support.sites import Site

Tool = Callable[[str], str]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "images.md"
SIZE = 8 * MIB
KINDS = (*FORMATS, "device")
NONE = "–"


class Table:
    """Rows by their name, of a cell a kind."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {}

    def put(self, row: str, kind: str, cell: str) -> None:
        self.rows.setdefault(row, dict.fromkeys(KINDS, NONE))[kind] = cell

    def lines(self) -> list[str]:
        rows = [f"| {row} | " + " | ".join(cells.values()) + " |" for row, cells in self.rows.items()]
        return ["| | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|", *rows]


class Trial:
    """A site, an image, and the image in every format."""

    def __init__(self, site: Site, scratch: Path) -> None:
        self.site, self.scratch = site, scratch
        self.raw = patchy_image(scratch / "disk.img", SIZE, seed=49)
        self._count = 0

    def image(self, kind: str, raw: Path) -> Path:
        """The same disk in a format, by QEMU's own converter."""
        if kind == "raw":
            return raw
        made, driver = raw.with_suffix(FORMATS[kind].suffixes[0]), FORMATS[kind].driver
        options = ["-o", "force_size=on"] if kind == "vhd" else []
        succeed("qemu-img", "convert", "-f", "raw", "-O", driver, *options, raw, made)
        return made

    def volume(self) -> str:
        """A name for another volume."""
        self._count += 1
        return f"g/v{self._count}"

    def holds(self, volume: str, raw: Path) -> bool:
        """Whether a volume has what is in a raw file."""
        done = call("qemu-img", "compare", "-f", "raw", "-F", "raw", raw, self.site.uri(volume))
        return done.returncode == 0

    def outcome(self, *words: str, stdin: Path | None = None, stdout: Path | None = None) -> int:
        """The exit code of a command, with files in place of streams. A refusal has a next step."""
        with (
            (stdin or Path(os.devnull)).open("rb") as source,
            (stdout or self.scratch / "stdout").open("wb") as target,
        ):
            done = subprocess.run(
                [*self.site.command(), *words, "--site", str(self.site.directory)],
                stdin=source, stdout=target, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
                env=self.site.environment(),
            )  # fmt: skip
        assert done.returncode == 0 or "next: " in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode

    def imported(self, image: Path, raw: Path, *options: str, stdin: bool = False) -> str:
        """The cell for an import of that image."""
        volume = self.volume()
        words = ("volume", "import", "-" if stdin else str(image), volume, *options)
        if self.outcome(*words, stdin=image if stdin else None) != 0:
            return "refused"
        assert self.holds(volume, raw), f"{image}: the volume differs"
        return "yes"


def of_a_file(trial: Trial, table: Table, kind: str) -> None:
    site, scratch = trial.site, trial.scratch
    image, driver = trial.image(kind, trial.raw), FORMATS[kind].driver
    table.put("import, by its suffix", kind, trial.imported(image, trial.raw))
    unnamed = scratch / f"of-{kind}"
    unnamed.write_bytes(image.read_bytes())
    guessed = trial.imported(unnamed, trial.raw)
    assert trial.imported(unnamed, trial.raw, "--format", kind) == "yes"
    table.put("import, without a suffix", kind, guessed if guessed == "yes" else "`--format`")
    table.put("import, from `-`", kind, trial.imported(image, trial.raw, "--format", kind, stdin=True))
    assert trial.outcome("volume", "import", str(image), f"other/{kind}", "--seed") == 0
    seeds = site.json("seed", "list")["seeds"]
    assert [each["size_bytes"] for each in seeds if each["volume"] == kind] == [SIZE]
    table.put("import, as a seed", kind, "yes")
    out = scratch / f"out.{kind}"
    done = site.json("volume", "export", "g/v1", str(out), "--format", kind)
    succeed("qemu-img", "compare", "-f", "raw", "-F", driver, trial.raw, out)
    table.put("export", kind, "yes")
    empty = out.stat().st_blocks * 512 < done["data_bytes"] + 3 * MIB
    table.put("holes, out", kind, "yes" if empty else "zeroes")
    code = trial.outcome("volume", "export", "g/v1", "-", "--format", kind, stdout=scratch / "piped")
    if code == 0:
        assert (scratch / "piped").read_bytes() == trial.raw.read_bytes()
    table.put("export, to `-`", kind, "refused" if code else "yes")


def odd_sizes(trial: Trial, table: Table, kind: str) -> None:
    """Of a disk that is no multiple of 4 KiB, if the format has such."""
    raw = trial.scratch / f"odd-{kind}.img"
    raw.write_bytes(os.urandom(1536))
    volume = trial.volume()
    trial.site.farshore("volume", "import", str(trial.image(kind, raw)), volume)
    size_bytes = trial.site.json("volume", "show", volume)["size_bytes"]
    assert 1536 <= size_bytes <= 4096
    out = trial.scratch / "odd.out"
    trial.site.farshore("volume", "export", volume, str(out), "--format", "raw", "--replace")
    assert out.read_bytes() == raw.read_bytes().ljust(size_bytes, b"\0")
    table.put("size no multiple of 4 KiB", kind, "yes" if size_bytes == 1536 else "padded")


def building_on_others(trial: Trial, table: Table) -> None:
    base = trial.raw
    above = trial.scratch / "above.qcow2"
    succeed("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", above)
    assert trial.imported(above, base) == "refused"
    assert trial.imported(above, base, "--chain") == "yes"
    table.put("builds on other files", "qcow2", "`--chain`")
    below, above = trial.scratch / "disk.vmdk", trial.scratch / "above.vmdk"
    succeed("qemu-img", "create", "-q", "-f", "vmdk", "-b", below, "-F", "vmdk", above)
    assert trial.imported(above, base, "--chain") == "refused"
    table.put("builds on other files", "vmdk", trial.imported(above, base))
    for kind in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"):
        several = trial.scratch / f"{kind}.vmdk"
        succeed("qemu-img", "convert", "-O", "vmdk", "-o", f"subformat={kind}", base, several)
        assert trial.imported(several, base) == "refused"
        assert trial.imported(several, base, "--chain") == "yes"
    table.put("is in several files", "vmdk", "`--chain`")
    assert trial.imported(trial.scratch / "monolithicFlat-flat.vmdk", base, "--format", "raw") == "yes"
    (trial.scratch / "twoGbMaxExtentFlat-f001.vmdk").unlink()
    assert trial.imported(trial.scratch / "twoGbMaxExtentFlat.vmdk", base, "--chain") == "refused"
    stream = trial.scratch / "stream.vmdk"
    succeed("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", base, stream)
    assert trial.imported(stream, base) == "yes"


def of_a_device(trial: Trial, table: Table, tool: Tool) -> None:
    with loop_device(tool("losetup"), trial.raw) as device:
        table.put("import, by its suffix", "device", trial.imported(Path(device), trial.raw))
        words = ("volume", "import", str(device), "other/device", "--seed")
        table.put("import, as a seed", "device", "refused" if trial.outcome(*words) else "yes")
        code = trial.outcome("volume", "export", "g/v1", str(device))
        assert code == ExitCode.USAGE
        table.put("export", "device", "refused")


@pytest.mark.timeout(600)
def test_c49_what_each_format_gives(site: Site, scratch: Path, tool: Tool) -> None:
    tool("qemu-img")
    require_mounting()
    table, trial = Table(), Trial(site, scratch)
    assert trial.imported(trial.raw, trial.raw) == "yes"  # g/v1
    for kind in FORMATS:
        of_a_file(trial, table, kind)
        odd_sizes(trial, table, kind)
    of_a_device(trial, table, tool)
    building_on_others(trial, table)
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition("| | ")
    _, _, after = rest.partition("\n\n")
    made = before + "\n".join(table.lines()) + "\n\n" + after
    if os.environ.get("FARSHORE_WRITE_DOCS") == "1":
        PAGE.write_text(made, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == made, "docs/images.md is stale: see the top of this file"
