"""What `site check` says of a site that could not start, and that it changes nothing."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from daemon.address_check import may_connect
from daemon.certificates import server_end_ns
from daemon.config import SiteConfig
from daemon.data_directory import lock_site, make_site
from daemon.signing_key import SIGNING_KEY_FILE, signing_seed
from daemon.site_check import check_site
from daemon.tls_files import CA_FILE, SERVER_FILE
from engine.ports.durable import RealDisk
from engine.ports.unix_sockets import SocketAccess
from engine.ports.zmq_transport import generate_keypair
from protocol.commands.site import CheckState, SiteFinding
from protocol.errors import ExitCode
from tests.support.sites import free_port
from tests.support.tls import DAY_NS, TestAuthority


@pytest.fixture
def site(tmp_path: Path) -> Path:
    make_site(tmp_path / "a", SiteConfig(name="a", replication=f"tcp://127.0.0.1:{free_port()}"))
    return tmp_path / "a"


def failed(site: Path) -> list[SiteFinding]:
    return [each for each in check_site(site).findings if each.state is CheckState.FAILED]


def test_a_new_site_could_start_and_is_left_as_it_is(site: Path) -> None:
    before = sorted(site.rglob("*"))
    reply = check_site(site)
    assert {each.state for each in reply.findings} == {CheckState.OK}
    assert [each.check for each in reply.findings] == [
        "config", "identity", "keys", "permissions", "room", "daemon", "state",
        "address", "address", "address",
    ]  # fmt: skip
    assert sorted(site.rglob("*")) == before


def other_machine(site: Path) -> None:
    text = (site / "identity.json").read_text().splitlines()
    changed = [line if "machine" not in line else ' "machine": "other",' for line in text]
    (site / "identity.json").write_text("\n".join(changed))


def keys_of_two_pairs(site: Path) -> None:
    (site / "keys" / "public").write_text(generate_keypair()[0])


def pipe_for(path: Path) -> None:
    """Whoever reads it waits until somebody writes."""
    path.unlink()
    os.mkfifo(path)


def zeroes_for(path: Path) -> None:
    """Whoever reads it never comes to an end."""
    path.unlink()
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def directory_for(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def lost_state(site: Path) -> None:
    (site / "groups" / "g" / "journal" / "0123456789abcdef").mkdir(parents=True)
    (site / "groups" / "g" / "journal" / "0123456789abcdef" / "0000000000000000.seg").touch()


def emptied_state(site: Path) -> None:
    lost_state(site)
    (site / "state.mdb").touch()


def spoilt_state(site: Path) -> None:
    (site / "state.mdb").write_bytes(b"no store" * 2000)


def no_groups(site: Path) -> None:
    (site / "groups").rmdir()
    (site / "groups").symlink_to("groups")


def door_that_is_no_socket(site: Path) -> None:
    (site / "nbd.sock").mkdir()


def signing_key_for_all(site: Path) -> None:
    signing_seed(RealDisk(site, None))
    (site / SIGNING_KEY_FILE).chmod(0o644)


@pytest.mark.parametrize(
    ("spoil", "check", "code"),
    [
        (lambda site: (site / "site.toml").write_text("name = 3"), "config", ExitCode.USAGE),
        (lambda site: pipe_for(site / "site.toml"), "config", ExitCode.FAILED),
        (lambda site: pipe_for(site / "identity.json"), "identity", ExitCode.FAILED),
        (lambda site: pipe_for(site / "keys" / "secret"), "keys", ExitCode.MISMATCH),
        (lambda site: pipe_for(site / "keys" / "public"), "keys", ExitCode.MISMATCH),
        (lambda site: zeroes_for(site / "keys" / "public"), "keys", ExitCode.MISMATCH),
        (lambda site: directory_for(site / "keys" / "secret"), "keys", ExitCode.MISMATCH),
        (other_machine, "identity", ExitCode.NOT_ALLOWED),
        (lambda site: (site / "keys" / "secret").unlink(), "keys", ExitCode.MISMATCH),
        (lambda site: (site / "keys" / "secret").chmod(0o640), "permissions", ExitCode.NOT_ALLOWED),
        (signing_key_for_all, "permissions", ExitCode.NOT_ALLOWED),
        (lambda site: site.chmod(0o770), "permissions", ExitCode.NOT_ALLOWED),
        (keys_of_two_pairs, "keys", ExitCode.USAGE),
        (lost_state, "state", ExitCode.MISMATCH),
        (emptied_state, "state", ExitCode.MISMATCH),
        (spoilt_state, "state", ExitCode.MISMATCH),
        (no_groups, "state", ExitCode.FAILED),
        (door_that_is_no_socket, "address", ExitCode.BUSY),
    ],
)
def test_each_part_that_is_wrong_is_named(
    site: Path, spoil: Callable[[Path], object], check: str, code: ExitCode
) -> None:
    spoil(site)
    first = failed(site)[0]
    assert (first.check, first.exit_code) == (check, code)


def test_how_hosts_come_on_tcp_is_said(site: Path) -> None:
    def said() -> SiteFinding:
        return next(each for each in check_site(site).findings if each.check == "tls")

    path = site / "site.toml"
    path.write_text(f'{path.read_text()}nbd = ["tcp:127.0.0.1:{free_port()}"]\n')
    assert (said().state, "site cert init" in said().said) == (CheckState.WARNING, True)
    TestAuthority(site)
    assert (said().state, said().said) == (CheckState.OK, "hosts on TCP come over TLS")
    end_ns = server_end_ns(RealDisk(site, None))
    for left_days, state in ((31, "OK"), (30, "WARNING"), (8, "WARNING"), (7, "FAILED"), (-9, "FAILED")):
        now_ns = end_ns - left_days * DAY_NS
        findings = check_site(site, partial(int, now_ns)).findings
        found = next(each for each in findings if each.check == "tls")
        assert found.state is CheckState[state], left_days
        assert state == "OK" or "site cert init" in found.said + (found.next or "")
    (site / SERVER_FILE).chmod(0o644)
    assert [(each.check, each.exit_code) for each in failed(site)] == [("permissions", ExitCode.NOT_ALLOWED)]
    (site / SERVER_FILE).write_text("rubbish")
    assert said().state is CheckState.FAILED
    for name in (SERVER_FILE, CA_FILE):
        TestAuthority(site)
        pipe_for(site / name)
        assert (said().state, "no file" in said().said) == (CheckState.FAILED, True)
        (site / name).unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_named(site: Path) -> None:
    os.chown(site / "keys" / "public", 12345, -1)
    (found,) = failed(site)
    assert "keys/public belongs to 12345" in found.said


def test_a_port_that_is_taken_is_named(site: Path) -> None:
    port = int((site / "site.toml").read_text().partition("127.0.0.1:")[2].partition('"')[0])
    with socket.create_server(("127.0.0.1", port)):
        (found,) = failed(site)
    assert (found.check, found.exit_code) == ("address", ExitCode.BUSY)
    assert f"127.0.0.1:{port}" in found.said


@pytest.mark.parametrize("key", ["nbd_socket_group", "control_socket_owner"])
def test_whom_a_socket_is_for_must_be_known_here(site: Path, key: str) -> None:
    with (site / "site.toml").open("a") as config:
        config.write(f'\n{key} = "no-such-one"\n')
    (found,) = failed(site)
    assert (found.check, found.exit_code) == ("address", ExitCode.NOT_FOUND)
    assert "no-such-one" in found.said


def test_a_daemon_that_runs_has_its_addresses(site: Path) -> None:
    held = lock_site(site)
    found = check_site(site).findings
    held.close()
    assert (found[-1].check, found[-1].state) == ("daemon", CheckState.WARNING)


def test_a_directory_that_no_socket_fits_in_is_a_finding(site: Path) -> None:
    moved = site.rename(site.parent / (100 * "d"))
    assert [each.check for each in failed(moved)] == ["address", "address"]


def test_a_secret_that_others_can_read_is_named_and_none_is_printed(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "password"
    text = (site / "site.toml").read_text()
    mail = '[notify.mail]\nsmtp = "smtps://h"\nuser = "u"\nsender = "a@b"\nto = ["c@d"]\n'
    chat = '[notify.chat]\nwebhook = "https://h"\nsecret = "hu5h"\n'
    (site / "site.toml").write_text(f'{text}\n{mail}secret_file = "{file}"\n{chat}')

    def said() -> list[tuple[CheckState, str]]:
        findings = check_site(site).findings
        assert not any("hu5h" in each.said for each in findings)
        return [(each.state, each.said) for each in findings if each.check == "notify"]

    (chat_state, _), (mail_state, mail_said) = said()
    assert (chat_state, mail_state) == (CheckState.OK, CheckState.WARNING)
    assert "No such file" in mail_said
    file.write_text("pw")
    file.chmod(0o644)
    site.chmod(0o755)
    (site / "site.toml").chmod(0o644)
    (chat_state, chat_said), (mail_state, mail_said) = said()
    assert (chat_state, mail_state) == (CheckState.WARNING, CheckState.WARNING)
    assert f"{file} is open to every user" in mail_said
    assert "site.toml is open to every user" in chat_said
    file.chmod(0o600)
    (site / "site.toml").chmod(0o600)
    assert {state for state, _ in said()} == {CheckState.OK}


def test_c48_whether_libvirts_qemu_may_connect_is_said() -> None:
    """And by which group."""
    assert may_connect(SocketAccess(mode=0o660, group="nogroup"), "nobody") == "; nobody may connect"
    for closed in (SocketAccess(mode=0o600, group="nogroup"), SocketAccess(mode=0o660, group="root")):
        said = may_connect(closed, "nobody")
        assert said == '; nobody may not connect (`nbd_socket_group = "nogroup"` lets it)'
    assert may_connect(SocketAccess(mode=0o666), "nobody") == "; nobody may connect"
    assert may_connect(SocketAccess(mode=0o660), "no-such-user") == ""


def test_figures_that_nobody_could_get_are_a_warning(site: Path) -> None:
    text = (site / "site.toml").read_text()
    replication = text.rpartition("tcp://")[2].strip().strip('"')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for place in (replication, f"127.0.0.1:{taken.getsockname()[1]}"):
            (site / "site.toml").write_text(f'{text}\nmetrics = "{place}"\n')
            found = [each for each in check_site(site).findings if each.said.startswith("metrics: ")]
            assert [each.state for each in found] == [CheckState.WARNING], place


@pytest.mark.parametrize("lacks", ["ROOM_BYTES_MIN", "INODES_MIN"])
def test_little_room_keeps_no_site_from_starting(
    site: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    monkeypatch.setattr(f"daemon.site_check.{lacks}", 1 << 62)
    (room,) = [each for each in check_site(site).findings if each.check == "room"]
    assert room.state is CheckState.WARNING
    assert "ENOSPC" in room.said
    assert not failed(site)
