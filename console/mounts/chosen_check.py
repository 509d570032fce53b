"""The check that `drill run` and `bisect` are given: a command line, or one that is ready by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from console.mounts.check_hooks import CheckHook, find_hook
from console.mounts.check_users import CheckUser, check_user
from protocol.errors import UsageError
from protocol.proof_limits import CHECK_ARG_CHARS_MAX, CHECK_ARGS_MAX, CHECK_COMMAND_CHARS_MAX

HookOption = Annotated[
    str | None,
    typer.Option("--check-hook", metavar="NAME", help="A check that `drill checks` lists, instead of CMD."),
]
HookArgsOption = Annotated[
    list[str] | None,
    typer.Option("--check-arg", metavar="WORD", help="A word for the check: $1, $2, … Repeatable."),
]
UserOption = Annotated[
    str | None, typer.Option("--as", metavar="USER|UID:GID", help="Run the check as that user.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenCheck:
    """`command` is what /bin/sh is given, none without a check; `raw`: it reads devices."""

    command: str | None
    hook: CheckHook | None
    user: CheckUser | None
    raw: bool


def choose_check(
    *,
    check: str | None,
    hook: str | None,
    args: tuple[str, ...],
    user: str | None,
    raw: bool,
    partitions: tuple[str, ...],
) -> ChosenCheck:
    """What is wrong with it is said before anything is done. UsageError, NotFound, NotAllowed."""
    if check is not None:
        require_command(check)
    if check is not None and hook is not None:
        raise UsageError("--check and --check-hook exclude each other", next_step="give one of them")
    if raw and check is None and hook is None:
        raise UsageError("--raw without a check would prove nothing", next_step="add --check CMD")
    if args and check is None and hook is None:
        raise UsageError("--check-arg without a check", next_step="add --check-hook NAME")
    if len(args) > CHECK_ARGS_MAX or any(len(each) > CHECK_ARG_CHARS_MAX for each in args):
        most = f"at most {CHECK_ARGS_MAX} of {CHECK_ARG_CHARS_MAX} characters"
        raise UsageError("too many words for a check, or too long ones", next_step=most)
    if check is not None and len(check) > CHECK_COMMAND_CHARS_MAX:
        raise UsageError(
            f"a check of more than {CHECK_COMMAND_CHARS_MAX} characters", next_step="put it into a file"
        )
    found = None if hook is None else find_hook(hook)
    is_raw = raw or (found is not None and found.raw)
    if is_raw and partitions:
        raise UsageError("--raw and --partition together", next_step="with --raw the check finds its way")
    account = None if user is None else check_user(user)
    if account is not None and check is None and found is None:
        raise UsageError("--as without a check", subject=user or "", next_step="add --check-hook NAME")
    if account is not None and is_raw:
        raise UsageError(
            "--as and a check that reads devices, which are root's alone",
            subject=user or "",
            next_step="leave --as out; the ready-made vm-boot gives root's rights up once it has its disks",
        )
    command = found.command if found else check
    return ChosenCheck(command=command, hook=found, user=account, raw=is_raw)


def require_command(check: str) -> None:
    """That the shell would run something and wait for it. UsageError: for words of which nothing is run, or
    that go on behind the check's back, it ends with 0, and everything would be called good."""
    lines = [line.strip() for line in check.splitlines()]
    said = [line for line in lines if line and not line.startswith("#")]
    if not said:
        raise UsageError(
            "the check says nothing to run, and would call everything good",
            subject=check,
            next_step="give a command that ends with 0 only if all is well",
        )
    if said[-1].endswith("&") and not said[-1].endswith(("&&", "\\&")):
        raise UsageError(
            "a check that ends with & is not waited for, and would call everything good",
            subject=check,
            next_step="leave the & out",
        )
