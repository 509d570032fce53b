"""The process around a site: signals, readiness, and limits of the operating system."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import os
import pathlib
import resource
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from msgspec import Raw

from daemon.audit import audited
from daemon.background import Background
from daemon.config import SiteConfig, control_access
from daemon.control import ControlKeys, ControlServer
from daemon.data_directory import Identity, Keys
from daemon.operations import dispatch
from daemon.operations.job import resume_jobs
from daemon.operations.paging import encoded
from daemon.real_parts import real_site
from daemon.reloading import reload_when_told
from daemon.service_manager import ServiceManager, status_line
from daemon.site import Site
from protocol.commands.base import Command
from protocol.errors import ExitCode, FarshoreError
from protocol.limits import DESCRIPTORS_MIN

log = structlog.get_logger()

# Versions in the memtable are plain integers in dicts: walking them for cycles finds nothing and
# stalls hosts.
GC_THRESHOLDS = (50_000, 50, 1000)


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < DESCRIPTORS_MIN:
        log.warning("daemon.few_descriptors", limit=hard, advised=DESCRIPTORS_MIN)


def _prefer_batches() -> None:
    """Do not preempt a host's process in the middle of sending its requests: SCHED_BATCH (sched(7)) lets it
    finish its time slice, and what is then waiting goes into one frame. On idle processors it changes
    nothing."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def exception_handler(
    on_defect: Callable[[str], None],
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """What the loop does with an exception that came up to it. It was in no compartment but, perhaps, a
    connection's: asyncio has closed that one. Anything else leaves the site in a state that nobody thought
    of: stop, so that the service manager starts one that has recovered. A connection that breaks is no
    defect."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) or error is None:
            log.warning("daemon.loop", message=context.get("message"), error=str(error))
        elif _is_of_a_connection(context):
            log.error("connection.defect", message=context.get("message"), exc_info=error)
        else:
            log.error("daemon.defect", message=context.get("message"), exc_info=error)
            on_defect(str(error))

    return handle


def _is_of_a_connection(context: dict[str, Any]) -> bool:
    """Whether the loop was calling back one stream connection: its protocol, by name or by what is called."""
    if isinstance(context.get("transport"), asyncio.Transport):
        return True
    called = getattr(context.get("handle"), "_callback", None)
    return isinstance(getattr(called, "__self__", None), asyncio.Transport)


async def _permitted(site: Site, command: Command) -> Raw:
    site.operators.check(command)
    return encoded(await dispatch(site, command))


def _remote_control(
    site: Site, loop: asyncio.AbstractEventLoop, carry_out: Callable[[Command], Awaitable[Raw]]
) -> ControlServer | None:
    """Where operators command the site over the network, if that is configured."""
    if not site.config.remote_control:
        return None
    keys = ControlKeys(
        secret_key=site.keys.secret, public_key=site.keys.public, operators=site.operators.keys
    )
    return ControlServer(loop, site.config.remote_control, carry_out, keys=keys)


async def run_site(
    directory: pathlib.Path,
    config: SiteConfig,
    identity: Identity,
    keys: Keys,
    log_dropped: Callable[[], int],
) -> int:
    """Serve until SIGTERM or SIGINT, then stop cleanly. Returns the exit code; FarshoreError or OSError if it
    cannot start. `log_dropped`: how many lines of the log are missing."""
    loop = asyncio.get_running_loop()
    _raise_file_limit()
    _prefer_batches()
    gc.set_threshold(*GC_THRESHOLDS)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Until the site runs there is nothing to reload; unhandled, it would end the process.
    reloads = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, reloads.set)
    defects: list[str] = []

    def on_defect(error: str) -> None:
        defects.append(error)
        stop.set()

    loop.set_exception_handler(exception_handler(on_defect))
    manager = ServiceManager(os.environ, loop.time, os.getpid())
    site = real_site(directory, config, identity, keys, loop, log_dropped, manager.progress)

    async def carry_out(command: Command) -> Raw:
        return await audited(site.events.emit, command, _permitted(site, command))

    control = ControlServer(loop, site.control_endpoint, carry_out, access=control_access(config))
    remote = _remote_control(site, loop, carry_out)
    background = Background(site)
    manager.begin(loop, lambda: status_line(site))
    try:
        await site.start()
        resume_jobs(site)
        control.start()
        if remote is not None:
            remote.start()
            site.operators.on_change = remote.allow
        background.start()
    except (FarshoreError, OSError):
        if remote is not None:
            await remote.close()
        await control.close()
        await site.stop()
        manager.close()
        raise
    gc.freeze()
    log.info("site.ready", directory=str(directory), groups=sorted(site.groups), pid=os.getpid())
    site.events.emit("site.started", version=importlib.metadata.version("farshore"), pid=os.getpid())
    manager.ready(status_line(site))
    reloading = loop.create_task(reload_when_told(site, reloads, manager))
    await stop.wait()
    reloading.cancel()
    manager.stopping()
    log.info("site.stopping")
    await background.close()
    try:
        if remote is not None:
            await remote.close()
        await control.close()
    finally:
        await site.stop()
        manager.close()
    return int(ExitCode.FAILED) if defects else int(ExitCode.OK)
