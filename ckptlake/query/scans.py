"""The tables that DuckDB reads from their files, because they may be larger than memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from ckptlake.tables.schemas import METRICS, TENSORS, TableSpec


@dataclass(frozen=True, slots=True)
class ScannedTable:
    """How one table is read from its files.

    Attributes:
        spec: its columns.
        views: the names under which SQL mentions its rows.
        identity: the columns that tell rows apart; rows equal in all of them are one thing recorded again. Only
            conditions on these decide which files are opened.
        newest_first: the order of rows of one identity, for SQL.
        repeated_by: the columns of the rows that tell where an identity may have several rows.
    """

    spec: TableSpec
    views: frozenset[str]
    identity: tuple[str, ...]
    newest_first: str
    repeated_by: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def columns(self) -> list[str]:
        return list(self.spec.schema.names)

    @property
    def files_variable(self) -> str:
        """The variable of DuckDB that holds the files of a question."""
        return f"ckptlake_{self.name}_files"

    @property
    def live(self) -> str:
        """The name under which rows without a commit are registered."""
        return f"{self.name}_live"

    @property
    def repeated(self) -> str:
        """The name under which what may have several rows is registered."""
        return f"{self.name}_repeated"

    def is_whole_number(self, column: str) -> bool:
        return bool(pa.types.is_integer(self.spec.schema.field(column).type))


POINTS = ScannedTable(
    METRICS,
    views=frozenset({"metrics", "metrics_raw"}),
    identity=("experiment", "run_id", "metric", "step"),
    newest_first="attempt DESC, ts DESC",
    repeated_by=("run_id", "metric"),
)
TENSOR_ROWS = ScannedTable(
    TENSORS,
    views=frozenset({"tensors"}),
    identity=("experiment", "run_id", "checkpoint_id", "step", "path"),
    newest_first="ts DESC",
    repeated_by=("checkpoint_id",),
)
SCANNED = {table.name: table for table in (POINTS, TENSOR_ROWS)}
"""Every such table by name; all others are held in memory."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What one question reads of a scanned table.

    Attributes:
        files: the files that it needs.
        num_files: how many there are in all.
        live: rows not committed yet.
        repeated: where an identity may have several rows, by the table's `repeated_by`.
    """

    files: Sequence[str] = ()
    num_files: int = 0
    live: pa.Table | None = None
    repeated: pa.Table | None = None
