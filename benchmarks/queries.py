"""Questions asked with the query builder: writing them, and asking them, against SQL by hand on the right files."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

import ckptlake
from benchmarks.data import Shape, asked_lake, facts_of
from benchmarks.harness import Context, Row, Target, Timing, interleave
from benchmarks.mlflow_peer import MlflowPeer, mlflow_python
from ckptlake import Lake, Query, col, count, metric, param, tag

_UNCACHED = ckptlake.Settings(result_cache_bytes=0)


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    shape = Shape(context.scaled(1000, 20), context.scaled(1000, 50), context.scaled(1000, 60))
    path = asked_lake(context, shape)
    many = _many_runs(context, context.scaled(10_000, 200))
    return [
        *_leaders(context, path),
        *_beside_mlflow(context, path),
        _curve(context, path),
        _spread(context, path),
        _either(context, many),
    ]


def _ten_best(lake: Lake) -> Query:
    return lake.runs.where(param("lr") < 5e-3, tag("stage") == "pretrain").best("val/loss", n=10, direction="min")


def _leaders(context: Context, path: Path) -> list[Row]:
    lake, uncached = ckptlake.open(path), ckptlake.open(path, settings=_UNCACHED)
    query = _ten_best(lake)
    assert query.exists()
    by_hand = """
        SELECT r.run_id, s.min FROM runs r JOIN params p USING (run_id) JOIN tags t USING (run_id)
            JOIN summaries s USING (run_id)
        WHERE p.key = 'lr' AND p.number < 5e-3 AND t.key = 'stage' AND t.value = 'pretrain' AND s.metric = 'val/loss'
        ORDER BY s.min LIMIT 10"""
    timings = interleave(
        context.scaled(30, 2),
        build=lambda: _ten_best(lake).sql(),
        warm=lambda: _ten_best(uncached).to_arrow(),
        again=lambda: _ten_best(lake).to_arrow(),
        by_hand=lambda: uncached.sql(by_hand).to_arrow_table(),
    )
    known = interleave(context.scaled(15, 1), opened=lambda: _ten_best(ckptlake.open(path)).to_arrow())
    unknown = interleave(context.scaled(15, 1), opened=lambda: _ten_best(_opened_without_cache(path)).to_arrow())
    by_hand_warm = "lake.sql by hand, warm"
    what = f"ten best of {facts_of(path)['runs']:,} runs by a metric, a param and a tag"
    return [
        _row(f"SQL of the {what}", timings["build"], timings["by_hand"], "running such SQL", Target("at most", 2)),
        _row(what, timings["warm"], timings["by_hand"], "lake.sql by hand", Target("at most", 15)),
        _row(f"{what}, asked again", timings["again"], timings["by_hand"], "lake.sql by hand"),
        _row(f"{what}, lake just opened", known["opened"], timings["by_hand"], by_hand_warm, Target("at most", 60)),
        _row(f"{what}, lake just opened, its cache deleted", unknown["opened"], timings["by_hand"], by_hand_warm),
    ]


def _opened_without_cache(path: Path) -> Lake:
    shutil.rmtree(path / "cache", ignore_errors=True)
    return ckptlake.open(path)


def _beside_mlflow(context: Context, path: Path) -> list[Row]:
    """Compare the ten best with those MLflow finds among the same runs; no row where MLflow is not installed."""
    python = mlflow_python()
    if python is None:
        return []
    lake, uncached = ckptlake.open(path), ckptlake.open(path, settings=_UNCACHED)
    with MlflowPeer(python, context.scratch / "mlflow", _mlflow_runs(lake)) as peer:
        ours = _ten_best(lake).select("name").to_arrow()["name"].to_pylist()
        assert peer.search() == ours, (peer.search(), ours)
        timings = interleave(
            context.scaled(10, 1),
            mlflow=peer.search,
            asked=lambda: _ten_best(lake).to_arrow(),
            uncached=lambda: _ten_best(uncached).to_arrow(),
        )
    what = f"mlflow.search_runs, version {peer.version} on SQLite, ten best of {facts_of(path)['runs']:,} last values"
    return [
        Row(
            what=what,
            figure=timings["mlflow"].wall_ms,
            unit="ms",
            reference=timings[name].wall_ms,
            against=f"ms: ours, {how}",
            target=target,
            details=timings["mlflow"].details(),
        )
        for name, how, target in (
            ("asked", "asked again of the same rows", Target("at least", 20, "ratio")),
            ("uncached", "without the result cache", None),
        )
    ]


def _mlflow_runs(lake: Lake) -> Iterator[dict[str, Any]]:
    """Yield the runs of a lake as MLflow keeps them, its only way to a minimum being a metric with that last value."""
    params, tags, last = (defaultdict[str, dict[str, Any]](dict) for _ in range(3))
    for found, text in (
        (params, "SELECT run_id, key, coalesce(number::VARCHAR, value) FROM params"),
        (tags, "SELECT run_id, key, value FROM tags"),
        (last, "SELECT run_id, metric, last FROM summaries"),
    ):
        for run_id, key, value in lake.sql(text).fetchall():
            found[run_id][key] = value
    minima = dict(lake.sql("SELECT run_id, min FROM summaries WHERE metric = 'val/loss'").fetchall())
    for run_id, name in lake.sql("SELECT run_id, name FROM runs").fetchall():
        values = last[run_id] | {"val/loss": minima[run_id], "lr": float(params[run_id]["lr"])}
        yield {"name": name, "params": params[run_id], "tags": tags[run_id], "metrics": values}


def _curve(context: Context, path: Path) -> Row:
    lake = ckptlake.open(path, settings=_UNCACHED)
    ((run_id,),) = lake.sql("SELECT run_id FROM runs ORDER BY name LIMIT 1").fetchall()
    query = (
        lake.metrics.where(col("run_id") == run_id, col("metric") == "train/loss")
        .order_by("step")
        .select("step", "value")
    )
    text = "SELECT step, value FROM read_parquet($files) WHERE run_id = $run AND metric = $metric ORDER BY step"
    files = _files_of(query)
    values = {"files": files, "run": run_id, "metric": "train/loss"}
    return _against_files(context, "one curve", query, text, values, 1.5)


def _spread(context: Context, path: Path) -> Row:
    lake = ckptlake.open(path, settings=_UNCACHED)
    runs = lake.runs.order_by("name").limit(100)
    points = runs.curves("val/loss").group_by("step").agg(col("value").mean(), col("value").std(), n=count())
    query = points.order_by("step")
    ids = [run_id for (run_id,) in lake.sql("SELECT run_id FROM runs ORDER BY name LIMIT 100").fetchall()]
    text = (
        "SELECT step, avg(value) AS mean, stddev_samp(value) AS std, count(*) AS n FROM read_parquet($files) "
        "WHERE run_id IN $ids AND metric = $metric GROUP BY step ORDER BY step"
    )
    values = {"files": _files_of(query), "ids": ids, "metric": "val/loss"}
    return _against_files(context, "mean and std per step over 100 runs", query, text, values, 1.2)


def _against_files(
    context: Context, what: str, query: Query, text: str, values: dict[str, object], bound: float
) -> Row:
    with duckdb.connect() as connection:
        connection.execute("SET disabled_optimizers = 'partitioned_execution'")
        ours, theirs = query.to_arrow(), connection.sql(text, params=values).to_arrow_table()
        assert ours.num_rows == theirs.num_rows > 0
        timings = interleave(
            context.scaled(20, 2),
            ours=lambda: query.to_arrow(),
            by_hand=lambda: connection.sql(text, params=values).to_arrow_table(),
        )
    against = f"DuckDB on the right {len(values['files'])} files"  # type: ignore[arg-type]
    return _row(what, timings["ours"], timings["by_hand"], against, Target("at most", bound, "ratio"))


def _files_of(query: Query) -> list[str]:
    compiled, _ = query._session.ready(query._table)
    return list(query._session.look(compiled.text, compiled.values, None).scans["metrics"].files)


def _either(context: Context, path: Path) -> Row:
    lake = ckptlake.open(path, settings=_UNCACHED)
    query = lake.runs.where((param("lr") < 1e-4) | (metric("val/loss").min() < 0.05)).select("run_id", "name")
    assert query.exists()

    def by_polars() -> object:
        params, summaries = (lake.sql(f"SELECT * FROM {view}").pl() for view in ("params", "summaries"))
        slow = params.filter(params["key"] == "lr").filter(params.filter(params["key"] == "lr")["number"] < 1e-4)
        good = summaries.filter((summaries["metric"] == "val/loss") & (summaries["min"] < 0.05))
        return set(slow["run_id"]) | set(good["run_id"])

    timings = interleave(context.scaled(10, 1), ours=lambda: query.to_arrow(), polars=by_polars)
    what = f"either a param or a metric, over {facts_of(path)['runs']:,} runs"
    return _row(
        what, timings["ours"], timings["polars"], "whole tables to Polars, then filters", Target("at most", 100)
    )


def _many_runs(context: Context, runs: int) -> Path:
    return asked_lake(context, Shape(runs, 1, 1), metrics=("val/loss",))


def _row(what: str, ours: Timing, reference: Timing, against: str, target: Target | None = None) -> Row:
    return Row(
        what=what,
        figure=ours.wall_ms,
        unit="ms",
        reference=reference.wall_ms,
        against=f"ms: {against}",
        target=target,
        details=ours.details(),
    )
