"""[hooks.NAME] in site.toml: commands that hold hosts still while a backup is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from protocol.commands.base import check_name
from protocol.errors import UsageError
from protocol.limits import HOOK_CHARS_MAX, HOOK_TIMEOUT_MAX_S, HOOK_TIMEOUT_S, HOOK_WORDS_MAX
from site_primary.quiesce import Hook, OnFailure


class HookConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of [hooks.NAME]: how `backup create --freeze NAME` holds hosts still. The daemon runs the
    commands as its own user, without a shell."""

    freeze: tuple[str, ...]
    """The command that freezes, and ends once hosts are held still."""

    thaw: tuple[str, ...]
    """The command that lets them go on; run in every case, so it must succeed where nothing is frozen too."""

    thaw_waits: bool = False
    """The thaw is started before the freeze, with FARSHORE_WAIT=1, and thaws once its standard input gives a
    line or ends, as `farshore-hook` does. Hosts are not frozen for as long as it takes to start."""

    timeout_s: float = HOOK_TIMEOUT_S
    """Thawed at the latest after this long. Hosts stand still for as long if a freeze hangs."""

    on_failure: Literal["refuse", "crash-consistent"] = "refuse"
    """Without a freeze: no backup, or one that is what a crash would have left."""


def hooks_of(hooks: Mapping[str, HookConfig]) -> dict[str, Hook]:
    """The hooks as what runs them takes them."""
    return {
        name: Hook(
            freeze=each.freeze,
            thaw=each.thaw,
            thaw_waits=each.thaw_waits,
            timeout_s=each.timeout_s,
            on_failure=OnFailure(each.on_failure),
        )
        for name, each in hooks.items()
    }


def check_hook(name: str, hook: HookConfig) -> None:
    """That it can be run. UsageError."""
    check_name(name, "hook")
    for verb in ("freeze", "thaw"):
        if not 1 <= len(getattr(hook, verb)) <= HOOK_WORDS_MAX:
            raise UsageError(
                f"hooks.{name}.{verb} must be a command in 1 to {HOOK_WORDS_MAX} words", subject=name
            )
        if any("\0" in word for word in getattr(hook, verb)):
            raise UsageError(f"hooks.{name}.{verb} has a NUL in it, which no command can have", subject=name)
    if sum(map(len, (*hook.freeze, *hook.thaw))) > HOOK_CHARS_MAX:
        raise UsageError(f"hooks.{name}: the commands have over {HOOK_CHARS_MAX} characters", subject=name)
    if not 0 < hook.timeout_s <= HOOK_TIMEOUT_MAX_S:
        raise UsageError(
            f"hooks.{name}.timeout_s is {hook.timeout_s:g}: it must be above 0 and at most "
            f"{HOOK_TIMEOUT_MAX_S:g} seconds",
            subject=name,
        )
