"""Parquet files as this project writes them: measured encodings, exact statistics, synced to disk."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ckptlake._internal.files import sync_file
from ckptlake._internal.ids import new_id
from ckptlake._internal.names import as_directory
from ckptlake.tables.delta import DataFile
from ckptlake.tables.schemas import TableSpec

STAGING = "_staging"
_LONGEST_TEXT_STATISTIC = 256
_PORTABLE = {"BYTE_STREAM_SPLIT": "PLAIN"}
_WITHOUT_STATISTICS = frozenset({"packages", "note", "json", "text", "requirement", "command", "digest", "finding"})


def write_staged(
    table: pa.Table, root: Path, spec: TableSpec, partition: str | None, profile: Literal["compact", "portable"]
) -> DataFile:
    """Write sorted rows as one file under the table's staging folder and return what the log will say.

    The file is on disk when this returns and is invisible until `publish` gives it its place.
    """
    rows = table.select(spec.file_schema.names)
    name = f"part-{new_id()}.parquet"
    path = name if spec.partition_by is None else f"{spec.partition_by}={as_directory(partition or '')}/{name}"
    staged = root / STAGING / name
    staged.parent.mkdir(parents=True, exist_ok=True)
    encodings = dict(spec.layout.encodings)
    if profile == "portable":
        encodings = {column: _PORTABLE.get(encoding, encoding) for column, encoding in encodings.items()}
    try:
        pq.write_table(
            rows,
            staged,
            compression="zstd",
            compression_level=3,
            row_group_size=spec.layout.row_group_rows,
            max_rows_per_page=spec.layout.row_group_rows,
            data_page_size=8 << 20,
            use_dictionary=[p for p in map(_path_in_file, rows.schema) if p not in encodings] if encodings else True,
            column_encoding=encodings or None,
            write_statistics=_with_bounds(rows),
            store_schema=False,
        )
        sync_file(staged)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    status = staged.stat()
    stats_json = json.dumps(statistics(rows), allow_nan=False)
    return DataFile(path, status.st_size, rows.num_rows, partition, stats_json, int(status.st_mtime * 1000))


def _with_bounds(rows: pa.Table) -> bool | list[str]:
    """Return the columns whose bounds may stand in the file: readers take bounds to say that there is no NaN."""
    unbounded = {field.name for field in rows.schema if _has_nan(rows.column(field.name))}
    return [_path_in_file(field) for field in rows.schema if field.name not in unbounded] if unbounded else True


def _has_nan(column: pa.ChunkedArray) -> bool:
    return pa.types.is_floating(column.type) and bool(pc.any(pc.is_nan(column)).as_py())


def _path_in_file(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def publish(files: Iterable[DataFile], root: Path) -> None:
    """Move staged files to their places and make their names durable; a file in its place stays there."""
    directories = set()
    for file in files:
        place = root / file.path
        if not place.parent.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            directories.add(root)
        try:
            staged_path(file, root).replace(place)
        except FileNotFoundError:
            if not place.exists():
                raise
        directories.add(place.parent)
    for directory in directories:
        sync_file(directory)


def discard(files: Iterable[DataFile], root: Path) -> None:
    """Delete staged files that will not be committed."""
    for file in files:
        staged_path(file, root).unlink(missing_ok=True)


def staged_path(file: DataFile, root: Path) -> Path:
    return root / STAGING / Path(file.path).name


def statistics(rows: pa.Table) -> dict[str, Any]:
    """Return Delta's per-file statistics: exact counts, and bounds where JSON can hold them exactly."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for field in rows.schema:
        column = rows.column(field.name)
        nulls[field.name] = column.null_count
        if field.name in _WITHOUT_STATISTICS or column.null_count == len(column):
            continue
        bounds = _bounds(column)
        if bounds is not None:
            low[field.name], high[field.name] = bounds
    return {"numRecords": rows.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls}


def _bounds(column: pa.ChunkedArray) -> tuple[Any, Any] | None:
    kind = column.type
    if pa.types.is_dictionary(kind):
        used = pc.unique(column)
        column = used.dictionary.take(used.indices) if isinstance(used, pa.DictionaryArray) else used
        kind = column.type
    if _has_nan(column):
        return None
    if pa.types.is_boolean(kind) or pa.types.is_nested(kind):
        return None
    extremes = pc.min_max(column)
    bounds = (_as_json(extremes["min"]), _as_json(extremes["max"]))
    return None if None in bounds else bounds


def _as_json(scalar: pa.Scalar) -> Any:
    if pa.types.is_timestamp(scalar.type):
        moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=scalar.value)
        return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
    value = scalar.as_py()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and len(value) > _LONGEST_TEXT_STATISTIC:
        return None
    return value
