"""One `log` call with ten metrics as the training loop sees it, against TensorBoard's writer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import ckptlake
from benchmarks.data import METRIC_NAMES, NOTHING, run_frame
from benchmarks.harness import Context, Row, Target, percentile

Log = Callable[[Mapping[str, Any], int], None]


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    turns, calls = context.scaled(10, 2), context.scaled(5_000, 200)
    names = METRIC_NAMES[:10]
    frame = run_frame(0, calls)
    floats = [{name: float(frame[name][step]) for name in names} for step in range(calls)]
    with_int = [{**metrics, names[-1]: step} for step, metrics in enumerate(floats)]
    narrow = [{name: np.float32(value) for name, value in step.items()} for step in floats]
    with ckptlake.open(context.scratch / "lake") as lake:
        own = lake.run("bench", capture=NOTHING)
        other = lake.run("bench", capture=NOTHING)
        board, close = tensorboard(context.scratch / "board")
        spent: dict[str, list[float]] = {"ours": [], "with_int": [], "float32": [], "tensorboard": []}
        for turn in range(turns):
            spent["ours"] += _timed(own.log, floats, turn * calls)
            spent["with_int"] += _timed(other.log, with_int, turn * calls)
            spent["float32"] += _timed(other.log, narrow, turn * calls)
            spent["tensorboard"] += _timed(board, floats[: calls // 10], turn * calls)
        close()
    us = {name: statistics.median(values) for name, values in spent.items()}
    p99 = {name: percentile(values, 0.99) for name, values in spent.items()}
    details = {
        "calls": len(spent["ours"]),
        "metrics": len(names),
        **{f"{name}_p999_us": percentile(values, 0.999) for name, values in spent.items()},
        **{f"{name}_max_us": max(values) for name, values in spent.items()},
        **{f"{name}_mean_us": statistics.fmean(values) for name, values in spent.items()},
    }
    against = "µs: SummaryWriter.add_scalar × 10"
    return [
        Row(
            what="log, 10 floats, median",
            figure=us["ours"],
            unit="µs",
            reference=us["tensorboard"],
            against=against,
            target=Target("at most", 5),
            details=details,
        ),
        Row(
            what="log, 10 floats, 99th percentile",
            figure=p99["ours"],
            unit="µs",
            reference=p99["tensorboard"],
            against=against,
            target=Target("at most", 50),
        ),
        Row(
            what="log, 10 floats, median: at least 20 times faster",
            figure=us["ours"],
            unit="µs",
            reference=us["tensorboard"],
            against=against,
            target=Target("at most", 1 / 20, of="ratio"),
        ),
        Row(
            what="log, 9 floats and an int, median",
            figure=us["with_int"],
            unit="µs",
            reference=us["tensorboard"],
            against=f"{against}, floats",
            target=Target("at most", 5),
        ),
        Row(
            what="log, 10 numpy float32, median",
            figure=us["float32"],
            unit="µs",
            reference=us["tensorboard"],
            against=f"{against}, floats",
        ),
    ]


def _timed(log: Log, steps: list[dict[str, Any]], first: int) -> list[float]:
    """Return the microseconds of each call."""
    clock = time.perf_counter_ns
    spent = []
    for step, metrics in enumerate(steps, first):
        before = clock()
        log(metrics, step)
        spent.append((clock() - before) / 1e3)
    return spent


def tensorboard(directory: Path) -> tuple[Log, Callable[[], None]]:
    """Return TensorBoard's way to log the same, and how to close it."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(directory))

    def log(metrics: Mapping[str, Any], step: int) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    return log, writer.close
