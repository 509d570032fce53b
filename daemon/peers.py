"""Peers that this site trusts, and the tokens by which operators introduce sites to each other.

A token is `farshore1.` and base64url of a JSON object {name, site_id, endpoint, public_key}. It holds nothing
secret, but whoever swaps one swaps the peer: compare fingerprints.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass

from engine.durable import RealDisk
from engine.ports.transport import PeerAddress
from engine.ports.zap import check_key
from protocol.command_base import check_name
from protocol.errors import FarshoreError, NotAllowed, NotFound, UsageError

PEERS_FILE = "peers.json"
TOKEN_PREFIX = "farshore1."


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A site as its token describes it; `endpoint` is empty if it only dials."""

    name: str
    site_id: str
    endpoint: str
    public_key: str

    @property
    def address(self) -> PeerAddress:
        """Where and who to dial."""
        return PeerAddress(name=self.name, endpoint=self.endpoint, public_key=self.public_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerOptions:
    """How this site sends to a peer: at most so many bytes a second (0: no limit), and `none` or `zstd`."""

    rate_bytes_s: int = 0
    compress: str = "none"


def fingerprint(public_key: str) -> str:
    """What operators compare: 32 hex digits in groups of four."""
    digest = hashlib.sha256(public_key.encode()).hexdigest()[:32]
    return ":".join(digest[at : at + 4] for at in range(0, 32, 4))


def make_token(peer: Peer) -> str:
    """A site's token."""
    text = json.dumps(asdict(peer), separators=(",", ":"))
    return TOKEN_PREFIX + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(token: str) -> Peer:
    """The site that a token describes. UsageError if it is none."""
    body = token.strip().removeprefix(TOKEN_PREFIX)
    try:
        if not token.strip().startswith(TOKEN_PREFIX):
            raise ValueError("it does not begin as one")
        fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        peer = Peer(**{key: str(value) for key, value in fields.items()})
        check_name(peer.name, "site")
        check_key(peer.public_key, peer.name)
    except (ValueError, TypeError, AttributeError, FarshoreError) as error:
        raise UsageError(
            f"that is not a site's token: {error}", next_step="`farshore site token` at the peer prints it"
        ) from error
    return peer


class PeerBook:
    """peers.json: a list of objects, each a peer's fields and its options'."""

    def __init__(self, disk: RealDisk) -> None:
        self._disk = disk
        self._peers: dict[str, Peer] = {}
        self._options: dict[str, PeerOptions] = {}
        if disk.exists(PEERS_FILE):
            for row in json.loads(disk.read_file(PEERS_FILE)):
                options = {name: row.pop(name) for name in PeerOptions.__slots__ if name in row}
                self._peers[row["name"]] = Peer(**row)
                self._options[row["name"]] = PeerOptions(**options)

    def all(self) -> list[Peer]:
        """By name."""
        return [self._peers[name] for name in sorted(self._peers)]

    def get(self, name: str) -> Peer:
        """One peer; NotFound."""
        peer = self._peers.get(name)
        if peer is None:
            raise NotFound(
                f"{name} is not a peer of this site",
                subject=name,
                next_step=f"`farshore site token` at {name}, then `farshore peer add TOKEN` here",
            )
        return peer

    def add(self, peer: Peer) -> bool:
        """Trust a peer, durably; False if it was known. NotAllowed if the name belongs to another key."""
        known = self._peers.get(peer.name)
        if known == peer:
            return False
        if known is not None and known.public_key != peer.public_key:
            raise NotAllowed(
                f"a peer {peer.name} with another key is known already",
                subject=peer.name,
                next_step="compare fingerprints: `farshore peer list`",
            )
        self._peers[peer.name] = peer
        self._save()
        return known is None

    def options(self, name: str) -> PeerOptions:
        """How to send to a peer."""
        return self._options.get(name, PeerOptions())

    def set_options(self, name: str, options: PeerOptions) -> None:
        """Keep how to send to a peer, durably."""
        self._options[name] = options
        self._save()

    def _save(self) -> None:
        rows = [asdict(peer) | asdict(self.options(peer.name)) for peer in self.all()]
        self._disk.replace_file(PEERS_FILE, json.dumps(rows, indent=1).encode())

    def allowed(self) -> dict[str, str]:
        """Name to public key, for the allow-list."""
        return {peer.name: peer.public_key for peer in self._peers.values()}
