"""Commands that are printed name their site, so that they act at no other one when they are pasted."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from console.cli import Options, take_options
from console.pasted import for_site
from console.sites_file import SiteEntry, changing_sites, sites_path
from protocol.errors import ExitCode, NotFound
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import StubSite

Run = Callable[..., Ran]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("farshore status", "farshore --site lon status"),
        (
            "`farshore volume list` shows those that exist",
            "`farshore --site lon volume list` shows those that exist",
        ),
        (
            "farshore verify g --deep, or farshore drill run g --at x",
            "farshore --site lon verify g --deep, or farshore --site lon drill run g --at x",
        ),
        (
            "stop the hosts; farshore switchover g moves the writing to par",
            "stop the hosts; farshore --site lon switchover g moves the writing to par",
        ),
        ("farshore switchover g --site par", "farshore switchover g --site par"),
        ("farshore a; farshore status", "farshore a; farshore --site lon status"),
        ("farshore pair create --help", "farshore pair create --help"),
        ("farshore site run /srv/lon", "farshore site run /srv/lon"),
        ("farshore site token", "farshore --site lon site token"),
        ("farshore schema restore", "farshore schema restore"),
        (
            "`farshore site token` at par, then `farshore peer add T` here",
            "`farshore site token` at par, then `farshore --site lon peer add T` here",
        ),
        ("farshore peer rotate-key at every peer, then --finish here",) * 2,
        ("`farshore group delete` at this site", "`farshore --site lon group delete` at this site"),
        ("the farshore daemon runs", "the farshore daemon runs"),
        ("no command here", "no command here"),
    ],
)
def test_a_command_names_its_site(text: str, expected: str) -> None:
    assert for_site(text, "lon") == expected
    assert for_site(expected, "lon") == expected
    assert for_site(text, "") == text


@given(st.text(min_size=1).filter(lambda word: not word.startswith("-")))
def test_the_shell_and_the_command_take_it_apart_again(site: str) -> None:
    words = shlex.split(for_site("farshore volume list", site))
    assert take_options(words[1:]) == (Options(site=site), ["volume", "list"])


def gone(_: object) -> NoReturn:
    raise NotFound("no", next_step="`farshore volume list` shows those that exist")


def test_what_a_restore_prints_acts_where_it_did(stub: StubSite, farshore: Run) -> None:
    """Pasted with another site in FARSHORE_SITE it was refused, or acted there (C52)."""
    words = ["restore", "group", "vm1", "--at", "nightly", "--confirm", "vm1", "--site", str(stub.directory)]
    undo = shlex.split(farshore(*words, "--json").json[0]["data"]["undo"])
    assert undo[:3] == ["farshore", "--site", str(stub.directory)]
    assert f"farshore --site {stub.directory} restore volume" in farshore(*words).out


def test_what_a_resize_prints_does_too(stub: StubSite, farshore: Run) -> None:
    words = ["volume", "resize", "vm1/root", "2G", "--site", str(stub.directory)]
    assert f"back      farshore --site {stub.directory} restore volume vm1/root" in farshore(*words).out
    undo = shlex.split(farshore(*words, "--json").json[0]["data"]["undo"])
    assert undo[:5] == ["farshore", "--site", str(stub.directory), "restore", "volume"]


def test_next_steps_of_errors_name_it_too(stub: StubSite, farshore: Run) -> None:
    stub.replies["volume.show"] = gone
    for words in (("volume", "show", "vm1/x"), ("--json", "volume", "show", "vm1/x")):
        ran = farshore(*words, "--site", str(stub.directory))
        assert ran.code == ExitCode.NOT_FOUND
        assert f"farshore --site {stub.directory} volume list" in ran.err + ran.out


def test_with_one_known_site_nothing_is_added(stub: StubSite, farshore: Run, home: Path) -> None:
    """There is no other that it could be; with a second one there is."""
    stub.replies["volume.show"] = gone

    def know(name: str, directory: Path) -> None:
        with changing_sites(sites_path()) as file:
            file.sites[name] = SiteEntry(directory=str(directory), control="")

    know("lon", stub.directory)
    assert "next: `farshore volume list`" in farshore("volume", "show", "vm1/x").err
    know("par", home / "par")
    assert (
        "next: `farshore --site lon volume list`" in farshore("volume", "show", "vm1/x", "--site", "lon").err
    )


def test_a_timeline_is_not_taken_for_the_group(farshore: Run, stub: StubSite) -> None:
    """Its 16 hex digits have the form of a name."""

    def unknown(_: object) -> NoReturn:
        hint = "`farshore journal show GROUP` lists the timelines held"
        raise NotFound("not held here", subject="ffffffffffffffff", next_step=hint)

    stub.replies["journal.show"] = unknown
    done = farshore("journal", "show", "vm1", f"--site={stub.directory}")
    assert "journal show GROUP" in done.err


def test_a_directory_can_be_pasted_whatever_it_is_called(farshore: Run, home: Path) -> None:
    directory = home / "two words & 'more'"
    directory.mkdir()
    (line,) = farshore("status", "--json", f"--site={directory}").json
    assert shlex.split(line["errors"][0]["next"])[-1] == str(directory)
    image = home / "an image.gz"
    image.touch()
    (line,) = farshore("volume", "import", str(image), "g/v", "--json", f"--site={directory}").json
    assert f"'{image}'" in line["errors"][0]["next"]


def test_who_may_not_ask_is_not_told_to_start_another_daemon(
    farshore: Run, stub: StubSite, home: Path
) -> None:
    """The usual first try of a user who is in the socket's group since a moment ago."""
    home.chmod(0o755)
    (stub.directory / "control.sock").chmod(0)
    stub.directory.chmod(0o755)
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(65534)
    try:
        done = farshore("status", f"--site={stub.directory}")
    finally:
        if as_root:
            os.seteuid(0)
    assert done.code == ExitCode.UNREACHABLE
    assert "Permission denied" in done.err
    assert "site run" not in done.err
