"""Commands about pairs: attach, pause, go on, end; and waiting for what they come to."""

from __future__ import annotations

from msgspec import UNSET

from daemon.operations.greeting import check_keys
from daemon.operations.group_row import group_info, pair_info, pair_state
from daemon.operations.registry import carries_out
from daemon.operations.shapes import require_primary, time_of, time_or_none, writable_group
from daemon.operations.waiting import wait_until
from daemon.site import Site
from engine.group.group import Group
from engine.group.site_state import Role
from engine.peering.pair_states import Mode, PairState
from protocol.commands.base import check_confirm
from protocol.commands.pair import (
    PairCreate,
    PairDelete,
    PairDeleteReply,
    PairInfo,
    PairResync,
    PairSet,
    PairShow,
    PairSplit,
    WaitFor,
    WaitReply,
)
from protocol.errors import Busy, Diverged, NotAllowed, Refused, WrongState
from protocol.events import StrictMode
from protocol.positions import Cut
from site_primary.shipping.comparison import Choice

LEAVE_STRICT_S = 5.0
COMPARE_S = 3.0


@carries_out(PairCreate)
async def create(site: Site, command: PairCreate) -> PairInfo:
    """Attach a group to a peer and begin to copy."""
    group = _group_to_pair(site, command)
    peer = site.peers.get(command.peer)
    before = site.state.pair(group.name)
    if before is not None and command.replace is UNSET:
        raise Refused(
            f"group {group.name} has a pair already, with {before.peer}",
            subject=group.name,
            next_step=f"`farshore pair show {group.name}`"
            + (
                f"; if {before.peer} is gone for good, "
                f"`farshore pair create {group.name} --with {peer.name} --replace --confirm {group.name}`"
                if peer.name != before.peer
                else ""
            ),
        )
    if not peer.endpoint:
        raise WrongState(
            f"the token of {peer.name} has no endpoint to connect to",
            subject=peer.name,
            next_step=f"set `replication` in site.toml at {peer.name} and add its new token here",
        )
    if before is None or before.peer != peer.name:
        site.check_pairs(group.name, peer.name)
    await check_keys(site, group, peer)
    # Again: others had their turns, and a group without a pair can be renamed or deleted.
    now = site.state.pair(group.name)
    if _group_to_pair(site, command) is not group or (now and now.peer) != (before and before.peer):
        raise _changed(group)
    if before is not None:
        confirm = command.confirm or ""
        check_confirm(confirm, group.name, dry_run=False)
        await _leave_strict(site, group, confirm)
    site.pairs.create(group, peer.name, Mode(command.mode))
    return pair_info(site, group.name)


def _changed(group: Group) -> Busy:
    """While a command about its pair waited for the peer."""
    return Busy(
        f"the pair of {group.name} was changed by somebody else meanwhile",
        subject=group.name,
        position=str(group.end),
        next_step=f"`farshore pair show {group.name}`, then try again",
    )


def _group_to_pair(site: Site, command: PairCreate) -> Group:
    """The group, which this site must write. WrongState."""
    name = command.group
    clone = site.exports.clone(name)
    if clone is not None:
        raise WrongState(
            f"{name} is a clone of group {clone.history.name}: it stays at this site, and has no pair",
            subject=name,
            next_step=f"`farshore pair create {clone.history.name} --with {command.peer}` pairs the group",
        )
    group, pair = site.group(name), site.state.pair(name)
    if command.replace is not UNSET and pair is not None and not group.writes:
        raise WrongState(
            f"group {name} is written at {pair.peer}, not here",
            subject=name,
            position=str(group.end),
            next_step=f"if {pair.peer} is gone for good, `farshore takeover {name} --confirm {name}`",
        )
    return writable_group(site, name)


@carries_out(PairShow)
async def show(site: Site, command: PairShow) -> PairInfo:
    """One pair, from either end."""
    return pair_info(site, command.group)


@carries_out(PairSplit)
async def split(site: Site, command: PairSplit) -> PairInfo:
    """Pause; the peer stays at whatever it has."""
    group = writable_group(site, command.group)
    await _leave_strict(site, group, command.confirm)
    site.pairs.split(command.group)
    return pair_info(site, command.group)


@carries_out(PairSet)
async def set_pair(site: Site, command: PairSet) -> PairInfo:
    """Change the mode."""
    group = writable_group(site, command.group)
    shipper = site.pairs.shipper(group.name)
    if command.mode is not None:
        mode = Mode(command.mode)
        if mode is not Mode.SYNC_STRICT:
            await _leave_strict(site, group, command.confirm)
        shipper.gate.set_mode(mode)
        if shipper.connected:
            # Before any write is acknowledged by the new mode: who takes over goes on in it.
            shipper.heartbeat()
        site.events.emit("pair.mode", group=group.name, peer=shipper.peer, mode=mode.value)
    return pair_info(site, group.name)


async def _leave_strict(site: Site, group: Group, confirm: str) -> None:
    """Before a write is acknowledged that the peer may lack, the peer knows that it may: else a takeover
    there would say that nothing is lost. NotAllowed if it does not answer and the operator did not
    confirm; WrongState or Busy if meanwhile this site writes no more, or to another peer."""
    if not group.strict:
        return
    shipper = site.pairs.shipper(group.name)
    group.append_records([StrictMode(on=False)])
    end = group.end.position

    def known() -> bool:
        # Here too: a power loss that took it would leave the promise in this journal, and in what it ships.
        return min(shipper.marks.remote_durable, group.writer.durable) >= end

    is_known = await wait_until(site, known, LEAVE_STRICT_S)
    require_primary(site, group)
    if site.shippers.get(group.name) is not shipper:
        raise _changed(group)
    if is_known:
        return
    if confirm == group.name:
        site.events.emit(
            "pair.promise_given_up", group=group.name, peer=shipper.peer, position=str(group.end)
        )
        return
    group.append_records([StrictMode(on=True)])
    raise NotAllowed(
        f"{shipper.peer} does not answer, and would go on believing that it has every write",
        subject=group.name,
        position=str(group.end),
        next_step=f"mend the link; or, if {shipper.peer} will not be taken over, add --confirm {group.name}",
    )


@carries_out(PairResync)
async def resync(site: Site, command: PairResync) -> PairInfo:
    """Go on from there, in order."""
    group = writable_group(site, command.group)
    site.pairs.resync(group, Choice(command.source or "none"))
    shipper = site.pairs.shipper(group.name)
    await wait_until(site, lambda: shipper.connected or shipper.state is not PairState.COPYING, COMPARE_S)
    if shipper.state is PairState.DIVERGED:
        raise Diverged(
            f"both sites wrote group {group.name}: {shipper.reason}",
            subject=group.name,
            position=str(shipper.compared.fork or group.end),
            next_step=f"`farshore pair resync {group.name} --source local` or `--source remote` says whose "
            "history stays",
        )
    return pair_info(site, command.group)


@carries_out(PairDelete)
async def delete(site: Site, command: PairDelete) -> PairDeleteReply:
    """End the pair at this site."""
    group = site.group(command.group)
    pair = site.state.pair(group.name)
    if pair is None:
        raise WrongState(f"group {group.name} has no pair", subject=group.name, next_step="`farshore status`")
    check_confirm(command.confirm, group.name, dry_run=False)
    if group.name in site.shippers:
        await _leave_strict(site, group, command.confirm)
    site.pairs.delete(group)
    return PairDeleteReply(group=group.name, peer=pair.peer)


@carries_out(WaitFor)
async def wait(site: Site, command: WaitFor) -> WaitReply:
    """Until a state, or until a position is durable at every attached site."""
    group = site.group(command.group)
    target = command.position.cut if command.position else group.end

    def reached() -> bool:
        if command.state is not None:
            state, code, _ = pair_state(site, group)
            # The names that are asked for have no blanks: `taken-over`, and `suspended` by its first word.
            words = (state.value.replace(" ", "-"), state.value.partition(" ")[0], code)
            return command.state in (state.value, *words)
        return _durable_everywhere(site, command.group, target)

    ok = await wait_until(site, reached, command.timeout_s)
    state, code, _ = pair_state(site, group)
    info = group_info(site, group)
    at = group.end if command.state is not None else target
    return WaitReply(
        reached=ok,
        state=state.value,
        code=code,
        position=str(at),
        time=time_or_none(time_of(group, at)),
        remote_durable=info.remote_durable,
        lag_bytes=info.lag_bytes,
        lag_s=info.lag_s,
    )


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
