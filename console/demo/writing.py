"""The demo's first half: two sites, a real file system on a mirrored volume, fio's own checks, a backup."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from console.demo.image import make_image
from console.demo.report import Step
from console.demo.sites import GROUP, DemoSite, introduce
from console.demo.tools import TOOL_TIMEOUT_S, copy, fio_words, fsck, identical
from console.figures import parse_size, size_text
from console.mounts.programs import run
from protocol.commands.backup import BackupCreate
from protocol.commands.pair import PairCreate
from protocol.commands.volume import VolumeCreate
from protocol.cut_text import CutLabel, CutPosition
from protocol.positions import parse_cut

FILES = "files"
SCRATCH = "scratch"
LABEL = "before"
IMAGE_SIZE = "512M"
CONTENT_BYTES = 200 << 20
SCRATCH_SIZE = "256M"
FIO_SIZE = "128m"


@dataclass(slots=True, kw_only=True)
class Stage:
    """What the steps share: both sites, and a directory for images and copies."""

    primary: DemoSite
    secondary: DemoSite
    directory: Path

    @property
    def image(self) -> Path:
        """The image that the volume must be equal to."""
        return self.directory / "files.img"

    def copied(self, name: str, uri: str) -> Path:
        """An export copied to a file by nbdcopy; an earlier copy of that name is replaced."""
        target = self.directory / name
        target.unlink(missing_ok=True)
        copy(uri, target, cwd=self.directory)
        return target

    def as_image(self, uri: str) -> tuple[bool, str]:
        """Whether an export is equal to the image, by qemu-img compare, and what that said."""
        return identical(self.image, uri, cwd=self.directory)


def position(text: str) -> CutPosition:
    """`TIMELINE:POSITION` as a command takes it."""
    cut = parse_cut(text)
    return CutPosition(timeline=cut.timeline, position=cut.position)


def two_sites(stage: Stage, step: Step) -> None:
    """Both daemons, introduced to each other, and a paired group."""
    for site in (stage.primary, stage.secondary):
        step.command(
            f"farshore site init {site.directory} --name {site.name} --replication tcp://127.0.0.1:…"
        )
        site.init()
    for site in (stage.primary, stage.secondary):
        step.command(f"farshore site run {site.directory}")
        site.launch()
    for site in (stage.primary, stage.secondary):
        site.wait_ready()
    step.proof("both daemons answer", True, f"sites {stage.primary.name} and {stage.secondary.name}")
    step.command("farshore peer add TOKEN")
    fingerprint = introduce(stage.primary, stage.secondary)
    step.proof("keys pinned, CURVE on", bool(fingerprint), f"b is {fingerprint[:19]}…")
    for name, size in ((FILES, IMAGE_SIZE), (SCRATCH, SCRATCH_SIZE)):
        step.command(f"farshore volume create {GROUP}/{name} --size {size}")
        stage.primary.call(VolumeCreate(group=GROUP, volume=name, size_bytes=parse_size(size)))
    step.command(f"farshore pair create {GROUP} --with {stage.secondary.name} --mode async")
    stage.primary.call(PairCreate(group=GROUP, peer=stage.secondary.name))
    data = stage.primary.wait_state("paired")
    step.proof("the group is paired", data.state == "paired", f"{data.state} ({data.code})")


def real_files(stage: Stage, step: Step) -> None:
    """An ext4 image onto the volume by nbdcopy, and what the volume then holds."""
    filling = make_image(stage.image, size=IMAGE_SIZE, content_bytes=CONTENT_BYTES)
    step.note(f"ext4 image of {IMAGE_SIZE} with {filling.files} files, {size_text(filling.content_bytes)}")
    step.mark()
    uri = stage.primary.uri(FILES)
    step.command(f"nbdcopy --flush files.img '{uri}'")
    copy(stage.image, uri, cwd=stage.directory)
    step.proof("nbdcopy wrote the image and flushed", True, uri.partition("?")[0])
    step.proof("live volume equal to the image (qemu-img compare)", *stage.as_image(uri))
    back = stage.copied("back.img", uri)
    step.proof("its file system is clean (e2fsck -fn)", *fsck(back))


def at_both_sites(stage: Stage, step: Step) -> None:
    """Wait for the secondary, and compare it at the position that it reached."""
    step.command(f"farshore wait {GROUP}")
    reached = stage.primary.wait_durable()
    cut = reached.position
    step.proof("everything durable at both sites", reached.reached, f"up to {cut}")
    uri = stage.secondary.uri(FILES, position(cut))
    step.command(f"qemu-img compare files.img 'nbd+unix:///{GROUP}/{FILES}@{cut}?socket=…/b/nbd.sock'")
    step.proof("secondary at that cut equal to the image", *stage.as_image(uri))


def fio_verify(stage: Stage, step: Step) -> None:
    """fio writes blocks with checksums at random, reads them back and checks them."""
    uri = stage.primary.uri(SCRATCH)
    options = ["--rw=randwrite", "--bs=4k", f"--size={FIO_SIZE}", "--iodepth=16", "--verify=crc32c"]
    words = fio_words(uri, "verify", *options, "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0")
    step.command(f"fio --ioengine=nbd {' '.join(options)}")
    text = run(*words, "--end_fsync=1", cwd=stage.directory, timeout_s=TOOL_TIMEOUT_S)
    step.proof("fio verified every block (crc32c)", "err= 0" in text, f"{FIO_SIZE}iB random 4 KiB, depth 16")


def backup(stage: Stage, step: Step) -> None:
    """A labelled backup: a mark in the journal, available at both sites when the command returns."""
    step.command(f"farshore backup create {GROUP} --label {LABEL}")
    data = stage.primary.call(BackupCreate(group=GROUP, label=LABEL))
    step.proof(
        "available at both sites",
        len(data.state) == 2 and set(data.state.values()) == {"available"},
        f"{LABEL} is {data.cut.text}, {data.took_ms:.1f} ms",
    )


def read_the_past(stage: Stage, step: Step) -> None:
    """The backup read as a disk of its own, at either site, while the live volume is wrecked."""
    for site in (stage.primary, stage.secondary):
        uri = site.uri(FILES, CutLabel(label=LABEL))
        place = f"{GROUP}/{FILES}@{LABEL}?socket=…/{site.name}/nbd.sock"
        step.command(f"qemu-img compare files.img 'nbd+unix:///{place}'")
        step.proof(f"@{LABEL} at {site.name} equal to the image", *stage.as_image(uri))
        step.proof(f"@{LABEL} at {site.name} clean (e2fsck -fn)", *fsck(stage.copied("past.img", uri)))
