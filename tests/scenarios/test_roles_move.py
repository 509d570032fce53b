"""Roles as an operator moves them: there and back without loss, and after one site was lost."""

from __future__ import annotations

from protocol.errors import ExitCode
from tests.support.clients import nbdsh
from tests.support.pairs import same_at_the_cut
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
