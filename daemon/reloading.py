"""SIGHUP: what of site.toml is taken anew while the daemon runs, and what waits for a restart.

A file that cannot be read, or says what cannot be, changes nothing, nor does a door that cannot be opened.
Hosts stay connected, also those that came in by a door that is closed now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from msgspec import structs

from daemon.config import SiteConfig, load_config
from daemon.configured import group_settings, nbd_addresses
from daemon.hook_config import hooks_of
from daemon.nbd_tls import renew_rules
from daemon.service_manager import ServiceManager, status_line
from daemon.site import Site
from engine.group.compartment import attempt_async
from protocol.errors import FarshoreError, system_error

DOORS = frozenset({"nbd", "insecure", "nbd_connections_per_host", "nbd_tls"})
OF_GROUPS = frozenset({"journal_limit_bytes", "window_s", "window_bytes"})
RELOADED = DOORS | OF_GROUPS | {"alerts", "groups_per_peer", "hooks", "notify", "operators"}


async def reload_when_told(site: Site, told: asyncio.Event, manager: ServiceManager) -> None:
    """Reload each time that `told` is set, until cancelled."""
    while True:
        await told.wait()
        told.clear()
        manager.reloading()
        await attempt_async("site.reload_failed", reload_or_say(site))
        manager.ready(status_line(site))


async def reload_or_say(site: Site) -> None:
    """`reload_config`, and an event if there is something wrong."""
    try:
        await reload_config(site)
    except (FarshoreError, OSError) as error:
        said = system_error(error) if isinstance(error, OSError) else error
        site.events.emit("site.not_reloaded", object=said.subject, error=said.message)


async def reload_config(site: Site) -> None:
    """Read site.toml again and take what can be taken; an event says what that was. FarshoreError or OSError:
    nothing was."""
    wanted = load_config(site.directory)
    changed = _changed(site.config, wanted)
    taken = {name: getattr(wanted, name) for name in changed if name in RELOADED}
    before, config = site.config, structs.replace(site.config, **taken)
    await _move_doors(site, before, config)
    site.config = config
    site.hooks.set_hooks(hooks_of(config.hooks))
    site.operators.set_rows(config.operators)
    site.relay.change(config.notify)
    for group in site.groups.values():
        group.change_settings(group_settings(config, group.settings.reserve_bytes))
    site.notify()
    waits = (name for name in changed if name not in RELOADED)
    site.events.emit("site.reloaded", changed=_listed(taken), wait_for_a_restart=_listed(waits))


def _changed(before: SiteConfig, wanted: SiteConfig) -> list[str]:
    return [name for name in before.__struct_fields__ if getattr(before, name) != getattr(wanted, name)]


def _listed(names: Iterable[str]) -> str:
    return " ".join(sorted(names))


async def _move_doors(site: Site, before: SiteConfig, config: SiteConfig) -> None:
    """Open the new ones first: if one cannot be opened, all is as it was. FarshoreError."""
    there, wanted = nbd_addresses(site.directory, before), nbd_addresses(site.directory, config)
    opened: list[str] = []
    try:
        for address in wanted:
            if address not in there:
                await site.nbd.listen(address)
                opened.append(address)
    except FarshoreError:
        for address in opened:
            site.nbd.stop_listening(address)
        raise
    for address in there:
        if address not in wanted:
            site.nbd.stop_listening(address)
    site.nbd.connections_per_host = config.nbd_connections_per_host
    # Also if nothing changed there: whoever replaced certificates by hand says so in this way.
    renew_rules(site.directory, config, site.nbd, site.events.emit, site.clock)
