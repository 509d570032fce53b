"""`volume export`, `volume import`, `journal replay`: files that they refuse before they begin."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.console.conftest import Ran
from tests.unit.console.stub_site import StubSite


@pytest.mark.parametrize("word", ["export", "replay"])
def test_no_image_into_a_site(home: Path, stub: StubSite, farshore: Callable[..., Ran], word: str) -> None:
    """Neither into the one that is asked nor into another one that is known, by links or `..`; a dead one,
    which is replayed, is nobody's."""
    config, other = home / "config/farshore", home / "par"
    config.mkdir(parents=True)
    (config / "sites.toml").write_text(f'[sites.par]\ndirectory = "{other}"\n')
    (other / "groups").mkdir(parents=True)
    (home / "link").symlink_to(other)
    site = home / "lon"
    asked = (site / "v.img", other / "../lon/v.img") if word == "export" else ()
    for file in (other / "groups/v.img", home / "link/v.img", *asked):
        words = {
            "export": ("volume", "export", "vm1/root", str(file), "--site", str(site)),
            "replay": ("journal", "replay", str(site), "--output", str(file)),
        }
        ran = farshore(*words[word])
        assert ran.code == 2, ran
        assert f"{file} is within the data directory" in ran.err
    assert stub.asked == []


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_pipe_is_not_waited_for(
    home: Path, stub: StubSite, farshore: Callable[..., Ran], kind: str
) -> None:
    pipe = home / "pipe"
    os.mkfifo(pipe)
    ran = farshore("volume", "import", str(pipe), "vm1/root", "--format", kind, "--site", str(home / "lon"))
    assert ran.code == 1
    assert "neither a file nor a block device" in ran.err
    assert stub.asked == []
