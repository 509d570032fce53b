"""docs/ says what the code does: pages made from code are fresh, tables and examples match it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from daemon.config import SiteConfig
from protocol.base_messages import BaseKind
from protocol.events import WRITE, ZERO, EventKind, TimelineBegan, VolumeCreated
from protocol.frames import NO_DIGEST, PREFIX_BYTES, encode_frame
from protocol.limits import BLOCK_BYTES
from protocol.messages import MessageKind
from protocol.question_messages import QuestionKind
from tests.tidy.source_tree import ROOT, all_files
from tests.tidy.test_tidy import report

PAGES = (*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md")
TIMELINE = 0xA1B2C3D4


def page(name: str) -> str:
    """The text of docs/NAME."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(text: str) -> Iterator[list[str]]:
    """Cells of every line of a Markdown table, its head and rule included."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def generator() -> ModuleType:
    """packaging/generate_docs.py; not imported by name, because there is a library called packaging."""
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "packaging" / "generate_docs.py")
    if spec is None or spec.loader is None:
        pytest.fail("packaging/generate_docs.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh() -> None:
    stale = generator().stale_pages()
    report("run python packaging/generate_docs.py", stale)


def test_pages_name_files_that_exist() -> None:
    """Paths in backquotes or links, with a folder in them and an ending."""
    path = re.compile(r"(?<![\w/.-])((?:\.\./)?[a-z_0-9]+(?:/[\w.-]+)*/[\w-]+\.(?:py|md|txt|sh))(?![\w/])")
    link = re.compile(r"\]\((?!https?:)([^)#]+)")

    def offences() -> Iterator[str]:
        for each in PAGES:
            text = each.read_text(encoding="utf-8")
            for found in path.findall(text):
                if not (ROOT / found).is_file():
                    yield f"{each.relative_to(ROOT)}: {found}"
            for found in link.findall(text):
                if not (each.parent / found).exists():
                    yield f"{each.relative_to(ROOT)}: link to {found}"

    report("docs name a file that is not there", offences())


def test_code_names_pages_that_exist() -> None:
    """`docs/journal-format.md`, or `docs/decisions/0002` for the page that begins so."""
    report(
        "a comment names a page that is not there",
        (
            f"{file.path}: {found}"
            for file in all_files()
            for found in re.findall(r"docs/(?:decisions/\d{4}|[a-z-]+\.md)", file.text)
            if not list(ROOT.glob(f"{found}*"))
        ),
    )


def test_the_prefix_table_is_that_of_the_code() -> None:
    """docs/journal-format.md and the first comment of protocol/frames.py give the same fields."""
    said = [
        (int(c[0]), int(c[1])) for c in rows(page("journal-format.md")) if c[0].isdigit() and c[1].isdigit()
    ]
    source = (ROOT / "protocol" / "frames.py").read_text(encoding="utf-8").split('"""')[1]
    coded = [tuple(map(int, found)) for found in re.findall(r"^ +(\d+) +(\d+)  \w", source, re.MULTILINE)]
    assert said == coded
    assert all(sum(here) == following[0] for here, following in pairwise(said))
    assert sum(said[-1]) == PREFIX_BYTES


def test_the_event_table_is_that_of_the_code() -> None:
    said = {int(c[0]): c[1] for c in rows(page("journal-format.md")) if c[0].isdigit() and "`[" in c[1]}
    assert sorted(said) == sorted(EventKind)
    assert all(row.startswith(f"`[{kind}, ") for kind, row in said.items())


def test_the_message_table_is_that_of_the_code() -> None:
    said = {int(c[0]): c[1] for c in rows(page("wire-format.md")) if c[0].isdigit() and "`[" in c[1]}
    kinds = {int(kind): kind.name for kind in MessageKind}
    kinds |= {int(kind): f"BASE_{kind.name}" for kind in BaseKind}
    kinds |= {int(kind): kind.name for kind in QuestionKind}
    assert {kind: row.split(" ", 1)[0] for kind, row in said.items()} == kinds


def test_every_setting_is_explained() -> None:
    said = {cells[0].strip("`") for cells in rows(page("operations.md")) if cells[0].startswith("`")}
    report("docs/operations.md lacks a key of site.toml", set(SiteConfig.__struct_fields__) - said)


def test_the_reader_in_the_journal_format_reads_a_segment(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", page("journal-format.md"), re.DOTALL)
    assert found is not None
    script, segment = tmp_path / "read.py", tmp_path / "0000000000000000.seg"
    script.write_text(found[1], encoding="utf-8")
    segment.write_bytes(example_segment())
    result = subprocess.run(
        [sys.executable, str(script), str(segment)], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        f"{TIMELINE:016x}:0 0 bytes of blocks",
        "  0 TIMELINE_BEGAN [0, 0, 1, 'aa', 'g', True]",
        "  1 VOLUME_CREATED ['v', 1048576]",
        f"{TIMELINE:016x}:{example_end()} {2 * BLOCK_BYTES} bytes of blocks",
        f"  {example_end()} WRITE [1, 5, 2]",
        f"  {example_end() + 1} ZERO [1, 9, 3]",
    ]
    assert len(found[1].splitlines()) <= 25


def example_records() -> bytes:
    """A first frame."""
    began = TimelineBegan(parent=0, fork=0, generation=1, writer="aa", group="g", sealed=True)
    created = VolumeCreated(name="v", size_bytes=1 << 20)
    frame = encode_frame(
        timeline=TIMELINE,
        position=0,
        utc_ns=1,
        durable=0,
        previous_digest=NO_DIGEST,
        rows=[began.to_row(), created.to_row()],
        payload=(),
        payload_bytes=0,
    )
    return bytes(frame.raw)


def example_end() -> int:
    """Where the first frame ends."""
    return len(example_records())


def example_segment() -> bytes:
    """Two frames and the zeroes behind them."""
    first = example_records()
    second = encode_frame(
        timeline=TIMELINE,
        position=len(first),
        utc_ns=2,
        durable=0,
        previous_digest=first[56:72],
        rows=[(WRITE, 1, 5, 2), (ZERO, 1, 9, 3)],
        payload=[bytes(BLOCK_BYTES), b"x" * BLOCK_BYTES],
        payload_bytes=2 * BLOCK_BYTES,
    )
    return first + bytes(second.raw) + bytes(300)
