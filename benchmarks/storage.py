"""Bytes a point on the disk after a commit and a compaction, and how fast the compaction is."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

import ckptlake
from benchmarks.data import METRIC_COUNT, NOTHING, run_frame
from benchmarks.harness import Context, Row, Target

_SORT = """
COPY (
    SELECT * FROM read_parquet($files, hive_partitioning = true) ORDER BY experiment, run_id, metric, step
) TO '{target}' (FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL 3)
"""


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    runs, steps = context.scaled(100, 6), context.scaled(1000, 100)
    points = runs * steps * METRIC_COUNT
    root = context.scratch / "lake"
    written_cpu_s = _write(root, runs, steps)
    speeds: dict[str, list[float]] = {"ours": [], "duckdb": []}
    for turn in range(context.scaled(5, 1)):
        copy = context.scratch / f"copy-{turn}"
        shutil.copytree(root, copy)
        lake = ckptlake.open(copy)
        metrics = lake.table("metrics")
        paths = [str(metrics.path / file.path) for file in metrics.files()]
        speeds["duckdb"].append(points / _sort_by_hand(paths, context.scratch / "sorted.parquet"))
        before = time.process_time()
        metrics.compact()
        speeds["ours"].append(points / (time.process_time() - before))
    for table in lake.tables():
        table.compact()
        table.vacuum(dry_run=False, retention_hours=0)
    in_metrics = sum(file.size_bytes for file in metrics.files())
    everything = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
    plain = _plain_parquet(lake, context.scratch / "plain.parquet")
    speed = {name: statistics.median(values) for name, values in speeds.items()}
    size = {"runs": runs, "steps": steps, "points": points, "experiments": 5}
    return [
        Row(
            what=f"{runs} runs × {METRIC_COUNT} metrics × {steps} steps, compacted: files of metrics",
            figure=in_metrics / points,
            unit="B/point",
            reference=plain / points,
            against="B/point: one sorted Parquet file, pyarrow's defaults",
            target=Target("at most", 4.5),
            details={**size, "files": len(metrics.files())},
        ),
        Row(
            what="the same: all files of the lake after a vacuum",
            figure=everything / points,
            unit="B/point",
            reference=plain / points,
            against="B/point: one sorted Parquet file, pyarrow's defaults",
            target=Target("at most", 4.5),
            details=size,
        ),
        Row(
            what="compaction of a file a run",
            figure=speed["ours"],
            unit="points/CPU s",
            reference=speed["duckdb"],
            against="points/CPU s: DuckDB, COPY … ORDER BY to Parquet, zstd 3",
            target=Target("at least", 1_000_000),
            details={**size, "all": speeds},
        ),
        Row(
            what="runs started, logged by frame, committed one by one",
            figure=points / written_cpu_s,
            unit="points/CPU s",
            reference=speed["duckdb"],
            against="points/CPU s: DuckDB's rewrite of them",
            details=size,
        ),
    ]


def _write(root: Path, runs: int, steps: int) -> float:
    """Write the runs, each committed at its end, and return the CPU seconds that took."""
    frames = [run_frame(seed, steps) for seed in range(runs)]
    before = time.process_time()
    with ckptlake.open(root, settings=ckptlake.Settings(auto_compact=False)) as lake:
        for seed, frame in enumerate(frames):
            with lake.run(f"bench/{seed % 5}", name=f"run-{seed}", capture=NOTHING) as run:
                run.log_frame(frame)
    return time.process_time() - before


def _sort_by_hand(paths: list[str], target: Path) -> float:
    with duckdb.connect() as connection:
        before = time.process_time()
        connection.execute(_SORT.format(target=target), {"files": paths})
        return time.process_time() - before


def _plain_parquet(lake: ckptlake.Lake, target: Path) -> int:
    query = "SELECT experiment, run_id, metric, step, ts, value FROM metrics ORDER BY run_id, metric, step"
    pq.write_table(lake.sql(query).to_arrow_table(), target)
    return target.stat().st_size
