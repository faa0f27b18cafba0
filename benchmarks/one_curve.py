"""One curve out of all points, against DuckDB reading the right files by hand."""

from __future__ import annotations

from pathlib import Path

import duckdb

import ckptlake
from benchmarks.data import Shape, facts_of, many_files_lake, points_lake
from benchmarks.harness import Context, Row, Target, Timing, interleave
from benchmarks.opened import Opened
from ckptlake.tables.table import Table

QUERY = "SELECT step, value FROM metrics WHERE run_id = $run AND metric = $metric ORDER BY step"
BY_HAND = QUERY.replace("metrics", "read_parquet($files)")
METRIC = "train/loss"


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    shape = Shape(context.scaled(1000, 20), context.scaled(1000, 50), context.scaled(10_000, 100))
    compacted = points_lake(context, shape)
    scattered = many_files_lake(context, shape, experiments=context.scaled(100, 5), commits_a_run=5)
    repeats = context.scaled(30, 2)
    return [
        *_rows(compacted, "compacted", repeats),
        *_rows(scattered, "never compacted", repeats),
    ]


def _rows(path: Path, state: str, repeats: int) -> list[Row]:
    shape = facts_of(path)
    lake = ckptlake.open(path, settings=ckptlake.Settings(result_cache_bytes=0))
    name = f"run-{shape['runs'] // 2}"
    ((run_id, experiment),) = lake.sql(
        "SELECT run_id, experiment FROM runs WHERE name = $name ORDER BY started_at LIMIT 1",
        name=name,
    ).fetchall()
    metrics = lake.table("metrics")
    num_files = len(metrics.files())
    with duckdb.connect() as connection:
        right = _right_files(connection, metrics, run_id)
        bound = {"run": run_id, "metric": METRIC}
        with_files = {**bound, "files": right}
        timings = interleave(
            repeats,
            ours=lambda: lake.sql(QUERY, **bound).to_arrow_table(),
            rows=lambda: lake.sql(QUERY, **bound).fetchall(),
            by_hand=lambda: connection.sql(BY_HAND, params=with_files).to_arrow_table(),
        )
    with Opened(metrics.path) as opened:
        found = lake.sql(QUERY, **bound).to_arrow_table()
    assert found.num_rows == shape["long_steps"], f"{found.num_rows} points instead of {shape['long_steps']}"
    first = _first(path, bound)
    size = {
        "points": shape["points"],
        "files": num_files,
        "right_files": len(right),
        "experiment": experiment,
    }
    against = f"ms: DuckDB reading the right {len(right)} by hand"
    curve = f"{found.num_rows:,} points of {shape['points']:,}, {num_files} files {state}"
    return [
        Row(
            what=f"curve of {curve}",
            figure=timings["ours"].wall_ms,
            unit="ms",
            reference=timings["by_hand"].wall_ms,
            against=against,
            target=Target("at most", 1.5, of="ratio"),
            details={
                **size,
                **timings["ours"].details(),
                "fetchall_ms": timings["rows"].wall_ms,
                "by_hand": timings["by_hand"].details(),
            },
        ),
        Row(
            what=f"CPU of the same, {state}",
            figure=timings["ours"].cpu_ms,
            unit="ms",
            reference=timings["by_hand"].cpu_ms,
            against=against,
            details=size,
        ),
        Row(
            what=f"first time after opening the lake, {state}",
            figure=first.wall_ms,
            unit="ms",
            reference=timings["by_hand"].wall_ms,
            against=f"{against}, warm",
            details={**size, **first.details()},
        ),
        Row(
            what=f"files of points opened for it, {state}",
            figure=len([file for file in opened.files if "_delta_log" not in file]),
            unit="files",
            reference=len(right),
            against="files hold points of that run",
            target=Target("at most", 2, of="ratio"),
            details=size,
        ),
    ]


def _right_files(connection: duckdb.DuckDBPyConnection, metrics: Table, run_id: str) -> list[str]:
    """Return the files that hold the run, found by reading all of them."""
    paths = [str(metrics.path / file.path) for file in metrics.files()]
    found = connection.execute(
        "SELECT DISTINCT filename FROM read_parquet($files, filename = true) WHERE run_id = $run",
        {"files": paths, "run": run_id},
    ).fetchall()
    return sorted(path for (path,) in found)


def _first(path: Path, bound: dict[str, str]) -> Timing:
    """Return the time of a first question to a lake just opened in this process."""
    return interleave(2, first=lambda: ckptlake.open(path).sql(QUERY, **bound).to_arrow_table())["first"]
