"""Starting and ending the process that opens an encrypted volume, and believing no more of it than needed."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import tempfile

from console.files.export_connection import connect
from console.host_configs import Export
from console.luks.secret import LuksKey
from console.luks.unlocker import LENGTH_BYTES
from farshore.children import child_words
from protocol.errors import FarshoreError, NotAllowed, Refused
from protocol.file_stream import Opened
from protocol.printable import printable

MODULE = "console.luks.unlocker"
LUKS = "luks"  # the reader's word for what it holds
# Eight slots of Argon2 on a slow machine, each tried twice.
OPEN_TIMEOUT_S = 600.0
END_TIMEOUT_S = 5.0
_SAID_BYTES_MAX = 4096


def unlocker_of(export: Export, found: Opened, key: LuksKey, *, read_only: bool) -> Unlocker:
    """Of what a reader found in an export. Raises as `Unlocker`, and Refused without a key."""
    secret = key.secret(export.name)
    return Unlocker(
        export, secret, first_byte=found.first_byte, size_bytes=found.size_bytes, read_only=read_only
    )


class Unlocker:
    """What is inside an encrypted stretch of an export, as an export of its own on a socket that only this
    user can reach."""

    def __init__(
        self, export: Export, secret: bytearray, *, first_byte: int, size_bytes: int, read_only: bool
    ) -> None:
        """Raises NotAllowed for a key that does not open it, Refused with why it cannot be opened."""
        self.unfenced = ""
        # A socket's path has 107 bytes: TMPDIR may be longer.
        self._directory = tempfile.mkdtemp(prefix="farshore-", dir="/tmp")
        self._process: subprocess.Popen[bytes] | None = None
        self.export = Export(
            name=export.name,
            unix=f"{self._directory}/nbd.sock",
            host="",
            port=0,
            tls=False,
            read_only=read_only,
        )
        try:
            self._start(export, first_byte, size_bytes)
            self._hand_over(secret)
            self._require_open(export.name)
        except BaseException:
            self.close()
            raise

    def let_go(self) -> None:
        """It goes on by itself until its last client leaves; no new one can come."""
        process = self._process
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.stdin.close()
            process.stdout.close()
            # It is not waited for, and no zombie of a command that ends now.
            process.returncode = 0
        self._process = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def close(self) -> None:
        """End it; twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.kill()
            process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Unlocker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, export: Export, first_byte: int, size_bytes: int) -> None:
        connection, whole_bytes = connect(export)
        with connection, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(self.export.unix)
            listening.listen(4)
            numbers = {
                "--connection": connection.fileno(),
                "--size": whole_bytes,
                "--first": first_byte,
                "--bytes": size_bytes,
                "--listening": listening.fileno(),
            }
            words = [word for name, number in numbers.items() for word in (name, str(number))]
            self._process = subprocess.Popen(
                child_words(
                    MODULE, *words, "--name", export.name, *(["--read-only"] if self.export.read_only else [])
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                pass_fds=(connection.fileno(), listening.fileno()),
                start_new_session=True,
                cwd="/",
            )

    def _hand_over(self, secret: bytearray) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise FarshoreError("what opens encrypted volumes did not start")
        try:
            for data in (len(secret).to_bytes(LENGTH_BYTES, "little"), secret):
                with memoryview(data) as view:
                    done = 0
                    while done < len(view):
                        done += os.write(process.stdin.fileno(), view[done:])
        except BrokenPipeError:
            return  # what it says, or that it says nothing, tells why

    def _require_open(self, name: str) -> None:
        """Until it serves, or said why not."""
        while True:
            word, _, text = self._line(name).partition(" ")
            if word == "unfenced":
                self.unfenced = text
                continue
            if word == "ok":
                return
            if word == "key":
                raise NotAllowed(
                    f"{name} is encrypted (LUKS), and this key does not open it",
                    subject=name,
                    next_step="another --key-file FILE: its bytes are the passphrase",
                )
            why = text if word == "unreadable" and text else "what opens it ended"
            raise Refused(
                f"{name} is encrypted (LUKS) and cannot be opened: {why}",
                subject=name,
                next_step=f"open it where cryptsetup can: `farshore volume uri {name}`, nbdfuse, cryptsetup",
            )

    def _line(self, name: str) -> str:
        process = self._process
        if process is None or process.stdout is None:
            return ""
        line = b""
        while not line.endswith(b"\n") and len(line) < _SAID_BYTES_MAX:
            ready, _, _ = select.select([process.stdout], [], [], OPEN_TIMEOUT_S)
            if not ready:
                raise FarshoreError(f"{name}: its key was not found in {OPEN_TIMEOUT_S:g} s", subject=name)
            # Byte by byte: another line may follow, which is for the next call.
            data = os.read(process.stdout.fileno(), 1)
            if not data:
                break
            line += data
        return printable(line.decode("utf-8", "replace").rstrip("\n"))
