"""Which site is meant, and how names get known."""

from __future__ import annotations

import json
import os
import pwd
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from console import sites_file
from console.commands import site as site_commands
from console.commands import site_names
from console.sites import choose_site, registering
from console.sites_file import sites_path
from farshore.children import child_words
from protocol.errors import Busy, ExitCode, FarshoreError, NotAllowed, NotFound, UsageError
from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import StubSite

Run = Callable[..., Ran]


def register_site(name: str, directory: str, control: str | None) -> Path:
    """Remember a name, as `site init` does."""
    with registering(name, directory, control) as path:
        return path


def test_a_name_a_directory_and_an_endpoint_are_told_apart(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_site("lon", "/srv/lon", None)
    register_site("par", "/srv/par", "ipc:///run/par.sock")
    assert choose_site("lon").endpoint == "ipc:///srv/lon/control.sock"
    assert choose_site("par").endpoint == "ipc:///run/par.sock"
    # A directory that has a name uses what is known of it.
    assert choose_site("/srv/par").endpoint == "ipc:///run/par.sock"
    assert choose_site("/srv/par/").name == "par"
    assert choose_site("/srv/other").endpoint == "ipc:///srv/other/control.sock"
    assert choose_site("ipc:///run/par.sock").name == "par"
    monkeypatch.chdir(home)
    assert choose_site(".").directory == str(home)
    (home / "here").mkdir()
    assert choose_site("here").directory == str(home / "here")


def test_the_variable_and_the_only_site_are_defaults(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="none is known"):
        choose_site(None)
    register_site("lon", "/srv/lon", None)
    assert choose_site(None).name == "lon"
    register_site("par", "/srv/par", None)
    with pytest.raises(UsageError, match="lon, par"):
        choose_site(None)
    monkeypatch.setenv("FARSHORE_SITE", "par")
    assert choose_site(None).name == "par"
    assert choose_site("lon").name == "lon"


def test_an_unknown_name_names_the_nearest(home: Path) -> None:
    register_site("london", "/srv/lon", None)
    with pytest.raises(NotFound) as caught:
        choose_site("londn")
    assert caught.value.next_step == "did you mean london?"


@pytest.mark.parametrize("key", ["directory", "operator_key_file"])
def test_a_path_with_a_nul_is_refused(home: Path, key: str) -> None:
    path = register_site("lon", "/srv/lon", None)
    path.write_text(f'[sites.lon]\ncontrol = "tcp://h:1"\nserver_key = "k"\n{key} = "/x\\u0000"\n')
    with pytest.raises(UsageError, match="NUL"):
        choose_site("lon")


def test_names_and_paths_of_any_kind_are_kept(home: Path) -> None:
    odd = '/srv/a "quoted"\\ \t é'
    register_site("lon.a", odd, None)
    register_site("lon.b", "/srv/b", None)
    register_site("lon.b", "/srv/c", None)
    assert choose_site("lon.a").directory == odd
    assert choose_site("lon.b").directory == "/srv/c"
    with pytest.raises(UsageError):
        register_site("Not A Name", "/srv/x", None)


@pytest.mark.parametrize(
    "text",
    ["[sites.x]\ncolour = 'red'\n", "[sites.x]\ndirectory = 5\n", "not toml", "[sites.x]\n"],
)
def test_a_bad_file_is_one_clear_error(home: Path, text: str) -> None:
    path = sites_path()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        choose_site("x")
    assert str(path) in caught.value.message


def test_a_bad_file_is_no_matter_to_who_names_a_place(home: Path) -> None:
    path = register_site("lon", "/srv/lon", None)
    path.write_text("[sites")
    assert choose_site("/srv/par").endpoint == "ipc:///srv/par/control.sock"
    assert choose_site("ipc:///run/par.sock").endpoint == "ipc:///run/par.sock"
    for named in ("lon", None):
        with pytest.raises(UsageError, match="sites"):
            choose_site(named)


def test_a_bad_file_is_said_before_a_site_is_made(home: Path) -> None:
    path = register_site("lon", "/srv/lon", None)
    path.write_text("[sites")
    with pytest.raises(UsageError), registering("par", "/srv/par", None):
        pytest.fail("the site is made")
    assert path.read_text() == "[sites"


@pytest.mark.parametrize("ended", [KeyboardInterrupt, FarshoreError("no")])
def test_the_names_stay_when_a_site_is_not_made(home: Path, ended: BaseException) -> None:
    path = register_site("lon", "/srv/lon", None)
    with pytest.raises((KeyboardInterrupt, FarshoreError)), registering("par", "/srv/par", None):
        raise ended
    assert choose_site(None).name == "lon"
    assert sorted(each.name for each in path.parent.iterdir()) == ["sites.lock", "sites.toml"]


def test_the_names_stay_when_the_disk_is_full(home: Path) -> None:
    path = register_site("lon", "/srv/lon", None)
    before = path.read_text()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ: the write fails as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        with pytest.raises(FarshoreError, match="the site is made") as caught:
            register_site("par", "/srv/par", None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.next_step.endswith("--site /srv/par")
    assert path.read_text() == before


def test_a_link_to_the_file_stays_one(home: Path) -> None:
    path = register_site("lon", "/srv/lon", None)
    elsewhere = path.rename(home / "elsewhere.toml")
    path.symlink_to(elsewhere)
    register_site("par", "/srv/par", None)
    assert path.is_symlink()
    assert choose_site("par").directory == "/srv/par"


def test_a_relative_xdg_directory_is_ignored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(home))
    assert sites_path() == home / ".config/farshore/sites.toml"


def test_a_user_without_a_home_knows_no_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    for variable in ("XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert choose_site("/srv/lon").endpoint == "ipc:///srv/lon/control.sock"
    assert choose_site("ipc:///run/par.sock").name == "ipc:///run/par.sock"
    with pytest.raises(UsageError, match="none is known"):
        choose_site(None)
    for refused in (lambda: choose_site("lon"), lambda: register_site("lon", "/srv/lon", None)):
        with pytest.raises(NotFound, match="no home") as caught:
            refused()
        assert "--site DIR" in caught.value.next_step


def test_operator_keys_must_be_their_owners_alone(home: Path) -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    key_file = home / "operator.key"
    key_file.write_text(f"{public}\n{secret}\n")
    key_file.chmod(0o644)
    path = sites_path()
    path.parent.mkdir(parents=True)
    path.write_text(
        f"[sites.far]\ncontrol = 'tcp://10.0.0.1:7000'\n"
        f"server_key = '{public}'\noperator_key_file = '{key_file}'\n"
    )
    with pytest.raises(NotAllowed, match="other users"):
        choose_site("far")
    key_file.chmod(0o600)
    chosen = choose_site("far")
    assert chosen.keys is not None
    assert chosen.keys.secret_key == secret.encode()
    assert secret not in repr(chosen) + repr(chosen.keys)
    key_file.write_text("too short")
    with pytest.raises(UsageError):
        choose_site("far")


def test_a_directory_too_deep_for_a_socket_is_one_clear_error(
    home: Path, farshore: Callable[..., Ran]
) -> None:
    ran = farshore("status", "--site", str(home / ("d" * 100)))
    assert ran.code == ExitCode.USAGE
    assert "unix sockets allow 107" in ran.err


def daemon_that(monkeypatch: pytest.MonkeyPatch, script: str) -> list[list[str]]:
    """Stands a short script in for the daemon's command line; gives the words that it was called with."""
    called: list[list[str]] = []

    def words(given: list[str]) -> list[str]:
        called.append(given)
        return [sys.executable, "-c", script]

    monkeypatch.setattr(site_commands, "daemon_words", words)
    return called


def test_init_runs_the_daemon_and_remembers_the_name(
    home: Path, farshore: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, str | None] = {"directory": str(home / "lon"), "site": "lon", "site_id": "01"}
    made |= {"token": "farshore1.x", "fingerprint": "77ad", "peer": None, "peer_fingerprint": None}
    called = daemon_that(monkeypatch, f"print({json.dumps({'data': made})!r})")
    options = ("--replication", "tcp://127.0.0.1:7001", "--nbd", "unix:/run/n.sock", "--insecure")
    ran = farshore("site", "init", str(home / "lon"), "--name", "lon", *options, "--json")
    assert ran.code == 0
    assert ran.json[0]["data"]["control"] == f"ipc://{home}/lon/control.sock"
    assert ran.json[0]["data"]["site_id"] == "01"
    assert called == [["init", str(home / "lon"), "--name", "lon", *options, "--json"]]
    assert choose_site("lon").directory == str(home / "lon")


def test_init_passes_the_daemons_error_on_and_remembers_nothing(
    home: Path, farshore: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = Busy("not empty", subject="/x", next_step="choose another")
    answer = json.dumps({"api": 1, "kind": "error", "errors": [error.as_dict()]})
    daemon_that(monkeypatch, f"import sys; print({answer!r}); sys.exit(11)")
    words = ("site", "init", str(home / "lon"), "--name", "lon")
    ran = farshore(*words)
    assert (ran.code, ran.err) == (11, "error: not empty\nobject: /x\nnext: choose another\n")
    assert farshore(*words, "--json").json[0]["errors"] == [error.as_dict()]
    daemon_that(monkeypatch, "import sys; sys.exit('out of luck')")
    ran = farshore(*words)
    assert (ran.code, ran.err) == (1, "error: out of luck\n")
    with pytest.raises(FarshoreError):
        choose_site("lon")


def test_run_becomes_the_daemon(
    home: Path, farshore: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _path, words: became.append(words))
    monkeypatch.chdir(home)
    assert farshore("site", "run", "lon").code == 0
    assert became == [child_words("daemon", "run", str(home / "lon"))]


def test_a_daemon_module_in_the_current_directory_is_not_run(home: Path) -> None:
    (home / "daemon.py").write_text("print('not me')")
    words = site_commands.daemon_words(["run", "/nowhere"])
    done = subprocess.run(words, cwd=home, capture_output=True, text=True, check=False, timeout=60)
    assert "not me" not in done.stdout


def test_a_named_site_is_reached(stub: StubSite, farshore: Callable[..., Ran]) -> None:
    register_site("lon", str(stub.directory), None)
    assert farshore("volume", "list").code == 0


@pytest.fixture
def system(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of /etc/farshore/sites.toml."""
    path = home / "etc" / "sites.toml"
    for module in (sites_file, site_names):
        monkeypatch.setattr(module, "SYSTEM_PATH", path)
    return path


def test_sites_of_all_users_are_known_beside_ones_own(home: Path, system: Path, farshore: Run) -> None:
    assert farshore("site", "set", "lon", "--directory", "/srv/lon", "--system").code == 0
    assert os.stat(system).st_mode & 0o777 == 0o644
    assert choose_site(None).directory == "/srv/lon"
    assert farshore("site", "set", "par", "--control", "ipc:///run/par.sock").code == 0
    assert choose_site("lon").endpoint == "ipc:///srv/lon/control.sock"
    assert choose_site("par").endpoint == "ipc:///run/par.sock"
    (listed,) = farshore("site", "list", "--json").json
    assert [(each["name"], each["file"]) for each in listed["data"]["sites"]] == [
        ("lon", str(system)),
        ("par", str(sites_path())),
    ]
    # A user's own entry of a name comes first.
    assert farshore("site", "set", "lon", "--directory", "/home/lon").code == 0
    assert choose_site("lon").directory == "/home/lon"


def test_what_ones_own_entry_leaves_open_is_as_for_all(home: Path, system: Path, farshore: Run) -> None:
    """As in the runbook: `site init` wrote root's own entry before the control socket was moved."""
    register_site("lon", "/srv/lon", None)
    words = ("site", "set", "lon", "--control", "ipc:///run/lon.sock", "--system")
    assert farshore(*words, "--directory", "/srv/lon").code == 0
    assert choose_site("lon").endpoint == "ipc:///run/lon.sock"
    assert farshore("site", "set", "lon", "--control", "ipc:///run/own.sock").code == 0
    assert choose_site("lon").endpoint == "ipc:///run/own.sock"
    register_site("lon", "/home/lon", None)  # another site of that name
    assert choose_site("lon").endpoint == "ipc:///home/lon/control.sock"


def test_the_site_that_is_meant(
    home: Path, system: Path, farshore: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lon", "par"):
        register_site(name, f"/srv/{name}", None)
    assert farshore("site", "use", "rom").code == ExitCode.NOT_FOUND
    assert farshore("site", "use", "par").code == 0
    assert choose_site(None).name == "par"
    register_site("rom", "/srv/rom", None)  # another name leaves it
    assert choose_site(None).name == "par"
    assert "* par  /srv/par" in farshore("site", "list").out
    monkeypatch.setenv("FARSHORE_SITE", "lon")
    assert choose_site(None).name == "lon"


@pytest.mark.parametrize(
    "words",
    [
        ("lon",),
        ("../lon", "--directory", "/x"),
        ("lon", "--control", "nonsense"),
        ("lon", "--directory", "/" + "x" * 200),
    ],
)
def test_what_no_site_can_be_is_refused_and_nothing_written(
    words: tuple[str, ...], home: Path, system: Path, farshore: Run
) -> None:
    assert farshore("site", "set", *words).code == ExitCode.USAGE
    assert not sites_path().exists()


def test_a_bad_file_of_all_users_is_named(home: Path, system: Path, farshore: Run) -> None:
    system.parent.mkdir()
    system.write_text("sites = 3")
    ran = farshore("site", "list")
    assert ran.code == ExitCode.USAGE
    assert str(system) in ran.err


def test_a_site_is_checked_before_its_start(home: Path, farshore: Run) -> None:
    place = str(home / "a")
    assert farshore("site", "init", place, "--name", "a").code == 0
    (ran,) = farshore("site", "check", place, "--json").json
    assert (ran["kind"], ran["site"]) == ("site.check", "a")
    assert {each["state"] for each in ran["data"]["findings"]} == {"ok"}
    with open(home / "a" / "site.toml", "a") as file:
        file.write("window = 3\n")
    bad = farshore("site", "check", place)
    assert bad.code == ExitCode.USAGE
    assert "failed  config:" in bad.out
    assert "unknown key 'window'" in bad.out
    assert farshore("site", "check", str(home / "none")).code == ExitCode.USAGE


def test_sites_that_are_a_pipe_are_not_waited_for(home: Path, farshore: Callable[..., Ran]) -> None:
    place = home / "config" / "farshore"
    place.mkdir(parents=True)
    os.mkfifo(place / "sites.toml")
    done = farshore("status")
    assert done.code == ExitCode.USAGE
    assert "sites.toml" in done.err
