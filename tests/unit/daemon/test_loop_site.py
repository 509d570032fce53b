"""Commands about a site itself, with dozens of peers, operators and certificates: none of them holds the
hosts' loop for more than 20 ms of processor time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from daemon.config import CONFIG_FILE
from daemon.peer_tokens import make_token
from daemon.reloading import reload_config
from daemon.site import Site
from engine.ports.zmq_transport import generate_keypair
from protocol.commands.notify import NotifyList, NotifyTest
from protocol.commands.operator import OperatorAdd, OperatorList, OperatorRemove
from protocol.commands.peer import (
    PeerAdd,
    PeerList,
    PeerRemove,
    PeerRename,
    PeerReplace,
    PeerRotateKey,
    PeerSet,
    RateWindow,
)
from protocol.commands.site import SiteRotateKey, SiteToken
from protocol.commands.site_cert import SiteCertInit, SiteCertIssue, SiteCertList, SiteCertRevoke
from tests.support.tls import request_of
from tests.unit.daemon.every_command import Giver, Kind, giving
from tests.unit.daemon.stage import Stage, staged

COMMANDS_GIVEN: frozenset[Kind] = frozenset({
    NotifyList, NotifyTest, OperatorAdd, OperatorList, OperatorRemove, PeerAdd, PeerList, PeerRemove,
    PeerRename, PeerReplace, PeerRotateKey, PeerSet, SiteCertInit, SiteCertIssue, SiteCertList,
    SiteCertRevoke, SiteRotateKey, SiteToken,
})  # fmt: skip
PEERS, OPERATORS, HOSTS, NOTIFICATIONS = 40, 40, 60, 12


def token_of(site: Site, name: str, number: int) -> str:
    """Of a site that is not there."""
    return make_token(
        replace(site.own, name=name, site_id=f"{number:032x}", public_key=generate_keypair()[0])
    )


async def peers(stage: Stage, give: Giver) -> None:
    a, names = stage.a, [f"s{number}" for number in range(PEERS)]
    await give(a, *[PeerAdd(token=token_of(stage.b, name, at)) for at, name in enumerate(names, 1)])
    assert len((await give(a, PeerList()))[0].peers) == PEERS + 1
    window = RateWindow(from_minute=0, until_minute=60, zone="Europe/Berlin", rate_bytes_s=1 << 20)
    await give(a, *[PeerSet(peer=name, rate_bytes_s=1 << 22, window=window) for name in names[:5]])
    known = [PeerRotateKey(peer=name, token=token_of(stage.b, name, at)) for at, name in enumerate(names, 1)]
    assert all(each.next_fingerprint for each in await give(a, *known[:5]))
    await give(
        a, *[PeerReplace(peer=f"s{at}", token=token_of(stage.b, f"s{at}", 100 + at)) for at in (9, 10, 11)]
    )
    await give(a, *[PeerRename(peer=f"s{at}", new=f"t{at}") for at in (12, 13, 14)])
    await give(a, *[PeerRemove(peer=f"s{at}") for at in (15, 16, 17)])


async def keys(stage: Stage, give: Giver) -> None:
    """Each site's in turn, of which its peer is told first."""
    a, b = stage.a, stage.b
    for site, other in ((a, b), (b, a), (a, b)):
        await give(site, SiteToken())
        (made,) = await give(site, SiteRotateKey())
        await give(other, PeerRotateKey(peer=site.config.name, token=made.token), note="of a pair")
        assert (await give(site, SiteRotateKey(finish=True), note="finish"))[0].in_use
        await stage.until(partial(_uses_its_key, other, site.config.name))
    await stage.paired("good")


def _uses_its_key(site: Site, peer: str) -> bool:
    return peer not in site.peers.coming_keys()


async def operators(stage: Stage, give: Giver) -> None:
    a, names = stage.a, [f"o{number}" for number in range(OPERATORS)]
    await give(a, *[OperatorAdd(operator=name, key=generate_keypair()[0]) for name in names])
    assert len((await give(a, OperatorList()))[0].operators) == OPERATORS
    await give(a, *[OperatorRemove(operator=name) for name in names[:3]])


async def certificates(stage: Stage, give: Giver) -> None:
    a, hosts = stage.a, [f"h{number}" for number in range(HOSTS)]
    await give(a, *[SiteCertInit(hosts=(f"host{number}.example", "127.0.0.1")) for number in range(3)])
    requests = {host: request_of(host)[1] for host in hosts}
    await give(a, *[SiteCertIssue(host=host, request=requests[host]) for host in hosts])
    assert len((await give(a, SiteCertList()))[0].certificates) == HOSTS
    await give(a, *[SiteCertRevoke(host=host) for host in hosts[:3]])


async def notifications(stage: Stage, give: Giver) -> None:
    a = stage.a
    lines = [f'[notify.n{number}]\nexec = ["/bin/true"]\n' for number in range(NOTIFICATIONS)]
    a.disk.replace_file(CONFIG_FILE, a.disk.read_file(CONFIG_FILE) + "\n".join(["", *lines]).encode())
    await reload_config(a)
    assert len((await give(a, NotifyList()))[0].notifications) == NOTIFICATIONS
    tried = await give(a, *[NotifyTest(notification=f"n{number}") for number in range(3)])
    assert all(each.ok for each in tried)


def test_no_command_about_the_site_holds_the_loop() -> None:
    async def play() -> Giver:
        async with staged(names=("good",)) as stage, giving(stage) as give:
            for part in (peers, keys, operators, certificates, notifications):
                await part(stage, give)
            return give

    give = asyncio.run(play())
    assert give.given == COMMANDS_GIVEN
    assert give.held() == {}
