"""Commands that are printed to be pasted name the site that they are for: whoever pastes them may have chosen
another one since. Pure.
"""

from __future__ import annotations

import re
import shlex

from console.words import NOUNS, VERBS

# A command in backticks or in the middle of a sentence, up to where it must have ended.
_COMMAND = re.compile(r"\bfarshore (?P<word>[a-z]+)(?P<rest>(?:(?!farshore )[^`;|\n])*)")
# They are about no site, or name theirs.
_OF_NO_SITE = frozenset({"schema", "demo", "complete"})
_OF_NO_SITE_TOO = re.compile(
    r"(?:site (?:init|run|adopt|list|use|set|check)|operator keygen|drill (?:verify|checks))\b"
)
# `farshore status` at par: it is to be given elsewhere.
_ELSEWHERE = re.compile(r"(?:^`|(?<!-)\b) ?at (?!this site)")


def for_site(text: str, site: str) -> str:
    """The same with `--site` in each command of ours that does not name one; as it is if `site` is empty."""
    if not site or "farshore " not in text:
        return text

    def named(match: re.Match[str]) -> str:
        word, rest = match["word"], match["rest"]
        known = word in NOUNS or word in VERBS
        of_none = word in _OF_NO_SITE or _OF_NO_SITE_TOO.match(word + rest)
        of_another = _ELSEWHERE.search(rest) or _ELSEWHERE.match(match.string[match.end() :])
        if not known or of_none or of_another or "--site" in rest or "--help" in rest:
            return match.group()
        return f"farshore --site {shlex.quote(site)} {word}{rest}"

    return _COMMAND.sub(named, text)
