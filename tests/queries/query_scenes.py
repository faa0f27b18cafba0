"""Lakes whose answers are known, asked by ckptlake and by a DuckDB that has never heard of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

import ckptlake
from ckptlake import Settings
from ckptlake.tables.schemas import METRICS, SUMMARIES, get_spec
from ckptlake.tables.sorting import sort_points
from ckptlake.tables.store import Batch
from ckptlake.tables.summaries import summarise

START = datetime(2026, 1, 1, tzinfo=UTC)
NAN, INF = math.nan, math.inf
Row = dict[str, Any]
_numbers = itertools.count(1)


class Scene:
    """A lake to put chosen rows into, and to ask."""

    def __init__(self, root: Path) -> None:
        self.lake = ckptlake.open(root, settings=Settings(auto_compact=False, commit_interval_s=3600))
        self._plain: duckdb.DuckDBPyConnection | None = None

    def put(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Commit rows; points get their summaries, as a writer's commit gives them."""
        batch = pa.Table.from_pylist([dict(row) for row in rows], schema=get_spec(table).schema)
        number = next(_numbers)
        if table == METRICS.name:
            self.lake._store(SUMMARIES.name).append([Batch("put", number, summarise(sort_points(batch)))])
        self.lake._store(table).append([Batch("put", number, batch)])

    def run(
        self,
        run_id: str,
        experiment: str,
        *,
        status: str = "finished",
        params: Mapping[str, float] | None = None,
        **curves: Mapping[int, float],
    ) -> None:
        """Put a run of which a step takes a second; ``__`` in the name of a metric stands for a slash."""
        named = {"run_id": run_id, "experiment": experiment, "attempt": 1, "writer": "w"}
        self.put(
            "runs",
            {**named, "name": run_id.upper(), "event": "started", "status": "running", "ts": START, "host": "h"},
            {**named, "event": "ended", "status": status, "ts": START + timedelta(hours=1)},
        )
        if params:
            number = {"attempt": 1, "ts": START, "kind": "float", "run_id": run_id}
            self.put("params", *({**number, "key": key, "number": float(value)} for key, value in params.items()))
        points = [
            {**named, "metric": metric.replace("__", "/"), "step": step, "value": value}
            | {"ts": START + timedelta(seconds=step)}
            for metric, curve in curves.items()
            for step, value in curve.items()
        ]
        if points:
            self.put("metrics", *points)

    def define(self, experiment: str, metric: str, direction: str) -> None:
        self.put("definitions", {"experiment": experiment, "metric": metric, "direction": direction, "ts": START})

    def renew(self) -> None:
        """Commit everything, and have the next question see it."""
        self.lake.commit()
        self._plain = None

    def ask(self, name: str, **values: object) -> list[Row]:
        """Return the rows of a named query, which a plain DuckDB must return as well, bound and prepared."""
        query = next(query for query in self.lake.queries() if query.name == name)
        relation = self.lake.query(name, **values)
        assert relation.columns == [column.name for column in query.columns]
        rows = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
        if self._plain is None:
            self._plain = duckdb.connect()
            self._plain.execute(self.lake.setup_script())
        bound = query.bind(**values)
        found = self._plain.execute(query.text, bound)
        names = [column[0] for column in found.description or ()]
        assert same(rows, [dict(zip(names, row, strict=True)) for row in found.fetchall()])
        self._plain.execute(f"PREPARE asked AS {query.text}")
        given = ", ".join(f"{key} := {_literal(value)}" for key, value in bound.items())
        found = self._plain.execute(f"EXECUTE asked({given})" if given else "EXECUTE asked")
        assert same(rows, [dict(zip(names, row, strict=True)) for row in found.fetchall()])
        return rows


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def same(one: list[Row], other: list[Row]) -> bool:
    """Tell whether rows are equal; NaN is equal to NaN, and how long ago something was changes while one asks."""
    stripped = [[{key: row[key] for key in row if key != "silent_s"} for row in rows] for rows in (one, other)]
    return repr(stripped[0]) == repr(stripped[1])
