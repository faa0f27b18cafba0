"""Whole data files as Arrow tables, partition column included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ckptlake.errors import DamagedTableError
from ckptlake.tables.delta import DataFile
from ckptlake.tables.schemas import TableSpec


def read_files(root: Path, spec: TableSpec, files: Sequence[DataFile]) -> pa.Table:
    """Read data files of one table; texts that repeat much come as dictionaries."""
    return pa.concat_tables(read_file(root / file.path, spec, file.partition) for file in files)


def read_file(path: Path, spec: TableSpec, partition: str | None = None) -> pa.Table:
    """Read one data file; columns that a file of an older format lacks are null.

    Raises:
        DamagedTableError: the file is missing or damaged.
    """
    try:
        rows = pq.ParquetFile(path, read_dictionary=list(spec.layout.read_as_dictionary)).read()
    except (FileNotFoundError, pa.ArrowException) as error:
        raise DamagedTableError(
            f"the data file {path} of table {spec.name!r} cannot be read: {error}; restore it from a copy, or read "
            "the past before it with as_of="
        ) from error
    for name in spec.schema.names:
        if name == spec.partition_by:
            rows = rows.append_column(name, _constant(partition, rows.num_rows))
        elif name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, spec.schema.field(name).type))
    return rows.select(spec.schema.names)


def _constant(value: str | None, size: int) -> pa.DictionaryArray:
    indices = pa.array(np.zeros(size, dtype=np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array([value], pa.string()))
