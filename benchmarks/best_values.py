"""Best and last values of every run, from `summaries`, and whether more points make that slower."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb

import ckptlake
from benchmarks.data import Shape, facts_of, points_lake
from benchmarks.harness import Context, Row, Target, Timing, interleave

QUERY = "SELECT run_id, min, min_step, last FROM summaries WHERE metric = $metric"
BY_HAND = """
SELECT run_id, min(value), arg_min(step, value), arg_max(value, step)
FROM read_parquet($files) WHERE metric = $metric GROUP BY run_id
"""
METRIC = "val/loss"


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    runs, long_steps = context.scaled(1000, 20), context.scaled(10_000, 100)
    shapes = [Shape(runs, steps, long_steps) for steps in ((100, 1000) if not context.quick else (10, 50))]
    if context.large:
        shapes.append(Shape(runs, context.scaled(10_000, 100), long_steps))
    paths = [points_lake(context, shape) for shape in shapes]
    ours, by_hand = _questions(paths)
    timings = interleave(context.scaled(7, 1), **ours, **by_hand)
    rows = [_against_points(path, timings[f"ours_{at}"], timings[f"by_hand_{at}"]) for at, path in enumerate(paths)]
    alone = interleave(context.scaled(60, 2), **ours)
    rows += [
        _against_fewer(path, alone[f"ours_{at + 1}"], paths[at], alone[f"ours_{at}"])
        for at, path in enumerate(paths[1:])
    ]
    return rows


Questions = dict[str, Callable[[], object]]


def _questions(paths: list[Path]) -> tuple[Questions, Questions]:
    """Return the question to each lake, and the same asked of its points by hand."""
    ours: Questions = {}
    by_hand: Questions = {}
    for at, path in enumerate(paths):
        lake = ckptlake.open(path, settings=ckptlake.Settings(result_cache_bytes=0))
        metrics = lake.table("metrics")
        bound = {"files": [str(metrics.path / file.path) for file in metrics.files()], "metric": METRIC}
        connection = duckdb.connect()
        expected = facts_of(path)["runs"] + 1
        found = lake.sql(QUERY, metric=METRIC).fetchall()
        assert len(found) == expected, f"{len(found)} rows instead of {expected}"
        ours[f"ours_{at}"] = partial(_ask, lake)
        by_hand[f"by_hand_{at}"] = partial(_ask_by_hand, connection, bound)
    return ours, by_hand


def _ask(lake: ckptlake.Lake) -> object:
    return lake.sql(QUERY, metric=METRIC).to_arrow_table()


def _ask_by_hand(connection: duckdb.DuckDBPyConnection, bound: dict[str, object]) -> object:
    return connection.sql(BY_HAND, params=bound).to_arrow_table()


def _against_points(path: Path, ours: Timing, by_hand: Timing) -> Row:
    facts = facts_of(path)
    return Row(
        what=f"best and last of {facts['runs'] + 1} runs, {facts['points']:,} points, warm",
        figure=ours.wall_ms,
        unit="ms",
        reference=by_hand.wall_ms,
        against="ms: DuckDB, GROUP BY over the points' files",
        target=Target("at most", 50),
        details={**ours.details(), "by_hand_cpu_ms": by_hand.cpu_ms, "lake": facts},
    )


def _against_fewer(path: Path, ours: Timing, fewer_path: Path, fewer: Timing) -> Row:
    facts, fewer_facts = facts_of(path), facts_of(fewer_path)
    return Row(
        what=f"the same with {facts['points'] / fewer_facts['points']:.0f} times the points: no slower",
        figure=ours.wall_ms,
        unit="ms",
        reference=fewer.wall_ms,
        against=f"ms: ours on {fewer_facts['points']:,} points",
        target=Target("at most", 1.25, of="ratio"),
        details={**ours.details(), "points": facts["points"]},
    )
