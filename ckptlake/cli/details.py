"""All there is to know of one run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ckptlake.cli import wording
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, name_column, number_column
from ckptlake.cli.lookup import find_run

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

    from ckptlake.lake import Lake

Row = Mapping[str, Any]

_RUN = "SELECT * FROM runs WHERE run_id = $run_id"
_PARAMS = "SELECT key, kind, number, text, json FROM params WHERE run_id = $run_id ORDER BY key"
_TAGS = "SELECT key, kind, number, text, json FROM tags WHERE run_id = $run_id ORDER BY key"
_METRICS = """
SELECT s.* EXCLUDE (run_id, experiment), direction, step_metric,
    CASE direction WHEN 'min' THEN s.min WHEN 'max' THEN s.max END AS best,
    CASE direction WHEN 'min' THEN s.min_step WHEN 'max' THEN s.max_step END AS best_step
FROM summaries s LEFT JOIN definitions USING (experiment, metric)
WHERE run_id = $run_id
ORDER BY starts_with(metric, 'system/'), metric
"""
_RELATED = """
SELECT run_id, name, experiment, status, started_at, CASE WHEN parent_run_id = $run_id THEN 'child' ELSE 'fork' END
    AS relation, forked_from_step
FROM runs WHERE parent_run_id = $run_id OR forked_from_run_id = $run_id
ORDER BY started_at, run_id
"""
_HEAD = ("name", "experiment", "status", "attempt", "started", "ended", "duration", "parent", "forked from")


@dataclass(frozen=True, slots=True)
class Details:
    """One run with its params, tags, metrics, and the runs nested under it or forked from it."""

    run: Row
    params: Sequence[Row]
    tags: Sequence[Row]
    metrics: Sequence[Row]
    related: Sequence[Row]

    def document(self) -> dict[str, object]:
        """Return everything as one mapping."""
        packages = self.run["packages"]
        return {
            **self.run,
            "packages": None if packages is None else json.loads(packages),
            "params": {row["key"]: _typed(row) for row in self.params},
            "tags": {row["key"]: _typed(row) for row in self.tags},
            "metrics": {row["metric"]: {k: v for k, v in row.items() if k != "metric"} for row in self.metrics},
            "children": [row["run_id"] for row in self.related if row["relation"] == "child"],
            "forks": [row["run_id"] for row in self.related if row["relation"] == "fork"],
        }


def read_details(lake: Lake, text: str) -> Details:
    """Return the details of the run whose id is or begins with `text`; raises as `find_run` does."""
    run_id = find_run(lake, text).run_id
    (run,) = _rows(lake.sql(_RUN, run_id=run_id))
    params, tags, metrics, related = (
        _rows(lake.sql(query, run_id=run_id)) for query in (_PARAMS, _TAGS, _METRICS, _RELATED)
    )
    return Details(run, params, tags, metrics, related)


def _rows(relation: DuckDBPyRelation) -> list[Row]:
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def _typed(row: Row) -> object:
    """Return a param's or tag's value as it was given; NaN and infinities have no JSON."""
    return json.loads(row["json"]) if row["json"] is not None else row["number"]


def _as_text(row: Row) -> str:
    if row["text"] is not None:
        return str(row["text"])
    return str(row["json"]) if row["json"] is not None else wording.number(row["number"])


def show(details: Details) -> None:
    """Print the details."""
    console.line(details.run["run_id"], style="bold")
    console.pairs(_head(details.run))
    surroundings = _surroundings(details.run)
    if surroundings:
        console.heading("Surroundings")
        console.pairs(surroundings)
    for title, rows in (("Params", details.params), ("Tags", details.tags)):
        if rows:
            console.heading(title)
            console.pairs([(row["key"], _as_text(row)) for row in rows])
    if details.metrics:
        console.heading("Metrics")
        _show_metrics(details.metrics)
    for title, relation in (("Children", "child"), ("Forks", "fork")):
        rows = [row for row in details.related if row["relation"] == relation]
        if rows:
            console.heading(title)
            _show_related(rows)
    if details.run["notes"] is not None:
        console.heading("Notes")
        console.block(details.run["notes"])


def _head(run: Row) -> list[tuple[str, str]]:
    duration_s = run["duration_s"]
    if run["status"] == "running":
        duration_s = (datetime.now(UTC) - run["started_at"]).total_seconds()
    pairs = [
        ("name", run["name"]),
        ("experiment", run["experiment"]),
        ("status", run["status"] if run["attempt"] == 1 else f"{run['status']}, attempt {run['attempt']}"),
        ("started", f"{wording.moment(run['started_at'], seconds=True)} UTC"),
    ]
    if run["ended_at"] is not None:
        pairs.append(("ended", f"{wording.moment(run['ended_at'], seconds=True)} UTC"))
    pairs.append(("duration", wording.duration(duration_s)))
    if run["parent_run_id"] is not None:
        pairs.append(("parent", run["parent_run_id"]))
    if run["forked_from_run_id"] is not None:
        pairs.append(("forked from", f"{run['forked_from_run_id']} at step {run['forked_from_step']}"))
    return pairs


def _surroundings(run: Row) -> list[tuple[str, str]]:
    pairs = []
    if run["command"] is not None:
        pairs.append(("command", run["command"]))
    if run["host"] is not None:
        pairs.append(("host", f"{run['host']}, process {run['pid']}"))
    if run["python"] is not None:
        pairs.append(("python", run["python"]))
    if run["packages"] is not None:
        pairs.append(("packages", f"{len(json.loads(run['packages']))}, named by --json"))
    if run["git_commit"] is not None:
        pairs.append(("git", _git(run)))
    return pairs


def _git(run: Row) -> str:
    branch = f" on {run['git_branch']}" if run["git_branch"] is not None else ""
    if not run["git_dirty"]:
        return f"{run['git_commit']}{branch}"
    changed = f", {wording.size(run['git_diff_bytes'])} of changes" if run["git_diff_bytes"] else ""
    return f"{run['git_commit']}{branch}, not clean{changed}"


def _show_metrics(rows: Sequence[Row]) -> None:
    columns = [
        name_column("metric", shortest=28),
        number_column("points", rank=3),
        number_column("last"),
        number_column("at step", rank=1),
        number_column("min"),
        number_column("at step", rank=1),
        number_column("max"),
        number_column("at step", rank=1),
        Column("direction", rank=2),
        number_column("NaN", rank=4),
    ]
    console.note(console.table(columns, [_metric_cells(row) for row in rows]))


def _metric_cells(row: Row) -> list[str]:
    cells = [row["metric"], f"{row['n']:,}"]
    for name in ("last", "min", "max"):
        step = row[f"{name}_step"]
        cells += [wording.number(row[name]), "-" if step is None else str(step)]
    return [*cells, row["direction"] or "-", str(row["n_nan"]) if row["n_nan"] else "-"]


def _show_related(rows: Sequence[Row]) -> None:
    columns = [
        Column("id"),
        name_column("name"),
        name_column("experiment"),
        Column("status"),
        Column("started (UTC)", rank=1),
    ]
    cells = [
        [row["run_id"], row["name"], row["experiment"], row["status"], wording.moment(row["started_at"])]
        for row in rows
    ]
    console.note(console.table(columns, cells))
