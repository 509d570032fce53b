"""`farshore complete -- WORDS…`: what may come next on a command line. For the shells' completions.

Words and options come from the command tree, names and labels from the site. Quick and silent: without a
daemon there are no names, and whatever is wrong is no concern of somebody who presses TAB. What confirms a
loss (`--confirm`) is not completed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from console.output import Output
from console.session import Session, session_of
from console.sites_file import known_sites
from console.words import HIDDEN, NOUNS, VERBS
from protocol.commands.backup import BackupList
from protocol.commands.job import JobList
from protocol.commands.peer import PeerList
from protocol.commands.volume import VolumeList
from protocol.errors import FarshoreError, ProtocolError

ANSWER_TIMEOUT_S = 1.0
COMMON = ("--help", "--json", "--site", "--wide")
Names = Callable[[Session, str], list[str]]


def complete(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(help="What stands after `farshore`; the last may be begun.")],
) -> None:
    """Print what the last word may become, one a line."""
    session = session_of(ctx)
    try:
        found = candidates(words)
    except (FarshoreError, ProtocolError, OSError):
        return
    for each in found:
        session.output.line(each)


def candidates(words: Sequence[str]) -> list[str]:
    """What the last of the words may become. Raises FarshoreError, ProtocolError, OSError."""
    from console.cli import take_options
    from console.parser import commands_for

    *before, begun = words or [""]
    if before and before[-1] == "--site":
        return _matching(known_sites().entries, begun)
    common, given = take_options(before)
    if not given:
        return _matching([*NOUNS, *(verb for verb in VERBS if verb not in HIDDEN), *COMMON], begun)
    command: Any = typer.main.get_command(commands_for(given[0]))
    depth = 0
    while hasattr(command, "commands"):
        if depth == len(given):
            return _matching(command.commands, begun)
        command = command.commands.get(given[depth])
        depth += 1
    if command is None:
        return []
    parameter = _parameter(command.params, given[depth:], begun)
    if parameter is None:
        options = [name for each in command.params for name in each.opts if name.startswith("--")]
        return _matching([*options, *COMMON], begun)
    if choices := _choices(parameter):
        return _matching(choices, begun)
    ask = _names_of(parameter, given[0])
    if ask is None or "--confirm" in parameter.opts:
        return []
    session = Session(selector=common.site, output=Output(as_json=True))
    try:
        return _matching(ask(session, begun), begun)
    finally:
        session.close()


def _parameter(parameters: Sequence[Any], given: Sequence[str], begun: str) -> Any:
    """Which parameter the last word is a value of; None where it is the name of an option."""
    with_value = {
        name: each for each in parameters for name in each.opts if not getattr(each, "is_flag", True)
    }
    if given and given[-1] in with_value:
        return with_value[given[-1]]
    if begun.startswith("-"):
        return None
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    place, skip = 0, False
    for word in given:
        skip, counts = word in with_value, not skip and not word.startswith("-")
        place += counts
    if place < len(arguments):
        return arguments[place]
    return arguments[-1] if arguments and arguments[-1].nargs == -1 else None


def _choices(parameter: Any) -> list[str]:
    """The words of a set, by either of the typers' ways to say it."""
    hint = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return [str(each.value) for each in hint]
    return [str(each) for each in getattr(getattr(parameter, "type", None), "choices", ())]


def _names_of(parameter: Any, noun: str) -> Names | None:
    meta = str(parameter.metavar or "").partition(":")[0]
    if meta in ("PEER", "NAME", "OLD") and (meta == "PEER" or noun == "peer"):
        return lambda session, _: [each.peer for each in session.call(PeerList(), ANSWER_TIMEOUT_S).peers]
    if meta in ("LABEL|ID", "CUT"):
        return lambda session, _: _labels(session)
    if meta == "JOB":
        return lambda session, _: [str(each.job) for each in session.call(JobList(), ANSWER_TIMEOUT_S).jobs]
    if meta.startswith("G"):
        return lambda session, begun: _volumes(session, meta, begun)
    return None


def _volumes(session: Session, meta: str, begun: str) -> list[str]:
    """Names of groups, of volumes, or of both, as `meta` says; behind an `@` labels."""
    place, at, _ = begun.partition("@")
    if at and "CUT" in meta:
        return [f"{place}@{label}" for label in _labels(session)]
    volumes = session.call(VolumeList(), ANSWER_TIMEOUT_S).volumes
    groups = [each.group for each in volumes] if "G/V" not in meta or "|" in meta else []
    return groups + ([f"{each.group}/{each.volume}" for each in volumes] if "V" in meta else [])


def _labels(session: Session) -> list[str]:
    return [each.label or each.id for each in session.call(BackupList(), ANSWER_TIMEOUT_S).backups]


def _matching(names: Any, begun: str) -> list[str]:
    return sorted({each for each in names if each.startswith(begun)})
