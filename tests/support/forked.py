"""Real daemons driven by the control client, without a process for each command."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from console.client import Client
from daemon.config import SiteConfig
from daemon.data_directory import make_site
from protocol.commands.base import BaseCommand, ReplyType
from protocol.commands.peer import PeerAdd
from protocol.commands.site import SiteToken
from protocol.endpoints import control_endpoint
from tests.support.sites import Site, short_directory

CALL_TIMEOUT_S = 90.0


class ForkedSite(Site):
    """Made and called from the test's own process."""

    def make(self, settings: str) -> None:
        """As `farshore site init` does."""
        endpoint = f"tcp://127.0.0.1:{self.replication_port}"
        make_site(self.directory, SiteConfig(name=self.name, replication=endpoint))
        with (self.directory / "site.toml").open("a") as config:
            config.write(settings)

    def call(self, command: BaseCommand[ReplyType]) -> ReplyType:
        """Carry out a command by the control socket; FarshoreError as the operator would get it."""
        client = Client(control_endpoint(str(self.directory)), directory=str(self.directory))
        try:
            return client.call(command, CALL_TIMEOUT_S)
        finally:
            client.close()


@contextmanager
def forked_sites(*names: str, settings: str = "") -> Iterator[list[ForkedSite]]:
    """As `running_sites`."""
    parent: Path = short_directory()
    sites = [ForkedSite(parent / name, name) for name in names]
    try:
        for site in sites:
            site.make(settings)
            site.start()
        for one in sites:
            for other in sites:
                if one is not other:
                    one.call(PeerAdd(token=other.call(SiteToken()).token))
        yield sites
    finally:
        for site in sites:
            site.kill()
        shutil.rmtree(parent, ignore_errors=True)
