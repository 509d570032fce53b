"""The command `farshore`: its nouns, and the way from an error to an exit code.

`--site` and `--json` may stand anywhere on the line; they are taken out before the words are parsed, so every
command has them without naming them. Nothing here knows a data file; what needs one is the daemon's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from console.commands import (
    backup,
    bisect,
    branch,
    clone,
    drill,
    event,
    file,
    file_versions,
    job,
    journal,
    mount,
    pair,
    peer,
    replay,
    restore,
    restore_files,
    role,
    schedule,
    schema,
    site,
    status,
    verify,
    volume,
    volume_export,
    volume_import,
)
from console.output import Output
from console.session import Session
from console.streams import StdoutFailed, take_streams
from protocol.errors import ExitCode, FarshoreError, ProtocolError, UsageError, system_error

HELP = """Replicates, backs up and restores block volumes between two sites.

A cut is a backup's label or id, a time (RFC 3339, 02:45, 'yesterday 14:00', -10m), now, latest, or
TIMELINE:POSITION."""

app = typer.Typer(
    name="farshore", help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.add_typer(site.app, name="site")
app.add_typer(peer.app, name="peer")
app.add_typer(volume.app, name="volume")
volume.app.command("export")(volume_export.export_volume)
volume.app.command("import")(volume_import.import_volume)
app.add_typer(pair.app, name="pair")
app.add_typer(branch.app, name="branch")
app.add_typer(clone.app, name="clone")
app.add_typer(backup.app, name="backup")
app.add_typer(schedule.app, name="schedule")
app.add_typer(restore.app, name="restore")
journal.app.command("replay")(replay.replay)
app.add_typer(journal.app, name="journal")
restore.app.command("files")(restore_files.restore_files)
app.add_typer(file_versions.app, name="files")
app.command("ls")(file.ls)
app.command("cat")(file.cat)
app.add_typer(job.app, name="job")
app.command("switchover")(role.switchover)
app.command("takeover")(role.takeover)
app.command("failback")(role.failback)
app.command("status")(status.status)
app.add_typer(drill.app, name="drill")
app.command("bisect")(bisect.bisect)
app.command("mount")(mount.mount)
app.command("umount")(mount.umount)
app.command("wait")(pair.wait)
app.command("events")(event.events)
app.command("verify")(verify.verify)
app.command("schema")(schema.show_schema)
app.command("demo")(site.demo)

# The parser's base error, under whichever name the installed typer carries its parser.
_ParserError: type[Exception] = typer.BadParameter.__mro__[2]


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"farshore {version('farshore')}")
        except PackageNotFoundError:
            print("farshore (not installed)")
        raise typer.Exit


@app.callback()
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
