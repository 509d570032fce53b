"""The demo's last part: the writing moves to the other site, that site is killed, and the first takes
over."""

from __future__ import annotations

from console.demo.report import Step
from console.demo.sites import GROUP, DemoSite
from console.demo.tools import identical
from console.demo.writing import FILES, Stage, position
from protocol.commands.pair import PairShow
from protocol.commands.role import Switchover, Takeover

MOVE_TIMEOUT_S = 60.0


def switch_over(stage: Stage, step: Step) -> None:
    """Drain, and swap roles; nothing is lost and nothing but the marker is sent."""
    one, other = stage.primary, stage.secondary
    step.command(f"farshore switchover {GROUP} --confirm {GROUP} --site {one.directory}")
    data = one.call(
        Switchover(group=GROUP, confirm=GROUP, timeout_s=MOVE_TIMEOUT_S), timeout_s=MOVE_TIMEOUT_S
    )
    step.proof(f"{other.name} writes now", data.done, f"after {data.took_ms:.0f} ms")
    other.wait_state("paired")
    _same(step, stage, writer=other, reader=one)


def take_over(stage: Stage, step: Step) -> None:
    """The writing site dies; the other says what that may have cost, and goes on. The dead one comes back and
    follows."""
    one, other = stage.primary, stage.secondary
    other.wait_durable()
    step.command(f"kill -9 {other.pid}   (site {other.name}, which writes)")
    other.kill()
    step.command(f"farshore takeover {GROUP} --confirm {GROUP} --site {one.directory}")
    data = one.call(Takeover(group=GROUP, confirm=GROUP), timeout_s=MOVE_TIMEOUT_S)
    step.proof(f"{one.name} writes now: {data.statement}", data.done, f"after {data.took_ms:.0f} ms")
    step.command(f"farshore site run {other.directory}")
    other.start()
    one.wait_state("paired")
    role = other.call(PairShow(group=GROUP)).role
    step.proof(f"{other.name} came back and follows by itself", role == "secondary", f"role {role}")
    _same(step, stage, writer=one, reader=other)


def _same(step: Step, stage: Stage, *, writer: DemoSite, reader: DemoSite) -> None:
    cut = writer.wait_durable().position
    live, held = writer.uri(FILES), reader.uri(FILES, position(cut))
    equal, seconds = identical(live, held, cwd=stage.directory)
    step.proof(f"{reader.name}'s {FILES} at that cut equal to {writer.name}'s live volume", equal, seconds)
