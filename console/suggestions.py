"""`did you mean vm1?`: the name nearest to one that is not there, and the same command line with it.

For people, after a site has answered that it has no such name: the names that it has are asked for once, and
no more of them than fit into one reply. Comparing is the work of this process. Where that fails, the error
is told as it came. What confirms a loss is not in the line that is printed: whoever pastes it is asked.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from console.session import Session
from protocol.errors import FarshoreError, NotFound, ProtocolError, UsageError

ANSWER_TIMEOUT_S = 2.0
NEAR = 0.6
# Most words of the language are like some command or other.
COMMAND_NEAR = 0.75

Names = Callable[[Session, str], list[str]]


def with_meant(error: NotFound, words: Sequence[str], session: Session) -> FarshoreError:
    """The error with the name that may have been meant, and the command line with that one as its next step;
    as it came, if none is near."""
    with suppress(FarshoreError, ProtocolError, OSError):
        for pattern, names in _MISSING:
            if (found := pattern.search(error.message)) is not None:
                missing = found["name"].strip("'")
                near = nearest(missing, names(session, found.groupdict().get("of") or missing))
                if near is not None:
                    return _told(error, missing, near, _line_with(words, missing, near))
    return error


def with_command_meant(error: UsageError, words: Sequence[str], known: Sequence[str]) -> UsageError:
    """The same for the first word that is no command among those `known` at its place."""
    word = re.search(r"No such command '([^']*)'", error.message)
    if word is None or (near := nearest(word[1], known, COMMAND_NEAR)) is None:
        return error
    said = f"there is no command {word[1]}; did you mean {near}?"
    return UsageError(said, subject=error.subject, next_step=_line_with(words, word[1], near, first=0))


def with_word_written(error: UsageError, words: Sequence[str]) -> UsageError:
    """An error that says how to write one of the words, with the line that has it so as its next step."""
    written = re.fullmatch(r"write `([^`]+)`", error.next_step)
    if written is None or error.subject not in words:
        return error
    line = [written[1] if word == error.subject else word for word in _unconfirmed(words)]
    return UsageError(error.message, subject=error.subject, next_step=shlex.join(["farshore", *line]))


def nearest(missing: str, names: Sequence[str], like: float = NEAR) -> str | None:
    """The one that is most like it, `like` of 1 at least; None if none is."""
    import difflib

    near = difflib.get_close_matches(missing, names, n=1, cutoff=like)
    if near or like > NEAR:
        return near[0] if near else None
    begun = sorted(name for name in names if name.startswith(missing) or missing.startswith(name))
    return begun[0] if begun else None


def _told(error: NotFound, missing: str, near: str, line: str) -> FarshoreError:
    told = NotFound(
        f"{error.message}; did you mean {near}?",
        subject=error.subject,
        position=error.position,
        next_step=line or error.next_step,
    )
    told.code, told.exit_code = error.code, error.exit_code
    return told


def _line_with(words: Sequence[str], missing: str, near: str, first: int = 1) -> str:
    """The command line with the other name; empty if it is not in there by its own."""
    line = list(_unconfirmed(words))
    alone = re.compile(rf"(?<![\w.-]){re.escape(missing)}(?![\w.-])")
    for place, word in enumerate(line):
        if place >= first and alone.search(word):
            line[place] = alone.sub(near, word, count=1)
            return shlex.join(["farshore", *line])
    return ""


def _unconfirmed(words: Sequence[str]) -> Iterator[str]:
    skipped = False
    for word in words:
        if skipped or word.startswith("--confirm="):
            skipped = False
        elif word == "--confirm":
            skipped = True
        else:
            yield word


def _groups(session: Session, _: str) -> list[str]:
    from protocol.commands.group import GroupList

    return [each.group for each in session.first_page(GroupList(), ANSWER_TIMEOUT_S).groups]


def _volumes(session: Session, missing: str) -> list[str]:
    from protocol.commands.volume import VolumeList

    volumes = session.first_page(VolumeList(), ANSWER_TIMEOUT_S).volumes
    names = [f"{each.group}/{each.volume}" for each in volumes]
    group = missing.partition("/")[0]
    return [name for name in names if name.startswith(f"{group}/")] or names


def _backups(session: Session, of: str) -> list[str]:
    from protocol.commands.backup import BackupList

    group = of.partition("/")[0]
    backups = session.first_page(BackupList(group=group), ANSWER_TIMEOUT_S).backups
    return [each.label for each in backups if each.label]


def _peers(session: Session, _: str) -> list[str]:
    from protocol.commands.peer import PeerList

    return [each.peer for each in session.call(PeerList(), ANSWER_TIMEOUT_S).peers]


def _clones(session: Session, _: str) -> list[str]:
    from protocol.commands.clone import CloneList

    return [each.clone for each in session.first_page(CloneList(), ANSWER_TIMEOUT_S).clones]


def _operators(session: Session, _: str) -> list[str]:
    from protocol.commands.operator import OperatorList

    return [each.operator for each in session.call(OperatorList(), ANSWER_TIMEOUT_S).operators]


# What a site says of each kind of name, and whom to ask for those that it has.
_MISSING: tuple[tuple[re.Pattern[str], Names], ...] = (
    (re.compile(r"there is no group (?P<name>\S+) here"), _groups),
    (re.compile(r"there is no volume (?P<name>\S+) here"), _volumes),
    (re.compile(r"there is no backup (?P<name>'[^']+') of (?P<of>\S+) here"), _backups),
    (re.compile(r"(?P<name>\S+) is not a peer of this site"), _peers),
    (re.compile(r"there is no clone (?P<name>\S+) here"), _clones),
    (re.compile(r"there is no operator (?P<name>\S+) here"), _operators),
)
