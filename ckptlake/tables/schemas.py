"""The tables of a lake, their columns and how their files are sorted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from ckptlake.errors import TableNotFoundError

TIMESTAMP = pa.timestamp("us", "UTC")
FILE_ROWS = 4_000_000


@dataclass(frozen=True, slots=True)
class FileLayout:
    """How rows stand in Parquet files. Columns go by their path there, such as ``shape.list.element``.

    Attributes:
        encodings: the encoding of columns without a dictionary; all others have one. The profile `portable`
            writes PLAIN in the place of BYTE_STREAM_SPLIT.
        row_group_rows: rows in a row group, at most.
        file_rows: rows in a file that compaction makes, at most; it holds as many in memory.
        read_as_dictionary: texts that repeat so much that they are kept as dictionaries in memory.
    """

    encodings: Mapping[str, str] = field(default_factory=dict)
    row_group_rows: int = 131_072
    file_rows: int = FILE_ROWS
    read_as_dictionary: tuple[str, ...] = ()


_PLAIN_LAYOUT = FileLayout()


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table: its columns, its partition column if any, and the order of rows in its files."""

    name: str
    schema: pa.Schema
    sort_by: tuple[str, ...]
    partition_by: str | None = None
    layout: FileLayout = _PLAIN_LAYOUT

    @property
    def file_schema(self) -> pa.Schema:
        """The columns that stand in the Parquet files: all but the partition column."""
        return pa.schema([field for field in self.schema if field.name != self.partition_by])


def _spec(
    name: str,
    sort_by: tuple[str, ...],
    columns: dict[str, pa.DataType],
    partition_by: str | None = None,
    layout: FileLayout = _PLAIN_LAYOUT,
) -> TableSpec:
    return TableSpec(name, pa.schema(list(columns.items())), sort_by, partition_by, layout)


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
    layout=FileLayout(
        {
            "step": "DELTA_BINARY_PACKED",
            "attempt": "PLAIN",
            "ts": "BYTE_STREAM_SPLIT",
            "value": "BYTE_STREAM_SPLIT",
        },
        read_as_dictionary=("run_id", "metric"),
    ),
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
CHECKPOINTS = _spec(
    "checkpoints",
    ("run_id", "checkpoint_id", "ts"),
    {
        "checkpoint_id": pa.string(),
        "run_id": pa.string(),
        "experiment": pa.string(),
        "attempt": pa.int32(),
        "ts": TIMESTAMP,
        "event": pa.string(),
        "step": pa.int64(),
        "epoch": pa.int64(),
        "format": pa.string(),
        "location": pa.string(),
        "digest": pa.string(),
        "logical_bytes": pa.int64(),
        "stored_bytes": pa.int64(),
        "num_tensors": pa.int64(),
        "metrics": pa.map_(pa.string(), pa.float64()),
        "duration_s": pa.float64(),
        "alias": pa.string(),
        "packs": pa.list_(pa.string()),
        "note": pa.string(),
    },
)
TENSORS = _spec(
    "tensors",
    ("run_id", "step", "checkpoint_id", "path", "ts"),
    {
        "experiment": pa.string(),
        "run_id": pa.string(),
        "checkpoint_id": pa.string(),
        "step": pa.int64(),
        "ts": TIMESTAMP,
        "path": pa.string(),
        "dtype": pa.string(),
        "shape": pa.list_(pa.int64()),
        "num_elements": pa.int64(),
        "nbytes": pa.int64(),
        "digest": pa.string(),
        "pack": pa.string(),
        "codec": pa.string(),
        "stored_bytes": pa.int64(),
        "min": pa.float64(),
        "max": pa.float64(),
        "mean": pa.float64(),
        "std": pa.float64(),
        "l2_norm": pa.float64(),
        "n_nan": pa.int64(),
        "n_inf": pa.int64(),
        "zero_fraction": pa.float64(),
        "exponent_min": pa.int32(),
        "exponent_histogram": pa.list_(pa.int64()),
        "sample_size": pa.int64(),
        "l2_distance": pa.float64(),
        "cosine_similarity": pa.float64(),
        "previous_checkpoint_id": pa.string(),
    },
    partition_by="experiment",
    layout=FileLayout(
        {
            **dict.fromkeys(("min", "max", "mean", "std", "l2_norm", "l2_distance", "cosine_similarity"), "PLAIN"),
            "exponent_histogram.list.element": "DELTA_BINARY_PACKED",
        },
        row_group_rows=32_768,
        file_rows=250_000,
    ),
)
VERIFICATIONS = _spec(
    "verifications",
    ("run_id", "checkpoint_id", "ts"),
    {
        "checkpoint_id": pa.string(),
        "run_id": pa.string(),
        "experiment": pa.string(),
        "ts": TIMESTAMP,
        "level": pa.string(),
        "verdict": pa.string(),
        "finding": pa.string(),
        "tensors_lost": pa.list_(pa.string()),
        "bytes_read": pa.int64(),
        "duration_s": pa.float64(),
    },
)

TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        RUNS,
        PARAMS,
        TAGS,
        DEFINITIONS,
        EXPERIMENTS,
        SUMMARIES,
        METRICS,
        TENSORS,
        CHECKPOINTS,
        VERIFICATIONS,
    )
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
