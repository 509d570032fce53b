"""Why an encrypted volume is not opened."""

from __future__ import annotations


class Unreadable(Exception):
    """What is in its header is damaged, or not known here; says which, in words that follow the volume's
    name."""


class WrongKey(Exception):
    """No key slot opens with what was given."""
