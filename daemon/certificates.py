"""The site's certificate authority for hosts on TCP, and what it signs. Only this module uses `cryptography`.

What it writes is in `daemon/tls_files.py`. Keys are of P-256, which GnuTLS (nbdcopy, nbdinfo, QEMU) and
OpenSSL both take. A host's key is made by its own command and never comes here: what comes is a request
(PKCS #10), of which only the public key is used.

Sources: RFC 5280; RFC 8446, section 4.4.2; QEMU's crypto/tlscredsx509.c, which refuses an EC key whose
certificate has a critical key usage without keyEncipherment.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from daemon.tls_files import CA_FILE, DIRECTORY, SERVER_FILE, Issued, damaged, issued, write_issued
from engine.ports.disk import Disk
from protocol.errors import NotFound, Refused, UsageError

CA_DAYS = 3650
SERVER_DAYS = 825
ISSUED_MAX = 10_000
RSA_BITS_MIN = 2048
# Clocks of hosts may be behind: what is made now is good for them too.
BACKDATED = timedelta(minutes=10)
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
_DNS = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*\.?", re.ASCII)


class Authority:
    """The authority of a site, with its key. Corruption if its file is damaged, NotFound if there is none."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._key, self._certificate = _read_pair(disk, CA_FILE)

    @property
    def pem(self) -> str:
        """Its certificate."""
        return _pem(self._certificate)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate, as `openssl x509 -fingerprint -sha256` prints it."""
        return self._certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def make_server(self, site: str, hosts: Sequence[str], now_ns: int) -> None:
        """Let hosts find the server by these names and addresses from now on. UsageError for one that is
        neither; OSError."""
        names = x509.SubjectAlternativeName([_general_name(each) for each in dict.fromkeys(hosts)])
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._leaf(site, key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, now_ns, SERVER_DAYS)
        certificate = made.add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        _write_pair(self._disk, SERVER_FILE, key, certificate)

    def issue(self, name: str, request_pem: str, now_ns: int, days: int) -> tuple[str, Issued]:
        """The certificate (PEM) of a host, whose request has its public key, and its row. UsageError for a
        request that is none, Refused if there are too many certificates; OSError."""
        public = _public_key(request_pem)
        certificate = self._leaf(name, public, ExtendedKeyUsageOID.CLIENT_AUTH, now_ns, days).sign(
            self._key, hashes.SHA256()
        )
        row = Issued(name=name, serial=_serial(certificate), not_after_utc_ns=_end_ns(certificate))
        # What has ended needs no row: nobody gets in with it.
        rows = [each for each in issued(self._disk) if each.not_after_utc_ns > now_ns]
        if len(rows) >= ISSUED_MAX:
            raise Refused(
                f"there are {ISSUED_MAX} certificates that have not ended",
                subject=name,
                next_step="`farshore site cert list` shows them; issue for fewer --days",
            )
        write_issued(self._disk, [*rows, row])
        return _pem(certificate), row

    def _leaf(
        self,
        name: str,
        public: PublicKey,
        use: x509.ObjectIdentifier,
        now_ns: int,
        days: int,
    ) -> x509.CertificateBuilder:
        usage = _usage(digital_signature=True)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            _builder(_name(name), self._certificate.subject, public, now_ns, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False)  # see the module's docstring
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(authority, critical=False)
        )


def make_authority(disk: Disk, site: str, site_id: str, now_ns: int) -> Authority:
    """A new one. OSError."""
    disk.make_directory(DIRECTORY)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Farshore hosts of {site} {site_id}")
    certificate = (
        _builder(name, name, key.public_key(), now_ns, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(disk, CA_FILE, key, certificate)
    return Authority(disk)


def server_names(disk: Disk) -> tuple[list[str], int]:
    """The names and addresses of the server's certificate, and its end in UTC nanoseconds."""
    _, certificate = _read_pair(disk, SERVER_FILE)
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:  # somebody else made it
        return [], _end_ns(certificate)
    return [str(each.value) for each in found], _end_ns(certificate)


def server_end_ns(disk: Disk) -> int:
    """When the server's certificate ends, whoever made it, in UTC nanoseconds; 0 if it cannot be read."""
    try:
        return _end_ns(x509.load_pem_x509_certificate(disk.read_file(SERVER_FILE)))
    except ValueError:
        return 0


def _public_key(request_pem: str) -> PublicKey:
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"this is no certificate request: {error}") from error
    if not signed:
        raise UsageError("the certificate request is not signed by its own key")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS_MIN:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return key
    raise UsageError(
        f"keys are of EC, Ed25519, or RSA with {RSA_BITS_MIN} bits", next_step="leave --request out"
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        if _DNS.fullmatch(host):
            return x509.DNSName(host.rstrip("."))
    raise UsageError(
        f"{host!r} is neither a name nor an address of a machine",
        subject=host,
        next_step="`farshore site cert init --host NAME`, as hosts have it",
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: PublicKey,
    now_ns: int,
    days: int,
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(now_ns // 10**9, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _serial(certificate: x509.Certificate) -> str:
    text = f"{certificate.serial_number:X}"
    return text.zfill(len(text) + len(text) % 2)


def _end_ns(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp()) * 10**9


def _write_pair(
    disk: Disk, path: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    """In one file, so that no loss of power leaves a key and the certificate of another."""
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    disk.replace_file(path, secret + certificate.public_bytes(serialization.Encoding.PEM))


def _read_pair(disk: Disk, path: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    if not disk.exists(path):
        raise NotFound(
            "this site has no certificates yet", subject=path, next_step="`farshore site cert init`"
        )
    data = disk.read_file(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
        certificate = x509.load_pem_x509_certificate(data)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("key and certificate do not belong together")
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise damaged(path, error) from error
    return key, certificate
