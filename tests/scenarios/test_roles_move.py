"""Roles as an operator moves them: there and back without loss, and after one site was lost."""

from __future__ import annotations

from console.demo.host import Host
from protocol.errors import ExitCode
from tests.support.clients import MIB, nbdsh
from tests.support.pairs import same_at_the_cut, wait_until
from tests.support.proxy import Way, proxied
from tests.support.sites import Site, running_sites

VOLUME = "vm1/root"


def write(site: Site, letter: str, offset: int, blocks: int = 1) -> None:
    """A host's flushed write of blocks full of one letter."""
    nbdsh(site.uri(VOLUME), f"h.pwrite(b'{letter}' * {4096 * blocks}, {offset}); h.flush()")


def first_letter(site: Site, offset: int, export: str = VOLUME) -> str:
    """What a host reads at an offset."""
    return nbdsh(site.uri(export), f"print(h.pread(512, {offset})[:1].decode())").strip()


def paired(one: Site, other: Site) -> None:
    """A small volume at `one`, mirrored to `other`."""
    one.create_volume(VOLUME, "16M")
    one.farshore("pair", "create", "vm1", "--with", other.name)
    one.farshore("wait", "vm1", "--state", "paired", "--timeout", "30")


def test_the_writing_goes_there_and_back() -> None:
    with running_sites("a", "b") as (a, b):
        paired(a, b)
        write(a, "A", 0, blocks=2)
        assert a.json("switchover", "vm1", "--confirm", "vm1")["done"]
        assert first_letter(b, 0) == "A"
        a.farshore("volume", "uri", VOLUME, exit_code=ExitCode.WRONG_STATE)
        write(b, "B", 4096)
        same_at_the_cut(b, a, "vm1", ("root",))
        assert b.json("switchover", "vm1", "--confirm", "vm1")["done"]
        assert (first_letter(a, 0), first_letter(a, 4096)) == ("A", "B")
        same_at_the_cut(a, b, "vm1", ("root",))
        for site in (a, b):
            assert site.json("branch", "list", "vm1")["branches"] == []
            site.check_log()


def test_what_a_lost_site_alone_had_is_kept_as_a_branch() -> None:
    with running_sites("a", "b") as (a, b):
        paired(a, b)
        write(a, "A", 0)
        a.farshore("wait", "vm1")
        b.farshore("takeover", "vm1", "--confirm", "vm1", exit_code=ExitCode.NOT_ALLOWED)
        b.kill()
        write(a, "L", 0)
        a.kill()
        b.start()
        plan = b.json("takeover", "--from", "a", "--plan")
        # A restart of the secondary does not make it forget up to when it held everything.
        assert (plan["done"], plan["nothing_lost"]) == (False, False)
        assert plan["none_lost_until"]
        b.farshore("takeover", "vm1", "--max-loss", "0s", "--confirm", "vm1", exit_code=int(ExitCode.UNSAFE))
        taken = b.json("takeover", "--from", "a", "--confirm", "a")
        assert (taken["done"], taken["position"]) == (True, plan["position"])
        assert b.json("pair", "show", "vm1")["code"] == "SSWS"
        write(b, "B", 4096)
        a.start()
        back = b.json("failback", "vm1")
        assert back["state"] == "paired"
        (branch,) = a.json("branch", "list", "vm1")["branches"]
        assert branch["from"]["text"] == taken["position"]["text"]
        assert first_letter(a, 0, branch["exports"][0]) == "L"
        diff = a.json("branch", "diff", "vm1", branch["timeline"])
        assert diff["volumes"] == [{"volume": "root", "differing_bytes": 8192, "extents": [[0, 8192]]}]
        assert first_letter(b, 0) == "A"
        same_at_the_cut(b, a, "vm1", ("root",))


def test_a_first_copy_that_has_not_arrived_cannot_be_taken_over() -> None:
    """Else the lost site would be fenced, on its return, by a site that has nothing."""
    with running_sites("a", "b") as (a, b), proxied(a, b) as link:
        a.stop()
        with (a.directory / "site.toml").open("a") as config:
            config.write(f"journal_limit_bytes = {64 * MIB}\n")
        a.start()
        a.create_volume(VOLUME, "16M")
        with Host(a.nbd_socket, VOLUME) as host:
            # More than the journal keeps: the copy is not the history but the blocks.
            host.write_all(((at % 16) * MIB, bytes([at]) * MIB) for at in range(128))
        link.throttle(200_000)
        a.farshore("pair", "create", "vm1", "--with", b.name)
        wait_until(lambda: link.delivered_bytes(Way.FORWARD) > 100_000, 20)
        a.kill()
        for words in (("--plan",), ("--confirm", "vm1")):
            said = b.farshore("takeover", "vm1", *words, exit_code=ExitCode.WRONG_STATE)
            assert "has not arrived" in said
        link.heal()
        a.start()
        a.farshore("wait", "vm1", "--state", "paired", "--timeout", "30")
        write(a, "A", 0)
        same_at_the_cut(a, b, "vm1", ("root",))
