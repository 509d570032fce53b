"""Whatever the loop calls back is in a compartment, or is one of those that stop the daemon.

Read from the code: a new callback or task makes this red until it is said here which it is. Those named with
DAEMON are what docs/durability.md, "A defect", lists as stopping it. tests/unit/daemon/test_compartments.py
throws from the others.
"""

from __future__ import annotations

import ast

from tests.tidy.source_tree import ROOT

LOOP_CALLS = {
    "call_soon", "call_later", "call_at", "call_soon_threadsafe", "add_reader", "add_writer", "create_task",
    "ensure_future", "add_done_callback", "run_in_executor", "to_thread",
}  # fmt: skip
PACKAGES = ("engine", "daemon", "site_primary", "site_secondary")

GROUP = "a group's clock or threads, held by its compartment (engine/group/compartment.py)"
CONNECTION = "guarded by the connection"
BINDING = "does nothing but bind, and tries again (engine/ports/zmq_transport.py)"
RESOLVING = "guarded: a defect is of the link that asked (engine/ports/resolver.py)"
SESSION = "guarded by the link, which ends"
AWAITED = "awaited or reported by whoever began it"
WITNESS = "guarded: a defect costs the witness one look (daemon/witness.py)"
ALERTS = "guarded: a defect costs one look (daemon/alerts/watch.py), or one child's work"
REMOVAL = "guarded: a defect leaves files that no seed is made of (engine/history/seeds.py)"
COUNTING = "guarded where it is called back (engine/repeats.py)"
CALLS = "guarded by the session (site_secondary/peer_door.py)"
TURN = "guarded: a defect is of whoever had the turn (site_primary/shipping/rate_limit.py)"
RATES = "guarded: a defect leaves a peer's rate as it was until the next look (daemon/peer_traffic.py)"
APART = "another process"
RELOAD = "guarded: a defect leaves the configuration as it was (daemon/service.py)"
EVENTS = "guarded: it says that events are not kept (daemon/real_parts.py)"
SCHEDULED = "guarded: a defect is a run that failed (daemon/scheduler.py)"
DAEMON = "stops the daemon"

WHERE = {
    "daemon/alerts/watch.py:start": ALERTS,
    "daemon/control.py:_begin": AWAITED,
    "daemon/control.py:_receive": AWAITED,
    "daemon/control.py:start": DAEMON,
    "daemon/event_log.py:look_up": AWAITED,
    "daemon/indexer_pool.py:": GROUP,
    "daemon/indexer_process.py:": GROUP,
    "daemon/jobs.py:_begin": AWAITED,
    "engine/peering/pair_timers.py:": GROUP,
    "daemon/metrics/source.py:": ALERTS,
    "daemon/notify/relay.py:": ALERTS,
    "daemon/operations/drill_report.py:report_of": AWAITED,
    "daemon/operations/site_cert.py:_take_up_cryptography": AWAITED,
    "daemon/operations/schedule_times.py:checked_zone": AWAITED,
    "daemon/peer_traffic.py:": RATES,
    "daemon/real_parts.py:": EVENTS,
    "daemon/scheduler.py:look_at": SCHEDULED,
    "daemon/scheduler.py:start": DAEMON,
    "daemon/service.py:run_site": RELOAD,
    "daemon/service_manager.py:": DAEMON,
    "daemon/site.py:spawn": AWAITED,
    "daemon/site_groups.py:move": AWAITED,
    "daemon/witness.py:_tick": WITNESS,
    "engine/history/base_intake.py:": GROUP,
    "engine/history/base_remains.py:": GROUP,
    "engine/history/branch_drop.py:": GROUP,
    "engine/history/seeds.py:": REMOVAL,
    "engine/index/checkpoint_timing.py:": GROUP,
    "engine/index/compaction.py:": GROUP,
    "engine/group/compartment.py:": GROUP,
    "engine/ports/durable.py:": GROUP,
    "engine/retention/reclaim.py:": GROUP,
    "engine/journal/writer.py:": GROUP,
    "engine/retention/journal_space.py:": GROUP,
    "engine/peering/peer_answers.py:": GROUP,
    "engine/peering/peer_requests.py:": GROUP,
    "engine/ports/clock.py:": GROUP,
    "engine/ports/resolver.py:": RESOLVING,
    "engine/ports/zmq_link.py:": SESSION,
    "engine/ports/zmq_transport.py:": BINDING,
    "engine/ports/zmq_pump.py:": DAEMON,
    "engine/repeats.py:": COUNTING,
    "engine/retention/timed_leases.py:": GROUP,
    "engine/group/turned_back.py:": GROUP,
    "site_primary/shipping/base_sender.py:": GROUP,
    "site_primary/shipping/fetcher.py:": GROUP,
    "site_primary/guard.py:": APART,
    "site_primary/nbd/gathering.py:": CONNECTION,
    "site_primary/nbd/host_budget.py:": CONNECTION,
    "site_primary/nbd/stream.py:": CONNECTION,
    "site_primary/nbd/listener.py:": DAEMON,
    "site_primary/nbd/server.py:": CONNECTION,
    "site_primary/nbd/tls.py:": CONNECTION,
    "site_primary/shipping/send_window.py:": GROUP,
    "site_primary/quiesce.py:": AWAITED,
    "site_primary/shipping/session.py:": GROUP,
    "site_primary/sync_gate.py:": GROUP,
    "site_primary/shipping/rate_limit.py:": TURN,
    "site_secondary/base_receiver.py:": GROUP,
    "site_secondary/receiver.py:": GROUP,
    "site_primary/rewrite_volume.py:": AWAITED,
    "site_secondary/waiting_calls.py:": CALLS,
}


def calls() -> set[str]:
    """`file:function` of every place that gives the loop something to call back."""
    found = set()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for function in ast.walk(ast.parse(path.read_text())):
                if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                for node in ast.walk(function):
                    called = node.func if isinstance(node, ast.Call) else None
                    word = called.attr if isinstance(called, ast.Attribute) else ""
                    if word.lstrip("_") in LOOP_CALLS:
                        found.add(f"{name}:{function.name}")
    return found


def place_of(call: str) -> str:
    """The row of WHERE that says what becomes of it."""
    return call if call in WHERE else call.partition(":")[0] + ":"


def test_every_callback_of_the_loop_has_its_compartment() -> None:
    unknown = {call for call in calls() if place_of(call) not in WHERE}
    assert not unknown, f"say in {__file__} where a defect in these ends: {sorted(unknown)}"


def test_nothing_is_listed_that_is_not_there() -> None:
    assert set(WHERE) <= {place_of(call) for call in calls()}


def test_what_stops_the_daemon_is_what_the_docs_say() -> None:
    text = (ROOT / "docs" / "durability.md").read_text().partition("## A defect")[2]
    for each in {call.partition(":")[0] for call, where in WHERE.items() if where == DAEMON}:
        assert f"`{each}`" in text, f"docs/durability.md does not name {each}"
