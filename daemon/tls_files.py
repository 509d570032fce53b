"""The certificates of a site, as files in its data directory. Nothing here knows what is in a certificate.

Each is written as a whole, and readable by the daemon's user only:

    tls/ca.pem        the authority's key and certificate: whoever reads it can be any host
    tls/server.pem    the server's key and certificate
    tls/issued.json   the certificates that were issued to hosts, and which are revoked
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.ports.disk import Disk
from protocol.bounds import Name, UtcNs
from protocol.errors import Corruption

DIRECTORY = "tls"
CA_FILE = f"{DIRECTORY}/ca.pem"
SERVER_FILE = f"{DIRECTORY}/server.pem"
ISSUED_FILE = f"{DIRECTORY}/issued.json"


class Issued(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A host's certificate. `serial` in hex, as `ssl` has it."""

    name: Name
    serial: str
    not_after_utc_ns: UtcNs
    revoked_utc_ns: UtcNs = 0


class _IssuedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    certificates: tuple[Issued, ...] = ()


def there_are_some(disk: Disk) -> bool:
    """Whether the site has an authority."""
    return disk.exists(CA_FILE)


def issued(disk: Disk) -> tuple[Issued, ...]:
    """Every certificate that was issued and has a row. Corruption."""
    if not disk.exists(ISSUED_FILE):
        return ()
    try:
        return msgspec.json.decode(disk.read_file(ISSUED_FILE), type=_IssuedFile).certificates
    except (msgspec.MsgspecError, ValueError) as error:
        raise damaged(ISSUED_FILE, error) from error


def write_issued(disk: Disk, rows: Sequence[Issued]) -> None:
    """These are the rows from now on. OSError."""
    disk.replace_file(ISSUED_FILE, msgspec.json.encode(_IssuedFile(certificates=tuple(rows))))


def damaged(path: str, error: Exception) -> Corruption:
    """A file that cannot be read, whatever is in it."""
    return Corruption(
        f"{path} is damaged: {error}",
        subject=path,
        next_step="put tls/ back from a copy of the data directory",
    )
