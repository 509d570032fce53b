"""The demo's middle: the volume wrecked, turned back, the turning back undone, and done again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from console.demo.host import Host
from console.demo.report import Step
from console.demo.sites import GROUP
from console.demo.tools import fsck, sha256
from console.demo.writing import FILES, LABEL, Stage, position
from console.figures import size_text
from protocol.commands.restore import RestoreReply, RestoreVolume
from protocol.cut_text import CutLabel, NamedCut

PIECE_BYTES = 1 << 20
NAME = f"{GROUP}/{FILES}"


def _pieces(size_bytes: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Every third MiB, the first included, in random order, with random content."""
    offsets = list(range(0, size_bytes, 3 * PIECE_BYTES))
    random.Random(seed).shuffle(offsets)
    for offset in offsets:
        yield offset, os.urandom(min(PIECE_BYTES, size_bytes - offset))


def damage(stage: Stage, step: Step, seed: int) -> str:
    """Overwrite a third of the volume; the sha256 of what is left."""
    with Host(stage.primary.nbd_socket, NAME) as host:
        written_bytes = host.write_all(_pieces(host.size_bytes, seed), depth=8)
        host.flush()
        share = written_bytes / host.size_bytes
    text = f"{size_text(written_bytes)}, {share:.0%} of the volume"
    step.proof("a third overwritten with random bytes over NBD", share > 0.33, text)
    same, _ = stage.as_image(stage.primary.uri(FILES))
    step.proof("the live volume differs from the image", not same)
    wreck = stage.copied("wreck.img", stage.primary.uri(FILES))
    clean, said = fsck(wreck)
    step.proof("its file system is wrecked (e2fsck -fn)", not clean, said)
    digest = sha256(wreck)
    step.note(f"sha256 of the wreck: {digest}")
    return digest


def restore(stage: Stage, step: Step) -> str:
    """Turn the volume back to the backup; the cut that was left, which is the way back."""
    step.command(f"farshore restore volume {NAME} --at {LABEL} --confirm {NAME} --online")
    data = _restore(stage, CutLabel(label=LABEL))
    step.proof(
        "turned back by one event in the journal",
        data.checked_blocks > 0 and data.online,
        f"{data.took_ms:.1f} ms, {data.checked_blocks} blocks sampled",
    )
    live = stage.primary.uri(FILES)
    step.proof("live volume equal to the image", *stage.as_image(live))
    step.proof("its file system is clean (e2fsck -fn)", *fsck(stage.copied("back.img", live)))
    return data.head.text


def undo(stage: Stage, step: Step, left: str, wreck_sha256: str) -> None:
    """Undo the restore: the wreck is back; and turn back once more."""
    step.command(f"farshore restore volume {NAME} --at {left} --confirm {NAME} --online")
    data = _restore(stage, position(left))
    digest = sha256(stage.copied("undone.img", stage.primary.uri(FILES)))
    text = f"sha256 {digest[:16]}…, {data.took_ms:.1f} ms"
    step.proof("undone: the live volume is the wreck again", digest == wreck_sha256, text)
    step.command(f"farshore restore volume {NAME} --at {LABEL} --confirm {NAME} --online")
    again = _restore(stage, CutLabel(label=LABEL))
    same, said = stage.as_image(stage.primary.uri(FILES))
    step.proof("turned back again: equal to the image", same, f"{said} {again.took_ms:.1f} ms")
    cut = stage.primary.wait_durable().position
    past = stage.secondary.uri(FILES, position(cut))
    same, said = stage.as_image(past)
    step.proof("the secondary followed: equal to the image", same, f"at {cut}")


def _restore(stage: Stage, cut: NamedCut) -> RestoreReply:
    stage.primary.wait_without_hosts(FILES)
    return stage.primary.call(
        RestoreVolume(group=GROUP, volume=FILES, cut=cut, confirm=NAME, start=True), timeout_s=120
    )
