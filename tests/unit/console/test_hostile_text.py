"""C12: whatever a site answers, no command lets it act on the reader's terminal; JSON stays exact."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NoReturn, get_args, get_origin

import msgspec
import pytest

from protocol.commands.base import Reply
from protocol.errors import FarshoreError
from protocol.printable import printable
from tests.unit.console.conftest import Ran, run_on_terminal
from tests.unit.console.stub_site import REPLIES, StubSite
from tests.unit.console.test_cli import EVERY_COMMAND

Run = Callable[..., Ran]
HOSTILE = "\x1b]52;c;cm0gLXJm\x07\x1b[2J\x9b8m\u202e\nforged ok\r\u2028\x85"
ESCAPED = printable(HOSTILE)
# What the console reads instead of showing it.
READ = {
    "time",
    "created",
    "from",
    "to",
    "began",
    "ended",
    "none_lost_until",
    "complete_until",
    "head_time",
    "id",
}
# Sequences with which rich colours and moves on a terminal.
OURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def poisoned(value: Any, key: str = "") -> Any:
    """The same reply with every free text ending in what is hostile."""
    if isinstance(value, Reply):
        fields = [each for each in msgspec.structs.fields(value) if not is_choice(each.type)]
        changed = {each.name: poisoned(getattr(value, each.name), each.encode_name) for each in fields}
        return msgspec.structs.replace(value, **changed)
    if isinstance(value, dict):
        return {name: poisoned(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each, key) for each in value]
    return value + HOSTILE if isinstance(value, str) and key not in READ else value


def is_choice(kind: Any) -> bool:
    """Whether the client takes only some words there."""
    return any(get_origin(each) is Literal for each in (kind, *get_args(kind)))


@pytest.fixture
def hostile(stub: StubSite) -> StubSite:
    stub.replies = {name: poisoned(reply) for name, reply in REPLIES.items()}
    return stub


def check_plain(text: str) -> None:
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
        assert not line.startswith("forged"), ascii(text)


def check_screen(screen: str) -> None:
    """Nothing but what draws our own tables and bars, which begin lines anew and fold cells."""
    assert "\x1b[2J" not in screen
    for line in re.split("[\r\n]+", OURS.sub("", screen)):
        assert line.isprintable(), ascii(line)


@pytest.mark.parametrize(("line", "kind"), EVERY_COMMAND)
def test_no_printer_passes_it_on(line: str, kind: str, hostile: StubSite, farshore: Run) -> None:
    plain = farshore(*line.split(), "--site", str(hostile.directory))
    assert plain.code == 0, plain.err
    check_plain(plain.out)
    check_plain(plain.err)
    if kind != "volume.uri":  # percent-encoded
        assert "\\x1b]52;c;" in plain.out + plain.err or not _shows_text(line)
    scripted = farshore("--json", *line.split(), f"--site={hostile.directory}")
    check_plain(scripted.out)
    assert HOSTILE in _texts(scripted.json[-1]["data"]), "JSON is exact"


def _shows_text(line: str) -> bool:
    """Some print nothing but the operator's own words and figures."""
    return not line.startswith(("volume on", "volume off", "volume delete", "volume create", "branch drop"))


def _texts(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(map(_texts, value.values()))
    if isinstance(value, list):
        return "".join(map(_texts, value))
    return str(value)


@pytest.mark.parametrize("line", ["status", "peer list", "volume list", "backup list", "events", "wait vm1"])
def test_nor_on_a_terminal(line: str, hostile: StubSite) -> None:
    screen, code = run_on_terminal((*line.split(), "--site", str(hostile.directory)))
    assert code == 0
    assert "52;c;" in screen
    check_screen(screen)


def test_errors_and_progress(hostile: StubSite, farshore: Run) -> None:
    def refuse(_: object) -> NoReturn:
        raise FarshoreError(
            "no" + HOSTILE, subject="s" + HOSTILE, position="1" + HOSTILE, next_step="n" + HOSTILE
        )

    hostile.replies["volume.list"] = refuse
    plain = farshore("volume", "list", "--site", str(hostile.directory))
    assert plain.code != 0
    check_plain(plain.err)
    assert plain.err.count(ESCAPED) == 4
    screen, _ = run_on_terminal(("volume", "list", "--site", str(hostile.directory)))
    check_screen(screen)
    scripted = farshore("volume", "list", "--json", f"--site={hostile.directory}")
    assert scripted.json[0]["errors"][0]["message"] == "no" + HOSTILE


def test_a_word_of_the_command_line(stub: StubSite, farshore: Run) -> None:
    ran = farshore("volume", "show", "vm1/" + HOSTILE, "--site", str(stub.directory))
    assert ran.code != 0
    check_plain(ran.err)
