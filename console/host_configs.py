"""How a host names an export: NBD URI, and what QEMU, libvirt, nbd-client and systemd take. Pure.

Sources: the NBD URI specification (doc/uri.md of the NBD project), qemu-storage-daemon(1), libvirt's domain
XML, nbdtab(5), systemd.syntax(7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from protocol.commands.volume import VolumeUriReply
from protocol.errors import UsageError

NBD_PORT = 10809
QEMU_NODE_NAME_CHARS_MAX = 31
RECONNECT_S = 60

TARGETS_MAX = 26 + 26 * 26  # two letters: vda to vdzz
_BUSES = {"vd": "virtio", "sd": "scsi"}
# PCI slots of a pc or q35 machine that libvirt comes to last.
_FIRST_SLOT, _LAST_SLOT = 0x14, 0x1E


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Where an export is: a unix socket's path, or host and port."""

    name: str
    unix: str
    host: str
    port: int
    tls: bool
    read_only: bool


def export_of(data: VolumeUriReply, *, remote: bool = False) -> Export:
    """From the reply of `volume.uri`; a unix socket is preferred, unless it is for a host on another machine.
    Raises UsageError if hosts have none."""
    unix, tcp = "" if remote else data.unix or "", data.tcp or ""
    if remote and not tcp:
        raise UsageError(
            "the site takes no hosts on TCP",
            next_step='add "tcp:HOST:10809" to nbd in its site.toml, then SIGHUP',
        )
    if not unix and not tcp:
        raise UsageError("the site serves no hosts", next_step="configure nbd in its site.toml")
    host, _, port = tcp.rpartition(":")
    return Export(
        name=data.export,
        unix=unix,
        host=host.strip("[]"),
        port=int(port) if tcp else NBD_PORT,
        tls=(data.tls or data.tcp_tls) and not unix,
        read_only=data.read_only,
    )


def uri(export: Export) -> str:
    """`nbd+unix:///G/V?socket=PATH` or `nbd://HOST:PORT/G/V`; with TLS the schemes end in an s."""
    scheme = "nbds" if export.tls else "nbd"
    name = quote(export.name, safe="/@:")
    if export.unix:
        return f"{scheme}+unix:///{name}?socket={quote(export.unix, safe='/')}"
    return f"{scheme}://{_host_in_uri(export)}:{export.port}/{name}"


def qemu(export: Export) -> str:
    """The value of QEMU's -blockdev, where a comma inside a value is doubled."""
    options = ["driver=nbd", f"node-name={_node(export)}"]
    if export.unix:
        options += ["server.type=unix", f"server.path={_comma(export.unix)}"]
    else:
        options += ["server.type=inet", f"server.host={_comma(export.host)}", f"server.port={export.port}"]
        options += ["tls-creds=tls0"] if export.tls else []
    options += [f"export={_comma(export.name)}", f"reconnect-delay={RECONNECT_S}"]
    options += ["read-only=on"] if export.read_only else ["discard=unmap"]
    return ",".join(options)


def libvirt(export: Export, target: str = "vda", *, reconnect: bool = False) -> str:
    """A `<disk>` of libvirt's domain XML. `reconnect` has QEMU wait for the site over restarts; the schema of
    libvirt 9.0 (Debian 12) has no such element for NBD, that of 11.3 (Debian 13) has."""
    tls = " tls='yes'" if export.tls else ""
    host = (
        f"<host transport='unix' socket={quoteattr(export.unix)}/>"
        if export.unix
        else f"<host name={quoteattr(export.host)} port='{export.port}'/>"
    )
    lines = [
        "<disk type='network' device='disk'>",
        "  <driver name='qemu' type='raw' cache='none' discard='unmap'/>",
        f"  <source protocol='nbd' name={quoteattr(export.name)}{tls}>",
        f"    {host}",
        *([f"    <reconnect delay='{RECONNECT_S}'/>"] if reconnect else []),
        "  </source>",
        f"  <target dev={quoteattr(target)} bus='{_BUSES[target[:2]]}'/>",
        *(["  <readonly/>"] if export.read_only else []),
        "</disk>",
    ]
    return "\n".join(lines)


def libvirt_commandline(export: Export, target: str = "vda") -> str:
    """The same as words for QEMU, for a libvirt that knows no `<reconnect>` for NBD: within
    `<qemu:commandline>`, of which a domain has one. libvirt does not count it as a disk, so it gets
    a slot from the end, where libvirt puts nothing."""
    slot = _LAST_SLOT - target_index(target)
    if slot < _FIRST_SLOT:
        raise UsageError(
            f"there is no slot for {target}", subject=export.name, next_step="use --format libvirt"
        )
    device = f"virtio-blk-pci,drive={_node(export)},addr=0x{slot:x},bootindex={target_index(target) + 1}"
    words = ["-blockdev", qemu(export), "-device", device]
    return "\n".join(f"<qemu:arg value={quoteattr(word)}/>" for word in words)


def target_index(target: str) -> int:
    """0 for vda or sda. Raises UsageError for what libvirt would put on another bus."""
    letters = target[2:]
    if target[:2] not in _BUSES or not letters.isalpha() or not letters.isascii() or len(letters) > 2:
        raise UsageError(f"{target} is no disk", subject=target, next_step="--target vda, vdb, sda, …")
    index = 0
    for letter in letters.lower():
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def target_at(index: int, like: str = "vda") -> str:
    """The disk of that index on the bus of `like`. UsageError past vdzz."""
    if index >= TARGETS_MAX:
        raise UsageError(
            f"there is no disk past {like[:2]}zz for volume {index + 1}",
            subject=like,
            next_step="--target vda, or sda: this volume's place in its group is counted from it",
        )
    high, low = divmod(index, 26)
    return like[:2] + (chr(ord("a") + high - 1) if high else "") + chr(ord("a") + low)


def nbdtab(export: Export) -> str:
    """A line of /etc/nbdtab for nbd0; its fields are separated by blanks, which it cannot quote."""
    where = export.unix or export.host
    _require_clear(export)
    if any(c.isspace() or c == "#" for c in where + export.name):
        raise UsageError(
            f"nbdtab cannot hold {where!r}", subject=export.name, next_step="use --format systemd"
        )
    options = ["unix"] if export.unix else [f"port={export.port}"]
    return f"nbd0 {where} {export.name} bs=4096,{','.join(options)},persist"


def systemd(export: Export) -> str:
    """A service that keeps /dev/nbd0 attached."""
    _require_clear(export)
    where = f"-unix {_unit_word(export.unix)}" if export.unix else f"{_unit_word(export.host)} {export.port}"
    read_only = " -readonly" if export.read_only else ""
    lines = [
        "[Unit]",
        f"Description=Farshore volume {export.name.replace('%', '%%')} on /dev/nbd0",
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Service]",
        "ExecStartPre=modprobe nbd",
        f"ExecStart=nbd-client -nofork {where} -name {_unit_word(export.name)}{read_only}"
        " -block-size 4096 -persist /dev/nbd0",
        "ExecStop=nbd-client -d /dev/nbd0",
        "Restart=on-failure",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines)


FORMATS: dict[str, Callable[[Export], str]] = {
    "uri": uri,
    "libvirt": libvirt,
    "libvirt-commandline": libvirt_commandline,
    "qemu": qemu,
    "nbdtab": nbdtab,
    "systemd": systemd,
}


def _require_clear(export: Export) -> None:
    """The kernel's client has TLS only by a helper of its own, which is not tried here."""
    if export.tls:
        raise UsageError(
            f"nbd-client is not known to reach {export.name} over TLS",
            subject=export.name,
            next_step="use --format libvirt or qemu, or nbdfuse with the URI",
        )


def _node(export: Export) -> str:
    return "".join(c if c.isalnum() else "-" for c in export.name)[:QEMU_NODE_NAME_CHARS_MAX]


def _host_in_uri(export: Export) -> str:
    return f"[{export.host}]" if ":" in export.host else export.host


def _comma(value: str) -> str:
    return value.replace(",", ",,")


def _unit_word(value: str) -> str:
    """One word of a command line in a unit: quoted, with its specifiers and variables escaped."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
