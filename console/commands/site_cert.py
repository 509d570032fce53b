"""`farshore site cert`: certificates of the site's door on TCP, and of the hosts that come in by it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict

from console.certificates import until_text
from console.parser import GuessedVerbs
from console.session import Session, session_of
from console.unfinished_file import UnfinishedFile
from protocol.commands.base import check_name
from protocol.commands.site_cert import (
    DAYS,
    DAYS_MAX,
    REQUEST_CHARS_MAX,
    CertificateInfo,
    SiteCertInit,
    SiteCertIssue,
    SiteCertIssueReply,
    SiteCertList,
    SiteCertReply,
    SiteCertRevoke,
)
from protocol.errors import FarshoreError, Refused, UsageError

# Of QEMU's tls-creds-x509 and libnbd alike.
CA_FILE, CERT_FILE, KEY_FILE = "ca-cert.pem", "client-cert.pem", "client-key.pem"
OPEN_MODE, DIRECTORY_MODE = 0o644, 0o700

app = typer.Typer(
    help="Certificates of hosts that connect over TLS.",
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=GuessedVerbs,
)

HostArgument = Annotated[str, typer.Argument(metavar="NAME", help="The host, as `volume allow` names it.")]


class CertificateFiles(CertificateInfo, frozen=True, kw_only=True):
    """A host's certificate, and where it is with what belongs to it; `key_file` is null if the host made the
    key itself."""

    directory: str
    ca_file: str
    certificate_file: str
    key_file: str | None


@app.command()
def init(
    ctx: typer.Context,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|ADDRESS", help="How hosts reach it; repeatable. Default: as `nbd` has it."
        ),
    ] = None,
) -> None:
    """Let hosts come over TLS: make the site's authority, and the server's certificate, at once.

    Given again it renews the server's certificate; the authority, and hosts' certificates, stay."""
    session = session_of(ctx)
    data = session.call(SiteCertInit(hosts=tuple(host or ())))

    def show() -> None:
        _show(session, data)
        session.output.note("next: `farshore site cert issue NAME --to DIR`, for each host")

    session.output.result("site.cert-init", data, show)


@app.command()
def issue(
    ctx: typer.Context,
    name: HostArgument,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where its files go.")],
    days: Annotated[int, typer.Option(min=1, max=DAYS_MAX, help="How long it is good.")] = DAYS,
    request: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A request (PKCS #10, PEM) of a key that stays at the host."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Although DIR has such files.")] = False,
) -> None:
    """Make a host's certificate: ca-cert.pem, client-cert.pem and client-key.pem, for QEMU and libnbd.

    The key is made here, is readable by this user only, and is not sent to the site."""
    session = session_of(ctx)
    check_name(name, "certificate")
    names = [CA_FILE, CERT_FILE, *([] if request else [KEY_FILE])]
    for each in names if not replace else ():
        if os.path.lexists(to / each):
            raise Refused(
                f"{to / each} exists already", subject=str(to), next_step="choose another --to, or --replace"
            )
    key, text = ("", _read(request)) if request else _new_request(name)
    data = session.call(SiteCertIssue(host=name, request=text, days=days))
    contents = {CA_FILE: data.ca_certificate, CERT_FILE: data.certificate, **({KEY_FILE: key} if key else {})}
    _write(to, contents, replace=replace)
    shown = _files(to, data, key_file=None if request else str(to / KEY_FILE))

    def show() -> None:
        session.output.line(
            f"{name}: {', '.join(contents)} in {to}, good until {session.local(data.expires)}"
        )
        session.output.note(
            f"nbdinfo 'nbds://HOST:PORT/G/V?tls-certificates={to.absolute()}'",
            f"qemu: -object tls-creds-x509,id=tls0,endpoint=client,dir={to.absolute()}",
        )

    session.output.result("site.cert-issue", shown, show)


@app.command("list")
def list_certificates(ctx: typer.Context) -> None:
    """The server's certificate, and those of hosts."""
    session = session_of(ctx)
    data = session.call(SiteCertList())

    def show() -> None:
        _show(session, data)
        session.output.table(
            ("host", "good until", "revoked", "serial"),
            [
                (
                    each.name,
                    until_text(session.local(each.expires), each.left_days),
                    session.local(each.revoked),
                    each.serial,
                )
                for each in data.certificates
            ],
            empty="no hosts: `farshore site cert issue NAME --to DIR`",
        )

    session.output.result("site.cert-list", data, show)


@app.command()
def revoke(ctx: typer.Context, name: HostArgument) -> None:
    """Refuse a host's certificates from now on, and close its connections."""
    session = session_of(ctx)
    data = session.call(SiteCertRevoke(host=check_name(name, "certificate")))

    def show() -> None:
        session.output.line(f"{name}: {len(data.certificates)} refused from now on")
        for client in data.hosts:
            session.output.note(f"closed: {client}")

    session.output.result("site.cert-revoke", data, show)


def _show(session: Session, data: SiteCertReply) -> None:
    tcp = "over TLS, or without" if data.in_use and data.plain else "over TLS only" if data.in_use else ""
    session.output.fields(
        [
            ("server", ", ".join(data.hosts)),
            ("good until", until_text(session.local(data.expires), data.left_days)),
            ("hosts on TCP", tcp or ("without TLS" if data.plain else "refused: see `farshore events`")),
            ("authority", data.fingerprint),
        ]
    )


def _files(to: Path, data: SiteCertIssueReply, key_file: str | None) -> CertificateFiles:
    fields = asdict(data)
    kept = {name: fields[name] for name in CertificateInfo.__struct_fields__}
    return CertificateFiles(
        **kept,
        directory=str(to),
        ca_file=str(to / CA_FILE),
        certificate_file=str(to / CERT_FILE),
        key_file=key_file,
    )


def _new_request(name: str) -> tuple[str, str]:
    """A new key, and the request for its certificate."""
    # Here: loading it takes longer than most commands.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret.decode("ascii"), request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _read(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            text = file.read(REQUEST_CHARS_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", subject=str(path)) from error
    if len(text) > REQUEST_CHARS_MAX:
        raise UsageError(f"{path} is no certificate request", subject=str(path))
    return text


def _write(to: Path, contents: Mapping[str, str], *, replace: bool) -> None:
    """Write what belongs together, the key readable by this user only."""
    try:
        to.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        for name, text in contents.items():
            with UnfinishedFile(to / name, replace=replace) as made:
                made.write(text.encode("ascii"))
                if name != KEY_FILE:
                    os.fchmod(made.descriptor, OPEN_MODE)
                made.make_durable()
                made.finish()
    except OSError as error:
        raise FarshoreError(
            f"cannot write to {to}: {error.strerror}", subject=str(to), next_step="choose another --to"
        ) from error
