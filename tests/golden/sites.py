"""Two small paired sites that stopped, and the session in which one got the other's journal.

`python -m tests.golden.sites` makes them anew: sites.tar.xz (both data directories), sites.json (what each
said of itself, and digests of what hosts read there), session.xz (what went between them, in order, as the
secondary saw it). The commit that the files are of is the one before types checked every field.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from console.demo.host import Host
from tests.support.oracle import content
from tests.support.pairs import start_pair
from tests.support.sites import Site, running_sites

HERE = Path(__file__).parent
SITES = HERE / "sites.tar.xz"
FACTS = HERE / "sites.json"
SESSION = HERE / "session.xz"
BLOCK = 4096
NOT_KEPT = (".sock", ".mdb-lock", "spare.seg")


def write(site: Site, volume: str, block: int, letters: str) -> None:
    """A flushed write of one block for each letter."""
    with Host(site.nbd_socket, f"vm1/{volume}") as host:
        host.write(block * BLOCK, b"".join(letter.encode() * BLOCK for letter in letters))
        host.flush()


def digest(site: Site, export: str) -> str:
    """What stands for all that an export holds."""
    return hashlib.sha256(content(site, export)).hexdigest()


def facts(site: Site) -> dict[str, Any]:
    """What a site says of its group, and what hosts read there at every backup and at the end."""
    backups = site.json("backup", "list", "vm1")["backups"]
    journal = site.json("journal", "show", "vm1", "--limit", "10000")
    end = f"{journal['head']['timeline']}:{journal['head']['position']}"
    names = [volume["volume"] for volume in site.json("volume", "list", "vm1")["volumes"]]
    exports = [f"vm1/{name}@{end}" for name in names]
    for backup in backups:
        exports += [f"vm1/{name}@{backup['label']}" for name in backup["volumes"]]
    return {
        "volumes": site.json("volume", "list", "vm1")["volumes"],
        "backups": [
            {key: row[key] for key in ("id", "label", "volumes", "cut", "pinned", "kind", "consistency")}
            for row in backups
        ],
        "timelines": journal["timelines"],
        "frames": journal["frames"],
        "clones": [
            {key: row[key] for key in ("clone", "group")} for row in site.json("clone", "list")["clones"]
        ],
        "contents": {export: digest(site, export) for export in exports},
    }


def session_messages() -> list[tuple[bool, bytes, bytes | None]]:
    """The captured session: (from the primary, header, payload), in order."""
    unpacker = msgpack.Unpacker(use_list=False)
    unpacker.feed(lzma.decompress(SESSION.read_bytes()))
    return [(bool(heard), bytes(header), payload) for heard, header, payload in unpacker]


def unpacked(one: Site, other: Site) -> None:
    """Put both sites where `one` and `other` are to be, on this machine and on their own ports."""
    with tarfile.open(SITES) as tar:
        tar.extractall(one.directory.parent, filter="data")
    ports = {}
    for site in (one, other):
        config = tomllib.loads((site.directory / "site.toml").read_text())
        ports[config["replication"].rpartition(":")[2]] = str(site.replication_port)
    for site in (one, other):
        for name in ("site.toml", "peers.json"):
            text = (site.directory / name).read_text()
            for before, now in ports.items():
                text = text.replace(f":{before}", f":{now}")
            (site.directory / name).write_text(text)
        site.farshore("site", "adopt", str(site.directory), site=False)


def _files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.name.endswith(NOT_KEPT):
            yield path


def _live(a: Site, b: Site) -> None:
    """A life in which every kind of event happens that two healthy sites can have."""
    start_pair(a, b, "vm1/root", 64 * BLOCK)
    a.create_volume("vm1/log", str(16 * BLOCK))
    write(a, "root", 0, "ABCD")
    write(a, "log", 0, "L")
    a.farshore("backup", "create", "vm1", "--label", "one")
    write(a, "root", 2, "xy")
    a.farshore("backup", "create", "vm1", "--label", "two", "--pin")
    a.farshore("schedule", "set", "vm1", "--keep-daily", "7", "--window", "9000d", "--confirm", "vm1")
    a.farshore("backup", "create", "vm1", "--label", "three")
    a.farshore("backup", "delete", "vm1", "three", "--confirm", "three")
    a.farshore("volume", "offline", "vm1/root")
    a.farshore("restore", "volume", "vm1/root", "--at", "one", "--online", "--confirm", "vm1/root")
    write(a, "root", 60, "zz")
    a.farshore("pair", "set", "vm1", "--mode", "sync-strict")
    a.farshore("wait", "vm1")
    b.kill()  # what was captured ends here
    a.stop()


def make() -> None:
    """Make all three files."""
    os.environ["FARSHORE_KEEP_SITES"] = ""
    with running_sites("a", "b") as (a, b):
        b.stop()
        os.environ["FARSHORE_COMMAND"] = f"{sys.executable} -m tests.golden.tap"
        b.start()
        del os.environ["FARSHORE_COMMAND"]
        _live(a, b)
        SESSION.write_bytes(lzma.compress((b.directory.parent / "b.tap").read_bytes(), preset=9))
        a.start()
        b.start()
        a.farshore("wait", "vm1", "--state", "paired", "--timeout", "30")
        write(a, "root", 61, "Q")
        a.create_volume("vm1/gone", str(BLOCK))
        a.farshore("volume", "offline", "vm1/gone")
        a.farshore("volume", "delete", "vm1/gone", "--confirm", "vm1/gone")
        a.farshore("clone", "create", "vm1@two", "lab")
        a.farshore("wait", "vm1")
        found = {site.name: facts(site) for site in (a, b)}
        for site in (a, b):
            site.stop()
        FACTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        with tarfile.open(SITES, "w:xz", preset=9) as tar:
            for site in (a, b):
                for path in _files(site.directory):
                    tar.add(path, f"{site.name}/{path.relative_to(site.directory)}")


if __name__ == "__main__":
    make()
