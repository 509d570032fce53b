"""A check of one's own tried at one cut of a group after another, each time on a temporary clone."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from console.figures import local_text
from console.luks.secret import LuksKey
from console.mounts.checks import Verdict, run_check, volume_variables
from console.mounts.clones import attached, cloned
from console.mounts.filesystems import file_system, luks_at
from console.mounts.partition_choice import PartitionChoice
from console.mounts.unlocked import open_clone
from console.session import Session
from protocol.commands.base import Reply
from protocol.cut_text import CutPosition
from protocol.errors import FarshoreError, NotAllowed
from protocol.positions import Cut


class ProbeStep(Reply, frozen=True, kw_only=True):
    """Progress of `bisect`: a cut that was tried, as `TIMELINE:POSITION`. `said`: the end of what the check
    printed."""

    cut: str
    time: str | None
    good: bool
    said: str


class Prober:
    """Tries the check at one cut after another. `said` is the end of what the last one said."""

    def __init__(
        self,
        session: Session,
        group: str,
        volume: str | None,
        check: str,
        *,
        raw: bool,
        partitions: PartitionChoice,
        timeout_s: float,
        key: LuksKey,
    ) -> None:
        self._session = session
        self._group = group
        self._volume = volume
        self._check = check
        self._raw = raw
        self._partitions = partitions
        self._timeout_s = timeout_s
        self._key = key
        self._had: set[str] = set()  # volumes that were mounted at an earlier cut
        self.said = ""
        self.probes = 0

    def probe(self, cut: Cut, time: str | None) -> bool:
        """Whether the check calls this cut good. A file system that cannot be mounted is bad. Raises
        FarshoreError when the check cannot be carried out."""
        verdict = self._verdict(cut, time)
        self.probes += 1
        self.said = verdict.said
        word = "good" if verdict.ok else "bad"
        output = self._session.output
        output.progress(ProbeStep(cut=str(cut), time=time, good=verdict.ok, said=verdict.said[-500:]))
        output.note(f"{cut} {local_text(time, self._session.zone)} {word}")
        return verdict.ok

    def _verdict(self, cut: Cut, time: str | None) -> Verdict:
        named = CutPosition(timeline=cut.timeline, position=cut.position)
        with ExitStack() as stack:
            clone = stack.enter_context(cloned(self._session, self._group, self._volume, named, "bisect"))
            self._partitions.require_volumes(clone.volumes, self._group)
            staged: dict[str, tuple[Path | None, str]] = {}
            missing = ""
            for volume in clone.volumes:
                made = stack.enter_context(attached(self._session, clone.clone, volume))
                if self._raw:
                    staged[volume] = (None, str(made.file))
                    continue
                try:
                    number = self._partitions.number(volume, made, alone=len(clone.volumes) == 1)
                    place = luks_at(made.file, number) if self._key.available else None
                    if place is None:
                        device = made.make_device(read_only=False, number=number)
                    else:
                        device = open_clone(self._session, made, place, number, self._key)
                    made.make_point()
                    made.mount(file_system(Path(device)), writable=True, replay=True)
                except NotAllowed:
                    # A wrong key says nothing of the cut.
                    raise
                except FarshoreError as error:
                    missing = f"{volume}: {error.message}"
                    if volume in self._had:
                        return Verdict(ok=False, said=missing)
                    # Swap and the like among others: the check knows which of them it needs.
                    staged[volume] = (None, made.device)
                    continue
                staged[volume] = (made.point, device)
                self._had.add(volume)
            if missing and all(point is None for point, _ in staged.values()):
                return Verdict(ok=False, said=missing)
            variables = {
                **volume_variables(staged),
                "FARSHORE_GROUP": self._group,
                "FARSHORE_CUT": str(cut),
                "FARSHORE_CUT_TIME": time or "",
                "FARSHORE_CLONE": clone.clone,
            }
            return run_check(self._check, variables, self._timeout_s)
