"""`farshore seed`: which copies of volumes the site was given as files (`volume import --seed`)."""

from __future__ import annotations

from typing import Annotated

import typer

from console.commands.volume import VolumeArgument
from console.figures import size_text
from console.options import After, Limit
from console.session import session_of
from protocol.commands.base import check_name, parse_volume_name
from protocol.commands.seed import SeedList, SeedRemove

app = typer.Typer(
    help="Copies of volumes, given as files, that spare the link.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_seeds(
    ctx: typer.Context,
    group: Annotated[str | None, typer.Argument(metavar="G", help="One group only.")] = None,
    limit: Limit = None,
    after: After = None,
) -> None:
    """Every seed that this site keeps."""
    session = session_of(ctx)
    data = session.listed(SeedList(group=None if group is None else check_name(group, "group")), limit, after)
    session.output.result(
        "seed.list",
        data,
        lambda: session.output.table(
            ("volume", "size"),
            [(f"{seed.group}/{seed.volume}", size_text(seed.size_bytes)) for seed in data.seeds],
            empty="no seeds: `farshore volume import FILE G/V --seed`",
        ),
    )
    session.say_more(data)


@app.command()
def remove(ctx: typer.Context, volume: VolumeArgument) -> None:
    """Keep a volume's seed no longer, nor what unfinished imports left."""
    session = session_of(ctx)
    group, name = parse_volume_name(volume)
    data = session.call(SeedRemove(group=group, volume=name))
    session.output.result(
        "seed.remove", data, lambda: session.output.line(f"the seed of {group}/{name} is removed")
    )
