"""docs/first-jobs.md: the commands that it gives, what they said when they were run, and how to compare that.

A job is a section with blocks of a console: `before` (what is there already), `job` (what its operator types)
and `transcript`. `lon# ` is root at lon, `lon$ ` its user ada; a line that ends with `\\` goes on. Words like
LAST_GOOD stand for what an earlier command printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.booted_debian import BootedDebian
from tests.support.clients import ClientFailed

USER = "ada"
_SECTION = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```console (before|job|transcript)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"^(?P<machine>[a-z]+)(?P<sign>[#$]) (?P<line>(?:.*\\\n)*.*)$", re.MULTILINE)
_FILLED = re.compile(r"\b[A-Z]{3,}(?:_[A-Z]+)*\b")
# What commands print that later ones take.
_PRINTED = (
    ("TOKEN_OF_{machine}", re.compile(r"^token (farshore1\.\S+)$", re.MULTILINE)),
    ("LAST_GOOD", re.compile(r"^last good +(\S+)", re.MULTILINE)),
    ("LAST_CUT", re.compile(r" is at ([0-9a-f]{16}:\d+)")),
    ("KEY", re.compile(r"^key +(farshore-ed25519:\S+)$", re.MULTILINE)),
)
# Not every machine lets a container's root do everything.
_OF_THE_MACHINE = re.compile(r"^warning: not marked as an I/O flusher.*\n", re.MULTILINE)
# apt says much, and each mirror something else.
_OF_APT = re.compile(r"^Setting up (?:farshore|libnbd-bin|fuse3|e2fsprogs) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A command as an operator types it."""

    machine: str
    root: bool
    line: str

    @property
    def shown(self) -> str:
        """Behind its prompt."""
        return f"{self.machine}{'#' if self.root else '$'} {self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A section of the page. `transcript` is all text of it, commands and answers."""

    number: int
    title: str
    before: list[Typed]
    typed: list[Typed]
    transcript: str


def jobs(page: str) -> list[Job]:
    """Those of the page, in its order."""
    parts = _SECTION.split(page)
    found = []
    for number, title, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        blocks = dict.fromkeys(("before", "job", "transcript"), "")
        for kind, block in _BLOCK.findall(text):
            blocks[kind] += block
        found.append(
            Job(
                number=int(number),
                title=title,
                before=commands(blocks["before"]),
                typed=commands(blocks["job"]),
                transcript=blocks["transcript"],
            )
        )
    return found


def commands(block: str) -> list[Typed]:
    """Each command of a block."""
    return [
        Typed(machine=each["machine"], root=each["sign"] == "#", line=each["line"])
        for each in _TYPED.finditer(block)
    ]


def with_transcripts(page: str, made: dict[int, str]) -> str:
    """The page with other transcripts, by the number of the job."""
    parts = _SECTION.split(page)
    for place in range(1, len(parts), 3):
        block = f"```console transcript\n{made[int(parts[place])]}```"
        old = re.compile(r"^```console transcript\n.*?^```$", re.MULTILINE | re.DOTALL)
        parts[place + 2] = old.sub(lambda _: block, parts[place + 2], count=1)  # noqa: B023
    heads = "".join(
        f"## {number}. {title}{text}"
        for number, title, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    )
    return parts[0] + heads


def shape(transcript: str) -> list[str]:
    """Its lines without what differs from run to run: numbers, ids, times, sizes, how wide a table is, and
    how many moments a search tried."""
    lines: list[str] = []
    for line in transcript.splitlines():
        if _TYPED.match(line) is None:
            line = re.sub(r"\S*\d\S*", "#", line)
            line = re.sub(r"# (?:B|KiB|MiB|GiB|ms|s|min|h|d)\b", "#", line)
            line = re.sub(r"#(?:\s+#)+", "#", line)
            line = re.sub(r"^# (?:good|bad)$", "# good or bad", line)
        else:
            line = re.sub(r"farshore1\.\S+|[0-9a-f]{16}:\d+|farshore-ed25519:[0-9a-f]+", "#", line)
        line = " ".join(line.split())
        if not lines or line != lines[-1]:
            lines.append(line)
    return lines


class Operators:
    """Types commands at machines, fills in what earlier ones printed, and writes down what is seen."""

    def __init__(self, machine: Callable[[str], BootedDebian]) -> None:
        self._machine = machine
        self.printed: dict[str, str] = {}

    def run(self, typed: Typed) -> str:
        """The command and all that it said. ClientFailed where it does not succeed."""
        line = _FILLED.sub(lambda word: self.printed.get(word[0], word[0]), typed.line)
        # In the order in which a terminal shows it.
        shell = f"exec 2>&1; cd; export PYTHONUNBUFFERED=1; {line}"
        words = ["sh", "-c", shell]
        if not typed.root:
            words = ["runuser", "-u", USER, "--", "env", f"HOME=/home/{USER}", *words]
        done = self._machine(typed.machine).call(*words, timeout_s=900)
        shown = Typed(machine=typed.machine, root=typed.root, line=line).shown
        said = done.stdout if done.stdout.endswith("\n") or not done.stdout else f"{done.stdout}\n"
        if done.returncode != 0:
            raise ClientFailed(f"ended with {done.returncode}: {shown}\n{said}")
        self._note(typed.machine, said)
        said = _OF_THE_MACHINE.sub("", said)
        return f"{shown}\n{_abridged(said) if line.startswith('apt ') else said}"

    def _note(self, machine: str, said: str) -> None:
        for name, pattern in _PRINTED:
            for value in pattern.findall(said):
                self.printed[name.format(machine=machine.upper())] = value


def _abridged(said: str) -> str:
    """apt's own words left out."""
    kept = sorted(line for line in said.splitlines() if _OF_APT.match(line))
    return "".join(f"{line}\n" for line in ["…", *kept])


def page_text(path: Path) -> str:
    """The page."""
    return path.read_text(encoding="utf-8")
