"""Peers that this site trusts, and the tokens by which operators introduce sites to each other.

A token is `farshore1.` and base64url of a JSON object {name, site_id, endpoint, public_key}. It holds nothing
secret, but whoever swaps one swaps the peer: compare fingerprints.

A peer is checked alone and against all others before it is saved, and again when it is read: names, keys and
site ids are each one peer's, and none is this site's own. A row that fails is set aside: it is not trusted,
stays in the file for a person to look at, and keeps nothing else from starting. A file that cannot be read at
all is not written either, until it is mended.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

import msgspec

from engine.ports.disk import Disk
from engine.ports.transport import PeerAddress
from engine.ports.zap import check_key
from protocol.commands.base import check_name
from protocol.endpoints import check_peer_endpoint
from protocol.errors import FarshoreError, NotAllowed, NotFound, UsageError
from protocol.limits import PEERS_MAX, RATE_BYTES_S_MAX, RATE_BYTES_S_MIN

PEERS_FILE = "peers.json"
# Where a file goes that is no list of peers at all.
BAD_PEERS_FILE = "peers.json.bad"
# What is no JSON, no UTF-8, or nested deeper than this program follows.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_SITE_ID = re.compile(r"[0-9a-f]{1,32}", re.ASCII)
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


class _TokenFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a token says."""

    name: str
    site_id: str
    endpoint: str
    public_key: str

    def peer(self) -> Peer:
        """Checked. UsageError."""
        return check_peer(
            Peer(name=self.name, site_id=self.site_id, endpoint=self.endpoint, public_key=self.public_key)
        )


class _Row(_TokenFields, kw_only=True, forbid_unknown_fields=True):
    """One peer in peers.json."""

    rate_bytes_s: int = 0
    compress: str = "none"

    def options(self) -> PeerOptions:
        """Checked. UsageError."""
        return check_options(PeerOptions(rate_bytes_s=self.rate_bytes_s, compress=self.compress))


def check_peer(peer: Peer) -> Peer:
    """A peer whose fields can be what they say. UsageError."""
    check_name(peer.name, "site")
    if _SITE_ID.fullmatch(peer.site_id) is None:
        raise UsageError(f"{peer.site_id!r} is no site's id", subject=peer.name)
    if peer.endpoint:
        check_peer_endpoint(peer.endpoint)
    check_key(peer.public_key, peer.name)
    return peer


def check_options(options: PeerOptions) -> PeerOptions:
    """Options within their bounds. UsageError."""
    rate = options.rate_bytes_s
    if rate and not RATE_BYTES_S_MIN <= rate <= RATE_BYTES_S_MAX:
        raise UsageError(
            f"a rate is {RATE_BYTES_S_MIN} to {RATE_BYTES_S_MAX} bytes a second, not {rate}",
            next_step="--rate none lifts the limit; `farshore pair split` pauses a pair",
        )
    if options.compress not in ("none", "zstd"):
        raise UsageError(f"compression is none or zstd, not {options.compress!r}")
    return options


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
        text = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        return msgspec.json.decode(text, type=_TokenFields).peer()
    except (ValueError, FarshoreError) as error:
        raise UsageError(
            f"that is not a site's token: {error}", next_step="`farshore site token` at the peer prints it"
        ) from error


class PeerBook:
    """peers.json: a list of objects, each a peer's fields and its options'. `own` is this site as peers see
    it; of two rows that contradict each other, one of `in_use` stays. `set_aside`: rows that were not taken,
    and why."""

    def __init__(self, disk: Disk, own: Peer | None = None, in_use: Collection[str] = ()) -> None:
        self._disk = disk
        self._own = own
        self._peers: dict[str, Peer] = {}
        self._options: dict[str, PeerOptions] = {}
        self._bad_rows: list[msgspec.Raw] = []
        self._unread: FarshoreError | None = None
        self.set_aside: list[tuple[str, FarshoreError]] = []
        if disk.exists(PEERS_FILE):
            self._read(in_use)

    def _read(self, in_use: Collection[str]) -> None:
        try:
            text = self._disk.read_file(PEERS_FILE)
        except OSError as error:
            self._set_aside(PEERS_FILE, f"{PEERS_FILE} cannot be read: {error.strerror}")
            self._unread = self.set_aside[-1][1]
        else:
            self._load(text, in_use)

    def _load(self, text: bytes, in_use: Collection[str]) -> None:
        try:
            raws = msgspec.json.decode(text, type=list[msgspec.Raw])
        except _UNREADABLE as error:
            self._disk.replace_file(BAD_PEERS_FILE, text)
            self._set_aside(PEERS_FILE, f"{PEERS_FILE} is no list of peers: {error}")
            return
        good: list[tuple[_Row, msgspec.Raw]] = []
        for raw in raws:
            try:
                good.append((msgspec.json.decode(raw, type=_Row), raw))
            except _UNREADABLE as error:
                self._bad_rows.append(raw.copy())
                self._set_aside(PEERS_FILE, f"a row of {PEERS_FILE} does not decode: {error}")
        good.sort(key=lambda each: each[0].name not in in_use)
        for row, raw in good:
            try:
                peer, options = row.peer(), row.options()
                self._check(peer)
                if peer.name in self._peers:
                    raise UsageError("the name is there twice", subject=peer.name)
            except FarshoreError as error:
                self._bad_rows.append(raw.copy())
                self._set_aside(row.name, error.message)
                continue
            self._peers[peer.name] = peer
            self._options[peer.name] = options

    def _set_aside(self, name: str, why: str) -> None:
        error = FarshoreError(
            why, subject=name, next_step=f"mend {PEERS_FILE} and restart, or `farshore peer add` it again"
        )
        self.set_aside.append((name, error))

    def _check(self, peer: Peer) -> None:
        """That a peer is neither this site nor another one that is known. NotAllowed or UsageError."""
        own = self._own
        if own is not None and (peer.site_id == own.site_id or peer.public_key == own.public_key):
            raise NotAllowed(
                "that is this site's own token",
                subject=peer.name,
                next_step="run `farshore site token` at the peer",
            )
        if own is not None and peer.name == own.name:
            raise UsageError(f"the peer has this site's name, {peer.name}", subject=peer.name)
        for other in self._peers.values():
            if other.name == peer.name:
                if other.public_key != peer.public_key:
                    raise NotAllowed(
                        f"a peer {peer.name} with another key is known already",
                        subject=peer.name,
                        next_step="compare fingerprints: `farshore peer list`",
                    )
            elif other.public_key == peer.public_key or other.site_id == peer.site_id:
                raise NotAllowed(
                    f"the site that calls itself {peer.name} is known here as {other.name}",
                    subject=peer.name,
                    next_step=f"let it be {other.name} in its site.toml again; `farshore peer list` has its "
                    "fingerprint",
                )
        if peer.name not in self._peers and len(self._peers) >= PEERS_MAX:
            raise NotAllowed(f"a site has at most {PEERS_MAX} peers", subject=peer.name)

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
        """Trust a peer, durably; False if it was known. NotAllowed if its name or its key is another's,
        UsageError if it makes no sense: then nothing was saved."""
        known = self._peers.get(peer.name)
        if known == peer:
            return False
        self._check(check_peer(peer))
        self._save(self._peers | {peer.name: peer}, self._options)
        return known is None

    def options(self, name: str) -> PeerOptions:
        """How to send to a peer."""
        return self._options.get(name, PeerOptions())

    def set_options(self, name: str, options: PeerOptions) -> None:
        """Keep how to send to a peer, durably. UsageError if they are out of bounds."""
        self._save(self._peers, self._options | {name: check_options(options)})

    def _save(self, peers: dict[str, Peer], options: Mapping[str, PeerOptions]) -> None:
        """On the disk first: what could not be kept is not so."""
        if self._unread is not None:
            raise self._unread
        fields = [asdict(peers[name]) | asdict(options.get(name, PeerOptions())) for name in sorted(peers)]
        rows = [textwrap.indent(json.dumps(each, indent=1), " ").encode() for each in fields]
        # As they stand there: some are not even JSON.
        rows += [b" " + bytes(raw) for raw in self._bad_rows]
        self._disk.replace_file(PEERS_FILE, b"[\n" + b",\n".join(rows) + b"\n]")
        self._peers, self._options = dict(peers), dict(options)

    def allowed(self) -> dict[str, str]:
        """Name to public key, for the allow-list."""
        return {peer.name: peer.public_key for peer in self._peers.values()}
