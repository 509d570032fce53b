"""What a verification has read, and what it found to be damaged. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.integrity.faults import Damage, Fault

DAMAGE_MAX = 1000


@dataclass(slots=True)
class Verified:
    """What was read, and what is wrong with it: at most `damage_max` of it, `missed` counts the rest."""

    frames: int = 0
    journal_bytes: int = 0
    versions: int = 0
    version_bytes: int = 0
    damage: list[Damage] = field(default_factory=list)
    missed: int = 0
    damage_max: int = DAMAGE_MAX

    def add(self, fault: Fault, *place: int) -> None:
        """Note damage at a place of three or four numbers."""
        if len(self.damage) >= self.damage_max:
            self.missed += 1
            return
        first, second, third, *fourth = place
        self.damage.append(Damage(fault, (first, second, third, fourth[0] if fourth else 0)))
