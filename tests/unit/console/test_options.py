"""Options that are out of bounds: refused before anything is asked, by the option's own name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer.main

from console.hooks import main as hook
from console.parser import commands_for
from protocol.errors import ExitCode
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import StubSite


def float_options(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every option that takes a number with decimals, behind the words of its command."""
    for name, each in getattr(command, "commands", {}).items():
        yield from float_options(each, (*path, name))
    for parameter in command.params:
        if isinstance(parameter.default, float):
            yield (*path, parameter.opts[0])


FLOAT_OPTIONS = list(float_options(typer.main.get_command(commands_for())))


def test_there_are_such_options() -> None:
    assert ("wait", "--timeout") in FLOAT_OPTIONS
    assert ("backup", "create", "--freeze-timeout") in FLOAT_OPTIONS


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
@pytest.mark.parametrize("words", FLOAT_OPTIONS, ids=" ".join)
def test_a_number_of_seconds_is_one(words: tuple[str, ...], value: str, farshore: Callable[..., Ran]) -> None:
    ran = farshore(*words, value)
    assert ran.code == ExitCode.USAGE
    assert words[-1] in ran.err


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "601"])
def test_a_hooks_timeout_is_one_too(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        hook(["qemu-agent", "/nowhere", "freeze", "--timeout", value])
    assert ended.value.code == ExitCode.USAGE
    assert "--timeout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("ls vm1/root@nightly:/ --partition 99999999999999999999999", "--partition"),
        ("ls vm1/root@nightly:/ --partition -1", "--partition"),
        ("events --since 99999999999999999999999", "--since"),
        ("events --since -1", "--since"),
        ("events --limit 0", "--limit"),
        ("job show 99999999999999999999999", "JOB"),
        ("journal show vm1 --limit -1", "--limit"),
        ("journal show vm1 --dir /nowhere --limit -1", "--limit"),
        ("schedule set vm1 --every 99999d", "--every"),
        ("schedule set vm1 --window 99999d", "--window"),
        ("schedule set vm1 --window-bytes 0", "size of a window"),
        ("schedule set vm1 --window-bytes 99999P", "--window-bytes"),
        ("schedule set vm1 --keep-last 9999999", "--keep-last"),
        ("verify vm1 --deep --for 0s", "--for"),
        ("backup create vm1 --timeout 9999999", "--timeout"),
    ],
)
def test_a_bound_is_said_of_what_was_given(
    line: str, named: str, stub: StubSite, farshore: Callable[..., Ran]
) -> None:
    ran = farshore("--site", str(stub.directory), *line.split())
    assert ran.code == ExitCode.USAGE, ran.err
    assert named in ran.err.splitlines()[0]
    assert "$." not in ran.err
    assert stub.asked == []


def test_a_windows_bytes_need_not_be_those_of_a_volume(stub: StubSite, farshore: Callable[..., Ran]) -> None:
    """`--window-bytes 1000000` was refused in the words of `volume create`."""
    for text, size_bytes in (("1000000", 1_000_000), ("50G", 50 << 30), ("site", 0)):
        farshore("schedule", "set", "vm1", "--window-bytes", text, "--site", str(stub.directory))
        assert stub.asked[-1].window_bytes == size_bytes
