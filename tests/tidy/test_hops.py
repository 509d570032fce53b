"""docs/architecture.md says by which functions a host's write goes: they are there and lead to each other."""

from __future__ import annotations

import ast
import re

from tests.tidy.source_tree import ROOT, SourceFile
from tests.tidy.test_tidy import report

HOPS_MAX = 12
HOP = re.compile(r"^\d+\. `([\w/]+\.py):(\w+)`", re.MULTILINE)
# Who names those that no hop before them does.
NAMED_BY = {
    "site_primary/shipping/send_window.py:_on_frame": "site_primary/shipping/send_window.py",
    "site_secondary/receiver.py:_on_frames": "site_secondary/receiver.py",
}


def hops_of_a_write() -> list[tuple[str, str]]:
    """(file, function) in their order."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## The way of a host's write")[2].partition("\n## ")[0]
    return [(path, name) for path, name in HOP.findall(section)]


def test_the_way_of_a_write_is_short() -> None:
    assert 8 <= len(hops_of_a_write()) <= HOPS_MAX
    ours = {path for path, _ in hops_of_a_write() if path.startswith("site_primary/")}
    assert len(ours) <= 5, "from a host's socket to ZeroMQ"


def test_every_hop_of_a_write_is_there() -> None:
    def missing() -> list[str]:
        return [
            f"{path}:{name}"
            for path, name in hops_of_a_write()
            if not (ROOT / path).is_file()
            or not any(
                isinstance(node, ast.FunctionDef) and node.name == name for node in SourceFile(path).nodes
            )
        ]

    report("docs/architecture.md names a hop of a write that is not there", missing())


def test_every_hop_leads_to_the_next() -> None:
    """By its name, in the file of a hop before it. That says little of `write`, and enough of the others."""
    hops = hops_of_a_write()

    def unnamed() -> list[str]:
        found = []
        for at, (path, name) in enumerate(hops[1:], start=1):
            hop = f"{path}:{name}"
            before = [NAMED_BY[hop]] if hop in NAMED_BY else [each for each, _ in hops[:at]]
            if not any(
                isinstance(node, ast.Attribute) and node.attr == name
                for each in before
                for node in SourceFile(each).nodes
            ):
                found.append(hop)
        return found

    report("no hop of a write leads to", unnamed())
    assert set(NAMED_BY) <= {f"{path}:{name}" for path, name in hops}
