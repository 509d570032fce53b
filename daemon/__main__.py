"""The daemon's own command line, which `farshore site init|run|adopt` hands over to.

python -m daemon init DIR --name N [--control EP] [--replication EP] [--advertise EP] [--nbd ADDR]
[--insecure] [--pair TOKEN] [--control-socket-mode MODE]
python -m daemon run DIR
python -m daemon adopt DIR
python -m daemon check DIR
python -m daemon replay DIR --until CUT --descriptor N [--volume G/V] [--without-index] [--partial]
python -m daemon journal DIR --group G [--since TIMELINE:POSITION] [--limit N]

`replay` is for `farshore journal replay`, which holds the other end of the socket with that descriptor.
What a verb needs alone is loaded with it: `init` and `adopt` need next to nothing, the engine takes a while.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import socket
import sys

import msgspec

from daemon.config import CONTROL_SOCKET_MODE, SiteConfig, load_config
from daemon.data_directory import adopt_site, check_identity, lock_site, mark_upgraded, read_keys
from daemon.log_writer import fill_standard_descriptors
from daemon.logs import configure_logs
from protocol.commands.base import Reply, check_name
from protocol.commands.journal import JournalShow, OfflineJournalReply, ReplayFound
from protocol.commands.site import SiteAdoptReply, SiteCheckReply, SiteInitReply
from protocol.cut_text import CutPosition
from protocol.errors import FarshoreError, system_error
from protocol.positions import parse_cut
from protocol.printable import printable


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="farshore site")
    verbs = parser.add_subparsers(dest="verb", required=True)
    init = verbs.add_parser("init", help="make a site's data directory")
    init.add_argument("directory", type=pathlib.Path)
    init.add_argument("--name", required=True)
    for option in ("control", "replication", "advertise"):
        init.add_argument(f"--{option}", default="")
    init.add_argument("--nbd", action="append", default=[])
    init.add_argument("--insecure", action="store_true")
    init.add_argument("--pair", default="")
    init.add_argument("--control-socket-mode", default=CONTROL_SOCKET_MODE)
    for name, text in (
        ("run", "run the daemon in the foreground"),
        ("adopt", "make a copied directory this site's"),
        ("check", "look whether the site could start"),
    ):
        verbs.add_parser(name, help=text).add_argument("directory", type=pathlib.Path)
    replay = verbs.add_parser("replay", help="serve what a dead site's directory holds to one host")
    replay.add_argument("directory", type=pathlib.Path)
    replay.add_argument("--until", required=True)
    replay.add_argument("--volume", default="")
    replay.add_argument("--descriptor", type=int, required=True)
    replay.add_argument("--without-index", action="store_true")
    replay.add_argument("--partial", action="store_true")
    journal = verbs.add_parser("journal", help="show what a dead site's journal holds")
    journal.add_argument("directory", type=pathlib.Path)
    journal.add_argument("--group", required=True)
    journal.add_argument("--since", default="")
    journal.add_argument("--limit", type=int, default=50)
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true")
    return parser


def _init(arguments: argparse.Namespace) -> SiteInitReply:
    from daemon.new_site import make_introduced

    config = SiteConfig(
        name=arguments.name,
        control=arguments.control,
        replication=arguments.replication,
        advertise=arguments.advertise,
        nbd=tuple(arguments.nbd),
        insecure=arguments.insecure,
        control_socket_mode=arguments.control_socket_mode,
    )
    return make_introduced(arguments.directory, config, arguments.pair)


def _check(directory: pathlib.Path) -> SiteCheckReply:
    from daemon.site_check import check_site

    return check_site(directory)


def _run(directory: pathlib.Path) -> int:
    from daemon.service import run_site

    identity = check_identity(directory)
    config = load_config(directory)
    keys = read_keys(directory)
    lock = lock_site(directory)
    try:
        mark_upgraded(directory, identity)
        log_dropped = configure_logs(config.name)
        return asyncio.run(run_site(directory, config, identity, keys, log_dropped))
    finally:
        lock.close()


def _journal(arguments: argparse.Namespace) -> OfflineJournalReply:
    from daemon.offline import show_journal

    since = parse_cut(arguments.since) if arguments.since else None
    command = JournalShow(
        group=check_name(arguments.group, "group"),
        since=CutPosition(timeline=since.timeline, position=since.position) if since else None,
        limit=arguments.limit,
    )
    return show_journal(arguments.directory, command)


def _replay(arguments: argparse.Namespace) -> int:
    from daemon.offline import Replay, serve_replay

    replay = Replay(
        directory=arguments.directory,
        until=arguments.until,
        volume=arguments.volume,
        with_index=not arguments.without_index,
        partial=arguments.partial,
    )

    def ready(found: ReplayFound) -> None:
        data = msgspec.to_builtins(found)
        print(json.dumps({"api": 1, "kind": "journal.replay", "data": data}), flush=True)

    serve_replay(replay, socket.socket(fileno=arguments.descriptor), ready)
    return 0


def _tell(error: FarshoreError, as_json: bool) -> int:
    """Say what is wrong; the exit code."""
    if as_json:
        print(json.dumps({"api": 1, "kind": "error", "errors": [error.as_dict()]}))
        return int(error.exit_code)
    print(f"error: {printable(error.message)}", file=sys.stderr)
    for label, value in (("object", error.subject), ("position", error.position), ("next", error.next_step)):
        if value:
            print(f"  {label}: {printable(value)}", file=sys.stderr)
    return int(error.exit_code)


def main(words: list[str] | None = None) -> int:
    """Returns the exit code."""
    fill_standard_descriptors()
    # With the owner's bits in it, a directory could be made that its owner may not enter, and stay so.
    os.umask(os.umask(0o077) & 0o077)
    arguments = _parser().parse_args(words)
    arguments.directory = arguments.directory.absolute()
    site = None
    reply: Reply
    try:
        if arguments.verb == "run":
            return _run(arguments.directory)
        if arguments.verb == "replay":
            return _replay(arguments)
        if arguments.verb == "init":
            reply = made = _init(arguments)
            site, place = made.site, printable(made.directory)
            kind, text = "site.init", f"site {site} is in {place}\nnext: farshore site run {place}"
        elif arguments.verb == "journal":
            reply = _journal(arguments)
            kind, text = "journal.show", json.dumps(msgspec.to_builtins(reply), indent=1)
        elif arguments.verb == "check":
            reply = _check(arguments.directory)
            kind, text = "site.check", json.dumps(msgspec.to_builtins(reply), indent=1)
        else:
            identity = adopt_site(arguments.directory)
            reply = SiteAdoptReply(directory=str(arguments.directory), site_id=identity.site_id)
            kind, text = "site.adopt", f"{printable(reply.directory)} belongs to this machine now"
    except FarshoreError as error:
        return _tell(error, arguments.json)
    except OSError as error:
        return _tell(system_error(error), arguments.json)
    if arguments.json:
        data = msgspec.to_builtins(reply)
        print(json.dumps({"api": 1, "kind": kind, "site": site, "data": data}))
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
