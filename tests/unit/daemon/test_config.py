"""site.toml: what is taken, what is refused, and what is said then."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config import CONFIG_FILE, load_config
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
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        load(tmp_path, text)
    assert said in f"{refused.value.message} {refused.value.next_step}"
