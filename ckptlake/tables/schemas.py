"""The tables of a lake, their columns and how their files are sorted."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from ckptlake.errors import TableNotFoundError

TIMESTAMP = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table: its columns, its partition column if any, and the order of rows in its files."""

    name: str
    schema: pa.Schema
    sort_by: tuple[str, ...]
    partition_by: str | None = None

    @property
    def file_schema(self) -> pa.Schema:
        """The columns that stand in the Parquet files: all but the partition column."""
        return pa.schema([field for field in self.schema if field.name != self.partition_by])


def _spec(
    name: str, sort_by: tuple[str, ...], columns: dict[str, pa.DataType], partition_by: str | None = None
) -> TableSpec:
    return TableSpec(name, pa.schema(list(columns.items())), sort_by, partition_by)


_TYPED_VALUE = {"kind": pa.string(), "number": pa.float64(), "text": pa.string(), "json": pa.string()}

RUNS = _spec(
    "runs",
    ("run_id", "attempt", "ts"),
    {
        "run_id": pa.string(),
        "attempt": pa.int32(),
        "writer": pa.string(),
        "ts": TIMESTAMP,
        "event": pa.string(),
        "status": pa.string(),
        "name": pa.string(),
        "experiment": pa.string(),
        "parent_run_id": pa.string(),
        "forked_from_run_id": pa.string(),
        "forked_from_step": pa.int64(),
        "git_commit": pa.string(),
        "git_branch": pa.string(),
        "git_dirty": pa.bool_(),
        "git_diff_bytes": pa.int64(),
        "host": pa.string(),
        "pid": pa.int64(),
        "command": pa.string(),
        "python": pa.string(),
        "packages": pa.string(),
        "note": pa.string(),
    },
)
PARAMS = _spec(
    "params",
    ("run_id", "key", "attempt", "ts"),
    {"run_id": pa.string(), "attempt": pa.int32(), "ts": TIMESTAMP, "key": pa.string(), **_TYPED_VALUE},
)
TAGS = _spec(
    "tags",
    ("run_id", "key", "attempt", "ts"),
    {
        "run_id": pa.string(),
        "attempt": pa.int32(),
        "ts": TIMESTAMP,
        "key": pa.string(),
        **_TYPED_VALUE,
        "removed": pa.bool_(),
    },
)
DEFINITIONS = _spec(
    "definitions",
    ("experiment", "metric", "run_id", "ts"),
    {
        "experiment": pa.string(),
        "run_id": pa.string(),
        "metric": pa.string(),
        "ts": TIMESTAMP,
        "direction": pa.string(),
        "step_metric": pa.string(),
    },
)
EXPERIMENTS = _spec(
    "experiments",
    ("experiment", "ts"),
    {
        "experiment": pa.string(),
        "ts": TIMESTAMP,
        "description": pa.string(),
        "requirement": pa.string(),
    },
)
METRICS = _spec(
    "metrics",
    ("run_id", "metric", "step", "attempt", "ts"),
    {
        "experiment": pa.string(),
        "run_id": pa.string(),
        "metric": pa.string(),
        "step": pa.int64(),
        "ts": TIMESTAMP,
        "value": pa.float64(),
        "attempt": pa.int32(),
    },
    partition_by="experiment",
)
SUMMARIES = _spec(
    "summaries",
    ("run_id", "metric", "first_step"),
    {
        "experiment": pa.string(),
        "run_id": pa.string(),
        "metric": pa.string(),
        "n": pa.int64(),
        "n_nan": pa.int64(),
        "n_inf": pa.int64(),
        "first_step": pa.int64(),
        "first": pa.float64(),
        "last_step": pa.int64(),
        "last": pa.float64(),
        "min": pa.float64(),
        "min_step": pa.int64(),
        "max": pa.float64(),
        "max_step": pa.int64(),
        "sum": pa.float64(),
        "sum_sq": pa.float64(),
        "first_ts": TIMESTAMP,
        "last_ts": TIMESTAMP,
        "steps_unique": pa.bool_(),
    },
)

TABLES: dict[str, TableSpec] = {
    spec.name: spec for spec in (RUNS, PARAMS, TAGS, DEFINITIONS, EXPERIMENTS, SUMMARIES, METRICS)
}
"""Every table by name, in the order in which one commit writes them: a run is there before its points."""


def get_spec(name: str) -> TableSpec:
    """Return the table called `name`.

    Raises:
        TableNotFoundError: there is none; the message lists those there are.
    """
    try:
        return TABLES[name]
    except KeyError:
        raise TableNotFoundError(f"no table is called {name!r}; there are {', '.join(TABLES)}") from None
