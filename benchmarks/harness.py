"""What every benchmark shares: rows with targets, interleaved timing, facts of the machine, results as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"
_PACKAGES = (
    "numpy",
    "pyarrow",
    "polars",
    "duckdb",
    "deltalake",
    "torch",
    "tensorboard",
)


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a row's figure, or on its ratio to the reference."""

    kind: Literal["at most", "at least"]
    bound: float
    of: Literal["figure", "ratio"] = "figure"

    def is_met(self, row: Row) -> bool:
        value = row.ratio if self.of == "ratio" else row.figure
        return value <= self.bound if self.kind == "at most" else value >= self.bound

    def __str__(self) -> str:
        sign = "≤" if self.kind == "at most" else "≥"
        return f"{sign} {_short(self.bound)}{'×' if self.of == 'ratio' else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One result: a figure, the reference measured beside it, and what must be reached.

    Attributes:
        what: what was measured.
        figure: ours, in `unit`.
        reference: the same of the thing named in `against`, in the same unit.
        target: what must be reached; None for a figure kept to be watched.
        details: data size, spread, CPU time: whatever helps to read the figure.
    """

    what: str
    figure: float
    unit: str
    reference: float
    against: str
    target: Target | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Return figure / reference."""
        return self.figure / self.reference if self.reference else float("inf")

    @property
    def verdict(self) -> str:
        return "watch" if self.target is None else "pass" if self.target.is_met(self) else "MISS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How much to measure and where.

    Attributes:
        data: where built lakes are kept for further benchmarks and runs.
        scratch: an empty directory, deleted at the end.
        quick: scale everything down to see that it works; the figures then mean little.
        large: also build and read the lake of ten times the points.
    """

    data: Path
    scratch: Path
    quick: bool = False
    large: bool = False

    def scaled(self, full: int, quick: int) -> int:
        """Return the size to use."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall and process CPU seconds of repeated calls."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]

    @property
    def wall_ms(self) -> float:
        """Return the median wall time in milliseconds."""
        return statistics.median(self.wall_s) * 1e3

    @property
    def cpu_ms(self) -> float:
        """Return the median CPU time of the process, all threads, in milliseconds."""
        return statistics.median(self.cpu_s) * 1e3

    def details(self) -> dict[str, float]:
        return {
            "repeats": len(self.wall_s),
            "wall_ms_min": min(self.wall_s) * 1e3,
            "wall_ms_max": max(self.wall_s) * 1e3,
            "cpu_ms": self.cpu_ms,
        }


def interleave(repeats: int, **calls: Callable[[], object]) -> dict[str, Timing]:
    """Time each call `repeats` times, taking turns, after one turn that does not count."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            cpu_before, before = time.process_time(), time.perf_counter()
            call()
            spent, cpu_spent = (
                time.perf_counter() - before,
                time.process_time() - cpu_before,
            )
            if repeat:
                wall[name].append(spent)
                cpu[name].append(cpu_spent)
    return {name: Timing(tuple(wall[name]), tuple(cpu[name])) for name in calls}


def warm_memory(path: Path, size_mb: int) -> None:
    """Have free memory at hand for a file of that size.

    The host of a virtual machine takes free memory back within a second or two, and its first touch then costs ten
    times the write; without this a figure tells how long ago somebody deleted a file.
    """
    piece = os.urandom(1 << 20)
    with path.open("wb", buffering=0) as file:
        for _ in range(size_mb * 5 // 4):
            file.write(piece)
    path.unlink()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the sorted values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> dict[str, Any]:
    """Return the facts without which a figure cannot be read."""
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "system": platform.platform(),
        "processor": _processor(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        "unknown",
    )


def versions() -> dict[str, str]:
    """Return the versions of ckptlake and of what it and the references stand on."""
    import ckptlake

    found = {"ckptlake": ckptlake.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def keep(
    directory: Path,
    name: str,
    rows: Iterable[Row],
    context: Context,
    before: Mapping[str, Any],
) -> Path:
    """Write the rows of a benchmark as JSON and return the file."""
    result = {
        "benchmark": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": context.quick,
        "versions": versions(),
        "machine": {**before, "load_after": os.getloadavg()},
        "rows": [{**asdict(row), "ratio": row.ratio, "verdict": row.verdict} for row in rows],
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, default=float) + "\n")
    return path


HEADINGS = ("what", "figure", "reference", "ratio", "target", "")
WIDTHS = (62, 16, 58, 9, 10, 5)


def line(cells: Iterable[str]) -> str:
    """Return one line of the table of results."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


def shown(row: Row) -> str:
    """Return a row as a line of the table."""
    figure = f"{_short(row.figure)} {row.unit}"
    reference = f"{_short(row.reference)} {row.against}"
    return line(
        (
            row.what,
            figure,
            reference,
            f"{_short(row.ratio)}×",
            str(row.target or "-"),
            row.verdict,
        )
    )


def _short(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
