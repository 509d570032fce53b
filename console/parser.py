"""The parser of command lines: the tree of nouns and verbs, and what typer says of words that make none.

Only `console.cli` comes here, once a command is to be parsed: loading typer is a third of what most take.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command_name
from typer.models import CommandInfo

from console import guesses
from console.empty_words import require_words
from console.session import Session
from console.words import HIDDEN, NOUNS, VERBS, VERBS_BESIDE
from protocol.errors import ExitCode, NotFound, UsageError

HELP = """Replicates, backs up and restores block volumes between two sites.

A cut is a backup's label or id, a time (RFC 3339, 02:45, 'yesterday 14:00', '10 minutes ago', -10m), now,
latest, or TIMELINE:POSITION."""

# The parser's base error, under whichever name the installed typer carries its parser.
_ParserError: type[Exception] = typer.BadParameter.__mro__[2]


class GuessedVerbs(TyperGroup):
    """A noun that knows its verbs by other names, too."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See `click.Group.get_command`."""
        for name in (cmd_name, *guesses.VERBS.get(cmd_name, ())):
            if (found := super().get_command(ctx, name)) is not None:
                return found
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See `click.Group.resolve_command`."""
        if args and self.get_command(ctx, args[0]) is None:
            from console.suggestions import COMMAND_NEAR, nearest

            if nearest(args[0], list(self.commands), COMMAND_NEAR) is None:
                args = guesses.with_verb(str(ctx.info_name), args)
        return super().resolve_command(ctx, args)


def commands_for(word: str | None = None, second: str | None = None) -> typer.Typer:
    """The parser of the command lines that begin with `word`; of all, if that is none of ours. `second`: the
    next word; if that is a verb of the noun's own file, the files beside it are not loaded."""
    app = typer.Typer(
        name="farshore",
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        callback=_options,
    )
    known = word in NOUNS or word in VERBS
    for noun, place in NOUNS.items():
        if noun == word or not known:
            app.add_typer(_noun(noun, place, second if known else None), name=noun, cls=GuessedVerbs)
    for verb, place in VERBS.items():
        if verb == word or not known:
            app.command(verb, hidden=verb in HIDDEN)(_there(place))
    return app


def _noun(noun: str, place: str, second: str | None) -> typer.Typer:
    verbs: typer.Typer = _there(f"{place}.app")
    there = {_name_of(each) for each in verbs.registered_commands}
    if second in there:
        return verbs
    there |= {str(each.name) for each in verbs.registered_groups}
    for verb, beside in VERBS_BESIDE.get(noun, {}).items():
        if verb in there:
            continue
        if isinstance(found := _there(beside), typer.Typer):
            verbs.add_typer(found, name=verb)
        else:
            verbs.command(verb)(found)
    return verbs


def _name_of(command: CommandInfo) -> str:
    return command.name or get_command_name(getattr(command.callback, "__name__", ""))


def _there(place: str) -> Any:
    module, _, name = place.rpartition(".")
    return getattr(import_module(f"console.commands.{module}"), name)


def _options(
    site: Annotated[
        str | None, typer.Option(metavar="NAME|DIR|ENDPOINT", help="The site (or FARSHORE_SITE).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Whole tables, wider than the terminal.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Named here for `--help` only: `console.cli` has taken them out of the words already."""


def run(words: Sequence[str], session: Session) -> int:
    """The exit code of the parsed command. Raises UsageError for words that make none."""
    require_words(words)
    try:
        given = guesses.guessed(list(words))
        app = commands_for(*given[:2])
        result = app(args=given, prog_name="farshore", standalone_mode=False, obj=session)
    except typer.Abort:
        return int(ExitCode.INTERRUPTED)
    except _ParserError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            if session.output.as_json:
                raise UsageError("a command is missing", next_step="farshore --help") from error
            session.output.note(*str(error).splitlines())
            return int(ExitCode.USAGE)
        raise _usage(error, words, for_people=not session.output.as_json) from error
    except (NotFound, UsageError) as error:
        if session.output.as_json:
            raise
        from console.suggestions import with_meant, with_word_written

        if isinstance(error, UsageError):
            raise with_word_written(error, words) from error
        raise with_meant(error, words, session) from error
    return result if isinstance(result, int) else int(ExitCode.OK)


def _usage(error: Exception, words: Sequence[str], *, for_people: bool) -> UsageError:
    message = str(getattr(error, "format_message", error.__str__)()) or str(error)
    context = getattr(error, "ctx", None)
    path = str(context.command_path) if context is not None else "farshore"
    usage = UsageError(message.strip(), next_step=f"{path} --help")
    if context is None or not for_people:
        return usage
    from console.suggestions import with_command_meant

    known = [name for name, each in getattr(context.command, "commands", {}).items() if not each.hidden]
    if context.parent is None:
        known += [*guesses.FIRST_WORDS, *guesses.PLURALS]
    return with_command_meant(usage, words, known)
