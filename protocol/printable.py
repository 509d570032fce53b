"""Text from elsewhere made safe for a terminal. Pure.

What a peer, a host, a hook or a file system says may hold escape sequences (ESC, OSC 52, C1 controls) that
act on a terminal, line ends that forge lines of ours, and characters that turn the direction of what follows
or are not seen at all. Whatever is printed for a person goes through here; values in JSON stay exact.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text as one line: what is not printable as `\\x1b` or `\\u202e`. Backslashes stay as they are,
    so it is for reading and cannot be turned back."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def printable_lines(text: str) -> str:
    """What a program said, which may hold names of a volume: its lines stay, nothing else moves a cursor."""
    return "\n".join(printable(line.expandtabs()) for line in text.replace("\r\n", "\n").split("\n"))


def printable_json(line: str) -> str:
    """A line of JSON (without line ends between its values) with the same values and nothing unprintable in
    it."""
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else _json_escape(each) for each in line)


def _json_escape(character: str) -> str:
    """RFC 8259, section 7: above U+FFFF as two surrogates."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
