"""Where a peer is, as people write it."""

from __future__ import annotations

import pytest

from protocol.endpoints import check_listen_endpoint, dialled


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("10.0.0.1", "tcp://10.0.0.1:7401"),
        ("10.0.0.1:9000", "tcp://10.0.0.1:9000"),
        ("backup.example", "tcp://backup.example:7401"),
        ("[fe80::1]", "tcp://[fe80::1]:7401"),
        ("[fe80::1]:7402", "tcp://[fe80::1]:7402"),
        ("*", "tcp://*:7401"),
        ("tcp://10.0.0.1:1", "tcp://10.0.0.1:1"),
    ],
)
def test_the_port_goes_without_saying(text: str, endpoint: str) -> None:
    assert dialled(text) == endpoint
    assert check_listen_endpoint(endpoint) == endpoint


def test_what_is_written_out_stays() -> None:
    assert dialled("ipc:///tmp/x") == "ipc:///tmp/x"
    assert dialled("") == ""
