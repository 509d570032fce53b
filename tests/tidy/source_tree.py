"""The project's Python files as syntax trees, and the questions that the tidy rules ask of them.

Names are resolved through each file's imports, so `from time import monotonic as now; now()` counts as
`time.monotonic`. Nothing is executed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from farshore.launch import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = ("farshore", *PACKAGES)
OURS = (*PRODUCTION, "bench", "tests")


@dataclass(frozen=True)
class Import:
    """One imported name: `from engine.journal import writer` gives `engine.journal.writer` at its line."""

    module: str
    line: int


@dataclass(frozen=True)
class SourceFile:
    """One file: `path` relative to the project's root, with `/`."""

    path: str

    @property
    def package(self) -> str:
        """The top-level package."""
        return self.path.split("/", 1)[0]

    @cached_property
    def text(self) -> str:
        """The whole content."""
        return (ROOT / self.path).read_text(encoding="utf-8")

    @cached_property
    def lines(self) -> list[str]:
        """Lines without their ends."""
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, filename=self.path)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def imports(self) -> list[Import]:
        """Every import, wherever it stands; relative ones made absolute."""
        found = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found += [Import(alias.name, node.lineno) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                found += [Import(f"{base}.{alias.name}", node.lineno) for alias in node.names]
        return found

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Local name to the dotted name that it was imported from."""
        names = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.split(".", 1)[0]
                    names[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{self._absolute(node)}.{alias.name}"
        return names

    def references(self) -> Iterator[tuple[str, int]]:
        """Dotted names of imported things used anywhere (called or passed on), with their lines."""
        for node in self.nodes:
            if isinstance(node, ast.Attribute | ast.Name):
                name = self.dotted(node)
                if name is not None:
                    yield name, node.lineno
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    yield f"{self._absolute(node)}.{alias.name}", node.lineno

    def dotted(self, node: ast.AST) -> str | None:
        """`time.monotonic` for an expression that means it; None for what does not start at an import."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.aliases:
            return None
        return ".".join([self.aliases[node.id], *reversed(parts)])

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.path.removesuffix(".py").split("/")
        base = parts[: len(parts) - node.level]
        return ".".join([*base, node.module] if node.module else base)


@lru_cache(maxsize=1)
def all_files() -> tuple[SourceFile, ...]:
    """Every Python file of ours, in path order."""
    found = []
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            found.append(SourceFile(path.relative_to(ROOT).as_posix()))
    return tuple(found)


def production_files() -> list[SourceFile]:
    """The files that are installed."""
    return [file for file in all_files() if file.package in PRODUCTION]


def is_under(module: str, prefix: str) -> bool:
    """Whether a dotted name is `prefix` or lies inside it."""
    return module == prefix or module.startswith(prefix + ".")
