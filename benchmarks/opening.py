"""Opening a lake of many runs, and starting one more run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import ckptlake
from benchmarks.data import NOTHING, Shape, facts_of, points_lake
from benchmarks.harness import Context, Row, Target, Timing, interleave

_FRESH = """
import json, sys, time
clock = time.perf_counter
times = [clock()]
import ckptlake
times.append(clock())
lake = ckptlake.open({path!r})
times.append(clock())
run = lake.run("bench/0", capture=ckptlake.Capture.nothing())
times.append(clock())
print(json.dumps([1e3 * (after - before) for before, after in zip(times, times[1:])]), flush=True)
run.finish()
"""
_ASKED = """
import json, time
import ckptlake
before = time.perf_counter()
ckptlake.open({path!r}).sql("SELECT count(*) FROM runs").fetchall()
print(json.dumps(1e3 * (time.perf_counter() - before)))
"""


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    shape = Shape(context.scaled(1000, 20), context.scaled(1000, 50), context.scaled(10_000, 100))
    path = context.scratch / "lake"
    shutil.copytree(points_lake(context, shape), path)
    fresh: list[list[float]] = []
    asked_ms: list[float] = []

    def in_fresh_process() -> None:
        fresh.append(json.loads(_python(_FRESH.format(path=str(path)))))

    timings = interleave(
        context.scaled(10, 1),
        open=lambda: ckptlake.open(path),
        ask=lambda: ckptlake.open(path).sql("SELECT count(*) FROM runs").fetchall(),
        fresh=in_fresh_process,
        asked=lambda: asked_ms.append(json.loads(_python(_ASKED.format(path=str(path))))),
        empty=lambda: _python("pass"),
    )
    starts = _starts(path, context.scaled(20, 2))
    empty = timings["empty"].wall_ms
    against = "ms: a whole `python -c pass`"
    size = {"runs": facts_of(path)["runs"], "points": facts_of(path)["points"]}

    def row(what: str, figure_ms: float, bound: float | None, **details: object) -> Row:
        target = None if bound is None else Target("at most", bound)
        return Row(
            what=what,
            figure=figure_ms,
            unit="ms",
            reference=empty,
            against=against,
            target=target,
            details={**size, **details},
        )

    return [
        row(
            "open, warm process",
            timings["open"].wall_ms,
            100,
            **timings["open"].details(),
        ),
        row(
            "open and count its runs, warm process",
            timings["ask"].wall_ms,
            100,
            **timings["ask"].details(),
        ),
        row(
            "open, fresh process, after the import",
            median(times[1] for times in fresh),
            100,
        ),
        row(
            "open and count its runs, fresh process, after the import",
            median(asked_ms),
            None,
        ),
        row(
            "start a run, warm process, nothing captured",
            starts["bare"].wall_ms,
            20,
            **starts["bare"].details(),
        ),
        row(
            "start a run, warm process, everything captured",
            starts["full"].wall_ms,
            20,
            **starts["full"].details(),
        ),
        row(
            "start the first run of a process",
            median(times[2] for times in fresh),
            None,
        ),
        row(
            "finish a run of one call (commit)",
            starts["finish"].wall_ms,
            None,
            **starts["finish"].details(),
        ),
    ]


def _starts(path: Path, repeats: int) -> dict[str, Timing]:
    """Return timings of starting a run without and with captures, and of finishing one."""
    open_runs: list[ckptlake.Run] = []

    def finish() -> None:
        open_runs.pop().finish()

    with ckptlake.open(path) as lake:

        def start(capture: ckptlake.Capture) -> None:
            open_runs.append(lake.run("bench/0", capture=capture))

        return interleave(
            repeats,
            full=lambda: start(ckptlake.Capture()),
            finish_full=finish,
            bare=lambda: start(NOTHING),
            logged=lambda: open_runs[-1].log({"train/loss": 1.0}, step=0),
            finish=finish,
        )


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
