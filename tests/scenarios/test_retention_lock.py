"""C3: a stolen peer's key, and an operator's account, against a site's own minimum retention."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
import zmq
from msgspec import structs

from console.demo.host import Host
from protocol.errors import ExitCode
from protocol.events import NO_POLICY, WRITE, CopyDeleted, CopyLocked, CopyPinned
from protocol.frames import encode_frame
from protocol.limits import BLOCK_BYTES
from protocol.messages import Ack, FrameMessage, Heartbeat, Hello, Message, Welcome, decode_message
from protocol.positions import parse_cut
from tests.support.foreign_peer import connection, group_id
from tests.support.sites import Site

MIB = 1 << 20
BLOCKS_A_FRAME = 960
ATTACK_BYTES = 300 * MIB
TRUNCATED_WITHIN_S = 60.0
LOCK_S = 3600


class Thief:
    """Speaks to a site with its peer's key, and knows the wire."""

    def __init__(self, dealer: zmq.Socket[bytes], own: Site, target: Site) -> None:
        self._dealer = dealer
        self._site = json.loads((own.directory / "identity.json").read_text())["site_id"]
        self._group_id = group_id(target, "g")
        self._welcome: Welcome | None = None
        self.position, self.digest = 0, b""

    def hello(self) -> None:
        """Open a session, where the site is."""
        self._say(self._hello(()))
        welcome = self._hear(Welcome)
        # With that lineage as its own, the thief is the writer that the site knows.
        self._say(self._hello(welcome.lineage, welcome.written))
        self._welcome = self._hear(Welcome)
        self.position, self.digest = self._welcome.written, self._welcome.digest

    def _hello(self, lineage: Any, written: int = 0) -> Hello:
        return Hello(
            session=9, group="g", group_id=self._group_id, site=self._site, lineage=lineage, written=written
        )

    def frame(self, rows: Sequence[tuple[object, ...]], payload: Sequence[bytes] = ()) -> None:
        """One frame that goes on from there, and says that all is durable."""
        assert self._welcome is not None
        frame = encode_frame(
            timeline=self._welcome.timeline,
            position=self.position,
            utc_ns=time.time_ns(),
            durable=self.position,
            previous_digest=self.digest,
            rows=rows,
            payload=payload,
            payload_bytes=sum(map(len, payload)),
        )
        self._dealer.send(FrameMessage(session=9).encode(), zmq.SNDMORE)
        self._dealer.send(bytes(frame.raw))
        self.position, self.digest = frame.prefix.end, frame.prefix.digest

    def needs_nothing(self) -> None:
        """Say, as a writer does each second, that it will not go back behind its end."""
        assert self._welcome is not None
        beat = Heartbeat(
            session=9,
            timeline=self._welcome.timeline,
            written=self.position,
            utc_ns=time.time_ns(),
            horizon=self.position,
            state="paired",
            mode="async",
        )
        self._say(beat)

    def until_taken(self) -> None:
        """Until the site has written all of it."""
        while self._hear(Ack).written < self.position:
            pass

    def _say(self, message: Message) -> None:
        self._dealer.send(message.encode())

    def _hear(self, kind: type[Any]) -> Any:
        while self._dealer.poll(30_000):
            message = decode_message(self._dealer.recv_multipart()[0])
            if isinstance(message, kind):
                return message
            assert isinstance(message, Ack | Welcome), message
        raise AssertionError(f"no {kind.__name__} came")


def volume_of(site: Site) -> int:
    volume: str = site.json("volume", "show", "g/v")["id"]
    return parse_cut(volume).position


def backups(site: Site) -> dict[str, dict[str, Any]]:
    return {backup["label"]: backup for backup in site.json("backup", "list", "g")["backups"]}


def read(site: Site, cut: str) -> bytes:
    with Host(site.nbd_socket, f"g/v@{cut}") as host:
        return bytes(host.read(0, MIB))


def with_lock(site: Site, seconds: int) -> None:
    config = site.directory / "site.toml"
    config.write_text(config.read_text() + f"lock_window_s = {seconds}.0\nwindow_s = 0.0\n")
    site.stop()
    site.start()


def readable(site: Site, cut: str) -> bool:
    return site.run("volume", "uri", f"g/v@{cut}").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("lock_s", [LOCK_S, 0])
def test_a_stolen_key_erases_nothing_that_is_locked(pair: tuple[Site, Site], lock_s: int) -> None:
    """C3, at the secondary. Without a lock the same messages erase what is not a locked backup."""
    a, b = pair
    with_lock(b, lock_s)
    a.create_volume("g/v", "64M")
    a.farshore("pair", "create", "g", "--with", "b")
    with Host(a.nbd_socket, "g/v") as host:
        host.write(0, b"G" * MIB)
        host.flush()
    a.farshore("backup", "create", "g", "--label", "gold", "--pin")
    a.farshore("backup", "create", "g", "--label", "vault", "--lock", "30d")
    with Host(a.nbd_socket, "g/v") as host:
        host.write(0, b"H" * MIB)
        host.flush()
    a.farshore("wait", "g", "--timeout", "120")
    moment = b.json("journal", "show", "g")["head"]["text"]
    volume, before = volume_of(b), backups(b)
    gold, vault = before["gold"]["cut"]["text"], before["vault"]["cut"]["text"]
    assert before["vault"]["locked_until"]
    assert not before["gold"]["locked_until"]
    a.stop()
    with connection(a, b) as dealer:
        thief = Thief(dealer, a, b)
        thief.hello()
        ids = [int(before[label]["id"], 16) for label in ("gold", "vault")]
        for copy_id in ids:
            said = [
                CopyPinned(copy_id=copy_id, pinned=False),
                CopyLocked(copy_id=copy_id, lock_s=1) if copy_id == ids[1] else CopyDeleted(copy_id=copy_id),
                CopyDeleted(copy_id=copy_id),
            ]
            thief.frame([each.to_row() for each in said])
        thief.frame([structs.replace(NO_POLICY, window_s=0, window_bytes=1).to_row()])
        payload = [b"\xee" * BLOCK_BYTES * BLOCKS_A_FRAME]
        for _ in range(ATTACK_BYTES // (BLOCKS_A_FRAME * BLOCK_BYTES)):
            thief.frame([(WRITE, volume, 0, BLOCKS_A_FRAME)], payload)
            thief.until_taken()
        thief.needs_nothing()
        thief.until_taken()
    began = time.monotonic()
    while readable(b, moment) or readable(b, gold):
        if time.monotonic() - began > (10.0 if lock_s else TRUNCATED_WITHIN_S):
            break
        time.sleep(0.5)
    for _ in range(2):
        assert read(b, vault) == b"G" * MIB
        assert set(backups(b)) == {"vault"}
        if lock_s:
            assert read(b, gold) == b"G" * MIB
            assert read(b, moment) == b"H" * MIB
        else:
            assert not readable(b, gold)
            assert not readable(b, moment)
        b.kill()
        b.start()
    lock = next(group for group in b.json("status")["groups"] if group["group"] == "g")["lock"]
    assert (lock["window_s"], lock["backups"]) == (lock_s, 1)
    assert "locked: " in b.farshore("status")
    events = b.log()
    assert [event["object"] for event in events if event.get("event") == "lock.defied"] == ["vault"]


def test_commands_name_the_lock(pair: tuple[Site, Site]) -> None:
    """An operator's account: whatever would give up what is locked ends with 12 and says until when."""
    a, b = pair
    with_lock(a, LOCK_S)
    a.create_volume("g/v", "8M")
    a.farshore("pair", "create", "g", "--with", "b")
    a.farshore("wait", "g", "--state", "paired", "--timeout", "120")
    said = a.farshore("backup", "create", "g", "--label", "vault", "--pin", "--lock", "30d")
    assert "locked until" in said
    for site in (a, b):
        row = backups(site)["vault"]
        days = (_seconds(row["locked_until"]) - time.time()) / 86_400
        assert 29.9 < days < 30.1
        assert "locked until" in site.farshore("backup", "list", "g")
    for words in (
        ("backup", "delete", "g", "vault", "--confirm", "vault"),
        ("backup", "delete", "g", "vault", "--dry-run"),
        ("backup", "unpin", "g", "vault"),
        ("schedule", "set", "g", "--window", "10m", "--confirm", "g"),
    ):
        refused = a.run(*words, "--json")
        (error,) = json.loads(refused.stdout.splitlines()[-1])["errors"]
        assert (refused.returncode, error["code"]) == (int(ExitCode.NOT_ALLOWED), "locked"), words
        assert error["next"]
    plan = a.json("backup", "prune", "g", "--keep-last", "1", "--labelled", "--confirm", "g")
    assert [(row["label"], row["why"]) for row in plan["left"]] == [("vault", ["locked"])]
    a.farshore("backup", "lock", "g", "vault", "--for", "60d")
    a.farshore("backup", "lock", "g", "vault", "--for", "1d", exit_code=int(ExitCode.WRONG_STATE))
    a.farshore("backup", "lock", "g", "vault", "--for", "0s", exit_code=int(ExitCode.USAGE))
    a.farshore("backup", "lock", "g", "vault", "--for", "40000d", exit_code=int(ExitCode.USAGE))
    b.farshore("backup", "lock", "g", "vault", "--for", "90d", exit_code=int(ExitCode.WRONG_STATE))
    a.farshore("backup", "create", "g", "--label", "plain")
    cut = backups(a)["plain"]["cut"]["text"]
    a.farshore("backup", "delete", "g", "plain", "--confirm", "plain")
    a.farshore("volume", "delete", "g/v", "--confirm", "g/v")
    assert read(a, cut) == bytes(MIB)


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()
