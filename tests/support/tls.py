"""Certificates of hosts and servers, as a site makes them and as it does not; clients that do TLS by hand."""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from daemon.certificates import Authority, make_authority
from daemon.tls_files import CA_FILE, SERVER_FILE, issued
from engine.ports.durable import RealDisk
from protocol.nbd.client import encode_option
from protocol.nbd.constants import Option
from site_primary.nbd.tls import server_context

DAY_NS = 86_400 * 10**9
GREETING_BYTES = 18
CLIENT_FLAGS = struct.pack(">I", 3)
STARTTLS = encode_option(Option.STARTTLS)
# Magic, option, ACK, no data.
STARTTLS_GRANTED = struct.pack(">QIII", 0x3E889045565A9, Option.STARTTLS, 1, 0)


@dataclass(frozen=True)
class HostFiles:
    """A directory in the layout of QEMU and libnbd."""

    directory: Path

    @property
    def ca(self) -> Path:
        return self.directory / "ca-cert.pem"

    @property
    def cert(self) -> Path:
        return self.directory / "client-cert.pem"

    @property
    def key(self) -> Path:
        return self.directory / "client-key.pem"

    def context(self, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        """What a client by hand needs; without a certificate if there is none."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.maximum_version = newest
        made.load_verify_locations(self.ca)
        if self.cert.exists():
            made.load_cert_chain(self.cert, self.key)
        return made

    def without_certificate(self, directory: Path) -> HostFiles:
        """The same trust, and nothing to show."""
        directory.mkdir()
        (directory / "ca-cert.pem").write_bytes(self.ca.read_bytes())
        return HostFiles(directory)


class TestAuthority:
    """An authority of its own, and what it signs."""

    __test__ = False

    def __init__(self, directory: Path, now_ns: int | None = None) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._now_ns = now_ns or int(datetime.now(UTC).timestamp()) * 10**9
        self._authority = make_authority(RealDisk(directory, None), "lon", "00ff00ff12345678", self._now_ns)
        self._authority.make_server("lon", ["127.0.0.1", "localhost"], self._now_ns)

    @classmethod
    def of_site(cls, directory: Path) -> TestAuthority:
        """That of a site's data directory."""
        found = cls.__new__(cls)
        found.directory = directory
        found._now_ns = int(datetime.now(UTC).timestamp()) * 10**9
        found._authority = Authority(RealDisk(directory, None))
        return found

    def server(self) -> ssl.SSLContext:
        """The server's side."""
        return server_context(str(self.directory / SERVER_FILE), str(self.directory / CA_FILE))

    def host(self, name: str, directory: Path, *, age_days: int = 0, days: int = 365) -> HostFiles:
        """The files of a host, made so long ago."""
        directory.mkdir(parents=True)
        key, request = request_of(name)
        made_ns = self._now_ns - age_days * DAY_NS
        certificate, _ = self._authority.issue(name, request, made_ns, days)
        files = HostFiles(directory)
        files.ca.write_text(self._authority.pem)
        files.cert.write_text(certificate)
        files.key.write_text(key)
        return files

    def serial(self, name: str) -> str:
        """That of the last certificate of a host, as the site writes it down."""
        return [row.serial for row in issued(RealDisk(self.directory, None)) if row.name == name][-1]

    def server_as_host(self, directory: Path) -> HostFiles:
        """The server's own certificate, shown as if it were a host's."""
        directory.mkdir()
        files = HostFiles(directory)
        files.ca.write_text(self._authority.pem)
        for each in (files.cert, files.key):
            each.write_bytes((self.directory / SERVER_FILE).read_bytes())
        return files


def request_of(name: str) -> tuple[str, str]:
    """A key and a request, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret.decode(), request.public_bytes(serialization.Encoding.PEM).decode()


def greeted(port: int, timeout_s: float = 20.0) -> socket.socket:
    """A connection on TCP that has its greeting, and said its flags."""
    made = socket.create_connection(("127.0.0.1", port), timeout_s)
    assert len(exactly(made, GREETING_BYTES)) == GREETING_BYTES
    made.sendall(CLIENT_FLAGS)
    return made


def starting_tls(port: int) -> socket.socket:
    """One to which STARTTLS was granted: TLS's own handshake is next."""
    made = greeted(port)
    made.sendall(STARTTLS)
    assert exactly(made, len(STARTTLS_GRANTED)) == STARTTLS_GRANTED
    return made


def over_tls(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """One that talks over TLS; `ssl.SSLError` or OSError, here or at its first read, if it may not."""
    return context.wrap_socket(starting_tls(port), server_hostname="127.0.0.1")


def exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes; fewer if the other side ended."""
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data
