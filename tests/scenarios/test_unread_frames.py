"""Frames in the middle of a journal that are whole and that this version does not understand: what stands
before and after is served, shipped, verified, backed up and replayed, the range is named, and only what such
a frame may have changed waits for an operator.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import convert

from console.client import Client
from console.demo.host import Host
from protocol.commands.base import BaseCommand, ReplyType
from protocol.commands.journal import FrameInfo, JournalShow
from protocol.commands.verify import Verify, VerifyReply
from protocol.commands.volume import VolumeOnline
from protocol.errors import ExitCode
from protocol.events import WRITE, EventKind
from tests.scenarios.test_journal_replay import replay
from tests.support.journal_frames import append_frame
from tests.support.oracle import content
from tests.support.pairs import no_host_may_write, same_at_the_cut, start_pair
from tests.support.sites import Site, running_sites

pytestmark = pytest.mark.timeout(900)

BLOCK = 4096
VOLUME_BYTES = 64 * BLOCK


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    """A group at `lon`, followed by `par`, with a block of `A` and the backup `before`."""
    with running_sites("lon", "par") as (lon, par):
        start_pair(lon, par, "g/v", VOLUME_BYTES)
        write(lon, 0, b"A")
        lon.farshore("backup", "create", "g", "--label", "before")
        lon.farshore("wait", "g")
        yield lon, par
        for site in (lon, par):
            site.expected_errors |= {"journal.unread", "damage.found"}
            site.check_log()


def write(site: Site, block: int, letter: bytes) -> None:
    with Host(site.nbd_socket, "g/v") as host:
        host.write(block * BLOCK, letter * BLOCK)
        host.flush()


def letters(site: Site, export: str) -> str:
    """The first letter of each of the first eight blocks, `.` for a zero."""
    data = content(site, export)[: 8 * BLOCK : BLOCK]
    return data.replace(b"\0", b".").decode()


def call(site: Site, command: BaseCommand[ReplyType]) -> ReplyType:
    """A command's answer, without a process for it."""
    with Client(f"ipc://{site.control_socket}") as client:
        return client.call(command)


def frames(site: Site) -> list[FrameInfo]:
    return call(site, JournalShow(group="g", limit=1000)).frames


def volume_id(site: Site) -> int:
    """That of `g/v`: where its making stands in the journal."""
    (made,) = [frame.position for frame in frames(site) if "volume_created" in frame.kinds]
    return int(made.partition(":")[2])


def places_of(data: VerifyReply) -> list[str]:
    """Where a verification found damage."""
    assert not data.ok
    assert all("is whole but cannot be understood" in each.message for each in data.damage)
    return [each.position for each in data.damage]


def named(site: Site) -> list[str]:
    """The same of a quick one, made now."""
    return places_of(call(site, Verify(group="g")))


def test_what_older_versions_journaled_holds_nothing_up_c1_c7(sites: tuple[Site, Site]) -> None:
    lon, par = sites
    volume = volume_id(lon)
    assert lon.stop() == 0
    empty = append_frame(lon, "g", [(WRITE, volume, 1, 1), (WRITE, volume, 0, 0)], b"B" * BLOCK)
    huge = append_frame(lon, "g", [(EventKind.VOLUME_CREATED, "huge", -4096)])
    lon.start()
    write(lon, 2, b"C")
    same_at_the_cut(lon, par, "g", ("v",))
    places = [str(empty), str(huge)]
    cut = lon.json("wait", "g")["position"]
    for deep in (True, False):
        for site in (lon, par):
            assert named(site) == places
            assert [frame.position for frame in frames(site) if frame.unread] == places
            assert letters(site, f"g/v@{cut}") == "ABC....."
            assert letters(site, "g/v@before") == "A......."
            if deep:
                said = site.farshore("verify", "g", "--deep", "--json", exit_code=ExitCode.MISMATCH)
                data = json.loads(said.splitlines()[-1])["data"]
                assert places_of(convert(data, VerifyReply)) == places
        assert letters(lon, "g/v") == "ABC....."
        if deep:  # once more, from the index: a verification begins with a checkpoint
            for site in (par, lon):
                assert site.stop() == 0
                site.start()

    lon.farshore("backup", "create", "g", "--label", "after")
    write(lon, 3, b"D")
    lon.farshore("clone", "create", "g@after", "lab")
    assert letters(lon, "lab/v") == "ABC....."
    lon.farshore("restore", "volume", "g/v", "--at", "after", "--confirm", "g/v", "--online")
    assert letters(lon, "g/v") == "ABC....."
    same_at_the_cut(lon, par, "g", ("v",))
    assert letters(par, "g/v@after") == "ABC....."
    dead = par.directory.parent / "dead"
    par.kill()
    shutil.copytree(par.directory, dead, ignore=shutil.ignore_patterns("*.sock"))
    for words in ((), ("--without-index",)):
        data = replay(dead, dead / "image", "--until", "latest", *words)
        assert (dead / "image").read_bytes()[: 8 * BLOCK : BLOCK] == b"ABC" + bytes(5)
        for place in places:
            assert any(f"frame at {place}" in note for note in data["notes"]), data["notes"]


def test_a_volume_that_may_have_been_changed_waits_for_an_operator(sites: tuple[Site, Site]) -> None:
    lon, par = sites
    lon.create_volume("g/other", str(VOLUME_BYTES))
    lon.farshore("wait", "g")
    assert lon.stop() == 0
    place = append_frame(lon, "g", [(99, "a later version's event")])
    lon.start()
    assert no_host_may_write(lon, "g/v")
    assert letters(lon, "g/v@before") == "A......."
    assert letters(lon, f"g/v@{place.timeline:016x}:{place.position}") == "A......."
    for words in (
        ("clone", "create", "g@latest", "lab"),
        ("restore", "volume", "g/v", "--at", "latest", "--confirm", "g/v"),
    ):
        error = refusal(lon, *words)
        assert error["exit_code"] == ExitCode.UNSAFE
        assert f"{place}" in error["next"]
    assert named(lon) == [str(place)]

    call(lon, VolumeOnline(group="g", volume="v"))
    write(lon, 1, b"B")
    assert letters(lon, "g/v") == "AB......"
    assert no_host_may_write(lon, "g/other")
    same_at_the_cut(lon, par, "g", ("v", "other"))
    assert lon.stop() == 0
    lon.start()
    lon.farshore("wait", "g", "--state", "paired", "--timeout", "60")
    assert letters(lon, "g/v") == "AB......"
    assert no_host_may_write(lon, "g/other")
    # What was accepted at one site was not at the other.
    lon.farshore("switchover", "g", "--confirm", "g")
    assert no_host_may_write(par, "g/v")
    par.farshore("restore", "volume", "g/v", "--at", "before", "--confirm", "g/v", "--online")
    assert letters(par, "g/v") == "A......."


def refusal(site: Site, *words: str) -> dict[str, Any]:
    """The error of a command that must fail."""
    said = site.run(*words, "--json")
    assert said.returncode, said.stdout
    (error,) = json.loads(said.stdout.splitlines()[-1])["errors"]
    assert isinstance(error, dict)
    return error
