"""Seeded metrics that compress as real ones do, and lakes built of them.

Of twenty metrics ten come from float32 with gaussian or log-normal noise, three use all bits of a float64,
four are integers and three are rounded accuracies. One timestamp a step is shared by all of them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

import ckptlake
from benchmarks.harness import Context

EXPERIMENTS = 10
START_US = 1_750_000_000_000_000
NOTHING = ckptlake.Capture.nothing()
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shape:
    """How many points a lake has: runs of twenty metrics, and in their midst one run more of other length."""

    runs: int
    steps: int
    long_steps: int

    @property
    def points(self) -> int:
        return METRIC_COUNT * sum(self.steps_by_seed().values())

    @property
    def long_seed(self) -> int:
        return self.runs // 2

    def steps_by_seed(self) -> dict[int, int]:
        """Return the steps of each run in the order in which the runs start."""
        return {seed: self.long_steps if seed == self.long_seed else self.steps for seed in range(self.runs + 1)}

    def __str__(self) -> str:
        return f"{self.runs}x{self.steps}+{self.long_steps}"


def run_frame(seed: int, steps: int) -> pl.DataFrame:
    """Return the metrics of one run: columns `step`, `ts` and twenty metrics."""
    random = np.random.default_rng(seed)
    done = np.arange(steps) / max(steps, 1)
    duration_s = 0.2 * random.lognormal(0, 0.1, steps)
    ts_us = START_US + seed * 3_600_000_000 + np.cumsum(duration_s * 1e6).astype(np.int64)
    columns: dict[str, Any] = {"step": np.arange(steps), "ts": ts_us}
    for name, make in _METRICS.items():
        columns[name] = make(random, done)
    columns["time/step_s"] = duration_s
    return pl.DataFrame(columns).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))


def _loss(start: float, floor: float, noise: float) -> Callable[[np.random.Generator, Floats], Floats]:
    def make(random: np.random.Generator, done: Floats) -> Floats:
        rate = random.uniform(3, 8)
        clean = floor + (start - floor) * np.exp(-rate * done)
        return _float32(clean * (1 + noise * random.standard_normal(len(done))))

    return make


def _lognormal(scale: float, spread: float) -> Callable[[np.random.Generator, Floats], Floats]:
    return lambda random, done: _float32(scale * random.lognormal(0, spread, len(done)))


def _accuracy(limit: float) -> Callable[[np.random.Generator, Floats], Floats]:
    def make(random: np.random.Generator, done: Floats) -> Floats:
        clean = limit * (1 - np.exp(-5 * done)) + 0.01 * random.standard_normal(len(done))
        return np.round(np.clip(clean, 0, 1), 4)

    return make


def _integers(low: int, high: int) -> Callable[[np.random.Generator, Floats], Floats]:
    return lambda random, done: random.integers(low, high, len(done), endpoint=True).astype(np.float64)


def _float32(values: Floats) -> Floats:
    return values.astype(np.float32).astype(np.float64)


_METRICS: dict[str, Callable[[np.random.Generator, Floats], Floats]] = {
    "train/loss": _loss(4.0, 0.3, 0.05),
    "train/loss_box": _loss(1.5, 0.1, 0.08),
    "train/loss_cls": _loss(2.5, 0.2, 0.08),
    "train/grad_norm": _lognormal(1.2, 0.4),
    "train/param_norm": _loss(80.0, 95.0, 0.0005),
    "train/update_ratio": _lognormal(1e-3, 0.5),
    "val/loss": _loss(4.1, 0.4, 0.02),
    "val/iou": _loss(0.05, 0.8, 0.02),
    "val/calibration": _loss(0.3, 0.05, 0.05),
    "train/temperature": _loss(0.07, 0.02, 0.001),
    "train/lr": lambda _, done: 3e-4 * 0.5 * (1 + np.cos(np.pi * done)),
    "time/data_s": lambda random, done: 0.02 * random.lognormal(0, 0.5, len(done)),
    "train/accuracy": _accuracy(0.92),
    "val/accuracy": _accuracy(0.88),
    "val/f1": _accuracy(0.85),
    "system/gpu_percent": _integers(85, 100),
    "system/cpu_percent": _integers(10, 60),
    "system/gpu_memory_mb": _integers(30_000, 30_040),
    "system/gpu_celsius": _integers(60, 75),
}
METRIC_COUNT = len(_METRICS) + 1
METRIC_NAMES = (*_METRICS, "time/step_s")


def points_lake(context: Context, shape: Shape) -> Path:
    """Return a compacted lake of this shape, built through the public API once and kept in the data directory."""

    def build(root: Path) -> dict[str, Any]:
        starts_s, finishes_s = [], []
        began, cpu_began = time.perf_counter(), time.process_time()
        with ckptlake.open(root) as lake:
            for seed, steps in shape.steps_by_seed().items():
                frame = run_frame(seed, steps)
                before = time.perf_counter()
                run = lake.run(f"bench/{seed % EXPERIMENTS}", name=f"run-{seed}", capture=NOTHING)
                starts_s.append(time.perf_counter() - before)
                run.log_frame(frame)
                before = time.perf_counter()
                run.finish()
                finishes_s.append(time.perf_counter() - before)
            for table in lake.tables():
                table.compact()
        return {
            "build_s": time.perf_counter() - began,
            "build_cpu_s": time.process_time() - cpu_began,
            "start_ms": float(np.median(starts_s) * 1e3),
            "finish_ms": float(np.median(finishes_s) * 1e3),
            "finish_ms_max": max(finishes_s) * 1e3,
        }

    return _kept(context.data / f"points-{shape}", shape, build)


def asked_lake(context: Context, shape: Shape, metrics: tuple[str, ...] = ()) -> Path:
    """Return a compacted lake whose runs have params and tags; with `metrics`, points of those alone."""

    def build(root: Path) -> dict[str, Any]:
        settings = ckptlake.Settings(commit_interval_s=1e6, commit_points=4_000_000)
        random = np.random.default_rng(0)
        with ckptlake.open(root, settings=settings) as lake:
            for seed, steps in shape.steps_by_seed().items():
                frame = run_frame(seed, steps)
                if metrics:
                    value = random.random()
                    frame = frame.select("step", "ts", *(pl.lit(value).alias(name) for name in metrics))
                params = {"lr": float(10 ** random.uniform(-5, -1)), "seed": seed % 5, "model": {"depth": seed % 12}}
                tags = {"stage": "pretrain" if seed % 2 else "tune"}
                run = lake.run(f"bench/{seed % EXPERIMENTS}", f"run-{seed:05}", params, tags, capture=NOTHING)
                run.log_frame(frame)
        with ckptlake.open(root, settings=settings) as lake:
            for table in lake.tables():
                table.compact()
        return {"runs": shape.runs}

    return _kept(context.data / f"asked-{shape}-{len(metrics)}", shape, build)


def many_files_lake(context: Context, shape: Shape, experiments: int, commits_a_run: int) -> Path:
    """Return a lake that nothing has compacted: a file for every run and commit.

    As many runs as there are experiments are open at a time, and each commit writes one file for each.
    """

    def build(root: Path) -> dict[str, Any]:
        settings = ckptlake.Settings(auto_compact=False, commit_interval_s=1e6, commit_points=10**9)
        with ckptlake.open(root, settings=settings) as lake:
            steps = list(shape.steps_by_seed().items())
            for first in range(0, len(steps), experiments):
                _log_in_parts(
                    lake,
                    dict(steps[first : first + experiments]),
                    experiments,
                    commits_a_run,
                )
            return {"files": len(lake.table("metrics").files())}

    return _kept(context.data / f"files-{shape}-{experiments}-{commits_a_run}", shape, build)


def _log_in_parts(lake: ckptlake.Lake, steps: dict[int, int], experiments: int, parts: int) -> None:
    runs = {seed: lake.run(f"bench/{seed % experiments}", name=f"run-{seed}", capture=NOTHING) for seed in steps}
    frames = {seed: run_frame(seed, count) for seed, count in steps.items()}
    for part in range(parts):
        for seed, run in runs.items():
            size = steps[seed] // parts
            run.log_frame(frames[seed].slice(part * size, size))
        lake.commit()
    for run in runs.values():
        run.finish()


def _kept(root: Path, shape: Shape, build: Callable[[Path], dict[str, Any]]) -> Path:
    facts = root / "benchmark.json"
    if not facts.exists():
        shutil.rmtree(root, ignore_errors=True)
        found = build(root)
        facts.write_text(json.dumps({**asdict(shape), "points": shape.points, **found}, indent=2))
    return root


def facts_of(root: Path) -> dict[str, Any]:
    """Return what was noted while a lake was built."""
    found: dict[str, Any] = json.loads((root / "benchmark.json").read_text())
    return found
