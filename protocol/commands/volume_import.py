"""An image that is written into a volume, which no host sees until it is whole."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.bounds import Name
from protocol.commands.base import BaseCommand
from protocol.commands.cut import CutInfo
from protocol.commands.volume import VolumeInfo, VolumeUriReply

FillToken = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]


class VolumeFillReply(VolumeUriReply, frozen=True, kw_only=True):
    """Where to write the image: an export for whoever has `token` only. `before` is what the volume was, and
    the way back."""

    token: str
    before: CutInfo


class VolumeFill(BaseCommand[VolumeFillReply], frozen=True, tag="volume.fill"):
    """Close a volume without hosts to all but one that is to write an image, from here until `volume.filled`,
    at both sites and over restarts; again: the one before may write no more."""

    group: Name
    volume: Name


class VolumeFilled(BaseCommand[VolumeInfo], frozen=True, tag="volume.filled"):
    """The image is there as it should be: open the volume to hosts."""

    group: Name
    volume: Name
    token: FillToken
