"""A lake to log to, runs that record nothing of the machine, and the points they have logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ckptlake
from ckptlake import Capture, Lake, Run

Point = tuple[str, int, float]


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with ckptlake.open(tmp_path / "lake") as lake:
        yield lake


@pytest.fixture
def start(lake: Lake) -> Callable[..., Run]:
    """Start a run that captures nothing unless told to."""

    def start(experiment: str | None = "tests", **options: Any) -> Run:
        options.setdefault("capture", Capture.nothing())
        return lake.run(experiment, **options)

    return start


@pytest.fixture
def points(lake: Lake) -> Callable[..., list[Point]]:
    """Read a run's points as (metric, step, value) in the order of metric, step and time."""

    def points(run: Run, view: str = "metrics") -> list[Point]:
        lake.flush()
        query = f"SELECT metric, step, value FROM {view} WHERE run_id = $run ORDER BY metric, step, attempt, ts"
        return lake.sql(query, run=run.id).fetchall()

    return points
