"""Finding and saving in a lake that holds very many checkpoints."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

import ckptlake
from benchmarks.harness import Context, Row, Target, interleave
from ckptlake import Lake
from ckptlake.config import Capture

_RUNS = 1000


def run(context: Context) -> list[Row]:
    """Return the rows of this part."""
    count = context.scaled(100_000, 2000)
    lake = _filled(context.scratch / "full", count)
    empty = ckptlake.open(context.scratch / "empty")
    middle = f"run-{_RUNS // 2:04}"

    def scan() -> object:
        rows = lake.sql("SELECT checkpoint_id, metrics FROM checkpoint_events WHERE event = 'saved'").to_arrow_table()
        return min(rows.column("metrics").to_pylist(), key=lambda metrics: dict(metrics)["val/loss"])

    timings = interleave(
        context.scaled(15, 2),
        best=lambda: lake.checkpoints.best("val/loss", direction="min"),
        listing=lambda: lake.checkpoints.list(middle),
    )
    begun = time.perf_counter()
    scan()
    scan_ms = (time.perf_counter() - begun) * 1e3
    latency = _save_latency(context, lake, empty)
    lake.close()
    empty.close()
    what = f"of {count:,} checkpoints in {_RUNS} runs"
    return [
        Row(
            what=f"the best {what} by a metric",
            figure=timings["best"].wall_ms,
            unit="ms",
            reference=scan_ms,
            against="ms: all rows to Python, then min()",
            target=Target("at most", 50),
            details=timings["best"].details(),
        ),
        Row(
            what=f"those of one run {what}",
            figure=timings["listing"].wall_ms,
            unit="ms",
            reference=scan_ms,
            against="ms: all rows to Python, then min()",
            target=Target("at most", 20),
            details=timings["listing"].details(),
        ),
        Row(
            what=f"save of 1 MB, {count:,} checkpoints in the lake",
            figure=latency["full"] * 1e3,
            unit="ms",
            reference=latency["empty"] * 1e3,
            against="ms: the same save in an empty lake",
            target=Target("at most", 1.2, "ratio"),
        ),
    ]


def _filled(root: Path, count: int) -> Lake:
    """Return a lake whose tables know `count` checkpoints of runs that have ended."""
    lake = ckptlake.open(root)
    each = count // _RUNS
    chance = np.random.default_rng(0)
    writer = lake._get_writer()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(_RUNS):
        run_id = f"run-{number:04}"
        rows = []
        for step in range(each):
            checkpoint_id = f"20260101-{number:06}-{step:010}"
            rows.append(
                {
                    "checkpoint_id": checkpoint_id,
                    "run_id": run_id,
                    "experiment": f"e/{number % 10}",
                    "attempt": 1,
                    "ts": start + timedelta(seconds=number * each + step),
                    "event": "saved",
                    "step": step * 100,
                    "format": "packed",
                    "location": f"checkpoints/{checkpoint_id}.json",
                    "digest": f"{number:032x}{step:032x}",
                    "logical_bytes": 10**9,
                    "stored_bytes": 10**9,
                    "num_tensors": 300,
                    "metrics": [("val/loss", float(chance.random())), ("val/acc", float(chance.random()))],
                    "packs": [f"blobs/{checkpoint_id}"],
                }
            )
        writer.add_rows("checkpoints", rows)
        if number % 50 == 49:
            lake.commit()
    lake.commit()
    return lake


def _save_latency(context: Context, full: Lake, empty: Lake) -> dict[str, float]:
    """Return the median seconds of a durable save in each lake, taking turns."""
    spent: dict[str, list[float]] = {"full": [], "empty": []}
    state = {f"w{number}": np.ones(2600, np.float32) for number in range(100)}
    with full.run(capture=Capture.nothing()) as a, empty.run(capture=Capture.nothing()) as b:
        for turn in range(context.scaled(40, 3)):
            for name, run in (("full", a), ("empty", b)):
                for array in state.values():
                    array += 1
                saved = run.save_checkpoint(state, step=turn)
                if turn:
                    spent[name].append(saved.duration_s)
    return {name: statistics.median(values) for name, values in spent.items()}
