"""Images, files and the demo's host connect to an export alike, and each says its own of a failure."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from console.demo.host import Host
from console.files import export_connection
from console.host_configs import Export
from console.images import nbd_image
from protocol.errors import FarshoreError, NotFound, Refused, Unreachable, UsageError
from protocol.nbd.handshake import HandshakeState, ServerHandshake
from tests.unit.protocol.nbd.handshake_talk import SIZE, Volumes

PATIENCE_S = 30


class Server:
    """A site's door on a unix socket, for one client: handshakes, then hangs up. `answers`: how often it
    answers before it hangs up."""

    def __init__(self, path: Path, answers: int = 100) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.settimeout(PATIENCE_S)
        self._listening.bind(str(path))
        self._listening.listen(1)
        self._answers = answers
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        handshake = ServerHandshake(Volumes())
        connection, _ = self._listening.accept()
        with connection:
            connection.settimeout(PATIENCE_S)
            connection.sendall(handshake.greeting())
            for _ in range(self._answers):
                data = connection.recv(1 << 16)
                if not data:
                    return
                connection.sendall(handshake.receive(data))
                if handshake.state is HandshakeState.TRANSMISSION:
                    connection.recv(1)  # until the client has had enough
                    return

    def close(self) -> None:
        self._thread.join(PATIENCE_S)
        self._listening.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nbd.sock"


@pytest.fixture
def serve(path: Path) -> Iterator[Callable[..., None]]:
    servers: list[Server] = []
    yield lambda *answers: servers.append(Server(path, *answers))
    for server in servers:
        server.close()


def at(path: Path, name: str = "vm1/root", **changed: object) -> Export:
    given = {"unix": str(path), "host": "", "port": 0, "tls": False, "read_only": False} | changed
    return Export(name=name, **given)  # type: ignore[arg-type]


def test_all_find_the_same_export(path: Path, serve: Callable[..., None], tmp_path: Path) -> None:
    serve()
    with nbd_image.connect(at(path)) as image:
        assert (image.size_bytes, image.read_only) == (SIZE, False)
    path.unlink()
    serve()
    connection, size_bytes = export_connection.connect(at(path))
    with connection:
        assert (size_bytes, connection.gettimeout()) == (SIZE, None)
    path.unlink()
    serve()
    with Host(path, "vm1/root") as host:
        assert host.size_bytes == SIZE


@pytest.mark.parametrize(
    ("connect", "kind"),
    [
        (lambda path: nbd_image.connect(at(path, "vm1/x")), NotFound),
        (lambda path: export_connection.connect(at(path, "vm1/x")), FarshoreError),
        (lambda path: Host(path, "vm1/x"), FarshoreError),
    ],
)
def test_a_refusal_has_the_servers_words(
    path: Path, serve: Callable[..., None], connect: Callable[[Path], object], kind: type[FarshoreError]
) -> None:
    serve()
    with pytest.raises(FarshoreError) as caught:
        connect(path)
    assert type(caught.value) is kind
    assert caught.value.message == "vm1/x was refused: no volume vm1/x"
    assert caught.value.subject == "vm1/x"


def test_nobody_there(path: Path) -> None:
    why = "No such file or directory"
    with pytest.raises(Unreachable) as caught:
        nbd_image.connect(at(path))
    assert caught.value.message == f"nobody serves vm1/root at {path}: {why}"
    with pytest.raises(Unreachable) as caught:
        export_connection.connect(at(path))
    assert caught.value.message == f"hosts cannot connect to {path}: {why}"
    with pytest.raises(FileNotFoundError):
        Host(path, "vm1/root")


@pytest.mark.parametrize("answers", [0, 1])
def test_a_server_that_hangs_up(path: Path, serve: Callable[..., None], answers: int) -> None:
    serve(answers)
    with pytest.raises(Unreachable, match="the server of vm1/root closed the connection"):
        nbd_image.connect(at(path))
    path.unlink()
    serve(0)
    with pytest.raises(Unreachable, match=f"no handshake at {path}: "):
        export_connection.connect(at(path))
    path.unlink()
    serve(0)
    with pytest.raises(ConnectionError):
        Host(path, "vm1/root")


def test_over_tcp_and_never_over_tls(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    here = at(path, unix="", host="127.0.0.1", port=port)
    with pytest.raises(Unreachable, match=f"vm1/root at 127.0.0.1:{port}: Connection refused"):
        nbd_image.connect(here)
    with pytest.raises(Unreachable, match=f"connect to 127.0.0.1:{port}: Connection refused"):
        export_connection.connect(here)
    with pytest.raises(UsageError, match="only to be had over TLS"):
        nbd_image.connect(at(path, unix="", host="127.0.0.1", port=port, tls=True))
    with pytest.raises(Refused, match="with TLS only"):
        export_connection.connect(at(path, tls=True))


def test_an_unknown_context_is_an_error(path: Path, serve: Callable[..., None]) -> None:
    serve()
    with pytest.raises(FarshoreError, match="the server of vm1/root does not know x:y"):
        nbd_image.connect(at(path), "x:y")
