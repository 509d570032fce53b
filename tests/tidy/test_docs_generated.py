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
from typing import Any, get_args

import pytest
import typer

from console.cli import commands_for
from daemon.config import SiteConfig
from protocol.base_messages import BaseKind
from protocol.events import WRITE, ZERO, EventKind, Record, TimelineBegan, VolumeCreated
from protocol.frames import NO_DIGEST, PREFIX_BYTES, encode_frame
from protocol.limits import BLOCK_BYTES
from protocol.messages import MessageKind
from protocol.peer_requests import PeerRequestKind
from tests.tidy.source_tree import OURS, ROOT, all_files
from tests.tidy.test_tidy import report

PAGES = (*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md")))
# A file or folder below one of these.
PLACE = re.compile(rf"(?<![\w/.:-])((?:{'|'.join((*OURS, 'docs', 'packaging', '.ci'))})/[\w./*-]*[\w*/])")
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
    """Files, folders, `engine/ports/zmq_*.py`, `docs/decisions/0002` for what begins so, and links."""
    link = re.compile(r"\]\((?!https?:)([^)#]+)")

    def offences() -> Iterator[str]:
        for each in PAGES:
            text = each.read_text(encoding="utf-8")
            for found in PLACE.findall(text):
                pattern = f"{found}*" if found.startswith("docs/decisions/") else found
                if not (ROOT / found).exists() and not list(ROOT.glob(pattern)):
                    yield f"{each.relative_to(ROOT)}: {found}"
            for found in link.findall(text):
                if not (each.parent / found).exists():
                    yield f"{each.relative_to(ROOT)}: link to {found}"

    report("docs name a file that is not there", offences())


def test_pages_name_tests_that_exist() -> None:
    """Also without their folder, as the table in docs/testing.md has them."""
    there = {file.path.rsplit("/", 1)[-1] for file in all_files()}
    report(
        "docs name a test that is not there",
        (
            f"{each.relative_to(ROOT)}: {found}"
            for each in PAGES
            for found in re.findall(r"\btest_\w+\.py\b", each.read_text(encoding="utf-8"))
            if found not in there
        ),
    )


def test_pages_name_commands_that_exist() -> None:
    """`farshore backup create vm1 --label before`: the words, and every option on the line."""
    there = dict(commands_below(typer.main.get_command(commands_for())))
    nouns = {words[:1] for words in there if len(words) > 1}
    line = re.compile(r"(?:`|[#$] |^)farshore ([a-z][^`\n]*)", re.MULTILINE)

    def offences() -> Iterator[str]:
        for each in PAGES:
            for found in line.findall(each.read_text(encoding="utf-8")):
                said = re.split(r"&&|[|;#] |  ", re.sub(r"'[^']*'", "", found))[0]
                words = tuple(said.split())
                known = there.get(words[:2], there.get(words[:1], set()))
                options = set(re.findall(r"(?<![\w-])-{1,2}[a-z][a-z-]*", said))
                if options - known or not (known or words in nouns):
                    yield f"{each.relative_to(ROOT)}: farshore {said.strip()}"

    report("docs name a command or an option that is not there", offences())


def commands_below(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """The words of every command of `farshore`, and its options."""
    below = getattr(command, "commands", {})
    for name, each in below.items():
        yield from commands_below(each, (*words, name))
    if not below:
        options = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        yield words, options | {"--help", "--json", "--site", "--version"}


def test_every_record_is_in_the_glossary() -> None:
    said = page("glossary.md")
    report(
        "docs/glossary.md lacks a record",
        (each.__name__ for each in get_args(Record) if f"`{each.__name__}`" not in said),
    )


def test_every_decision_is_in_the_list() -> None:
    said = page("decisions/README.md")
    pages = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    report(
        "docs/decisions/README.md lacks a page", (each.name for each in pages if f"({each.name})" not in said)
    )


def test_the_reader_in_the_journal_format_knows_every_event() -> None:
    said = re.findall(r'(\d+): "([A-Z_]+)"', page("journal-format.md"))
    assert {int(number): name for number, name in said} == {int(kind): kind.name for kind in EventKind}


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
    kinds |= {int(kind): kind.name for kind in PeerRequestKind}
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
    assert len(found[1].splitlines()) <= 26


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
