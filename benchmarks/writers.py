"""Many commits by many processes: every row once, nobody waits to log, files and log stay bounded."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ckptlake
from benchmarks.data import METRIC_NAMES, NOTHING, run_frame
from benchmarks.harness import Context, Row, Target, percentile

PAUSE_S = 0.005
SAMPLE_S = 0.5
LOG_ENTRIES = 1200


@dataclass(frozen=True, slots=True)
class Work:
    """What one process does: log every few milliseconds while a thread of it commits so many times."""

    directory: Path
    number: int
    commits: int


@dataclass(slots=True)
class Growth:
    """The most live files and log entries that the table had at any time it was looked at."""

    files: int = 0
    entries: int = 0
    samples: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def watch(self, path: Path) -> None:
        metrics = ckptlake.open(path).table("metrics")
        ended = False
        while not ended:
            ended = self.ended.wait(SAMPLE_S)
            self.files = max(self.files, len(metrics.files()))
            self.entries = max(self.entries, len(list((metrics.path / "_delta_log").glob("*.json"))))
            self.samples += 1


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    processes, commits = context.scaled(8, 2), context.scaled(250, 4)
    lake_path = context.scratch / "lake"
    ckptlake.open(lake_path)
    growth = Growth()
    watcher = threading.Thread(target=growth.watch, args=(lake_path,))
    watcher.start()
    ours = _together(log_and_commit, lake_path, processes, commits)
    growth.ended.set()
    watcher.join()
    by_delta = _together(append_by_delta, context.scratch / "delta", processes, max(2, commits // 5))
    logged = sum(result["calls"] for result in ours)
    lake = ckptlake.open(lake_path)
    ((rows, distinct),) = lake.sql(
        "SELECT count(*), count(DISTINCT (run_id, metric, step)) FROM metrics_raw"
    ).fetchall()
    expected = logged * len(METRIC_NAMES)
    commit_s = [spent for result in ours for spent in result["commits_s"]]
    delta_s = [spent for result in by_delta for spent in result["commits_s"]]
    details: dict[str, Any] = {
        "processes": processes,
        "commits": len(commit_s),
        "points": expected,
        "wall_s": max(result["wall_s"] for result in ours),
        "cpu_s": sum(result["cpu_s"] for result in ours),
        "commit_ms_p50": percentile(commit_s, 0.5) * 1e3,
        "commit_ms_p95": percentile(commit_s, 0.95) * 1e3,
        "log_us_p50": percentile([result["log_us_p50"] for result in ours], 0.5),
        "log_us_p999": max(result["log_us_p999"] for result in ours),
        "per_second": len(commit_s) / max(result["wall_s"] for result in ours),
        "delta_per_second": len(delta_s) / max(result["wall_s"] for result in by_delta),
        "delta_errors": sum(result["errors"] for result in by_delta),
        "delta_ms_p95": percentile(delta_s, 0.95) * 1e3,
        "samples": growth.samples,
    }
    whose = f"{len(commit_s)} commits by {processes} processes"
    return [
        Row(
            what=f"{whose}: rows there, each once",
            figure=min(rows, distinct) if rows == distinct else -rows,
            unit="rows",
            reference=expected,
            against="rows logged",
            target=Target("at least", 1, of="ratio"),
            details=details,
        ),
        Row(
            what=f"{whose}: longest log call",
            figure=max(result["log_us_max"] for result in ours) / 1e3,
            unit="ms",
            reference=max(result["append_us_max"] for result in ours) / 1e3,
            against="ms: longest deque.append of the same values beside it",
            target=Target("at most", 100),
            details=details,
        ),
        Row(
            what=f"{whose}: longest commit",
            figure=max(commit_s),
            unit="s",
            reference=max(delta_s),
            against="s: write_deltalake by as many processes, fewer rounds",
            target=Target("at most", 3),
            details=details,
        ),
        Row(
            what=f"{whose}: most live files, nobody calling compact",
            figure=growth.files,
            unit="files",
            reference=len(commit_s),
            against="commits",
            target=Target("at most", 1000),
            details=details,
        ),
        Row(
            what=f"{whose}: most entries in the log",
            figure=growth.entries,
            unit="entries",
            reference=len(commit_s),
            against="commits",
            target=Target("at most", LOG_ENTRIES),
            details=details,
        ),
    ]


def _together(work: Callable[[Work], dict[str, Any]], path: Path, processes: int, commits: int) -> list[dict[str, Any]]:
    """Run `work` in so many fresh processes at once and return what each found."""
    path.mkdir(exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.map(
            work,
            [Work(path, number, commits) for number in range(processes)],
            chunksize=1,
        )


def log_and_commit(work: Work) -> dict[str, Any]:
    """Log every few milliseconds while a thread commits; between the calls time an append as the reference."""
    frame = run_frame(work.number, 1000).select(METRIC_NAMES)
    steps = [dict(zip(METRIC_NAMES, row, strict=True)) for row in frame.iter_rows()]
    commits_s: list[float] = []
    log_us: list[float] = []
    append_us: list[float] = []
    nowhere: deque[object] = deque(maxlen=1000)
    clock = time.perf_counter_ns
    began, cpu_began = time.perf_counter(), time.process_time()
    with ckptlake.open(work.directory) as lake:
        run = lake.run(f"bench/{work.number % 4}", capture=NOTHING)
        committer = threading.Thread(target=_commit_often, args=(lake, work.commits, commits_s))
        committer.start()
        calls = 0
        while committer.is_alive():
            metrics = steps[calls % len(steps)]
            before = clock()
            run.log(metrics, calls)
            between = clock()
            nowhere.append((tuple(metrics), tuple(metrics.values()), calls, clock()))
            after = clock()
            log_us.append((between - before) / 1e3)
            append_us.append((after - between) / 1e3)
            calls += 1
            time.sleep(PAUSE_S)
        committer.join()
        run.finish()
    return {
        "calls": calls,
        "commits_s": commits_s,
        "wall_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu_began,
        "log_us_p50": percentile(log_us, 0.5),
        "log_us_p999": percentile(log_us, 0.999),
        "log_us_max": max(log_us),
        "append_us_max": max(append_us),
    }


def _commit_often(lake: ckptlake.Lake, commits: int, spent_s: list[float]) -> None:
    while len(spent_s) < commits:
        before = time.perf_counter()
        lake.commit()
        spent_s.append(time.perf_counter() - before)


def append_by_delta(work: Work) -> dict[str, Any]:
    """Append a few hundred rows at a time with delta-rs alone, as often as asked."""
    from deltalake import CommitProperties, write_deltalake
    from deltalake.exceptions import DeltaError

    rows = run_frame(work.number, 20).unpivot(METRIC_NAMES, index=["step", "ts"]).to_arrow()
    commits_s: list[float] = []
    errors = 0
    began = time.perf_counter()
    while len(commits_s) < work.commits:
        before = time.perf_counter()
        try:
            properties = CommitProperties(max_commit_retries=200)
            write_deltalake(str(work.directory), rows, mode="append", commit_properties=properties)
        except DeltaError:
            errors += 1
            continue
        commits_s.append(time.perf_counter() - before)
    return {
        "commits_s": commits_s,
        "wall_s": time.perf_counter() - began,
        "errors": errors,
    }
