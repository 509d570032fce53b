"""Words of a command line that are empty, as those of a variable that is not set."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.errors import UsageError

# Behind these an empty word says something, or is answered with what it should have been.
_MAY_BE_EMPTY = {"--after", "--check-arg", "--confirm", "--label"}


def require_words(words: Sequence[str]) -> None:
    """That no word is empty, as in `--with "$TOKEN"` without that variable. UsageError: such an option would
    count as not given, and an empty path as the directory that the command is called in."""
    if words[:1] == ["complete"]:
        return  # the word that is being typed
    for before, word in zip(["farshore", *words], words, strict=False):
        option, _, value = word.partition("=")
        if word and (value or not (option.startswith("--") and word.endswith("="))):
            continue
        named = option or before
        if named in _MAY_BE_EMPTY:
            continue
        said = f"{option} is given nothing" if option else f"the word behind {before} is empty"
        raise UsageError(
            f"{said}: is a variable not set?", subject=named, next_step="give it a value, or leave it out"
        )
