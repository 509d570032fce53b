"""A site in a container: another host name and machine id at each start, and the switch against that, as the
commands in the container file set it. Namespaces stand for the container; its image is not built here
(docs/testing.md).
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from protocol.errors import ExitCode
from tests.conftest import missing
from tests.support.clients import succeed
from tests.support.sites import ROOT, Site, short_directory

CONTAINERFILE = ROOT / "packaging" / "Containerfile"
SWITCH = "FARSHORE_MACHINE_ID"


class ContainerSite(Site):
    """Each start of it is a container of its own, and so is each command that needs no daemon."""

    is_of_this_checkout = False
    switch = ""
    starts = 0

    def environment(self) -> dict[str, str]:
        """See `Site.environment`."""
        return super().environment() | ({SWITCH: self.switch} if self.switch else {})

    def command(self) -> list[str]:
        """See `Site.command`."""
        self.starts += 1
        machine = self.directory.parent / f"machine-{self.starts}"
        machine.write_text(f"{self.starts:032x}\n")
        script = f"hostname container-{self.starts}; mount --bind {machine} /etc/machine-id; exec {{}}"
        words = shlex.join(super().command()) + ' "$@"'
        return ["unshare", "--mount", "--uts", "sh", "-ec", script.format(words), "sh"]


def commands() -> list[str]:
    """What the container file says to type, less the mark of a comment and what is said beside it."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if line.startswith("#   ")]
    return [re.split(r" {3,}", line.removeprefix("#   "))[0] for line in lines]


def switch_of_the_commands() -> str:
    """The value that each container gets, the one that makes the site and the one that runs it."""
    (alias,) = [each for each in commands() if each.startswith("alias ")]
    name, words = alias.removeprefix("alias ").split("=", 1)
    assert [each.split()[0] for each in commands() if " farshore" in each and "podman" not in each] == [
        name
    ] * 2
    options = shlex.split(shlex.split(words)[0])
    (found,) = [each for each in options if each.startswith(f"{SWITCH}=")]
    assert options[options.index(found) - 1] == "-e"
    return found.removeprefix(f"{SWITCH}=")


def test_c40_a_container_goes_on_with_the_switch_of_the_container_file() -> None:
    if os.geteuid() != 0 or not Path("/etc/machine-id").exists():
        missing("needs root, and a machine id to hide")
    site = ContainerSite(short_directory() / "a", "a")
    try:
        site.switch = switch_of_the_commands()
        site.init()
        for label in ("one", "two"):
            site.start()
            if label == "one":
                site.create_volume("g/v", "1M")
            site.farshore("backup", "create", "g", "--label", label)
            assert site.stop() == 0
        site.switch = ""
        assert SWITCH in site.refuses_to_run(ExitCode.NOT_ALLOWED)
        site.check_log()
    finally:
        site.kill()
        succeed("rm", "-r", site.directory.parent)
