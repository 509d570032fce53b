"""C2: whoever has the secondary's key claims the group of a site that serves its hosts."""

from __future__ import annotations

import json
import time
from typing import Any

from console.demo.host import Host
from protocol.events import WRITE, HandOver, TimelineBegan
from protocol.frames import encode_frame
from protocol.messages import FrameMessage, Hello, Refused
from protocol.positions import parse_cut
from tests.support.foreign_peer import answer, connection, group_id
from tests.support.pairs import start_pair
from tests.support.sites import Site

GOOD, EVIL = b"GOOD" * 1024, b"EVIL" * 1024


def site_id(site: Site) -> str:
    return str(json.loads((site.directory / "identity.json").read_text())["site_id"])


def test_c2_a_claim_in_a_healthy_session_is_refused_and_what_follows_it_is_nothing(
    pair: tuple[Site, Site],
) -> None:
    a, b = pair
    a.expected_errors.add("peer.claim_refused")
    start_pair(a, b, "g/v", 1 << 20)
    with Host(a.nbd_socket, "g/v") as host:
        host.write(0, GOOD)
        host.flush()
        a.farshore("wait", "g")
        head: Any = a.json("journal", "show", "g")["head"]
        cut = parse_cut(head["text"])
        hello = Hello(
            session=9,
            group="g",
            group_id=group_id(a, "g"),
            site=site_id(b),
            lineage=((77, cut.timeline, cut.position, 99, site_id(b)),),
            written=0,
        )
        with connection(b, a) as dealer:
            dealer.send(hello.encode())
            refused = answer(dealer)
            assert isinstance(refused, Refused)
            assert refused.code == "not-allowed"
            _send_forged(dealer, cut.position, (site_id(a), site_id(b)), volume=int(_volume_id(a)))
            time.sleep(1.0)
        assert host.read(0, 4096) == GOOD
        host.write(4096, GOOD)
        host.flush()
    assert a.json("pair", "show", "g")["role"] == "primary"
    a.farshore("wait", "g", "--state", "paired", "--timeout", "30")
    (event,) = [each for each in a.json("events")["events"] if each["kind"] == "peer.claim_refused"]
    assert (event["level"], event["object"]) == ("error", b.name)


def _volume_id(site: Site) -> str:
    return str(site.json("volume", "show", "g/v")["id"]).rpartition(":")[2]


def _send_forged(dealer: Any, position: int, sites: tuple[str, str], volume: int) -> None:
    """A timeline of b's, a write, and the hand-over that would have `a` serve it."""
    a, b = sites
    began = TimelineBegan(parent=77, fork=position, generation=99, writer=b, group="g", sealed=False)
    digest = b"\0" * 8
    for rows, payload in (
        ([began.to_row()], []),
        ([(WRITE, volume, 0, 1)], [EVIL]),
        ([HandOver(to=a).to_row()], []),
    ):
        frame = encode_frame(
            timeline=78,
            position=position,
            utc_ns=time.time_ns(),
            durable=0,
            previous_digest=digest,
            rows=rows,
            payload=payload,
            payload_bytes=sum(map(len, payload)),
        )
        dealer.send_multipart([FrameMessage(session=9).encode(), bytes(frame.raw)])
        position, digest = frame.prefix.end, frame.prefix.digest
