"""Commands about operators: they change site.toml, which is then read again."""

from __future__ import annotations

from msgspec import structs

from daemon.config import CONFIG_FILE, OperatorConfig, check_config
from daemon.operations.registry import carries_out
from daemon.operators import with_operator, without_operator
from daemon.reloading import reload_config
from daemon.site import Site
from protocol.commands.operator import (
    OperatorAdd,
    OperatorInfo,
    OperatorList,
    OperatorListReply,
    OperatorRemove,
)


@carries_out(OperatorList)
async def list_operators(site: Site, _: OperatorList) -> OperatorListReply:
    """Every operator."""
    return _listed(site)


@carries_out(OperatorAdd)
async def add(site: Site, command: OperatorAdd) -> OperatorListReply:
    """One more."""
    row = OperatorConfig(key=command.key, role=command.role)
    check_config(
        structs.replace(site.config, operators={**site.config.operators, command.operator: row}), CONFIG_FILE
    )
    return await _rewrite(site, with_operator(site.disk, command.operator, row))


@carries_out(OperatorRemove)
async def remove(site: Site, command: OperatorRemove) -> OperatorListReply:
    """One less."""
    return await _rewrite(site, without_operator(site.disk, command.operator))


async def _rewrite(site: Site, content: bytes) -> OperatorListReply:
    before = site.disk.read_file(CONFIG_FILE)
    site.disk.replace_file(CONFIG_FILE, content)
    try:
        await reload_config(site)
    except BaseException:
        site.disk.replace_file(CONFIG_FILE, before)
        raise
    return _listed(site)


def _listed(site: Site) -> OperatorListReply:
    return OperatorListReply(
        endpoint=site.config.remote_control or None,
        server_key=site.keys.public,
        operators=[
            OperatorInfo(operator=name, role=row.role, key=row.key)
            for name, row in sorted(site.operators.rows.items())
        ],
    )
