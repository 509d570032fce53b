"""site.toml: what is taken, what is refused, and what is said then."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from daemon.config import (
    CONFIG_FILE,
    SiteConfig,
    check_config,
    config_text,
    control_access,
    load_config,
    nbd_access,
)
from engine.ports.unix_sockets import SocketAccess
from protocol.errors import UsageError

HOOK = '[hooks.db]\nfreeze = ["quiet"]\nthaw = ["go-on", "now"]\n'


def load(directory: Path, text: str):
    """The settings that site.toml of this text gives."""
    (directory / CONFIG_FILE).write_text(f'name = "a"\n{text}')
    return load_config(directory)


def test_a_hook(tmp_path: Path) -> None:
    hook = load(tmp_path, HOOK).hooks["db"]
    assert (hook.freeze, hook.thaw) == (("quiet",), ("go-on", "now"))
    assert (hook.timeout_s, hook.on_failure) == (10.0, "refuse")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("windows_s = 1.0", "window_s"),
        ("nbd_connections_per_host = 0", "nbd_connections_per_host"),
        ("nbd_connections_per_host = 1537", "nbd_connections_per_host"),
        (HOOK + "timeout = 3.0", "timeout_s"),
        (HOOK + "timeout_s = 0.0", "timeout_s"),
        (HOOK + "timeout_s = 1e9", "timeout_s"),
        (HOOK + 'on_failure = "ignore"', "on_failure"),
        (HOOK.replace('["quiet"]', "[]"), "freeze"),
        (HOOK.replace('["quiet"]', '"quiet"'), "freeze"),
        ('[hooks.db]\nfreeze = ["quiet"]\n', "thaw"),
        (HOOK.replace("db", '"../db"'), "../db"),
        ("hooks = 3", "hooks"),
        ("window_s = nan", "window_s"),
        ("window_s = inf", "window_s"),
        ("lock_window_s = nan", "lock_window_s"),
        ("lock_window_s = -1", "lock_window_s"),
        ("lock_window_s = 1e10", "lock_window_s"),
        ('lock_window_s = "30"', "lock_window_s"),
        ('window_s = "2 moons"', "window_s"),
        ('window_bytes = "50GB"', "50G"),
        ('window_bytes = "0.3"', "window_bytes"),
        (HOOK + 'timeout_s = "1h"', "hooks.db.timeout_s"),
        (HOOK + 'timeout_s = "soon"', "hooks.db.timeout_s"),
        ("nbd_socket_mode = 660", "nbd_socket_mode"),
        ('nbd_socket_mode = "660x"', "nbd_socket_mode"),
        ('nbd_socket_mode = "0770"', "nbd_socket_mode"),
        ('nbd_socket_mode = "0060"', "nbd_socket_mode"),
        ('nbd_socket_mode = "0666"', "nbd_socket_group"),
        ('control_socket_mode = "0606"\ninsecure = true', "control_socket_group"),
        ('nbd_socket_group = "a:b"', "nbd_socket_group"),
        ("start_wait_s = nan", "start_wait_s"),
        ("start_wait_s = -1.0", "start_wait_s"),
        ("sync_timeout_s = nan", "sync_timeout_s"),
        ("journal_limit_bytes = 4611686018427387904", "journal_limit_bytes"),
        ("journal_limit_bytes = 50", '"50G"'),
        ("reserve_bytes = -1", "reserve_bytes"),
        ('replication = "ipc:///tmp/x"', "ipc:///tmp/x"),
        ('replication = "tcp://h:99999"', "99999"),
        ('advertise = "tcp://*:7401"', "advertise"),
        ('advertise = "tcp://a b:1"', "a b"),
        ('control = "ipc://relative"', "relative"),
        ('nbd = ["tcp:host"]\ninsecure = true', "tcp:host"),
        ('nbd = ["unix:/x\\n"]', "control characters"),
        ('nbd = ["unix:run/x.sock"]', "unix:/run/x.sock"),
        ('nbd = ["unix:/x.sock", "unix:/x.sock"]', "twice"),
        ('nbd = ["unix:/x.sock"]\ncontrol = "ipc:///x.sock"', "nbd and control"),
        ('replication = "tcp://h:1"\nremote_control = "tcp://h:1"', "replication and remote_control"),
        ('nbd = ["unix:/x\\u0000"]', "control characters"),
        ('control = "ipc:///x\\u0000"', "control characters"),
        ('witness = "/x\\u0000"', "witness"),
        (HOOK.replace("now", "n\\u0000w"), "hooks.db.thaw"),
        (HOOK.replace("quiet", "q\\u0000t"), "hooks.db.freeze"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        load(tmp_path, text)
    assert said in f"{refused.value.message} {refused.value.next_step}"


INJECTED = 'x"\n[hooks.x]\nfreeze = ["id"]\nthaw = ["id"]\n#'


@pytest.mark.parametrize("key", ["control", "replication", "advertise", "nbd", "name"])
@pytest.mark.parametrize("before", ["", "tcp://h:1", "ipc:///", "unix:/"])
def test_c16_no_option_of_init_writes_another_section(key: str, before: str) -> None:
    text = before + INJECTED
    config = msgspec.convert({"name": "a"} | {key: [text] if key == "nbd" else text}, SiteConfig)
    with pytest.raises(UsageError):
        check_config(config, "a")
    # And were it not refused, it would still be the value of its key.
    assert set(tomllib.loads(config_text(config))) == {"name", key}


def test_a_config_that_was_written_reads_back(tmp_path: Path) -> None:
    config = SiteConfig(
        name="a",
        control='ipc:///run/\U0001f600 "q" \\.sock',
        replication="tcp://*:7401",
        advertise="tcp://[fe80::1%eth0]:7401",
        nbd=("unix:/run/a'b.sock", "tcp::10809", "tcp:[::1]:1"),
        insecure=True,
    )
    check_config(config, "a")
    (tmp_path / CONFIG_FILE).write_text(config_text(config), encoding="utf-8")
    assert load_config(tmp_path) == config


def test_sizes_and_spans_as_text(tmp_path: Path) -> None:
    text = 'window_s = "2d"\nwindow_bytes = "50G"\nreserve_bytes = "1.5MiB"\nsync_timeout_s = "0.5s"\n'
    config = load(tmp_path, text + HOOK + 'timeout_s = "1m"\n')
    assert (config.window_s, config.window_bytes) == (172_800.0, 50 << 30)
    assert (config.reserve_bytes, config.sync_timeout_s) == (3 << 19, 0.5)
    assert config.hooks["db"].timeout_s == 60.0


def test_who_may_connect(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    assert (nbd_access(config).mode, control_access(config).mode) == (0o660, 0o600)
    text = (
        'nbd_socket_group = "kvm"\nnbd_socket_mode = "0666"\ninsecure = true\ncontrol_socket_mode = "660"\n'
    )
    config = load(tmp_path, text)
    assert nbd_access(config) == SocketAccess(mode=0o666, group="kvm")
    assert control_access(config).mode == 0o660
