"""Rows in the order files keep them, and rows apart by partition."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckptlake.tables.schemas import TableSpec


def sort_rows(rows: pa.Table, spec: TableSpec) -> pa.Table:
    """Return `rows` in the table's file order; rows equal in it keep their order."""
    if spec.name == "metrics":
        return sort_points(rows)
    positions = pa.array(np.arange(rows.num_rows))
    keyed = rows.append_column("_position", positions)
    keys = [(column, "ascending") for column in (*spec.sort_by, "_position")]
    return rows.take(pc.sort_indices(keyed, sort_keys=keys))


def sort_points(points: pa.Table) -> pa.Table:
    """Return points by (run_id, metric, step, attempt, ts).

    Input made of sorted stretches, the normal case, costs one merge of 64-bit keys; a full sort is done
    only where steps do not rise inside a curve.
    """
    group = group_codes(points)
    order: npt.NDArray[np.intp] | None = None
    if np.any(group[1:] < group[:-1]):
        order = np.argsort(group, kind="stable")
    step, attempt, ts = (column_array(points, name) for name in ("step", "attempt", "ts"))
    if order is not None:
        group, step, attempt, ts = (values[order] for values in (group, step, attempt, ts))
    if _falls(group, step, attempt, ts):
        inner = np.lexsort((ts, attempt, step, group))
        order = inner if order is None else order[inner]
    return points if order is None else points.take(pa.array(order))


def _falls(*keys: npt.NDArray[np.int64]) -> bool:
    """Return whether any row is smaller than the row before it, comparing keys from first to last."""
    equal_so_far: npt.NDArray[np.bool_] = np.ones(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        if np.any(equal_so_far & (key[1:] < key[:-1])):
            return True
        equal_so_far &= key[1:] == key[:-1]
    return False


def group_codes(points: pa.Table) -> npt.NDArray[np.int64]:
    """Return a number a row that orders rows as (run_id, metric) does."""
    runs, _ = ranks(points.column("run_id"))
    metrics, names = ranks(points.column("metric"))
    return runs * np.int64(max(len(names), 1)) + metrics


def ranks(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return for each text its rank among the distinct texts, and those texts in order."""
    encoded = as_dictionary(column)
    names = encoded.dictionary.to_pylist()
    by_name = sorted(range(len(names)), key=names.__getitem__)
    rank_of_code = np.empty(len(names), dtype=np.int64)
    rank_of_code[by_name] = np.arange(len(names))
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return rank_of_code[codes], [names[code] for code in by_name]


def as_dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a text column as one dictionary-encoded array."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    merged = column.unify_dictionaries().combine_chunks()
    if isinstance(merged, pa.ChunkedArray):
        merged = merged.chunk(0) if merged.num_chunks else pa.array([], column.type)
    assert isinstance(merged, pa.DictionaryArray)
    return merged


def column_array(rows: pa.Table, name: str) -> npt.NDArray[np.int64]:
    """Return a column of integers or times as 64-bit integers."""
    column = rows.column(name)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values: npt.NDArray[np.int64] = column.to_numpy().astype(np.int64, copy=False)
    return values


def split_by_partition(rows: pa.Table, spec: TableSpec) -> Iterator[tuple[str | None, pa.Table]]:
    """Yield each partition's value and rows; the whole table where there are no partitions."""
    if rows.num_rows == 0:
        return
    if spec.partition_by is None:
        yield None, rows
        return
    column = rows.column(spec.partition_by)
    values = pc.unique(column).to_pylist()
    if len(values) == 1:
        yield values[0], rows
        return
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    for value in values:
        yield value, rows.filter(pc.equal(column, pa.scalar(value, kind)))
