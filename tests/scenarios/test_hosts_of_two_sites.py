"""Hosts with certificates where the writing moves: each site lets in whom it knows, and nobody else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import MIB, call, patchy_image, succeed
from tests.support.pairs import start_pair
from tests.support.sites import Site
from tests.support.tls_doors import with_tls


def uri(site: Site, volume: str, host: str) -> str:
    """By which a host of that site finds a volume there."""
    files = site.directory.parent / f"{host}-of-{site.name}"
    if not files.exists():
        site.farshore("site", "cert", "issue", host, "--to", str(files))
    port = site.farshore("volume", "uri", volume, "--tcp").strip().partition("?")[0]
    return f"{port}?tls-certificates={files}"


@pytest.mark.slow
def test_a_host_goes_where_the_writing_goes(
    pair: tuple[Site, Site], tool: Callable[[str], str], tmp_path: Path
) -> None:
    lon, par = pair
    for site in pair:
        with_tls(site)
    start_pair(lon, par, "vm1/root", 8 * MIB)
    for site in pair:
        site.farshore("volume", "allow", "vm1/root", "hyper", "rw")
    there = uri(lon, "vm1/root", "hyper")
    image = patchy_image(tmp_path / "image", 8 * MIB, seed=5)
    succeed(tool("nbdcopy"), "--flush", image, there)
    assert call(tool("nbdinfo"), uri(lon, "vm1/root", "other")).returncode != 0

    # The lists are not in the journal: each site was told.
    par.farshore("volume", "disallow", "vm1/root", "--all")
    assert [each["host"] for each in lon.json("volume", "access", "vm1/root")["entries"]] == ["cert:hyper"]
    par.farshore("volume", "allow", "vm1/root", "hyper", "rw")

    cut = lon.json("wait", "vm1", "--timeout", "60")["position"]
    past = json.loads(succeed(tool("nbdinfo"), "--json", uri(par, f"vm1/root@{cut}", "hyper")))
    assert past["exports"][0]["is_read_only"] is True
    lon.farshore("switchover", "vm1", "--confirm", "vm1")
    par.farshore("wait", "vm1", "--state", "paired", "--timeout", "60")

    assert call(tool("nbdinfo"), there).returncode != 0  # it is written at the other site now
    back = tmp_path / "back"
    succeed(tool("nbdcopy"), uri(par, "vm1/root", "hyper"), back)
    assert back.read_bytes() == image.read_bytes()
    succeed(tool("nbdcopy"), "--flush", image, uri(par, "vm1/root", "hyper"))

    # A certificate of one site says nothing at the other, even if the host trusts both.
    mixed = tmp_path / "mixed"
    shutil.copytree(lon.directory.parent / f"hyper-of-{lon.name}", mixed)
    shutil.copy(par.directory.parent / f"hyper-of-{par.name}" / "ca-cert.pem", mixed)
    place = uri(par, "vm1/root", "hyper").partition("?")[0]
    assert call(tool("nbdinfo"), f"{place}?tls-certificates={mixed}").returncode != 0
    said = [each["reason"] for each in par.log() if each["event"] == "nbd.tls_refused"]
    assert said == ["TLS: unable to get local issuer certificate"]

    # What a site was told outlives it.
    par.kill()
    par.start()
    assert call(tool("nbdinfo"), uri(par, "vm1/root", "other")).returncode != 0
    assert call(tool("nbdinfo"), uri(par, "vm1/root", "hyper")).returncode == 0
