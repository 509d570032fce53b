"""The command `farshore`: its nouns, and the way from an error to an exit code.

`--site` and `--json` may stand anywhere on the line; they are taken out before the words are parsed, so every
command has them without naming them. Nothing here knows a data file; what needs one is the daemon's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from console.guesses import GuessedVerbs, guessed
from console.output import Output
from console.session import Session
from console.streams import StdoutFailed, take_streams
from console.words import HIDDEN, NOUNS, VERBS, VERBS_BESIDE
from protocol.errors import ExitCode, FarshoreError, ProtocolError, UsageError, system_error

HELP = """Replicates, backs up and restores block volumes between two sites.

A cut is a backup's label or id, a time (RFC 3339, 02:45, 'yesterday 14:00', '10 minutes ago', -10m), now,
latest, or TIMELINE:POSITION."""

# The parser's base error, under whichever name the installed typer carries its parser.
_ParserError: type[Exception] = typer.BadParameter.__mro__[2]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"farshore {version('farshore')}")
        except PackageNotFoundError:
            print("farshore (not installed)")
        raise typer.Exit


def commands_for(word: str | None = None) -> typer.Typer:
    """The parser of the command lines that begin with `word`; of all, if that is none of ours."""
    app = typer.Typer(
        name="farshore",
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        callback=_options,
    )
    known = word in NOUNS or word in VERBS or word == "--version"
    for noun, place in NOUNS.items():
        if noun == word or not known:
            app.add_typer(_noun(noun, place), name=noun, cls=GuessedVerbs)
    for verb, place in VERBS.items():
        if verb == word or not known:
            app.command(verb, hidden=verb in HIDDEN)(_there(place))
    return app


def _noun(noun: str, place: str) -> typer.Typer:
    verbs: typer.Typer = _there(f"{place}.app")
    there = {each.name for each in verbs.registered_commands} | {
        each.name for each in verbs.registered_groups
    }
    for verb, beside in VERBS_BESIDE.get(noun, {}).items():
        if verb in there:
            continue
        if isinstance(found := _there(beside), typer.Typer):
            verbs.add_typer(found, name=verb)
        else:
            verbs.command(verb)(found)
    return verbs


def _there(place: str) -> Any:
    module, _, name = place.rpartition(".")
    return getattr(import_module(f"console.commands.{module}"), name)


def _options(
    site: Annotated[
        str | None, typer.Option(metavar="NAME|DIR|ENDPOINT", help="The site (or FARSHORE_SITE).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Named here for `--help` only: `main` has taken them out of the words already."""


def take_options(words: Sequence[str]) -> tuple[str | None, bool, list[str]]:
    """`--site`'s value, whether `--json` was given, and the other words; what follows `--` is left alone.

    Raises UsageError for `--site` without a value.
    """
    site: str | None = None
    as_json = False
    rest: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            rest += ["--", *words[position:]]
            break
        if word == "--json":
            as_json = True
        elif word == "--site":
            if position == len(words):
                raise UsageError("--site needs a value", next_step="add NAME, DIR or ENDPOINT")
            site = words[position]
            position += 1
        elif word.startswith("--site="):
            site = word.removeprefix("--site=")
        else:
            rest.append(word)
    return site, as_json, rest


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line; gives its exit code."""
    take_streams()
    given = list(sys.argv[1:] if words is None else words)
    session = Session(selector=None, as_json="--json" in given)
    try:
        site, as_json, rest = take_options(given)
        session = Session(selector=site, as_json=as_json)
        code = _run(rest, session)
        session.output.flush()
        return code
    except BrokenPipeError:
        # The reader has had enough (`| head`).
        session.output.abandon()
        return int(ExitCode.FAILED)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except StdoutFailed as error:
        session.output.abandon()
        return _tell(_lost(error, session.output), session.output)
    except OSError as error:
        return _tell(system_error(error), session.output)
    except FarshoreError as error:
        return _tell(error, session.output)
    except ProtocolError as error:
        wire = FarshoreError(f"the daemon's answer makes no sense: {error}", next_step="compare versions")
        return _tell(wire, session.output)
    finally:
        session.close()


def _tell(error: FarshoreError, output: Output) -> int:
    """Its exit code, whoever can still be told of it."""
    try:
        output.error(error)
    except (BrokenPipeError, StdoutFailed):
        output.abandon()
        output.error(error)
    return int(error.exit_code)


def _lost(error: StdoutFailed, output: Output) -> FarshoreError:
    why = f"standard output: {error.strerror}"
    if output.has_result:
        return FarshoreError(
            f"{why}; the command was carried out, but its result is lost",
            subject="standard output",
            next_step="see what is there (farshore status) before it is given again",
        )
    return FarshoreError(why, subject="standard output", next_step="write to where there is room")


def _run(words: list[str], session: Session) -> int:
    """The exit code of the parsed command. Raises UsageError for words that make none."""
    try:
        words = guessed(words)
        app = commands_for(words[0] if words else None)
        result = app(args=words, prog_name="farshore", standalone_mode=False, obj=session)
    except typer.Abort:
        return int(ExitCode.INTERRUPTED)
    except _ParserError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            session.output.note(*str(error).splitlines())
            return int(ExitCode.USAGE)
        raise _usage(error) from error
    return result if isinstance(result, int) else int(ExitCode.OK)


def _usage(error: Exception) -> UsageError:
    message = str(getattr(error, "format_message", error.__str__)()) or str(error)
    context = getattr(error, "ctx", None)
    path = str(context.command_path) if context is not None else "farshore"
    return UsageError(message.strip(), next_step=f"{path} --help")


if __name__ == "__main__":
    sys.exit(main())
