"""A gate in front of a real group, with everything that happens around it written down in one list."""

from __future__ import annotations

from engine.peering.pair_states import Mode
from site_primary.sync_gate import SyncGate
from tests.unit.engine.group_rig import GroupRig

TIMEOUT_S = 5.0


class Held:
    """See the module's docstring. `log`: what became durable, what was asked, who was answered and how."""

    def __init__(self, rig: GroupRig) -> None:
        self.rig = rig
        self.log: list[object] = []
        self.rows: list[tuple[Mode, bool]] = []
        self.disk_error: OSError | None = None
        self.volume = rig.create("root", 64)
        self.gate = SyncGate(rig.group, TIMEOUT_S)

    def persist(self, mode: Mode, fallen_back: bool) -> None:
        if self.disk_error is not None:
            raise self.disk_error
        self.rows.append((mode, fallen_back))
        self.log.append(("durable", fallen_back))

    def start(self, mode: Mode, *, fallen_back: bool = False, connected: bool = True) -> None:
        self.gate.start(
            mode,
            fallen_back=fallen_back,
            persist=self.persist,
            ask_durable=lambda position: self.log.append(("ask", position)),
        )
        if connected:
            self.gate.on_session(connected=True)
            self.acknowledge()

    def write(self) -> int:
        self.rig.write(self.volume, 3, b"x")
        return self.rig.group.writer.written

    def wait(self, name: str) -> int:
        """Write, and wait at the gate as a connection does."""
        position = self.write()
        self.gate.wait(position, lambda error: self.log.append((name, error is None)))
        return position

    def flush(self, name: str) -> None:
        position = self.rig.group.writer.written
        self.gate.wait_durable(position, lambda error: self.log.append((name, error is None)))

    def acknowledge(self, written: int | None = None, durable: int | None = None) -> None:
        """The peer has everything, or up to where it is said."""
        end = self.rig.group.writer.written
        written = end if written is None else written
        self.gate.on_marks(written, written if durable is None else durable)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.rig.events if kind.startswith("pair.")]
