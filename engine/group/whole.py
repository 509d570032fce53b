"""Methods after whose unexpected end nobody knows how far they came: the group stops
(engine.group.compartment).

Whoever called still gets the exception, and ends what it was doing: a host's connection, a peer's session.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from engine.group.head import NotContiguous
from protocol.errors import FarshoreError, RemoteProtocolError
from protocol.frames import FrameError

P = ParamSpec("P")
R = TypeVar("R")

# With which a group refuses what it was asked, and is as it was.
REFUSALS = (FarshoreError, OSError, FrameError, NotContiguous, RemoteProtocolError)


class _Holder(Protocol):
    """A group, or what shares its journal."""

    @property
    def history(self) -> Any:
        """The group, whose `on_defect` stops it."""


H = TypeVar("H", bound=_Holder)


def holds_together(method: Callable[Concatenate[H, P], R]) -> Callable[Concatenate[H, P], R]:
    """A method that leaves everything as it was with one of `REFUSALS`, and must not fail otherwise."""

    @wraps(method)
    def held(self: H, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except REFUSALS:
            raise
        except Exception as defect:
            self.history.on_defect(defect)
            raise

    return held


def all_or_stop(method: Callable[Concatenate[H, P], R]) -> Callable[Concatenate[H, P], R]:
    """A method that must not fail at all, because half of the work is done already."""

    @wraps(method)
    def held(self: H, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except Exception as defect:
            self.history.on_defect(defect)
            raise

    return held
