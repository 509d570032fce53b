"""The command `farshore`: its nouns, and the way from an error to an exit code.

`--site`, `--json` and `--wide` may stand anywhere on the line; they are taken out before the words are
parsed, so every command has them without naming them. Nothing here knows a data file; what needs one is the
daemon's. What talks to a site, and what parses, is loaded once it is needed: `--version` needs neither.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from console.empty_words import require_words
from console.output import Output
from console.streams import StdoutFailed, take_streams
from protocol.errors import ExitCode, FarshoreError, ProtocolError, UsageError, system_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may stand anywhere on the line; `site` is the value of `--site`."""

    site: str | None = None
    as_json: bool = False
    wide: bool = False


def take_options(words: Sequence[str]) -> tuple[Options, list[str]]:
    """The options, and the other words; what follows `--` is left alone.

    Raises UsageError for `--site` without a value, or with an empty one.
    """
    site: str | None = None
    flags: set[str] = set()
    rest: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            rest += ["--", *words[position:]]
            break
        if word in ("--json", "--wide"):
            flags.add(word)
        elif word == "--site":
            if position == len(words):
                raise UsageError("--site needs a value", next_step="add NAME, DIR or ENDPOINT")
            site = words[position]
            require_words([word, site])  # else another site would be meant
            position += 1
        elif word.startswith("--site="):
            require_words([word])
            site = word.removeprefix("--site=")
        else:
            rest.append(word)
    return Options(site=site, as_json="--json" in flags, wide="--wide" in flags), rest


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line; gives its exit code."""
    take_streams()
    given = list(sys.argv[1:] if words is None else words)
    output = Output(as_json="--json" in given)
    try:
        options, rest = take_options(given)
        output.as_json, output.wide = options.as_json, options.wide
        code = _run(rest, options, output)
        output.flush()
        return code
    except BrokenPipeError:
        # The reader has had enough (`| head`).
        output.abandon()
        return int(ExitCode.FAILED)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    except StdoutFailed as error:
        output.abandon()
        return _tell(_lost(error, output), output)
    except OSError as error:
        return _tell(system_error(error), output)
    except FarshoreError as error:
        return _tell(error, output)
    except ProtocolError as error:
        wire = FarshoreError(f"the daemon's answer makes no sense: {error}", next_step="compare versions")
        return _tell(wire, output)


def _run(words: list[str], options: Options, output: Output) -> int:
    if words[:1] in (["--version"], ["version"]):
        _show_version()
        return int(ExitCode.OK)
    from console import parser
    from console.session import Session

    session = Session(selector=options.site, output=output)
    try:
        return parser.run(words, session)
    except FarshoreError:
        # Commands that the error prints name the site, whether or not it was asked already.
        with suppress(FarshoreError, OSError):
            session.site  # noqa: B018
        raise
    finally:
        session.close()


def _show_version() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(f"farshore {version('farshore')}")
    except PackageNotFoundError:
        print("farshore (not installed)")


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
            next_step="see what is there (`farshore status`) before it is given again",
        )
    return FarshoreError(why, subject="standard output", next_step="write to where there is room")


if __name__ == "__main__":
    sys.exit(main())
