"""Tables of a lake at work: real Delta tables in a temporary directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from ckptlake.config import Settings
from ckptlake.tables.schemas import METRICS, TableSpec
from ckptlake.tables.store import TableStore

Point = tuple[str, str, str, int, int, float, int]
MakeStore = Callable[..., TableStore]
MakePoints = Callable[..., pa.Table]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Open a table; each call gives a handle of its own, as another process would have."""

    def make(spec: TableSpec = METRICS, **settings: object) -> TableStore:
        return TableStore(tmp_path / "tables" / spec.name, spec, Settings(**settings))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_points() -> MakePoints:
    """Make points of one curve: a value a step, counting on from `start`."""

    def make(
        count: int = 3, run_id: str = "r1", metric: str = "loss", experiment: str = "pose", start: int = 0
    ) -> pa.Table:
        steps: Iterable[int] = range(start, start + count)
        rows: list[Point] = [(experiment, run_id, metric, s, 1_000_000 + s % 10**6, s / 7, 1) for s in steps]
        return pa.table([pa.array(list(c)) for c in zip(*rows, strict=True)], names=METRICS.schema.names).cast(
            METRICS.schema
        )

    return make
