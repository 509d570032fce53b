"""The daemon's end and its real child: what fails is tried again, and hurts nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from daemon.event_log import EventLog
from daemon.notify.config import NotifyConfig
from daemon.notify.relay import Relay
from engine.ports.clock import SystemClock
from protocol.errors import NotFound, Unreachable
from tests.support.receivers import http_server
from tests.unit.daemon.test_control import in_loop

PATIENCE_S = 20.0


async def until(look: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not look():  # noqa: ASYNC110 - what is awaited is in another process
            await asyncio.sleep(0.02)


@in_loop
async def test_what_fails_is_tried_again_and_the_others_are_told() -> None:
    log = EventLog(SystemClock(asyncio.get_running_loop()))
    with http_server() as broken, http_server() as works:
        broken.statuses += [500, 500]
        targets = {"bad": NotifyConfig(webhook=broken.url), "good": NotifyConfig(webhook=works.url)}
        relay = Relay("lon", targets, log, SystemClock(asyncio.get_running_loop()))
        relay.start(lambda: True)
        log.emit("group.fenced", group="g")
        log.emit("backup.created", group="g")
        await until(lambda: len(broken.requests) == 3)
        await until(lambda: relay.reports.get("bad") and not relay.reports["bad"].error)
        await relay.close()
    assert relay.reports["bad"].sent == 1
    assert len({request.headers["X-Farshore-Delivery"] for request in broken.requests}) == 1
    told = [request.headers["X-Farshore-Event"] for request in works.requests]
    assert told == ["group.fenced", "notify.failing", "notify.failing"]


@in_loop
async def test_a_child_that_dies_is_started_again_and_nothing_is_lost() -> None:
    log = EventLog(SystemClock(asyncio.get_running_loop()))
    with http_server() as server:
        clock = SystemClock(asyncio.get_running_loop())
        relay = Relay("lon", {"hook": NotifyConfig(webhook=server.url)}, log, clock)
        relay.start(lambda: True)
        log.emit("group.fenced", group="g")
        await until(lambda: server.requests)
        child: Any = relay._process
        child.kill()
        await child.wait()
        log.emit("group.taken_over", group="g")
        await until(lambda: len(server.requests) == 2)
        await relay.close()
    assert server.requests[1].headers["X-Farshore-Event"] == "group.taken_over"


@in_loop
async def test_a_ping_comes_while_all_is_well_and_stops_when_it_is_not() -> None:
    log = EventLog(SystemClock(asyncio.get_running_loop()))
    well = [True]
    with http_server() as server:
        clock = SystemClock(asyncio.get_running_loop())
        relay = Relay("lon", {"dog": NotifyConfig(ping=server.url, every_s=1.0)}, log, clock)
        relay.start(lambda: well[0])
        await until(lambda: len(server.requests) >= 2)
        well[0] = False
        log.emit("group.fenced", group="g")  # wakes the relay
        await until(lambda: relay.lost == 0 and log.last >= 1)
        count = len(server.requests)
        await asyncio.sleep(2.5)
        assert len(server.requests) <= count + 1
        await relay.close()


@in_loop
async def test_a_test_says_what_is_wrong() -> None:
    log = EventLog(SystemClock(asyncio.get_running_loop()))
    with http_server() as server:
        clock = SystemClock(asyncio.get_running_loop())
        targets = {"hook": NotifyConfig(webhook=server.url), "no": NotifyConfig(exec=("false",))}
        relay = Relay("lon", targets, log, clock)
        with pytest.raises(Unreachable):
            await relay.test("hook")
        relay.start(lambda: True)
        await until(lambda: relay._process)
        assert (await relay.test("hook")).error == ""
        assert "ended with 1" in (await relay.test("no")).error
        with pytest.raises(NotFound):
            await relay.test("other")
        await relay.close()


@in_loop
async def test_targets_change_while_the_child_runs_and_what_waits_is_sent_as_they_say_now() -> None:
    loop = asyncio.get_running_loop()
    log = EventLog(SystemClock(loop))
    log.emit("group.fenced", group="before")
    with http_server() as old, http_server() as new, http_server() as other:
        old.statuses += [500] * 1000
        relay = Relay("lon", {}, log, SystemClock(loop))
        relay.start(lambda: True)
        relay.change({"hook": NotifyConfig(webhook=old.url), "gone": NotifyConfig(exec=("false",))})
        log.emit("group.fenced", group="g")
        await until(lambda: old.requests and relay.reports.get("gone"))
        child: Any = relay._process
        relay.change({"hook": NotifyConfig(webhook=new.url), "dog": NotifyConfig(ping=other.url)})
        await until(lambda: new.requests and other.requests)
        (request,) = [each for each in new.requests if each.headers["X-Farshore-Event"] == "group.fenced"]
        assert request.headers["X-Farshore-Delivery"] == old.requests[0].headers["X-Farshore-Delivery"]
        assert b'"group":"g"' in request.body
        found = [(e.object, e.resolved) for e in log.newer(0) if e.kind == "notify.failing"]
        assert ("gone", True) in found
        assert set(relay.reports) <= {"hook", "dog"}
        with pytest.raises(NotFound):
            await relay.test("gone")
        relay.change({"dog": NotifyConfig(webhook=other.url)})
        assert (await relay.test("dog")).error == ""
        log.emit("group.fenced", group="h")
        await until(lambda: [each for each in other.requests if b'"group":"h"' in each.body])
        assert relay._process is child
        relay.change({})
        await relay.close()
    assert not [each for each in new.requests if b'"group":"h"' in each.body]
