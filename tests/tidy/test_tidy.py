"""House rules that need no reader: import directions, sizes, and calls that belong in one module only.

One test function a rule. A rule that stands in the way of something right is changed here, with the reason in
docs/decisions/; it is not worked around.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

import pytest

from tests.tidy.source_tree import (
    OURS,
    PRODUCTION,
    ROOT,
    SourceFile,
    all_files,
    is_under,
    production_files,
)

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 110

# Who may import whom (docs/architecture.md). Tests and benches may import everything.
MAY_IMPORT = {
    "farshore": {"farshore", "console"},
    "protocol": {"protocol"},
    "engine": {"engine", "protocol"},
    "site_primary": {"site_primary", "engine", "protocol", "farshore"},
    "site_secondary": {"site_secondary", "engine", "protocol"},
    "daemon": {"daemon", "site_primary", "site_secondary", "engine", "protocol", "farshore"},
    "console": {"console", "protocol", "farshore"},
}

# What `protocol` may not know: it turns bytes into values and back, and nothing else.
NOT_IN_PROTOCOL = (
    "asyncio", "io", "lmdb", "os", "pathlib", "random", "secrets", "selectors", "shutil", "signal", "socket",
    "ssl", "subprocess", "tempfile", "threading", "time", "zmq",
)  # fmt: skip

# A library that only these may import: each dangerous thing has one home.
HOMES = {
    "lmdb": ("engine/ports/lmdb_store.py",),
    "zmq": ("engine/ports/zmq_", "engine/ports/zap.py", "daemon/control.py", "console/client.py"),
    # Whose key may connect.
    "zmq.auth": ("engine/ports/zap.py",),
    "protocol.nbd.client": ("console/nbd_connection.py",),
    "msgpack": ("protocol/",),
    "msgspec.msgpack": ("protocol/",),
    "zstandard": ("protocol/compress.py",),
    "cryptography": (
        "daemon/certificates.py",
        "console/commands/site_cert.py",
        "protocol/signatures.py",
        "console/luks/",
    ),
    "pytsk3": ("console/file_systems/",),
}

CLOCK_HOMES = ("engine/ports/clock.py", "console/", "bench/", "tests/")
CLOCK_CALLS = {
    f"time.{name}{suffix}"
    for name in ("time", "monotonic", "perf_counter", "process_time", "clock_gettime")
    for suffix in ("", "_ns")
} | {"time.sleep", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today"}

# One for data directories, one for the files that an operator asks for (docs/decisions/0012).
DURABLE_HOMES = ("engine/ports/durable.py", "engine/ports/prepared_sync.py", "console/unfinished_file.py")
DURABLE_CALLS = {
    "os.fsync",
    "os.fdatasync",
    "os.sync",
    "os.rename",
    "os.renames",
    "os.replace",
    "shutil.move",
}

UNIX_SOCKET_HOME = "engine/ports/unix_sockets.py"
# In a new directory that only their user may look into, and that goes with what they were made for.
OWN_DIRECTORY_SOCKETS = {"console/images/containers.py", "console/luks/unlocking.py"}

# `except Exception` outside the data path, each with its reason.
CATCH_ALL_ALLOWED = {
    "engine/group/compartment.py": "a defect stops the group, connection or session it is in, not others",
    "daemon/control.py": "one failing command must answer its caller and leave the daemon serving hosts",
}

# `farshore --version`, and the program that hooks run.
TERMINAL_HOMES = ("console/output.py", "console/cli.py", "console/hooks.py")

VAGUE_NAMES = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}


def report(rule: str, offences: Iterable[str]) -> None:
    """Fail with every offence at once, so that one run shows all there is to mend."""
    found = list(offences)
    if found:
        pytest.fail(f"{rule}\n  " + "\n  ".join(found), pytrace=False)


def banned_references(files: Iterable[SourceFile], banned: set[str]) -> Iterable[str]:
    """Offences `path:line: name` for every use of a banned dotted name."""
    for file in files:
        for name, line in sorted(set(file.references())):
            if name in banned:
                yield f"{file.path}:{line}: {name}"


def test_every_package_is_there() -> None:
    report(
        "a top-level package is missing",
        (name for name in OURS if not (ROOT / name / "__init__.py").is_file()),
    )


def test_imports_run_one_way() -> None:
    def offences() -> Iterable[str]:
        for file in production_files():
            for found in file.imports:
                target = found.module.split(".", 1)[0]
                if target in OURS and target not in MAY_IMPORT[file.package]:
                    yield f"{file.path}:{found.line}: {file.package} must not import {found.module}"

    report("imports run console → protocol and daemon → site_* → engine → protocol only", offences())


def test_protocol_does_no_io() -> None:
    def offences() -> Iterable[str]:
        for file in production_files():
            if file.package != "protocol":
                continue
            for found in file.imports:
                if any(is_under(found.module, name) for name in NOT_IN_PROTOCOL):
                    yield f"{file.path}:{found.line}: protocol must not import {found.module}"

    report("protocol is sans-I/O: no files, sockets, clocks, threads or randomness", offences())


def test_engine_does_not_know_nbd() -> None:
    report(
        "engine holds the truth and knows no host protocol; NBD belongs to site_primary",
        (
            f"{file.path}:{found.line}: {found.module}"
            for file in production_files()
            for found in file.imports
            if file.package == "engine" and is_under(found.module, "protocol.nbd")
        ),
    )


def test_libraries_stay_in_their_homes() -> None:
    def offences() -> Iterable[str]:
        for file in production_files():
            for found in file.imports:
                for library, homes in HOMES.items():
                    if is_under(found.module, library) and not file.path.startswith(homes):
                        yield f"{file.path}:{found.line}: {library} belongs in {', '.join(homes)}"

    report("each library that can lose data or block has one home", offences())


def test_files_are_short() -> None:
    report(
        f"files have at most {FILE_LINES_MAX} lines: split by what changes together",
        (f"{f.path}: {len(f.lines)} lines" for f in all_files() if len(f.lines) > FILE_LINES_MAX),
    )


def test_functions_are_short() -> None:
    def offences() -> Iterable[str]:
        for file in all_files():
            for node in file.nodes:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    if lines > FUNCTION_LINES_MAX:
                        yield f"{file.path}:{node.lineno}: {node.name} has {lines} lines"

    report(f"functions have at most {FUNCTION_LINES_MAX} lines", offences())


def test_lines_are_narrow() -> None:
    report(
        f"lines have at most {COLUMNS_MAX} columns",
        (
            f"{file.path}:{number}: {len(line)} columns"
            for file in all_files()
            for number, line in enumerate(file.lines, 1)
            if len(line) > COLUMNS_MAX
        ),
    )


def test_clocks_are_injected() -> None:
    files = [file for file in all_files() if not file.path.startswith(CLOCK_HOMES)]
    report(
        "time comes from engine.ports.clock: logic that reads a clock cannot be simulated",
        banned_references(files, CLOCK_CALLS),
    )


def test_one_module_syncs_and_renames() -> None:
    def path_replace() -> Iterable[str]:
        """Methods with one argument are those of `Path`: `str.replace` and `Disk.rename` take two."""
        for file in files:
            for node in file.nodes:
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in {"replace", "rename"}
                    and len(node.args) == 1
                    and not node.keywords
                    and file.dotted(node.func) is None
                ):
                    yield f"{file.path}:{node.lineno}: Path.{node.func.attr}"

    files = [file for file in production_files() if file.path not in DURABLE_HOMES]
    report(
        f"only {' and '.join(DURABLE_HOMES)} call fsync and rename: durability is judged in one place",
        [*banned_references(files, DURABLE_CALLS), *path_replace()],
    )


def test_one_module_binds_unix_sockets() -> None:
    def offences() -> Iterable[str]:
        for file in production_files():
            if file.path in OWN_DIRECTORY_SOCKETS | {UNIX_SOCKET_HOME}:
                continue
            if "socket.AF_UNIX" in dict(file.references()):
                for node in file.nodes:
                    if isinstance(node, ast.Attribute) and node.attr == "bind":
                        yield f"{file.path}:{node.lineno}"

    report(f"{UNIX_SOCKET_HOME} knows which socket may be removed, and sets the mode in time", offences())


def reraises(handler: ast.ExceptHandler) -> bool:
    """Whether a handler only cleans up and passes the error on."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_nothing_catches_everything() -> None:
    def handlers(file: SourceFile) -> Iterable[str]:
        for node in file.nodes:
            if not isinstance(node, ast.ExceptHandler) or reraises(node):
                continue
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            for item in caught:
                name = item.id if isinstance(item, ast.Name) else ""
                if item is None or name in {"Exception", "BaseException"}:
                    yield f"{file.path}:{node.lineno}: except {name or '(everything)'}"

    report(
        "catch what you can handle: a broken invariant must stop the daemon, not be logged and passed",
        (
            found
            for file in production_files()
            if file.path not in CATCH_ALL_ALLOWED
            for found in handlers(file)
        ),
    )


def test_catch_all_list_is_current() -> None:
    report(
        "CATCH_ALL_ALLOWED names a file that no longer catches everything: take it off",
        (
            path
            for path in CATCH_ALL_ALLOWED
            if (ROOT / path).exists() and "except Exception" not in (ROOT / path).read_text(encoding="utf-8")
        ),
    )


def test_randomness_is_injected() -> None:
    def offences() -> Iterable[str]:
        for file in production_files():
            free = file.package in {"daemon", "console"} or file.path.startswith("engine/ports/")
            for name, line in sorted(set(file.references())):
                shared = is_under(name, "random") and name.count(".") == 1
                if shared and name not in {"random.Random", "random.SystemRandom"}:
                    yield f"{file.path}:{line}: {name} is the shared generator; take a random.Random"
                elif not free and (name in {"os.urandom", "uuid.uuid4"} or name.startswith("secrets.")):
                    yield f"{file.path}:{line}: {name}; take the source of randomness as an argument"

    report("randomness is injected, so that a simulator's seed decides everything", offences())


def test_no_assert_as_input_check() -> None:
    report(
        "python -O removes assert: raise the error that says what is wrong",
        (
            f"{file.path}:{node.lineno}"
            for file in production_files()
            for node in file.nodes
            if isinstance(node, ast.Assert)
        ),
    )


def test_every_module_says_its_job() -> None:
    def offences() -> Iterable[str]:
        for file in all_files():
            doc = (ast.get_docstring(file.tree) or "").strip()
            if not doc:
                yield f"{file.path}: no docstring"
            elif file.package in PRODUCTION and not file.path.endswith("__init__.py"):
                first = doc.split("\n\n", 1)[0]
                if len(first.split()) < 4 or not first.rstrip().endswith((".", ":", "?")):
                    yield f"{file.path}: the docstring does not open with a sentence: {first!r}"

    report("a file opens with its job, its rules, and what it may not know", offences())


def unsafe_children(file: SourceFile) -> Iterable[str]:
    """Command lines of Python that find a module by its name, or take code from the current directory."""
    for node in file.nodes:
        if isinstance(node, ast.List | ast.Call):
            parts = node.elts if isinstance(node, ast.List) else node.args
            words = {each.value for each in parts if isinstance(each, ast.Constant)}
            ours = len(parts) > 1 and any(file.dotted(each) == "sys.executable" for each in parts)
            if ours and ("-m" in words or not {"-P", "-I"} & words):
                yield f"{file.path}:{node.lineno}"


def test_children_run_our_own_code() -> None:
    report(
        "python -m may find another's package: start children by farshore.children.child_words",
        (found for file in production_files() for found in unsafe_children(file)),
    )


def test_one_module_writes_to_the_terminal() -> None:
    def offences() -> Iterable[str]:
        for file in production_files():
            if file.package != "console" or file.path in TERMINAL_HOMES:
                continue
            yield from banned_references([file], {"rich.console.Console", "typer.echo", "typer.secho"})
            for node in file.nodes:
                if isinstance(node, ast.Name) and node.id == "print":
                    yield f"{file.path}:{node.lineno}: print"

    report("what a person sees is made printable in console/output.py", offences())


def test_no_vague_file_names() -> None:
    report(
        "name a file by what it is for",
        (file.path for file in all_files() if file.path.rsplit("/", 1)[-1] in VAGUE_NAMES),
    )
