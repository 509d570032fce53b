"""The child process that notifies: orders on standard input, reports on standard output
(`daemon.notify.messages`).

Each target has a thread and a bounded queue of its own: what one waits for, no other does. A try that fails
is made again later and later, and given up after `GIVE_UP_S`; a full queue loses its oldest. Both are
counted. A ping is left out while the daemon does not say that all is well. Another set-up changes targets
while they run: what is queued for one that stays is sent as the new one says, at once. At the end of its
input the child sends what is queued for `LINGER_S` at most.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import BinaryIO

from daemon.notify.config import NotifyConfig, redacted, secret_of
from daemon.notify.messages import Alive, Notice, Report, Setup, ToChild, Tried, Try, decode_order, encode
from daemon.notify.senders import ERRORS, Undelivered, ping, send
from engine.ports.clock import monotonic_s
from protocol.commands.event import EventInfo
from protocol.limits import NOTIFY_QUEUE_MAX

RETRY_S, RETRY_MAX_S = 1.0, 300.0
GIVE_UP_S = 86_400.0
LINGER_S = 5.0
# The daemon says so every few seconds: its loop may stand still for a while under load.
ALIVE_FOR_S = 30.0
_LEVELS = ("info", "warning", "error")


@dataclass(frozen=True, slots=True)
class _Waiting:
    event: EventInfo
    since_s: float


def wants(name: str, target: NotifyConfig, notice: Notice) -> bool:
    """Whether a target is told. That one does not work, another one says."""
    event = notice.event
    if event.kind.startswith("notify.") and event.object == name and not event.site:
        return False
    if _LEVELS.index(notice.weight) < _LEVELS.index(target.min_level) or (event.site and not target.peers):
        return False
    return not target.events or any(fnmatchcase(event.kind, pattern) for pattern in target.events)


def attempt_send(target: NotifyConfig, site: str, event: EventInfo | None) -> tuple[str, bool]:
    """One try, or a ping: the error without secrets, or nothing; and whether no other try will do."""
    secret = ""
    try:
        secret = secret_of(target)
        if event is None:
            ping(target)
        else:
            send(target, secret, site, event)
    except Undelivered as error:
        return redacted(str(error), target, secret), error.final
    except ERRORS as error:
        return redacted(f"{type(error).__name__}: {error}", target, secret)[:500], False
    return "", False


class Target:
    """One of [notify.NAME]. Its thread ends with the process."""

    def __init__(self, name: str, target: NotifyConfig, site: str, report: Callable[[Report], None]) -> None:
        self.name, self.target = name, target
        self._site = site
        self._report = report
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._sent = self._dropped = 0
        self._busy = False
        self._moved = False
        self._gone = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name=f"notify {self.name}", daemon=True).start()

    def change(self, target: NotifyConfig) -> None:
        """Go by this from now on."""
        with self._changed:
            if target != self.target:
                self.target, self._moved = target, True
                self._changed.notify_all()

    def end(self) -> None:
        """It is no target any more; what is queued is dropped."""
        with self._changed:
            self._gone.set()
            self._queue.clear()
            self._changed.notify_all()

    def put(self, event: EventInfo) -> None:
        """Queue it."""
        with self._changed:
            if len(self._queue) >= NOTIFY_QUEUE_MAX:
                self._queue.popleft()
                self._dropped += 1
            self._queue.append(_Waiting(event, monotonic_s()))
            self._changed.notify_all()

    def wait_empty(self, deadline_s: float) -> None:
        """Until all is sent, or the time is over."""
        with self._changed:
            while (self._queue or self._busy) and (left_s := deadline_s - monotonic_s()) > 0:
                self._changed.wait(left_s)

    def _run(self) -> None:
        delay_s = RETRY_S
        while True:
            with self._changed:
                while not self._queue and not self._gone.is_set():
                    self._changed.wait()
                if self._gone.is_set():
                    return
                waiting = self._queue.popleft()
                self._busy, self._moved = True, False
                target = self.target
            error, final = attempt_send(target, self._site, waiting.event)
            over = final or monotonic_s() - waiting.since_s > GIVE_UP_S
            with self._changed:
                self._busy = False
                if self._gone.is_set():
                    return
                if not error:
                    self._sent, delay_s = self._sent + 1, RETRY_S
                elif over or len(self._queue) >= NOTIFY_QUEUE_MAX:
                    self._dropped += 1
                else:
                    self._queue.appendleft(waiting)
                self._changed.notify_all()
                figures = {"sent": self._sent, "dropped": self._dropped, "queued": len(self._queue)}
            self._report(Report(name=self.name, error=error, **figures))
            if error:
                with self._changed:
                    moved = self._changed.wait_for(lambda: self._moved or self._gone.is_set(), delay_s)
                delay_s = RETRY_S if moved else min(2 * delay_s, RETRY_MAX_S)


class Pings:
    """A ping target: fetched every while as long as all is well."""

    def __init__(self, name: str, target: NotifyConfig, report: Callable[[Report], None]) -> None:
        self.name, self.target = name, target
        self._report = report
        self._well_at = float("-inf")
        self._said = threading.Event()
        self._moved = threading.Event()
        self._gone = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name=f"notify {self.name}", daemon=True).start()

    def change(self, target: NotifyConfig) -> None:
        """Go by this from now on."""
        if target != self.target:
            self.target = target
            self._moved.set()

    def end(self) -> None:
        """It is no target any more."""
        self._gone = True
        self._moved.set()
        self._said.set()

    def alive(self, well: bool) -> None:
        """What the daemon says."""
        self._well_at = monotonic_s() if well else float("-inf")
        self._said.set()

    def _run(self) -> None:
        sent = dropped = 0
        while True:
            self._said.wait()
            if self._gone:
                return
            if monotonic_s() - self._well_at > ALIVE_FOR_S:
                self._said.clear()
                continue
            error, _ = attempt_send(self.target, "", None)
            sent, dropped = sent + (not error), dropped + bool(error)
            self._report(Report(name=self.name, sent=sent, dropped=dropped, queued=0, error=error))
            self._moved.wait(self.target.every_s)
            self._moved.clear()


class Worker:
    """Carries out the daemon's orders."""

    def __init__(self, setup: Setup, output: BinaryIO) -> None:
        self._site = setup.site
        self._output = output
        self._lock = threading.Lock()
        self._targets: dict[str, Target] = {}
        self._pings: dict[str, Pings] = {}
        self._set_up(setup)

    def _set_up(self, setup: Setup) -> None:
        self._configs = setup.targets
        for here, pings in ((self._targets, False), (self._pings, True)):
            wanted = {name for name, config in setup.targets.items() if bool(config.ping) is pings}
            for name in here.keys() - wanted:
                here.pop(name).end()
        for name, config in setup.targets.items():
            each = self._pings.get(name) or self._targets.get(name)
            if each is not None:
                each.change(config)
            elif config.ping:
                self._pings[name] = Pings(name, config, self._say)
                self._pings[name].start()
            else:
                self._targets[name] = Target(name, config, self._site, self._say)
                self._targets[name].start()

    def take(self, order: ToChild) -> None:
        """One order; waits for nobody."""
        match order:
            case Setup():
                self._set_up(order)
            case Notice():
                for target in self._targets.values():
                    if wants(target.name, target.target, order):
                        target.put(order.event)
            case Alive(well=well):
                for each in self._pings.values():
                    each.alive(well)
            case Try():
                threading.Thread(target=self._try, args=(order,), daemon=True).start()

    def end(self) -> None:
        """Send what is queued, for a while."""
        deadline_s = monotonic_s() + LINGER_S
        for target in self._targets.values():
            target.wait_empty(deadline_s)

    def _try(self, order: Try) -> None:
        config, began_s = self._configs[order.name], monotonic_s()
        error, _ = attempt_send(config, self._site, None if config.ping else order.event)
        self._say(Tried(id=order.id, error=error, took_s=round(monotonic_s() - began_s, 3)))

    def _say(self, message: Report | Tried) -> None:
        with self._lock:
            try:
                self._output.write(encode(message))
                self._output.flush()
            except OSError:
                return  # the daemon is gone: so is this process soon


def main() -> None:
    """Until the end of standard input."""
    first = decode_order(sys.stdin.buffer.readline())
    if not isinstance(first, Setup):
        raise SystemExit("the first line is the set-up")
    worker = Worker(first, sys.stdout.buffer)
    for line in sys.stdin.buffer:
        worker.take(decode_order(line))
    worker.end()


if __name__ == "__main__":
    main()
