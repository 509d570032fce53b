"""A rebuilt site gets its copy from a file that was carried there, and only what differs over the link."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.demo.host import Host
from protocol.errors import ExitCode
from tests.scenarios.test_bases import MIB, VOLUME, limit_journals, messages, write
from tests.support.pairs import same_at_the_cut, wait_for_states, wait_until
from tests.support.seed_files import flip
from tests.support.sites import Site, introduce, running_sites

pytestmark = pytest.mark.slow

DATA = 64 * MIB


@pytest.fixture
def carried() -> Iterator[tuple[Site, Site, Path]]:
    """A site whose journal does not begin at the root any more, a new one that it knows, and an image of its
    volume, of which 1 MiB has changed since."""
    with running_sites("a", "b") as (one, other):
        limit_journals(one)
        introduce(one, other)
        one.create_volume("g/v", VOLUME)
        rng = random.Random(9)
        with Host(one.nbd_socket, "g/v") as host:
            for at in range(0, DATA, MIB):
                host.write(at, rng.randbytes(MIB))
            host.flush()
        write(one, rng, 64 * MIB, 8 * MIB)
        image = one.directory.parent / "v.img"
        one.farshore("volume", "export", "g/v", str(image))
        with Host(one.nbd_socket, "g/v") as host:
            host.write(20 * MIB, rng.randbytes(MIB))
            host.flush()
        yield one, other, image
        for site in (one, other):
            assert site.stop() == 0
            site.check_log()


def sent_bytes(site: Site) -> int:
    """What went over the link, as the primary counts it."""
    return int(site.json("pair", "show", "g")["wire_bytes"])


def finish(one: Site, other: Site) -> None:
    wait_for_states("paired", one, other, group="g", timeout_s=90)
    write(one, random.Random(5), 256 << 10, 4 * MIB)  # a frame after the copy
    same_at_the_cut(one, other, "g", ("v",))
    assert other.json("verify", "g", "--deep")["ok"]
    assert not (other.directory / "seeds" / "g").exists()


def test_only_what_changed_since_the_image_is_sent(carried: tuple[Site, Site, Path]) -> None:
    one, other, image = carried
    made = other.json("volume", "import", str(image), "g/v", "--seed")
    assert made["data_bytes"] == DATA
    assert other.json("seed", "list")["seeds"] == [
        {"group": "g", "volume": "v", "size_bytes": 128 * MIB},
    ]
    other.kill()  # it is durable
    other.start()
    one.farshore("pair", "create", "g", "--with", "b")
    finish(one, other)
    assert sent_bytes(one) < 2 * MIB
    (seeded,) = messages(other, "base.seeded")
    assert DATA - 2 * MIB < int(seeded.removeprefix("seeded_bytes ")) < DATA
    assert other.json("seed", "list")["seeds"] == []
    # It is a copy like any other: the journal goes on from there, and another start finds it.
    write(one, random.Random(3), MIB, DATA)
    other.kill()
    other.start()
    finish(one, other)


def test_a_damaged_seed_costs_no_more_than_its_use(carried: tuple[Site, Site, Path]) -> None:
    one, other, image = carried
    other.farshore("volume", "import", str(image), "g/v", "--seed")
    flip(other.directory / "seeds" / "g" / "v.img", 40 * MIB + 12_345)
    one.farshore("pair", "create", "g", "--with", "b")
    finish(one, other)
    (aside,) = messages(other, "seed.set_aside")
    assert f"at {40 * MIB}" in aside
    assert sent_bytes(one) < 40 * MIB


def test_a_kill_in_the_middle(carried: tuple[Site, Site, Path]) -> None:
    one, other, image = carried
    other.farshore("volume", "import", str(image), "g/v", "--seed")
    with (other.directory / "seeds" / "g" / "v.img").open("r+b") as file:
        file.seek(60 * MIB)
        file.write(bytes(4096))
    one.farshore("peer", "set", "b", "--rate", "256K")
    one.farshore("pair", "create", "g", "--with", "b")
    # It is held up where 1 MiB differs: by then 20 MiB came from the seed.
    wait_until(lambda: _received(other) > 19 * MIB, 60)
    other.kill()
    assert (other.directory / "seeds" / "g" / "v.digests").exists()
    other.start()
    one.farshore("peer", "set", "b", "--rate", "none")
    finish(one, other)


def _received(site: Site) -> int:
    """Bytes of a copy that a site has on its disk."""
    return sum(path.stat().st_size for path in (site.directory / "groups" / "g" / "journal").rglob("*.seg"))


def test_where_a_seed_is_not_taken(carried: tuple[Site, Site, Path]) -> None:
    one, other, image = carried
    said = one.farshore("volume", "import", str(image), "g/v", "--seed", exit_code=ExitCode.WRONG_STATE)
    assert "is written at this site" in said
    assert "group delete g --confirm g" in said
    made = other.json("volume", "import", str(image), "g/v", "--seed")
    qcow2 = image.with_suffix(".qcow2")
    one.farshore("volume", "export", "g/v", str(qcow2))
    again = other.json("volume", "import", str(qcow2), "g/v", "--seed")
    assert (again["format"], again["size_bytes"], again["data_bytes"]) == ("qcow2", 128 * MIB, DATA)
    assert again["digest"] != made["digest"]  # 1 MiB has changed
    other.farshore("seed", "remove", "g/v")
    assert not (other.directory / "seeds" / "g").exists()
    other.farshore("seed", "remove", "g/v", exit_code=ExitCode.NOT_FOUND)
