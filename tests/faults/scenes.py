"""What the fault tests share: processes that write until they are killed, and what a lake holds afterwards."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import ckptlake
from ckptlake import Capture, Lake, Settings

REPOSITORY = Path(__file__).resolve().parents[2]
BY_HAND = Settings(flush_interval_s=3600, commit_interval_s=3600)
HURRIED = Settings(flush_interval_s=0.005, commit_interval_s=0.02, system_interval_s=3600)
NOTHING = Capture.nothing()
_servers = multiprocessing.get_context("forkserver")
_servers.set_forkserver_preload(["ckptlake.lake", "deltalake", "duckdb", "pyarrow.parquet", "numpy"])


def start(work: Callable[..., None], *arguments: object) -> ForkServerProcess:
    """Start `work` in a process of its own that shares nothing with this one."""
    process = _servers.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def join(processes: Sequence[ForkServerProcess], timeout_s: float = 120) -> None:
    """Wait for processes that must all end well."""
    for process in processes:
        process.join(timeout_s)
        assert process.exitcode == 0, f"{process.name} ended with {process.exitcode}"


def run_script(text: str, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a Python program with the package at hand."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)


def left_by_a_kill(root: Path, points: Sequence[tuple[str, int, float]], *, flush_every: int = 1) -> str:
    """Leave in a lake what a run has that logged `points`, flushed and was killed; returns the run's id."""
    program = """
        import os, sys, json, ckptlake
        root, flush_every, points = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
        settings = ckptlake.Settings(flush_interval_s=3600, commit_interval_s=3600)
        lake = ckptlake.open(root, settings=settings)
        run = lake.run(run_id="victim", capture=ckptlake.Capture.nothing())
        run.flush()
        for number, (metric, step, value) in enumerate(points, start=1):
            run.log({metric: value}, step=step)
            if number % flush_every == 0:
                run.flush()
        os.kill(os.getpid(), 9)
    """
    import json

    ended = run_script(program, str(root), str(flush_every), json.dumps(list(points)))
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return "victim"


def points_of(lake: Lake, view: str = "metrics_raw", **as_of: Any) -> Counter[tuple[str, str, int, bytes]]:
    """Return every point as (run_id, metric, step, bits of the value)."""
    rows = lake.sql(f"SELECT run_id, metric, step, value FROM {view} WHERE NOT starts_with(metric, 'system/')", **as_of)
    return Counter((run, metric, step, struct.pack("<d", value)) for run, metric, step, value in rows.fetchall())


def steps_of(lake: Lake, run_id: str | None = None) -> list[int]:
    """Return the steps of all points, or of one run's, sorted; a double counts twice."""
    condition = "" if run_id is None else "AND run_id = $run_id"
    query = f"SELECT step FROM metrics_raw WHERE NOT starts_with(metric, 'system/') {condition} ORDER BY step"
    values = {} if run_id is None else {"run_id": run_id}
    return [step for (step,) in lake.sql(query, **values).fetchall()]


def statuses(lake: Lake) -> dict[str, str]:
    return dict(lake.sql("SELECT run_id, status FROM runs").fetchall())


def segments(root: Path) -> list[Path]:
    return sorted((root / "wal").glob("*.wal"))


def wait_until(condition: Callable[[], bool], timeout_s: float = 30, what: str = "the condition") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not come true in {timeout_s} s"
        time.sleep(0.01)


def check_words(error: BaseException, word: str = "") -> None:
    """An error says something, names what it should, and does not pour out a whole input."""
    assert 0 < len(str(error)) < 2000
    assert word in str(error)


def open_lake(root: Path | str, settings: Settings = BY_HAND) -> Lake:
    return ckptlake.open(root, settings=settings)
