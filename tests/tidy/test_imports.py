"""How much a file knows of the others: at most 15 of them, and none that comes back to itself.

Imports for type checking count like the others: who reads a file must read what it names. A file above the
limit has two jobs: give the second one a file of its own. One that only passes names on would hide the count
and help nobody.
"""

from __future__ import annotations

from functools import lru_cache

from tests.tidy.source_tree import production_files
from tests.tidy.test_tidy import report

IMPORTS_MAX = 15

# Where parts are put together, and which know them all for that.
COMPOSITION_ROOTS = {
    "daemon.operations": "registers what carries out each control command",
    "daemon.pairs": "the shipper or receiver of each pair",
    "daemon.real_parts": "the real part behind each of a site's ports",
    "daemon.site": "the parts of one site",
    "engine.group.core": "the tables and real parts that the parts of one group share",
    "engine.group.group": "the parts of one group",
    "engine.group.stored_rows": "what the rows of each of a site's tables may hold",
    "engine.index.indexer": "what carries out each request to the indexer",
}


@lru_cache(maxsize=1)
def imported() -> dict[str, frozenset[str]]:
    """By module of ours, the other modules of ours that it imports."""
    files = {module_of(file.path): file for file in production_files()}

    def owner(name: str) -> str:
        """The module that a dotted name is in, or is."""
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name

    return {
        module: frozenset(owner(each.module) for each in file.imports) - {module, ""}
        for module, file in files.items()
    }


def module_of(path: str) -> str:
    """`engine/ports/disk.py` is `engine.ports.disk`, `engine/ports/__init__.py` is `engine.ports`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def reached(imports: dict[str, frozenset[str]], module: str) -> set[str]:
    """Every module that is imported by one, or by those that it imports."""
    found: set[str] = set()
    waiting = set(imports[module])
    while waiting:
        found |= waiting
        waiting = {further for each in waiting for further in imports[each]} - found
    return found


def circles(imports: dict[str, frozenset[str]]) -> set[frozenset[str]]:
    """Sets of modules of which each reaches every other."""
    far = {module: reached(imports, module) for module in imports}
    return {
        frozenset(other for other in far[module] if module in far[other])
        for module in imports
        if module in far[module]
    }


def test_files_know_few_others() -> None:
    report(
        f"a file imports more than {IMPORTS_MAX} modules of ours",
        (
            f"{module}: {len(others)}"
            for module, others in sorted(imported().items())
            if len(others) > IMPORTS_MAX and module not in COMPOSITION_ROOTS
        ),
    )


def test_no_file_comes_back_to_itself() -> None:
    report(
        "files import each other in a circle",
        (", ".join(sorted(circle)) for circle in circles(imported())),
    )


def test_lists_name_modules_that_exist() -> None:
    named = set(COMPOSITION_ROOTS)
    report("a list of import rules names a module that is gone", named - set(imported()))


def test_a_circle_is_found() -> None:
    chain = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("bd"), "d": frozenset[str]()}
    assert circles(chain) == {frozenset("bc")}
