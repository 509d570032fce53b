"""`farshore notify`: who is told of events, and a test that they are."""

from __future__ import annotations

from typing import Annotated

import typer

from console.figures import span_text
from console.session import Session, session_of
from protocol.commands.base import Reply, check_name
from protocol.commands.notify import NotifyInfo, NotifyList, NotifyTest, NotifyTestReply
from protocol.errors import ExitCode

TEST_TIMEOUT_S = 320.0

app = typer.Typer(help="Who is told of events.", no_args_is_help=True, rich_markup_mode=None)


class NotifyTests(Reply, frozen=True, kw_only=True):
    """What became of each test."""

    tests: list[NotifyTestReply]


@app.command("list")
def list_notifications(ctx: typer.Context) -> None:
    """Every [notify.NAME] of the site, and how it does."""
    session = session_of(ctx)
    data = session.call(NotifyList())

    def show() -> None:
        session.output.table(
            ("name", "way", "from", "sent", "queued", "dropped", "error"),
            [_row(each) for each in data.notifications],
            empty="nobody is told: write [notify.NAME] into site.toml",
        )
        if data.lost:
            session.output.note(f"{data.lost} events were lost before they reached any of them")

    session.output.result("notify.list", data, show)


@app.command("test")
def send_test(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One instead of all.")] = None,
) -> None:
    """Send a test event now, whatever levels and kinds a notification is for; ends with 1 if one fails."""
    session = session_of(ctx)
    names = [check_name(name, "notify")] if name is not None else _names(session)
    data = NotifyTests(tests=[session.call(NotifyTest(notification=each), TEST_TIMEOUT_S) for each in names])

    def show() -> None:
        for each in data.tests:
            session.output.line(
                f"{each.name} ({each.way}): {each.error or 'sent'} in {span_text(each.took_s)}"
            )

    if not data.tests:
        session.output.note("nobody is told: write [notify.NAME] into site.toml")
    session.output.result("notify.test", data, show)
    # A test of nobody is no success.
    if not data.tests or not all(each.ok for each in data.tests):
        raise typer.Exit(ExitCode.FAILED)


def _names(session: Session) -> list[str]:
    return [each.name for each in session.call(NotifyList()).notifications]


def _row(each: NotifyInfo) -> tuple[str, ...]:
    figures = (str(each.sent), str(each.queued), str(each.dropped))
    return (each.name, each.way, each.min_level, *figures, each.error or "")
