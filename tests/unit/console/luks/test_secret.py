"""Keys from files: whose they may be, and that they are overwritten (C50)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from console.luks.secret import SECRET_BYTES_MAX, LuksKey, from_file
from protocol.errors import NotAllowed, NotFound, Refused, UsageError


def made(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("length", [1, 512, 65536, 65537, 200_000])
def test_c50_a_key_is_all_of_its_file(tmp_path: Path, length: int) -> None:
    data = os.urandom(length)
    assert from_file(made(tmp_path / "key", data)) == data


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o602, 0o644])
def test_c50_a_file_that_others_may_open_is_no_key(tmp_path: Path, mode: int) -> None:
    with pytest.raises(NotAllowed, match=f"{mode:04o}") as refused:
        from_file(made(tmp_path / "key", b"key", mode))
    assert refused.value.next_step == f"chmod 600 {tmp_path / 'key'}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_c50_nor_is_one_that_belongs_to_another(tmp_path: Path) -> None:
    path = made(tmp_path / "key", b"key")
    os.chown(path, 12345, 12345)
    with pytest.raises(NotAllowed, match="belongs to user 12345"):
        from_file(path)


def test_c50_what_is_no_file_with_a_key(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        from_file(tmp_path / "none")
    with pytest.raises(UsageError, match="is no file"):
        from_file(tmp_path)
    with pytest.raises(UsageError, match="is empty"):
        from_file(made(tmp_path / "empty", b""))
    large = made(tmp_path / "large", b"")
    os.truncate(large, SECRET_BYTES_MAX + 1)
    with pytest.raises(UsageError, match="more than 8 MiB"):
        from_file(large)


def test_c50_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"from another program",))
    writer.start()
    assert from_file(pipe) == b"from another program"
    writer.join()


def test_c50_a_key_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = LuksKey(made(tmp_path / "key", b"secret"))
    held = key.secret("g/v")
    assert held == b"secret"
    assert key.available
    key.wipe()
    assert held == bytes(6)
    key.wipe()
    monkeypatch.setattr(os, "isatty", lambda _descriptor: False)
    assert not key.available
    with pytest.raises(Refused, match="LUKS") as refused:
        key.secret("g/v")
    assert "--key-file" in refused.value.next_step
