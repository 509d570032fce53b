"""What the demo prints: steps, the commands that an operator would type, proofs with their times, a summary.

A proof that does not hold ends the demo there: `Step.proof` raises, and the summary names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from msgspec import UNSET, UnsetType

from console.local_time import monotonic
from console.output import Output
from console.styled import Styled, text
from protocol.commands.base import Reply
from protocol.errors import Mismatch

WIDTH = 84


class DemoStep(Reply, frozen=True, kw_only=True):
    """Progress of `demo`. What happens in a step: it begins or ends, a command as an operator would type it,
    a note, or a proof (what must be true, and whether it `holds`); `proofs` at the end: how many held."""

    step: int
    title: str
    event: Literal["begin", "command", "note", "proof", "end"]
    command: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    proof: str | UnsetType = UNSET
    holds: bool | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    took_s: float | UnsetType = UNSET
    proofs: int | UnsetType = UNSET


class StepSummary(Reply, frozen=True, kw_only=True):
    """A step: the proofs that held, and what ended it early if anything did."""

    step: int
    title: str
    took_s: float
    proofs: int
    failed: str


class Summary(Reply, frozen=True, kw_only=True):
    """A run; with any step that failed `ok` is false."""

    ok: bool
    took_s: float
    proofs: int
    steps: list[StepSummary]


@dataclass(slots=True)
class Step:
    """One step while it runs and afterwards; `proofs` counts those that held."""

    number: int
    title: str
    output: Output
    began_s: float
    took_s: float = 0.0
    proofs: int = 0
    failed: str = ""
    _mark_s: float = field(default=0.0)

    def command(self, line: str) -> None:
        """What an operator would type for what comes now."""
        data = DemoStep(step=self.number, title=self.title, event="command", command=line)
        self._say(data, text(f"     $ {line}", "dim"))

    def note(self, said: str) -> None:
        """A line that explains and proves nothing."""
        data = DemoStep(step=self.number, title=self.title, event="note", text=said)
        self._say(data, text(f"     {said}"))

    def proof(self, what: str, holds: bool, detail: str = "") -> None:
        """Something that must be true here. Raises Mismatch if it is not."""
        now = monotonic()
        took_s, self._mark_s = now - self._mark_s, now
        said = f"{what}: {detail}" if detail else what
        pad = max(1, WIDTH - len(said))
        line = text("     ") + text("ok   " if holds else "BAD  ", "green" if holds else "bold red")
        line += text(f"{said}{' ' * pad}{took_s:6.2f} s")
        data = DemoStep(
            step=self.number,
            title=self.title,
            event="proof",
            proof=what,
            holds=holds,
            detail=detail,
            took_s=round(took_s, 3),
        )
        self._say(data, line)
        if not holds:
            raise Mismatch(
                f"step {self.number}, {self.title}: this does not hold: {said}", subject=self.title
            )
        self.proofs += 1

    def mark(self) -> None:
        """The next proof's time counts from here."""
        self._mark_s = monotonic()

    def _say(self, data: DemoStep, line: Styled) -> None:
        if self.output.as_json:
            self.output.progress(data)
        else:
            self.output.line(line)
            self.output.flush()

    def begin(self) -> None:
        """Print the title."""
        data = DemoStep(step=self.number, title=self.title, event="begin")
        self._say(data, text(f"{self.number:>3}. {self.title}", "bold"))

    def end(self) -> None:
        """Stop the clock."""
        self.took_s = monotonic() - self.began_s
        data = DemoStep(
            step=self.number,
            title=self.title,
            event="end",
            took_s=round(self.took_s, 3),
            proofs=self.proofs,
        )
        self.output.progress(data)


class Report:
    """All steps of one run."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.steps: list[Step] = []
        self._began_s = monotonic()

    @property
    def took_s(self) -> float:
        """Seconds since the demo began."""
        return monotonic() - self._began_s

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A step around the body; whatever ends it early is remembered under its name."""
        now = monotonic()
        step = Step(len(self.steps) + 1, title, self.output, now, _mark_s=now)
        self.steps.append(step)
        step.begin()
        try:
            yield step
        except BaseException as error:
            step.failed = str(error) or type(error).__name__
            raise
        finally:
            step.end()

    def summary(self) -> Summary:
        """For scripts."""
        return Summary(
            ok=bool(self.steps) and not any(step.failed for step in self.steps),
            took_s=round(self.took_s, 3),
            proofs=sum(step.proofs for step in self.steps),
            steps=[
                StepSummary(
                    step=step.number,
                    title=step.title,
                    took_s=round(step.took_s, 3),
                    proofs=step.proofs,
                    failed=step.failed,
                )
                for step in self.steps
            ],
        )

    def show_summary(self) -> None:
        """The table for people."""
        data = self.summary()
        self.output.line("")
        rows = [
            (
                str(step.number),
                step.title,
                f"{step.took_s:.1f} s",
                f"FAILED after {step.proofs}" if step.failed else f"{step.proofs} held",
            )
            for step in self.steps
        ]
        self.output.table(("step", "what", "time", "proofs"), rows, empty="nothing was done")
        verdict = "every proof held" if data.ok else "NOT EVERY PROOF HELD"
        self.output.line(f"{verdict}: {data.proofs} proofs in {self.took_s:.1f} s")
