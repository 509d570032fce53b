"""One run of the command: its output, the site it talks to, and what it takes for now.

Relative and local times are resolved here, once, and said as local and UTC time.
"""

from __future__ import annotations

import shlex
import sys

import typer

from console.client import CALL_TIMEOUT_S, Client
from console.figures import local_text
from console.local_time import LocalZone, now_ns
from console.options import named
from console.output import Output
from console.sites import SiteChoice, choose_site
from protocol.commands.base import BaseCommand, ReplyType
from protocol.commands.cut import CutInfo
from protocol.commands.pages import ListReply, PagedCommand
from protocol.cut_text import CutPosition, CutTime, NamedCut, parse_user_cut, time_text
from protocol.envelopes import BadField
from protocol.errors import FarshoreError, UsageError
from protocol.positions import parse_cut
from protocol.printable import printable
from protocol.quantities import parse_span


class Session:
    """What every command gets. `selector` is the value of `--site`."""

    def __init__(self, *, selector: str | None, output: Output) -> None:
        self.output = output
        self.zone = LocalZone()
        # What the parser knows of the command that runs.
        self.context: typer.Context | None = None
        self._selector = selector
        self._site: SiteChoice | None = None
        self._client: Client | None = None

    def at(self, selector: str) -> Session:
        """A session with another site, for the same command. To be closed on its own."""
        return Session(selector=selector, output=Output(as_json=self.output.as_json))

    @property
    def site(self) -> SiteChoice:
        """The chosen site. Raises NotFound or UsageError."""
        if self._site is None:
            self._site = choose_site(self._selector)
            self.output.site = self._site.name
            self.output.site_word = self._site.word
        return self._site

    @property
    def interactive(self) -> bool:
        """Whether there is a person to ask."""
        return self.output.is_terminal and sys.stdin.isatty()

    def ask(self, question: str) -> str:
        """What a person types."""
        return input(printable(question)).strip()

    def call(self, command: BaseCommand[ReplyType], timeout_s: float = CALL_TIMEOUT_S) -> ReplyType:
        """The site's reply. Raises FarshoreError."""
        try:
            return self._connected().call(command, timeout_s)
        except BadField as error:
            raise named(error, self.context) from error

    def first_page(self, command: PagedCommand[ReplyType], timeout_s: float) -> ReplyType:
        """As much of a list as fits into one reply. Raises FarshoreError."""
        return self._connected().first_page(command, timeout_s)

    def listed(self, command: PagedCommand[ReplyType], limit: int | None, after: str | None) -> ReplyType:
        """A list: all of it, or as the options of `console.options` say. Raises FarshoreError."""
        if limit is None and after is None:
            return self.call(command)
        return self._connected().page(command, limit, after, CALL_TIMEOUT_S)

    def say_more(self, data: ListReply) -> None:
        """After a list for people: how to go on."""
        if data.next:
            self.output.note(f"there are more: add --after {shlex.quote(data.next)}")

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self.site.client()
        return self._client

    def close(self) -> None:
        """Drop the connection; twice is fine."""
        if self._client is not None:
            self._client.close()

    def cut(self, text: str) -> NamedCut:
        """A cut as the user wrote it; a time is echoed as it was understood. Raises UsageError."""
        cut = parse_user_cut(text, now_ns=now_ns(), zone=self.zone)
        if isinstance(cut, CutTime):
            utc = time_text(cut.utc_ns)
            self.output.note(f"{text}: {local_text(utc, self.zone)}, {utc}")
        return cut

    def since(self, text: str) -> NamedCut:
        """Where `--since` begins: any cut, or a span back from now, as `10m`. Raises UsageError."""
        try:
            parse_span(text)
        except UsageError:
            return self.cut(text)
        return self.cut(f"-{text.strip()}")

    def local(self, utc: str | None) -> str:
        """A reply's time for people."""
        return local_text(utc, self.zone)

    def cut_line(self, cut: CutInfo | None) -> str:
        """A reply's cut: position, and its frame's time."""
        if cut is None:
            return ""
        return f"{cut.text} ({self.local(cut.time)})" if cut.time else cut.text


def session_of(ctx: typer.Context) -> Session:
    """The session that `main` gave to the command."""
    session = ctx.find_root().obj
    if not isinstance(session, Session):
        raise FarshoreError("a command was called without a session")
    session.context = ctx
    return session


def fixed_cut(cut: CutInfo) -> CutPosition:
    """A reply's cut as a name of it."""
    return CutPosition(timeline=int(cut.timeline, 16), position=cut.position)


def position_argument(text: str | None) -> CutPosition | None:
    """`TIMELINE:POSITION`, or None. Raises UsageError."""
    if text is None:
        return None
    cut = parse_cut(text)
    return CutPosition(timeline=cut.timeline, position=cut.position)
