"""One table at one version: which files it has, and which of them a question needs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ckptlake.tables.delta import DataFile, disk_path
from ckptlake.tables.schemas import TableSpec


@dataclass(frozen=True)
class Bound:
    """Values a column must lie between, both included; None leaves a side open."""

    low: str | int | float | None = None
    high: str | int | float | None = None


@dataclass(frozen=True)
class OneOf:
    """Values of which a column must equal one."""

    values: frozenset[str | int | float]


_REMEMBERED_QUESTIONS = 1000

Predicates = Mapping[str, Bound | OneOf]
"""Conditions on columns that hold all together; columns not named are free."""


@dataclass(frozen=True)
class Snapshot:
    """The files of one table at one version; version -1 is a table that does not exist yet.

    Attributes:
        actions: the live files with statistics, one row each, columns as delta-rs names them.
        transactions: for each writer asked about, the last frame of its segments committed here, or -1.
    """

    spec: TableSpec
    root: Path
    version: int
    actions: pa.Table = field(repr=False)
    transactions: Mapping[str, int] = field(default_factory=dict, repr=False)
    _pruned: dict[tuple[object, ...], list[str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def empty(cls, spec: TableSpec, root: Path) -> Snapshot:
        """Return the snapshot of a table that does not exist yet."""
        return cls(spec, root, -1, pa.table({"path": pa.array([], pa.string())}))

    @property
    def num_files(self) -> int:
        return int(self.actions.num_rows)

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return int(pc.sum(self.actions.column("size_bytes")).as_py() or 0) if self.num_files else 0

    @cached_property
    def digest(self) -> str:
        """A SHA-256 of the names of all files; no two files ever have one name, so it tells rows from others."""
        return hashlib.sha256("\n".join(sorted(self.actions.column("path").to_pylist())).encode()).hexdigest()

    def paths(self) -> list[str]:
        """Return the absolute paths of all files."""
        return self._absolute(self.actions)

    def prune(self, alternatives: Sequence[Predicates]) -> list[str]:
        """Return the files that may hold a row fulfilling any of `alternatives`.

        A file is left out only where its partition or statistics prove that it holds no such row.
        """
        if not all(alternatives):
            return self.paths()
        key = tuple(frozenset(predicates.items()) for predicates in alternatives)
        if key not in self._pruned:
            if len(self._pruned) >= _REMEMBERED_QUESTIONS:
                self._pruned.clear()
            self._pruned[key] = self._prune(alternatives)
        return self._pruned[key]

    def _prune(self, alternatives: Sequence[Predicates]) -> list[str]:
        keep = pa.array([False] * self.num_files, pa.bool_())
        for predicates in alternatives:
            keep = pc.or_(keep, self._may_match(predicates))
        return self._absolute(self.actions.filter(keep))

    def files(self) -> list[DataFile]:
        """Return every file as the log describes it, with its statistics as text left empty."""
        names = self.actions.column_names
        partition = f"partition.{self.spec.partition_by}"
        rows = self.actions.select([name for name in names if name in _FILE_COLUMNS or name == partition])
        return [
            DataFile(
                disk_path(row["path"]),
                row["size_bytes"],
                row["num_records"] or 0,
                row.get(partition),
                "",
                int(row["modification_time"]),
            )
            for row in rows.to_pylist()
        ]

    def _absolute(self, actions: pa.Table) -> list[str]:
        prefix = f"{self.root}/"
        return [prefix + disk_path(path) for path in actions.column("path").to_pylist()]

    def _may_match(self, predicates: Predicates) -> pa.Array:
        keep: pa.Array = pa.array([True] * self.num_files, pa.bool_())
        for column, condition in predicates.items():
            low, high = self._range(column)
            if low is None or high is None:
                continue
            keep = pc.and_(keep, pc.fill_null(_overlaps(low, high, condition), True))
        return keep.combine_chunks() if isinstance(keep, pa.ChunkedArray) else keep

    def _range(self, column: str) -> tuple[pa.ChunkedArray | None, pa.ChunkedArray | None]:
        names = self.actions.column_names
        if column == self.spec.partition_by and f"partition.{column}" in names:
            values = self.actions.column(f"partition.{column}")
            return values, values
        low, high = f"min.{column}", f"max.{column}"
        if low not in names or high not in names:
            return None, None
        return self.actions.column(low), self.actions.column(high)


_FILE_COLUMNS = frozenset({"path", "size_bytes", "num_records", "modification_time"})


def _overlaps(low: pa.ChunkedArray, high: pa.ChunkedArray, condition: Bound | OneOf) -> pa.ChunkedArray:
    if isinstance(condition, OneOf):
        result = pa.chunked_array([pa.array([False] * len(low), pa.bool_())])
        for value in condition.values:
            result = pc.or_(result, _overlaps(low, high, Bound(value, value)))
        return result
    result = pa.chunked_array([pa.array([True] * len(low), pa.bool_())])
    if condition.low is not None:
        result = pc.and_(result, pc.greater_equal(high, pa.scalar(condition.low, _like(condition.low, high))))
    if condition.high is not None:
        result = pc.and_(result, pc.less_equal(low, pa.scalar(condition.high, _like(condition.high, low))))
    return result


def _like(value: object, column: pa.ChunkedArray) -> pa.DataType:
    return pa.float64() if isinstance(value, float) else column.type
