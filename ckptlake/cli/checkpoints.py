"""`ckptlake checkpoints …`: list them, show one, find the best; the modules beside this one do the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ckptlake.cli import checkpoint_care, checkpoint_exchange, checkpoint_names, checkpoint_space, wording
from ckptlake.cli.checkpoint_choice import (
    ExperimentOption,
    RunOption,
    WhichArgument,
    find_checkpoint,
    find_run_id,
    one_of,
)
from ckptlake.cli.console import console
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake
from ckptlake.types import Direction

_DIRECTIONS: tuple[Direction, ...] = ("min", "max")
app = typer.Typer(
    help="List, verify, export and delete checkpoints.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_checkpoints(
    run: RunOption = None,
    experiment: ExperimentOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Show this metric; may be repeated. Default: the two most used."),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            metavar="KEY[:asc|:desc]",
            help="saved, step, epoch, size, stored, id, run, experiment, status, or a metric's name.",
        ),
    ] = "saved",
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """List checkpoints, the newest first.

    Sorted by a metric, the best come first where its direction is declared, else the smallest.
    """
    from ckptlake.cli import checkpoint_listing as listing
    from ckptlake.cli.listing import Order
    from ckptlake.query.checkpoint_facts import directions

    order = Order.parse(sort)
    with open_lake(lake) as opened:
        records = opened.checkpoints.list(find_run_id(opened, run), experiment)
        descending = listing.is_descending(order, directions(opened.sql))
    chosen = listing.in_order(records, order, descending=descending)[:limit]
    if as_json:
        console.json_list(map(listing.document, chosen))
        return
    if not chosen:
        console.note("no checkpoints yet" if run is None and experiment is None else "no checkpoint matches")
        return
    metrics = listing.shown_metrics(records, metric or (), order)
    omissions = console.table(*listing.table(chosen, metrics))
    if len(chosen) < len(records):
        console.note(f"{len(chosen)} of {wording.count(len(records), 'checkpoint')}; leave out --limit for all")
    console.note(
        omissions,
        *(
            f"none of these checkpoints has the metric {name!r}"
            for name in metrics
            if all(name not in record.metrics for record in records)
        ),
    )


@app.command("show")
def show_checkpoint(
    which: WhichArgument,
    run: RunOption = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="Every tensor too, with its statistics.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Show all there is to know of one checkpoint."""
    from ckptlake.cli import checkpoint_details as details

    with open_lake(lake) as opened:
        record = find_checkpoint(opened, which, find_run_id(opened, run))
        rows = details.read_tensors(opened, record) if tensors else None
    if as_json:
        console.json(details.details(record, rows))
    else:
        details.show(record, rows)


@app.command("best")
def best(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="A metric that checkpoints were saved with.")],
    run: RunOption = None,
    experiment: ExperimentOption = None,
    direction: Annotated[
        str | None,
        typer.Option("--direction", metavar="min|max", help="Whether small or large is better; default as declared."),
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Show the checkpoint with the best value of a metric."""
    from ckptlake.cli import checkpoint_details as details

    told = None if direction is None else one_of(_DIRECTIONS, direction, "--direction")
    with open_lake(lake) as opened:
        run_id = find_run_id(opened, run)
        record = opened.checkpoints.best(metric, run=run_id, experiment=experiment, direction=told)
    if as_json:
        console.json(details.details(record, None))
    else:
        details.show(record, None)


_COMMANDS: dict[str, Callable[..., Any]] = {
    "diff": checkpoint_exchange.diff,
    "export": checkpoint_exchange.export,
    "import": checkpoint_exchange.import_checkpoint,
    "verify": checkpoint_care.verify,
    "repair": checkpoint_care.repair,
    "protect": checkpoint_care.protect,
    "prune": checkpoint_space.prune,
    "delete": checkpoint_space.delete,
    "gc": checkpoint_space.gc,
    "compact": checkpoint_space.compact,
    "du": checkpoint_space.du,
    "pin": checkpoint_names.pin,
    "unpin": checkpoint_names.unpin,
    "alias": checkpoint_names.alias,
    "unalias": checkpoint_names.unalias,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
