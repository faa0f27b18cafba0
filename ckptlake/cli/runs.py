"""`ckptlake runs …`: list them, show one, delete some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ckptlake.cli import wording
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, name_column, number_column
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake
from ckptlake.errors import InvalidInputError
from ckptlake.types import RunStatus

if TYPE_CHECKING:
    from ckptlake.cli.listing import ListedRun, Listing, Value

app = typer.Typer(help="List runs, show one, delete some.", no_args_is_help=True, rich_markup_mode=None)

STATUS_STYLES = {"running": "cyan", "finished": "green", "failed": "red", "killed": "yellow"}
_COLUMNS = (
    Column("id"),
    name_column("name", rank=1),
    name_column("experiment", rank=3),
    Column("status", rank=2, styles=STATUS_STYLES),
    Column("started (UTC)", rank=5),
    number_column("duration", rank=4),
)
_RUN_FIELDS = ("run_id", "name", "experiment", "status", "attempt", "started_at", "ended_at", "duration_s")
_VALUE_FIELDS = ("last", "last_step", "direction", "best", "best_step")


@app.command("list")
def list_runs(
    experiment: Annotated[
        str | None,
        typer.Option("--experiment", metavar="NAME", help="Only runs of this experiment and those below it."),
    ] = None,
    status: Annotated[
        list[RunStatus] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only running, finished, failed or killed runs; may be repeated.",
            case_sensitive=False,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="KEY[=VALUE]", help="Only runs with this tag; repeated: with all of them."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Show this metric's last value; may be repeated."),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Show each metric's best value too, where its direction is declared.")
    ] = False,
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            metavar="KEY[:asc|:desc]",
            help="id, name, experiment, status, started, duration, or a metric's name.",
        ),
    ] = "started",
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """List runs, the newest first.

    Sorted by a metric, the best come first where its direction is declared, else the smallest.
    """
    from ckptlake.cli import listing

    asked = listing.Listing(
        experiment=experiment,
        statuses=tuple(map(str, status or ())),
        tags=tuple(tag or ()),
        metrics=tuple(metric or ()),
        best=best,
        order=listing.Order.parse(sort),
        limit=limit,
    )
    with open_lake(lake) as opened:
        listed = listing.list_runs(opened, asked)
    if as_json:
        console.json_list([_document(run, asked) for run in listed.runs])
    elif not listed.runs:
        console.note("no run matches" if asked.is_selective else "no runs yet")
    else:
        omissions = console.table(_columns(asked), [_cells(run, asked) for run in listed.runs])
        if len(listed.runs) < listed.total:
            console.note(f"{len(listed.runs)} of {wording.count(listed.total, 'run')}; leave out --limit for all")
        console.note(omissions)
    console.note(*listed.remarks)


@app.command("show")
def show_run(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="A run's id, or enough of its beginning.")],
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Show all there is to know of one run.

    That is its params, tags and metrics, where and how it ran, its notes, and the runs below it.
    """
    from ckptlake.cli import details

    with open_lake(lake) as opened:
        found = details.read_details(opened, run_id)
    if as_json:
        console.json(found.document())
    else:
        details.show(found)


@app.command("delete")
def delete_runs(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN_ID", help="Ids, or enough of their beginnings.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; the ids must be whole.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Delete runs with all their rows.

    What goes is shown first, and asked about. Older snapshots of the tables still hold the rows until a vacuum
    deletes their files.
    """
    from ckptlake.cli import deletion

    if not yes and (as_json or not console.is_interactive):
        raise InvalidInputError("nothing is deleted unasked: give --yes where nobody can answer")
    with open_lake(lake) as opened:
        plan = deletion.plan(opened, run_ids, whole=yes)
        if not yes:
            deletion.show(plan)
            if not console.confirm(f"Delete {wording.count(len(plan), 'run')}?"):
                console.note("nothing is deleted")
                raise typer.Exit(1)
        rows = opened.delete_runs(*(run.run_id for run in plan))
    if as_json:
        console.json({"deleted": [run.run_id for run in plan], "rows": rows})
    else:
        console.line(f"deleted {wording.count(len(plan), 'run')} with {wording.count(rows, 'row')}")


def _columns(asked: Listing) -> list[Column]:
    columns = list(_COLUMNS)
    for metric in asked.shown_metrics:
        columns.append(number_column(metric))
        if asked.best:
            columns.append(number_column("best"))
    return columns


def _cells(run: ListedRun, asked: Listing) -> list[str]:
    cells = [
        run.run_id,
        "-" if run.name == run.run_id else run.name,
        run.experiment,
        run.status,
        wording.moment(run.started_at),
        wording.duration(run.elapsed_s),
    ]
    for metric in asked.shown_metrics:
        value = run.values.get(metric)
        cells.append(wording.number(None if value is None else value.last))
        if asked.best:
            cells.append(wording.number(None if value is None else value.best))
    return cells


def _document(run: ListedRun, asked: Listing) -> dict[str, object]:
    document = _fields(run, _RUN_FIELDS)
    if asked.shown_metrics:
        values = {metric: run.values.get(metric) for metric in asked.shown_metrics}
        document["metrics"] = {metric: value and _fields(value, _VALUE_FIELDS) for metric, value in values.items()}
    return document


def _fields(of: ListedRun | Value, names: Sequence[str]) -> dict[str, object]:
    return {name: getattr(of, name) for name in names}
