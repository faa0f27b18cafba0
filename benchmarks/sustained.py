"""Points a second, one process, until all of them are acknowledged to be on the disk."""

from __future__ import annotations

import os
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import ckptlake
from benchmarks.data import METRIC_COUNT, METRIC_NAMES, NOTHING, run_frame
from benchmarks.harness import Context, Row, Target

Work = tuple[Callable[[], None], Callable[[], None]]
"""What is clocked, and what closes it afterwards."""


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    frames = [run_frame(seed, context.scaled(10_000, 200)) for seed in range(context.scaled(10, 2))]
    calls = [
        dict(zip(METRIC_NAMES[:10], values, strict=True))
        for values in run_frame(0, context.scaled(100_000, 500)).select(METRIC_NAMES[:10]).iter_rows()
    ]
    rates: dict[str, list[float]] = {
        "frames": [],
        "calls": [],
        "file": [],
        "sqlite": [],
    }
    cpu: dict[str, list[float]] = {name: [] for name in rates}
    for turn in range(context.scaled(5, 1)):
        directory = context.scratch / str(turn)
        directory.mkdir()
        for name, points, write in (
            (
                "file",
                sum(len(frame) for frame in frames) * METRIC_COUNT,
                lambda to: _write_file(to, frames),
            ),
            (
                "frames",
                sum(len(frame) for frame in frames) * METRIC_COUNT,
                lambda to: _log_frames(to, frames),
            ),
            (
                "sqlite",
                len(frames[0]) * METRIC_COUNT,
                lambda to: _insert(to, frames[0]),
            ),
            ("calls", len(calls) * 10, lambda to: _log_calls(to, calls)),
        ):
            spent, cpu_spent = _clocked(write, directory / name)
            rates[name].append(points / spent)
            cpu[name].append(points / cpu_spent)
    rate = {name: statistics.median(values) for name, values in rates.items()}
    details: dict[str, Any] = {
        "points_in_frames": sum(len(frame) for frame in frames) * METRIC_COUNT,
        "points_in_calls": len(calls) * 10,
        "points_per_cpu_s": {name: statistics.median(values) for name, values in cpu.items()},
        "rates": rates,
    }
    return [
        Row(
            what="log_frame + flush, one process",
            figure=rate["frames"],
            unit="points/s",
            reference=rate["file"],
            against="points/s: long-form columns, ndarray.tofile + fsync",
            target=Target("at least", 1_000_000),
            details=details,
        ),
        Row(
            what="log + flush, one process, 10 metrics a call",
            figure=rate["calls"],
            unit="points/s",
            reference=rate["sqlite"],
            against="points/s: sqlite, WAL, executemany of 10,000 rows",
            target=Target("at least", 300_000),
            details=details,
        ),
    ]


def _clocked(write: Callable[[Path], Work], to: Path) -> tuple[float, float]:
    """Return wall and CPU seconds of writing; `write` prepares and returns what is to be clocked."""
    work, close = write(to)
    cpu_before, before = time.process_time(), time.perf_counter()
    work()
    spent = time.perf_counter() - before, time.process_time() - cpu_before
    close()
    return spent


def _open_run(to: Path) -> tuple[ckptlake.Run, Callable[[], None]]:
    lake = ckptlake.open(to)
    run = lake.run("bench", capture=NOTHING)
    run.log({"ready": 1.0}, step=0)
    run.flush()
    return run, lake.close


def _log_frames(to: Path, frames: list[pl.DataFrame]) -> Work:
    run, close = _open_run(to)

    def work() -> None:
        for frame in frames:
            run.log_frame(frame)
        run.flush()

    return work, close


def _log_calls(to: Path, calls: list[dict[str, float]]) -> Work:
    run, close = _open_run(to)

    def work() -> None:
        for step, metrics in enumerate(calls):
            run.log(metrics, step)
        run.flush()

    return work, close


def _write_file(to: Path, frames: list[pl.DataFrame]) -> Work:
    def work() -> None:
        with to.open("wb") as file:
            for frame in frames:
                np.repeat(frame["step"].to_numpy(), METRIC_COUNT).tofile(file)
                np.repeat(frame["ts"].to_numpy(), METRIC_COUNT).tofile(file)
                frame.select(METRIC_NAMES).to_numpy().tofile(file)
            os.fsync(file.fileno())

    return work, to.unlink


def _insert(to: Path, frame: pl.DataFrame) -> Work:
    connection = sqlite3.connect(to, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE metrics (run_id TEXT, metric TEXT, step INTEGER, ts INTEGER, value REAL)")
    rows = [
        ("run", name, row[0], row[1], value)
        for row in frame.select("step", pl.col("ts").cast(pl.Int64), *METRIC_NAMES).iter_rows()
        for name, value in zip(METRIC_NAMES, row[2:], strict=True)
    ]

    def work() -> None:
        for start in range(0, len(rows), 10_000):
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO metrics VALUES (?, ?, ?, ?, ?)",
                rows[start : start + 10_000],
            )
            connection.execute("COMMIT")

    return work, connection.close
