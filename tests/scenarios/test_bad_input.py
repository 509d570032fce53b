"""What users get wrong: each mistake gives one clear error and its exit code, and harms nothing.

Exit codes: `ExitCode` in protocol/errors.py. Directories that may not be opened: test_data_directory.py; a
full disk: test_no_space.py.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from console.demo.host import Host, HostRefused
from protocol.errors import ExitCode, FarshoreError
from tests.support.clients import call
from tests.support.sites import Site, free_port, introduce, running_sites

MIB = 1 << 20
ENOSPC = 28
TOKEN_PREFIX = "farshore1."
# What the wrong key of a token is changed into: a valid CURVE key that nobody has.
OTHER_KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


def refused(site: Site, *words: str, code: ExitCode, timeout_s: float = 60) -> dict[str, str]:
    """The one error of a command that must fail with `code`; it says something, and what to do next."""
    result = site.run(*words, "--json", timeout_s=timeout_s)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == code, result.stdout + result.stderr
    found = [line for line in lines if line["kind"] == "error"]
    assert len(found) == 1, lines
    (error,) = found[0]["errors"]
    assert error["exit_code"] == code
    assert error["message"]
    return error


def test_unknown_names(site: Site) -> None:
    site.create_volume("g/v", "16M")
    site.farshore("backup", "create", "g", "--label", "known")
    for words in (
        ("volume", "show", "none/v"),
        ("volume", "show", "g/none"),
        ("volume", "uri", "g/none"),
        ("volume", "uri", "g/v@none"),
        ("backup", "show", "g", "none"),
        ("restore", "volume", "g/v", "--at", "none", "--confirm", "g/v"),
        ("restore", "volume", "g/none", "--at", "known", "--confirm", "g/none"),
        ("restore", "group", "none", "--at", "known", "--confirm", "none"),
        ("restore", "volume", "g/v", "--at", "00000000000000ff:4096", "--confirm", "g/v"),
        ("pair", "create", "g", "--with", "nobody"),
        ("wait", "none"),
        ("journal", "show", "none"),
        ("verify", "none"),
    ):
        error = refused(site, *words, code=ExitCode.NOT_FOUND)
        assert error["object"], words


def test_words_that_make_no_sense(site: Site) -> None:
    site.create_volume("g/v", "16M")
    for words in (
        ("volume", "create", "g/w", "--size", "10GB"),
        ("volume", "create", "g/w", "--size", "0"),
        ("volume", "create", "G/w", "--size", "1G"),
        ("volume", "create", "g", "--size", "1G"),
        ("volume", "create", "g/../w", "--size", "1G"),
        ("backup", "create", "g", "--label", "now"),
        ("backup", "create", "g", "--label", "Not A Label"),
        ("restore", "volume", "g/v", "--at", "25:61", "--confirm", "g/v"),
        ("peer", "add", "no-token"),
        ("pair", "create", "g", "--with", "b", "--mode", "psychic"),
        ("no-such-command",),
    ):
        refused(site, *words, code=ExitCode.USAGE)
    assert [row["volume"] for row in site.json("volume", "list")["volumes"]] == ["v"]


def test_what_would_do_harm_must_be_confirmed(site: Site) -> None:
    site.create_volume("g/v", "16M")
    site.farshore("backup", "create", "g", "--label", "one")
    for words in (
        ("restore", "volume", "g/v", "--at", "one"),
        ("restore", "volume", "g/v", "--at", "one", "--confirm", "g/w"),
        ("restore", "group", "g", "--at", "one"),
        ("volume", "delete", "g/v"),
    ):
        error = refused(site, *words, code=ExitCode.UNSAFE)
        assert "--confirm" in error["next"]


def test_what_is_taken_stays(site: Site) -> None:
    site.create_volume("g/v", "16M")
    site.farshore("backup", "create", "g", "--label", "one")
    label = refused(site, "backup", "create", "g", "--label", "one", code=ExitCode.WRONG_STATE)
    assert "one" in label["message"]
    refused(site, "volume", "create", "g/v", "--size", "16M", code=ExitCode.WRONG_STATE)
    with Host(site.nbd_socket, "g/v"):
        error = refused(
            site, "restore", "volume", "g/v", "--at", "one", "--confirm", "g/v", code=ExitCode.BUSY
        )
        assert "--force" in error["next"]


def test_no_daemon(site: Site) -> None:
    site.stop()
    error = refused(site, "status", code=ExitCode.UNREACHABLE)
    assert "farshore site run" in error["next"]
    site.start()


def test_hosts_that_name_no_export(site: Site, tool: Callable[[str], str]) -> None:
    uri = site.create_volume("g/v", "16M")
    with Host(site.nbd_socket, "g/v") as host:
        for wrong, said in (
            ("g/none", "none"),
            ("none/v", "none"),
            ("g/v@none", "none"),
            ("g/v@00000000000000ff:4096", "00000000000000ff"),
            ("g/v@latest", "latest"),
            ("nonsense", "nonsense"),
        ):
            result = call(tool("nbdinfo"), uri.replace("g/v", wrong, 1))
            assert result.returncode != 0
            assert said in result.stderr
        # Other hosts stay served.
        host.write(0, b"x" * 4096)
        assert host.read(0, 4096) == b"x" * 4096


def test_a_write_beyond_the_end(site: Site) -> None:
    site.create_volume("g/v", "1M")
    with Host(site.nbd_socket, "g/v") as host:
        host.write(MIB - 4096, b"l" * 4096)
        for offset, length in ((MIB, 512), (MIB - 512, 1024), (1 << 62, 4096), ((1 << 64) - 4096, 4096)):
            with pytest.raises(HostRefused) as caught:
                host.write(offset, bytes(length))
            assert caught.value.error == ENOSPC
        assert host.read(MIB - 4096, 4096) == b"l" * 4096
        host.flush()


def test_a_cut_is_not_written(site: Site) -> None:
    site.create_volume("g/v", "1M")
    site.farshore("backup", "create", "g", "--label", "one")
    with Host(site.nbd_socket, "g/v@one") as host, pytest.raises(HostRefused) as caught:
        host.write(0, bytes(4096))
    assert caught.value.error == 1  # EPERM


def test_the_secondary_names_the_primary(pair: tuple[Site, Site]) -> None:
    a, b = pair
    a.create_volume("g/v", "16M")
    a.farshore("pair", "create", "g", "--with", "b")
    a.farshore("wait", "g", "--state", "paired", "--timeout", "30")
    with pytest.raises(FarshoreError, match="written at a"):
        Host(b.nbd_socket, "g/v")
    error = refused(b, "backup", "create", "g", code=ExitCode.WRONG_STATE)
    assert "written at a" in error["message"]
    refused(b, "volume", "create", "g/w", "--size", "1M", code=ExitCode.WRONG_STATE)
    refused(a, "pair", "create", "g", "--with", "b", code=ExitCode.WRONG_STATE)


def test_a_site_that_was_not_added_at_its_peer() -> None:
    """The secondary has never heard of the primary: its key is refused, and the primary says so at once. A
    pair whose peer forgets it later says it, too."""
    with running_sites("a") as (a,), running_sites("b") as (b,):
        a.farshore("peer", "add", b.token())
        a.create_volume("g/v", "16M")
        error = refused(a, "pair", "create", "g", "--with", "b", code=ExitCode.NOT_ALLOWED)
        assert "does not know this site" in error["message"]
        assert "farshore site token" in error["next"]
        assert a.json("status")["groups"][0]["state"] == "simplex"
        # While it is away nobody can tell.
        assert b.stop() == 0
        a.farshore("pair", "create", "g", "--with", "b")
        b.start()
        error = refused(a, "wait", "g", "--state", "paired", "--timeout", "4", code=ExitCode.TIMEOUT)
        assert "pair show g" in error["next"]
        shown = a.json("pair", "show", "g")
        assert shown["state"] != "paired"
        assert not shown["peer_connected"]
        a.farshore("wait", "g", "--state", "suspended", "--timeout", "20")
        assert "does not know this site" in a.json("pair", "show", "g")["reason"]
        assert b.json("status")["groups"] == []
        # Hosts at the primary are served all the while, and the pair comes up once the site is known.
        with Host(a.nbd_socket, "g/v") as host:
            host.write(0, b"w" * 4096)
        b.farshore("peer", "add", a.token())
        a.farshore("wait", "g", "--state", "paired", "--timeout", "40")
        for site in (a, b):
            site.stop()
            site.check_log()


def test_a_token_with_another_key() -> None:
    """A peer that is not who the token says it is: nothing is shipped to it."""
    with running_sites("a") as (a,), running_sites("b") as (b,):
        fields = json.loads(base64.urlsafe_b64decode(b.token().removeprefix(TOKEN_PREFIX) + "=="))
        fields["public_key"] = OTHER_KEY
        forged = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
        b.farshore("peer", "add", a.token())
        a.farshore("peer", "add", TOKEN_PREFIX + forged)
        a.create_volume("g/v", "16M")
        error = refused(a, "pair", "create", "g", "--with", "b", code=ExitCode.NOT_ALLOWED)
        assert "peer replace b TOKEN" in error["next"]
        assert b.json("status")["groups"] == []
        # The real token does not quietly replace the key that an operator has pinned.
        error = refused(a, "peer", "add", b.token(), code=ExitCode.NOT_ALLOWED)
        assert "another key" in error["message"]
        for site in (a, b):
            site.stop()
            site.check_log()


def test_another_group_of_the_same_name(pair: tuple[Site, Site]) -> None:
    """Both sites have a group g of their own: neither overwrites the other."""
    a, b = pair
    for site, letter in ((a, b"a"), (b, b"b")):
        site.create_volume("g/v", "1M")
        with Host(site.nbd_socket, "g/v") as host:
            host.write(0, letter * 4096)
    a.farshore("pair", "create", "g", "--with", "b")
    refused(a, "wait", "g", "--state", "paired", "--timeout", "4", code=ExitCode.TIMEOUT)
    shown = a.json("pair", "show", "g")
    assert shown["state"] == "suspended by error"
    assert "another one" in shown["reason"]
    with Host(b.nbd_socket, "g/v") as host:
        assert host.read(0, 4096) == b"b" * 4096


@pytest.mark.parametrize("what", ["replication", "nbd"])
def test_a_port_in_use(what: str, scratch: Path) -> None:
    site = Site(scratch / "a", "a")
    with socket.socket() as holder:
        if what == "nbd":
            port = free_port()
            site.init("--nbd", f"tcp:127.0.0.1:{port}", "--insecure")
        else:
            port = site.replication_port
            site.init()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()
        said = site.refuses_to_run(ExitCode.BUSY)
    assert str(port) in said
    assert _no_leftovers(site.directory)


def _no_leftovers(directory: Path) -> bool:
    """A start that failed holds neither the lock nor a socket."""
    return not (directory / "nbd.sock").exists() and not (directory / "control.sock").exists()


def test_peers_that_know_each_other_are_introduced_again(pair: tuple[Site, Site]) -> None:
    a, b = pair
    introduce(a, b)
    assert [peer["peer"] for peer in a.json("peer", "list")["peers"]] == ["b"]


def test_c16_a_peer_that_is_refused_leaves_nothing(pair: tuple[Site, Site]) -> None:
    """Its key under another name, this site's own, an endpoint that is none: and a restart works."""
    a, b = pair
    before = (a.directory / "peers.json").read_bytes()
    body = json.loads(base64.urlsafe_b64decode(b.token().removeprefix(TOKEN_PREFIX) + "=="))
    own = json.loads(base64.urlsafe_b64decode(a.token().removeprefix(TOKEN_PREFIX) + "=="))
    for fields, code in (
        (body | {"name": "c"}, ExitCode.NOT_ALLOWED),
        (own | {"name": "c", "site_id": "1"}, ExitCode.NOT_ALLOWED),
        (body | {"name": "c", "public_key": OTHER_KEY}, ExitCode.NOT_ALLOWED),
        (body | {"endpoint": "ipc:///tmp/x"}, ExitCode.USAGE),
        (body | {"name": "../c"}, ExitCode.USAGE),
    ):
        token = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
        refused(a, "peer", "add", TOKEN_PREFIX + token, code=code)
    assert (a.directory / "peers.json").read_bytes() == before
    a.stop()
    a.start()
    assert [peer["peer"] for peer in a.json("peer", "list")["peers"]] == ["b"]


def test_c16_a_peers_file_of_which_a_row_is_bad_stops_no_start(pair: tuple[Site, Site]) -> None:
    a, _ = pair
    a.create_volume("g/v", "16M")
    a.farshore("pair", "create", "g", "--with", "b")
    a.farshore("wait", "g", "--state", "paired", "--timeout", "30")
    a.stop()
    path = a.directory / "peers.json"
    (row,) = json.loads(path.read_text())
    path.write_text(json.dumps([row | {"name": "a-twin"}, row, "nonsense"]))
    a.expected_errors |= {"peer.set_aside"}
    a.start()
    said = [event for event in a.json("events")["events"] if event["kind"] == "peer.set_aside"]
    assert [event["level"] for event in said] == ["error", "error"]
    assert "a-twin" in {event["object"] for event in said}
    a.farshore("wait", "g", "--state", "paired", "--timeout", "30")


@pytest.mark.parametrize("option", ["--advertise", "--replication", "--control", "--nbd"])
def test_c16_an_option_of_init_stays_its_value(scratch: Path, option: str) -> None:
    site = Site(scratch / "a", "a")
    words = ("site", "init", str(site.directory), "--name", "a", option)
    for value in ('x"\n[hooks.x]', 'tcp://h:1"\n[hooks.x]', 'unix:/x"\n[hooks.x]', 'ipc:///x"\n[hooks.x]'):
        result = site.run(*words, value, site=False)
        assert result.returncode == ExitCode.USAGE, result.stderr
        assert not site.directory.exists()
