"""A peer with a real key that speaks through real ZeroMQ connections, and brings a session into any state.

It calls the daemon (as a site that ships does) or is called by it (as one that receives). What it says by the
book is here; what it says beyond, `hostile_messages` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmq
from zmq.auth import CURVE_ALLOW_ANY
from zmq.auth.thread import ThreadAuthenticator

from console.client import Client
from daemon.peer_tokens import make_token
from daemon.peers import Peer
from engine.ports.zmq_transport import generate_keypair
from protocol.base_messages import BaseBegin
from protocol.commands.peer import PeerAdd
from protocol.errors import RemoteProtocolError
from protocol.events import WRITE, TimelineBegan, VolumeCreated
from protocol.frames import NO_DIGEST, Frame, encode_frame
from protocol.limits import BLOCK_BYTES
from protocol.messages import (
    Ask,
    Fetch,
    FrameMessage,
    Heartbeat,
    Hello,
    MakeDurable,
    Message,
    Refused,
    Reset,
    Welcome,
    decode_message,
)
from protocol.peer_requests import Find, Hold
from protocol.positions import Cut
from tests.support.sites import Site, free_port

SITE_ID = "00000000000000aa"
GROUP_ID = "00000000000000bb"
TIMELINE = 4097
ANSWER_MS = 5000
UTC_NS = 1_700_000_000_000_000_000


class HostilePeer:
    """Known to `site` as `name`."""

    def __init__(self, site: Site, name: str, site_id: str = SITE_ID) -> None:
        self.name = name
        self.site = site
        self.site_id = site_id
        self.public, self.secret = generate_keypair()
        self.port = free_port()
        self.key_of_site = (site.directory / "keys" / "public").read_text().strip()
        peer = Peer(
            name=name, site_id=site_id, endpoint=f"tcp://127.0.0.1:{self.port}", public_key=self.public
        )
        with Client(f"ipc://{site.control_socket}") as client:
            client.call(PeerAdd(token=make_token(peer)), 60.0)

    @contextmanager
    def calling(self) -> Iterator[zmq.Socket[bytes]]:
        """A connection to the site."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.sndhwm = dealer.rcvhwm = 0
            dealer.curve_publickey = self.public.encode()
            dealer.curve_secretkey = self.secret.encode()
            dealer.curve_serverkey = self.key_of_site.encode()
            dealer.connect(f"tcp://127.0.0.1:{self.site.replication_port}")
            yield dealer

    @contextmanager
    def called(self) -> Iterator[zmq.Socket[bytes]]:
        """Where the site calls."""
        with zmq.Context() as context:
            doorman = ThreadAuthenticator(context)
            doorman.start()
            doorman.configure_curve(domain="*", location=CURVE_ALLOW_ANY)
            router = context.socket(zmq.ROUTER)
            router.linger = 0
            router.sndhwm = router.rcvhwm = 0
            router.curve_server = True
            router.curve_secretkey = self.secret.encode()
            router.bind(f"tcp://127.0.0.1:{self.port}")
            try:
                yield router
            finally:
                router.close(0)
                doorman.stop()


def heard(dealer: zmq.Socket[bytes], *, kinds: tuple[type, ...] = (), wait_ms: int = ANSWER_MS) -> Any:
    """The next message of these kinds (of any); None if none comes in time."""
    while dealer.poll(wait_ms):
        try:
            message = decode_message(dealer.recv_multipart()[0])
        except RemoteProtocolError as error:
            raise AssertionError(f"the daemon said what it may not: {error}") from error
        if not kinds or isinstance(message, kinds):
            return message
    return None


class Journal:
    """A journal that this peer writes, as far as the daemon was told of it by the book."""

    def __init__(self, site_id: str) -> None:
        began = TimelineBegan(parent=0, fork=0, generation=1, writer=site_id, group="g", sealed=False)
        self.frames: list[Frame] = []
        self.add([began.to_row()])
        self.add([VolumeCreated(name="v", size_bytes=64 * BLOCK_BYTES).to_row()])
        volume = self.frames[-1].prefix.position
        for block in range(8):
            self.add([(WRITE, volume, block, 1)], bytes([block]) * BLOCK_BYTES)
        self.volume = volume
        self.lineage = ((TIMELINE, 0, 0, 1, site_id),)

    def add(self, rows: list[Any], payload: bytes = b"") -> None:
        """One more frame."""
        last = self.frames[-1].prefix if self.frames else None
        self.frames.append(
            encode_frame(
                timeline=TIMELINE,
                position=last.end if last else 0,
                utc_ns=UTC_NS,
                durable=0,
                previous_digest=last.digest if last else NO_DIGEST,
                rows=rows,
                payload=[payload] if payload else (),
                payload_bytes=len(payload),
            )
        )

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.frames[-1].prefix.end


class Shipping:
    """The peer ships group `g`: each method brings the session `session` to a state, by the book."""

    def __init__(self, dealer: zmq.Socket[bytes], journal: Journal, site_id: str) -> None:
        self.dealer = dealer
        self.journal = journal
        self.site_id = site_id
        self.session = 1
        self.states: dict[str, Callable[[], object]] = {
            "nothing said": lambda: None,
            "welcomed": self.welcomed,
            "in frames": self.in_frames,
            "after a heartbeat": lambda: self.beaten("paired"),
            "split": lambda: self.beaten("split"),
            "in a base": self.in_base,
            "fetching": self.fetching,
            "waited for": self.waited_for,
            "asking": self.asking,
            "reset": self.reset,
            "refused": self.refused,
        }

    def say(self, message: Any, payload: bytes | None = None) -> None:
        """By the book."""
        self.dealer.send(message.encode(), zmq.SNDMORE if payload is not None else 0)
        if payload is not None:
            self.dealer.send(payload)

    def welcomed(self) -> Welcome | None:
        """HELLO, and its WELCOME; None if the group cannot take one any more."""
        self.session += 1
        about: dict[str, Any] = {"session": self.session, "group": "g", "group_id": GROUP_ID}
        self.say(Hello(**about, site=self.site_id, lineage=self.journal.lineage, written=self.journal.end))
        while (answer := heard(self.dealer, kinds=(Welcome, Refused))) is not None:
            if answer.session == self.session:
                return answer if isinstance(answer, Welcome) else None
        raise AssertionError("a HELLO by the book got no answer")

    def in_frames(self) -> None:
        """What the site lacks of the journal, a few frames."""
        welcome = self.welcomed()
        if welcome is None or welcome.timeline not in (0, TIMELINE):
            return
        lacking = [f.raw for f in self.journal.frames if f.prefix.position >= welcome.written][:3]
        self.say(FrameMessage(session=self.session), b"".join(map(bytes, lacking)))

    def beaten(self, state: str) -> None:
        """A heartbeat that says a state of the pair."""
        self.in_frames()
        beat: dict[str, Any] = {"timeline": TIMELINE, "written": self.journal.end, "utc_ns": UTC_NS}
        self.say(Heartbeat(session=self.session, state=state, mode="async", **beat))

    def in_base(self) -> None:
        """A base has begun."""
        self.welcomed()
        base: dict[str, Any] = {"cut": Cut(TIMELINE + 1, 5000), "start": None, "utc_ns": UTC_NS, "parts": 2}
        digests: dict[str, Any] = {"digest": bytes(16), "parts_digest": bytes(16)}
        self.say(BaseBegin(session=self.session, base=99, **digests, **base))

    def fetching(self) -> None:
        """It takes the site's journal."""
        self.in_frames()
        self.say(Fetch(session=self.session, timeline=0, position=0))

    def waited_for(self) -> None:
        """A host waits for the site."""
        self.in_frames()
        self.say(MakeDurable(session=self.session, position=self.journal.end + 10_000))

    def asking(self) -> None:
        """In no session."""
        about: dict[str, Any] = {"session": self.session, "group": "g", "group_id": GROUP_ID}
        self.say(Ask(**about))
        self.say(Find(**about, utc_ns=UTC_NS + 1))
        self.say(Hold(**about, name="x", cut=Cut(TIMELINE, self.journal.frames[0].prefix.end), for_s=5))

    def reset(self) -> None:
        """The session was ended for a frame that does not fit."""
        self.welcomed()
        self.say(FrameMessage(session=self.session), bytes(self.journal.frames[-1].raw)[:-1] + b"\xee")
        heard(self.dealer, kinds=(Reset, Refused), wait_ms=200)

    def refused(self) -> None:
        """A HELLO for what is not its own."""
        self.session += 1
        about: dict[str, Any] = {"session": self.session, "group": "mine", "group_id": GROUP_ID}
        self.say(Hello(**about, site=self.site_id, lineage=self.journal.lineage, written=0))


def session_of(header: bytes) -> Message | None:
    """What the daemon said, if it can be read."""
    try:
        return decode_message(header)
    except RemoteProtocolError:
        return None
