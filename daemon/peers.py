"""Peers that this site trusts.

A peer is checked alone and against all others before it is saved, and again when it is read: names, keys and
site ids are each one peer's, and none is this site's own. A row that fails is set aside: it is not trusted,
stays in the file for a person to look at, and keeps nothing else from starting. A file that cannot be read at
all is not written either, until it is mended.

A name is this site's own word for a peer: the pairs in the site's state go by it. So a new name is first
written here, together with the old one (`was`), then into the state, and then the old one is taken away here.
A site that loses power in between goes on with that at its next start.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace

import msgspec

from engine.ports.disk import Disk
from engine.ports.transport import PeerAddress
from engine.ports.zap import check_key
from protocol.commands.base import check_name
from protocol.commands.peer import RateWindow
from protocol.endpoints import check_peer_endpoint
from protocol.errors import FarshoreError, NotAllowed, NotFound, UsageError
from protocol.limits import PEERS_MAX, RATE_BYTES_S_MAX, RATE_BYTES_S_MIN
from protocol.schedule_limits import RATE_WINDOWS_MAX

PEERS_FILE = "peers.json"
# Where a file goes that is no list of peers at all.
BAD_PEERS_FILE = "peers.json.bad"
# What is no JSON, no UTF-8, or nested deeper than this program follows.
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_SITE_ID = re.compile(r"[0-9a-f]{1,32}", re.ASCII)


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
    """How this site sends to a peer: at most so many bytes a second (0: no limit), and `none` or `zstd`.
    `windows`: other rates by the time of day."""

    rate_bytes_s: int = 0
    compress: str = "none"
    windows: tuple[RateWindow, ...] = ()


class PeerFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a token says, and a row of peers.json."""

    name: str
    site_id: str
    endpoint: str
    public_key: str

    def peer(self) -> Peer:
        """Checked. UsageError."""
        return check_peer(
            Peer(name=self.name, site_id=self.site_id, endpoint=self.endpoint, public_key=self.public_key)
        )


class _Row(PeerFields, kw_only=True, forbid_unknown_fields=True):
    """One peer in peers.json."""

    rate_bytes_s: int = 0
    compress: str = "none"
    windows: tuple[RateWindow, ...] = ()
    was: str = ""
    coming_key: str = ""

    def options(self) -> PeerOptions:
        """Checked. UsageError."""
        return check_options(
            PeerOptions(rate_bytes_s=self.rate_bytes_s, compress=self.compress, windows=self.windows)
        )

    def known(self) -> _Known:
        """Checked. UsageError."""
        if self.was:
            check_name(self.was, "site")
        if self.coming_key:
            check_key(self.coming_key, self.name)
        return _Known(peer=self.peer(), options=self.options(), was=self.was, coming_key=self.coming_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A peer as it is kept. `was`: the name that this site's state may still have for it; `coming_key`: taken
    for its key, too, until the peer first uses it."""

    peer: Peer
    options: PeerOptions = PeerOptions()
    was: str = ""
    coming_key: str = ""

    @property
    def keys(self) -> set[str]:
        """By which it is known."""
        return {self.peer.public_key, self.coming_key} - {""}

    def row(self) -> dict[str, object]:
        """As it is written: without what an earlier version does not know, while there is nothing to say."""
        options = self.options
        sent = {"rate_bytes_s": options.rate_bytes_s, "compress": options.compress}
        windows = [msgspec.to_builtins(window) for window in options.windows]
        news = {"windows": windows, "was": self.was, "coming_key": self.coming_key}
        return asdict(self.peer) | sent | {key: value for key, value in news.items() if value}


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
    for rate in (options.rate_bytes_s, *(window.rate_bytes_s for window in options.windows)):
        if rate and not RATE_BYTES_S_MIN <= rate <= RATE_BYTES_S_MAX:
            raise UsageError(
                f"a rate is {RATE_BYTES_S_MIN} to {RATE_BYTES_S_MAX} bytes a second, not {rate}",
                next_step="--rate none lifts the limit; `farshore pair split G` pauses a pair",
            )
    if len(options.windows) > RATE_WINDOWS_MAX:
        raise UsageError(
            f"a peer has at most {RATE_WINDOWS_MAX} windows", next_step="`--between none` takes all away"
        )
    if any(list(each.days) != sorted(set(each.days)) for each in options.windows):
        raise UsageError("the days of a window ascend, and none comes twice")
    # On certain days it may be the whole day.
    if any(each.from_minute == each.until_minute and not each.days for each in options.windows):
        raise UsageError(
            "a window ends at another time than it begins", next_step="--rate alone holds the whole day"
        )
    if options.compress not in ("none", "zstd"):
        raise UsageError(f"compression is none or zstd, not {options.compress!r}")
    return options


class PeerBook:
    """peers.json: a list of objects, each a peer's fields and its options'. `own` is this site as peers see
    it; of two rows that contradict each other, one of `in_use` stays. `set_aside`: rows that were not taken,
    and why."""

    def __init__(self, disk: Disk, own: Peer | None = None, in_use: Collection[str] = ()) -> None:
        self._disk = disk
        self.own = own
        self._known: dict[str, _Known] = {}
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
        good.sort(key=lambda each: each[0].name not in in_use and each[0].was not in in_use)
        for row, raw in good:
            try:
                known = row.known()
                self._check(known)
                if row.name in self._known:
                    raise UsageError("the name is there twice", subject=row.name)
            except FarshoreError as error:
                self._bad_rows.append(raw.copy())
                self._set_aside(row.name, error.message)
                continue
            self._known[row.name] = known

    def _set_aside(self, name: str, why: str) -> None:
        error = FarshoreError(
            why, subject=name, next_step=f"mend {PEERS_FILE} and restart, or `farshore peer add TOKEN` again"
        )
        self.set_aside.append((name, error))

    def _check(self, known: _Known, instead_of: str = "") -> None:
        """That a peer is neither this site nor another one that is known; what it takes the place of does not
        count. NotAllowed or UsageError."""
        peer, own = known.peer, self.own
        if own is not None and (peer.site_id == own.site_id or own.public_key in known.keys):
            raise NotAllowed(
                "that is this site's own token",
                subject=peer.name,
                next_step="run `farshore site token` at the peer",
            )
        if own is not None and own.name in (peer.name, known.was):
            raise UsageError(f"the peer has this site's name, {own.name}", subject=peer.name)
        others = [each for each in self._known.values() if each.peer.name != instead_of]
        for other in others:
            _check_apart(known, other)
        if peer.name not in self._known and len(others) >= PEERS_MAX:
            raise NotAllowed(f"a site has at most {PEERS_MAX} peers", subject=peer.name)

    def all(self) -> list[Peer]:
        """By name."""
        return [self._known[name].peer for name in sorted(self._known)]

    def get(self, name: str) -> Peer:
        """One peer; NotFound."""
        return self._row(name).peer

    def _row(self, name: str) -> _Known:
        known = self._known.get(name)
        if known is None:
            raise NotFound(
                f"{name} is not a peer of this site",
                subject=name,
                next_step=f"`farshore site token --site {name}` there, then `farshore peer add TOKEN` here",
            )
        return known

    def address_of(self, name: str) -> PeerAddress:
        """Where to dial a pair's peer; with no endpoint if no such peer is known."""
        was = (known for known in self._known.values() if known.was == name)
        known = self._known.get(name) or next(was, None)
        if known is None:
            return PeerAddress(name=name, endpoint="", public_key="")
        return replace(known.peer.address, name=name, coming_key=known.coming_key)

    def add(self, peer: Peer) -> bool:
        """Trust a peer, durably; False if it was known. NotAllowed if its name or its key is another's,
        UsageError if it makes no sense: then nothing was saved."""
        known = self._known.get(peer.name)
        if known is not None and known.peer == peer:
            return False
        row = _Known(peer=check_peer(peer)) if known is None else replace(known, peer=check_peer(peer))
        self._check(row)
        self._save(self._known | {peer.name: row})
        return known is None

    def set_endpoint(self, name: str, endpoint: str) -> Peer:
        """Keep where a peer is dialled, durably. UsageError if that is no endpoint."""
        row = self._row(name)
        peer = check_peer(replace(row.peer, endpoint=endpoint))
        self._save(self._known | {name: replace(row, peer=peer)})
        return peer

    def replace(self, name: str, peer: Peer) -> Peer:
        """Let another site take the place of a known one, durably: under the name that it has here, with the
        options chosen for that. As `add` if it cannot be."""
        row = self._row(name)
        row = replace(row, peer=check_peer(replace(peer, name=name)), coming_key="")
        self._check(row, instead_of=name)
        self._save(self._known | {name: row})
        return row.peer

    def expect_key(self, name: str, peer: Peer) -> bool:
        """Take a peer by the key of its new token too, durably; False if it is known by that one. NotAllowed
        if that is another site's; else as `add` if it cannot be."""
        row = self._row(name)
        if peer.site_id != row.peer.site_id:
            raise NotAllowed(
                f"that is the token of another site than {name}",
                subject=name,
                next_step=f"if it takes the place of {name}: `farshore peer replace {name} TOKEN`",
            )
        if peer.public_key == row.peer.public_key:
            return False
        row = replace(row, coming_key=check_peer(peer).public_key)
        self._check(row, instead_of=name)
        self._save(self._known | {name: row})
        return True

    def key_came(self, name: str) -> None:
        """The peer uses that key: the one before is not its any more, durably. OSError."""
        row = self._row(name)
        if row.coming_key:
            peer = replace(row.peer, public_key=row.coming_key)
            self._save(self._known | {name: replace(row, peer=peer, coming_key="")})

    def rename(self, name: str, new: str, in_state: Callable[[str, str], None]) -> Peer:
        """Call a peer by another name, durably, also where this site's state has the old one: `in_state` is
        given both. As `add` if it cannot be. OSError: it is done at the next start, or was not begun."""
        row = self._row(name)
        if new in self._known:
            raise NotAllowed(f"there is a peer {new} already", subject=new, next_step="`farshore peer list`")
        row = replace(row, peer=check_peer(replace(row.peer, name=new)), was=name)
        self._check(row, instead_of=name)
        self._save({key: each for key, each in self._known.items() if key != name} | {new: row})
        self.finish_renames(in_state)
        return row.peer

    def finish_renames(self, in_state: Callable[[str, str], None]) -> None:
        """Carry out what `rename` began. OSError: later."""
        for name, known in list(self._known.items()):
            if known.was:
                in_state(known.was, name)
                self._save(self._known | {name: replace(known, was="")})

    def remove(self, name: str) -> None:
        """Trust a peer no longer, durably. NotFound."""
        self._row(name)
        self._save({key: each for key, each in self._known.items() if key != name})

    def options(self, name: str) -> PeerOptions:
        """How to send to a peer."""
        known = self._known.get(name)
        return PeerOptions() if known is None else known.options

    def set_options(self, name: str, options: PeerOptions) -> None:
        """Keep how to send to a peer, durably. UsageError if they are out of bounds."""
        row = replace(self._row(name), options=check_options(options))
        self._save(self._known | {name: row})

    def _save(self, known: Mapping[str, _Known]) -> None:
        """On the disk first: what could not be kept is not so."""
        if self._unread is not None:
            raise self._unread
        fields = [known[name].row() for name in sorted(known)]
        rows = [textwrap.indent(json.dumps(each, indent=1), " ").encode() for each in fields]
        # As they stand there: some are not even JSON.
        rows += [b" " + bytes(raw) for raw in self._bad_rows]
        self._disk.replace_file(PEERS_FILE, b"[\n" + b",\n".join(rows) + b"\n]")
        self._known = dict(known)

    def coming_keys(self) -> dict[str, str]:
        """Name to the public key that is to take the place of a peer's, for the allow-list."""
        return {name: known.coming_key for name, known in self._known.items() if known.coming_key}

    def allowed(self) -> dict[str, str]:
        """Name to public key, for the allow-list."""
        return {name: known.peer.public_key for name, known in self._known.items()}


def _check_apart(known: _Known, other: _Known) -> None:
    """That two rows can stand side by side. NotAllowed."""
    peer, there = known.peer, other.peer
    if there.name == peer.name:
        if there.public_key != peer.public_key:
            # The same site has another key by `site rotate-key`; replaced, it would be sent a whole copy.
            anew = there.site_id != peer.site_id
            verb, why = (
                ("replace", "the site was made anew") if anew else ("rotate-key", "that is its next key")
            )
            raise NotAllowed(
                f"a peer {peer.name} with another key is known already",
                subject=peer.name,
                next_step=f"compare fingerprints: `farshore peer list`; if {why}, "
                f"`farshore peer {verb} {peer.name} TOKEN`",
            )
    elif not other.keys.isdisjoint(known.keys) or there.site_id == peer.site_id:
        raise NotAllowed(
            f"the site that calls itself {peer.name} is known here as {there.name}",
            subject=peer.name,
            next_step=f"`farshore peer rename {there.name} {peer.name}`, then add its token again",
        )
    elif peer.name == other.was or there.name == known.was:
        raise NotAllowed(
            f"{known.was or other.was} is being renamed here",
            subject=peer.name,
            next_step="restart the site's daemon, which goes on with that",
        )
