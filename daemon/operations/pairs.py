"""Commands about pairs: each checks, asks the engine, and answers with a plain dict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from daemon.operations.shapes import cut_data, group_data, pair_state, require_primary, time_of
from daemon.operations.waiting import wait_until
from daemon.site import Site
from engine.pair_states import Mode, PairState
from engine.site_state import PairRow, Role
from protocol.commands import PairCreate, PairResync, PairShow, PairSplit, WaitFor
from protocol.cut_text import time_text
from protocol.errors import NotAllowed, Refused, WrongState
from protocol.positions import Cut, timeline_text

Data = dict[str, Any]


async def create(site: Site, command: PairCreate) -> Data:
    """Attach a group to a peer and begin to copy."""
    group = site.group(command.group)
    require_primary(site, group)
    peer = site.peers.get(command.peer)
    if site.state.pair(group.name) is not None:
        raise Refused(
            f"group {group.name} has a pair already",
            subject=group.name,
            next_step=f"`farshore pair show {group.name}`",
        )
    if not peer.endpoint:
        raise WrongState(
            f"the token of {peer.name} has no endpoint to connect to",
            subject=peer.name,
            next_step=f"set `replication` in site.toml at {peer.name} and add its new token here",
        )
    mode = Mode(command.mode)
    row = PairRow(
        group=group.name,
        peer=peer.name,
        mode=mode,
        state=PairState.COPYING,
        reason="",
        fallen_back=mode is not Mode.ASYNC,
    )
    site.state.put_pair(row)
    site.make_shipper(group, site.state.group(group.name), row)
    return _pair_data(site, group.name)


async def show(site: Site, command: PairShow) -> Data:
    """One pair, from either end."""
    return _pair_data(site, command.group)


async def split(site: Site, command: PairSplit) -> Data:
    """Pause; the peer stays at whatever it has."""
    shipper = _shipper(site, command.group)
    shipper.split()
    _remember(site, command.group, PairState.SPLIT)
    return _pair_data(site, command.group)


async def resync(site: Site, command: PairResync) -> Data:
    """Go on from there, in order."""
    shipper = _shipper(site, command.group)
    if command.source != "local":
        raise NotAllowed(
            "taking over the peer's writes is not available yet",
            subject=command.group,
            next_step="--source local sends what was written here since the split",
        )
    shipper.start()
    _remember(site, command.group, PairState.COPYING)
    return _pair_data(site, command.group)


def _remember(site: Site, group: str, state: PairState) -> None:
    row = site.state.pair(group)
    if row is not None:
        site.state.put_pair(replace(row, state=state))


def _shipper(site: Site, name: str) -> Any:
    group = site.group(name)
    require_primary(site, group)
    shipper = site.shippers.get(name)
    if shipper is None:
        raise WrongState(
            f"group {name} has no pair", subject=name, next_step=f"`farshore pair create {name} --with PEER`"
        )
    return shipper


def _pair_data(site: Site, name: str) -> Data:
    group = site.group(name)
    shipper, receiver = site.shippers.get(name), site.receivers.get(name)
    remote: Data | None = None
    if shipper is not None and shipper.connected:
        marks = shipper.marks
        held = Cut(group.head, marks.remote_written)
        remote = {
            "timeline": timeline_text(group.head),
            "written": marks.remote_written,
            "durable": marks.remote_durable,
            "head_time": _time(time_of(group, held)),
        }
    elif receiver is not None and receiver.connected:
        remote = {
            "timeline": timeline_text(group.head),
            "written": receiver.remote_written,
            "durable": receiver.remote_written,
            "head_time": None,
        }
    end = shipper or receiver
    return group_data(site, group) | {"peer_connected": bool(end and end.connected), "remote": remote}


def _time(utc_ns: int | None) -> str | None:
    return time_text(utc_ns) if utc_ns else None


async def wait(site: Site, command: WaitFor) -> Data:
    """Until a state, or until a position is durable at every attached site."""
    group = site.group(command.group)
    target = command.position.cut if command.position else group.end

    def reached() -> bool:
        if command.state is not None:
            state, code, _ = pair_state(site, group)
            # `suspended by error` may be asked for by its first word: the names of states have no blanks.
            return command.state in (state.value, state.value.partition(" ")[0], code)
        return _durable_everywhere(site, command.group, target)

    ok = await wait_until(site, reached, command.timeout_s)
    state, code, _ = pair_state(site, group)
    data = group_data(site, group)
    at = group.end if command.state is not None else target
    return {
        "reached": ok,
        "state": state.value,
        "code": code,
        "position": str(at),
        "time": cut_data(at, time_of(group, at))["time"],
        "remote_durable": data["remote_durable"],
        "lag_bytes": data["lag_bytes"],
        "lag_s": data["lag_s"],
    }


def _durable_everywhere(site: Site, name: str, target: Cut) -> bool:
    group = site.group(name)
    if not group.holds_cut(target) or group.writer.durable < target.position:
        return False
    if site.state.group(name).role is Role.SECONDARY:
        return True
    shipper = site.shippers.get(name)
    if shipper is None or shipper.state is PairState.SPLIT:
        return True
    return shipper.marks.remote_durable >= target.position
