"""`import ckptlake` in fresh processes, against a process that does nothing."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from benchmarks.harness import Context, Row, Target, interleave

HEAVY = ("duckdb", "polars", "pyarrow", "deltalake", "torch", "numpy", "pandas")
_TIMED = """
import sys, time
before = time.perf_counter()
import ckptlake
spent = time.perf_counter() - before
import json
print(json.dumps([spent, [name for name in {heavy!r} if name in sys.modules]]))
"""


def run(context: Context) -> list[Row]:
    """Return the rows of this benchmark."""
    inside_s: list[float] = []
    loaded: set[str] = set()

    def import_it() -> None:
        spent, heavy = json.loads(_python(_TIMED.format(heavy=HEAVY)))
        inside_s.append(spent)
        loaded.update(heavy)

    timings = interleave(context.scaled(30, 3), ours=import_it, empty=lambda: _python("pass"))
    import_ms = statistics.median(inside_s[1:]) * 1e3
    details = {**timings["ours"].details(), "process_ms": timings["ours"].wall_ms}
    return [
        Row(
            what="import ckptlake, inside a fresh process",
            figure=import_ms,
            unit="ms",
            reference=timings["empty"].wall_ms,
            against="ms: a whole `python -c pass`",
            target=Target("at most", 50),
            details=details,
        ),
        Row(
            what="heavy libraries that the import loads",
            figure=len(loaded),
            unit="",
            reference=len(HEAVY),
            against="heavy libraries there are",
            target=Target("at most", 0),
            details={"loaded": sorted(loaded)},
        ),
    ]


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
