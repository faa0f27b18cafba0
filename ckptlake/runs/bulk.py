"""Frames and arrays of many points, checked and brought into blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckptlake._internal.names import check_name
from ckptlake._internal.optional import if_imported
from ckptlake.errors import InvalidInputError
from ckptlake.runs.frames import Block, Keyset, Stream

_POINTS_A_BLOCK = 1_000_000
_MOST_PATTERNS = 256
_EXACT_INTEGER = 2**53


@dataclass(frozen=True, slots=True)
class Points:
    """Points of a frame: entry i has the metrics of ``keysets[keyset_index[i]]``, values entry by entry.

    Attributes:
        num_rows: rows of the frame, those without a point included.
        row: for each entry the frame's row it comes from.
        step: for each entry its step; None where the frame has no such column.
        ts_us: for each entry its time in microseconds; None where the frame has no such column.
    """

    num_rows: int
    keysets: list[Keyset]
    keyset_index: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]
    step: npt.NDArray[np.int64] | None
    ts_us: npt.NDArray[np.int64] | None
    values: npt.NDArray[np.float64]

    @property
    def metrics(self) -> set[str]:
        """The metrics that have a point."""
        return {name for index in np.unique(self.keyset_index) for name in self.keysets[index]}

    def repeats_steps(self, step: npt.NDArray[np.int64]) -> bool:
        """Return whether one metric may have two values at one step."""
        if len(self.keysets) == 1:
            return len(np.unique(step)) < len(step)
        single = all(len(keyset) == 1 for keyset in self.keysets)
        keys = np.stack([step, self.keyset_index.astype(np.int64) if single else np.zeros_like(step)])
        return bool(np.unique(keys, axis=1).shape[1] < len(step))

    def blocks(self, stream: Stream, step: npt.NDArray[np.int64], ts_us: npt.NDArray[np.int64]) -> Iterator[Block]:
        """Yield the points in blocks of at most a million."""
        sizes = np.array([len(keyset) for keyset in self.keysets], dtype=np.int64)[self.keyset_index]
        ends = np.cumsum(sizes)
        start = 0
        while start < len(ends):
            done = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + _POINTS_A_BLOCK, side="right")))
            yield Block(
                stream,
                self.keysets,
                self.keyset_index[start:stop],
                step[start:stop],
                ts_us[start:stop],
                self.values[done : int(ends[stop - 1])],
            )
            start = stop


def read_points(frame: object, step: str, ts: str) -> Points:
    """Return the points of a frame.

    Args:
        frame: a Polars, Arrow or pandas frame or a dict of arrays. Either wide, one column a metric, where a
            null is a point that was not logged; or long, with the columns ``metric`` and ``value``.
        step: the column of steps.
        ts: the column of times.

    Raises:
        InvalidInputError: no such frame, or a column that cannot be kept exactly; the message names it.
    """
    table = _as_table(frame)
    for name, default in ((step, "step"), (ts, "ts")):
        if name != default and name not in table.column_names:
            raise InvalidInputError(f"the frame has no column {name!r}; it has {', '.join(table.column_names)}")
    steps = _steps(table.column(step), step) if step in table.column_names else None
    times = _times(table.column(ts), ts) if ts in table.column_names else None
    names = [name for name in table.column_names if name not in (step, ts)]
    if set(names) == {"metric", "value"} and _is_text(table.column("metric").type):
        return _long(table, steps, times)
    return _wide(
        {check_name("a metric's name", name): _values(table.column(name), name) for name in names}, steps, times
    )


def _as_table(frame: object) -> pa.Table:
    polars, pandas = if_imported("polars"), if_imported("pandas")
    if polars is not None and isinstance(frame, polars.LazyFrame):
        frame = frame.collect()
    if polars is not None and isinstance(frame, polars.DataFrame):
        frame = frame.to_arrow()
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    if isinstance(frame, pa.Table):
        columns = list(zip(frame.column_names, frame.columns, strict=True))
    elif pandas is not None and isinstance(frame, pandas.DataFrame):
        columns = [(str(name), _from_pandas(str(name), series)) for name, series in frame.items()]
    elif isinstance(frame, Mapping):
        columns = [(str(name), _from_array(str(name), values)) for name, values in frame.items()]
    else:
        raise InvalidInputError(
            f"log_frame takes a Polars, Arrow or pandas frame or a dict of arrays, got {type(frame).__name__}"
        )
    sizes = {name: len(column) for name, column in columns}
    if len(sizes) < len(columns):
        raise InvalidInputError(
            f"the frame has two columns of one name among {[name for name, _ in columns]}; rename one"
        )
    if len(set(sizes.values())) > 1:
        raise InvalidInputError(f"the frame's columns differ in length: {sizes}")
    return pa.table(dict(columns))


def _from_pandas(name: str, series: Any) -> pa.Array:
    """Return a pandas column; a NaN of a numpy column is a value, an NA of a nullable one is missing."""
    if isinstance(series.dtype, np.dtype) and series.dtype.kind != "O":
        return _from_numpy(name, series.to_numpy())
    try:
        return pa.array(series)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise InvalidInputError(f"column {name!r} is no array of one type: {error}") from error


def _from_array(name: str, values: Any) -> pa.Array:
    torch: Any = if_imported("torch")
    pandas: Any = if_imported("pandas")
    if torch is not None and isinstance(values, torch.Tensor):
        if values.is_complex() or values.device.type == "meta" or values.is_sparse:
            raise InvalidInputError(
                f"column {name!r} is a tensor of {values.dtype} on {values.device}, which holds no numbers"
            )
        values = values.detach().cpu()
        values = (values.double() if values.is_floating_point() else values).numpy()
    if pandas is not None and isinstance(values, pandas.Series):
        return _from_pandas(name, values)
    if hasattr(values, "to_arrow"):
        values = values.to_arrow()
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, np.ndarray):
        return _from_numpy(name, values)
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise InvalidInputError(f"column {name!r} is no array of one type: {error}") from error


def _from_numpy(name: str, values: npt.NDArray[Any]) -> pa.Array:
    if values.ndim != 1:
        raise InvalidInputError(f"column {name!r} has shape {values.shape}; give one dimension")
    try:
        return pa.array(values.astype(values.dtype.newbyteorder("="), copy=False))
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise InvalidInputError(f"column {name!r} of {values.dtype} holds no numbers: {error}") from error


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _steps(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.int64]:
    if column.null_count:
        raise InvalidInputError(f"the step column {name!r} has {column.null_count} nulls; give every row a step")
    if pa.types.is_null(column.type):
        return np.empty(0, dtype=np.int64)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InvalidInputError(f"the step column {name!r} holds {column.type}; steps are integers")
    try:
        return np.array(column.cast(pa.int64()).to_numpy())
    except pa.ArrowInvalid as error:
        raise InvalidInputError(f"the step column {name!r} holds a value that is no 64-bit integer: {error}") from None


def _times(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.int64]:
    if pa.types.is_null(column.type) and len(column) == 0:
        return np.empty(0, dtype=np.int64)
    if not pa.types.is_timestamp(column.type) or column.null_count:
        raise InvalidInputError(
            f"the time column {name!r} must hold UTC timestamps without nulls, got {column.type}; "
            "convert seconds since 1970 with pl.from_epoch or numpy's datetime64"
        )
    try:
        return np.array(column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()).to_numpy())
    except pa.ArrowInvalid as error:
        raise InvalidInputError(f"the time column {name!r} is finer than microseconds: {error}") from None


def _values(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_null(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind):
        return column.cast(pa.uint8()).cast(pa.float64()) if pa.types.is_boolean(kind) else column.cast(pa.float64())
    if pa.types.is_integer(kind):
        rounded = column.cast(pa.float64(), safe=False)
        if any(int(number) != exact for number, exact in _beyond_exact(column, rounded)):
            raise InvalidInputError(
                f"column {name!r} holds integers beyond 2**53 that a float64 cannot keep exactly; cast it to "
                "float64 if rounding is fine"
            )
        return rounded
    raise InvalidInputError(
        f"column {name!r} holds {kind}; a metric's column holds numbers or bools, or give the columns 'metric' "
        "(text) and 'value'"
    )


def _beyond_exact(column: pa.ChunkedArray, rounded: pa.ChunkedArray) -> Iterator[tuple[float, int]]:
    """Yield the integers so large that a float64 may not hold them, each after what it was rounded to."""
    large = pc.greater_equal(pc.abs(rounded), float(_EXACT_INTEGER))
    yield from zip(rounded.filter(large).to_pylist(), column.filter(large).to_pylist(), strict=True)


def _wide(
    columns: dict[str, pa.ChunkedArray],
    step: npt.NDArray[np.int64] | None,
    ts: npt.NDArray[np.int64] | None,
) -> Points:
    if not columns:
        raise InvalidInputError("the frame has no metric columns")
    names = tuple(columns)
    num_rows = len(next(iter(columns.values())))
    rows = np.arange(num_rows)
    matrix = np.empty((num_rows, len(names)), dtype=np.float64)
    for index, column in enumerate(columns.values()):
        matrix[:, index] = (column.fill_null(0.0) if column.null_count else column).to_numpy()
    if not any(column.null_count for column in columns.values()):
        return Points(num_rows, [names], np.zeros(num_rows, dtype=np.int32), rows, step, ts, matrix.ravel())
    present = np.stack([column.is_valid().to_numpy() for column in columns.values()], axis=1)
    patterns, pattern_index = np.unique(present, axis=0, return_inverse=True)
    if len(patterns) > _MOST_PATTERNS:
        row, metric = np.nonzero(present)
        singles: list[Keyset] = [(name,) for name in names]
        return Points(num_rows, singles, metric.astype(np.int32), row, _at(step, row), _at(ts, row), matrix[present])
    keysets = [tuple(name for name, on in zip(names, pattern, strict=True) if on) for pattern in patterns]
    return Points(num_rows, keysets, pattern_index.reshape(-1).astype(np.int32), rows, step, ts, matrix[present])


def _long(table: pa.Table, step: npt.NDArray[np.int64] | None, ts: npt.NDArray[np.int64] | None) -> Points:
    metric, value = table.column("metric"), _values(table.column("value"), "value")
    if metric.null_count:
        raise InvalidInputError(f"the column 'metric' has {metric.null_count} nulls; give every row a name")
    coded = metric.cast(pa.string()).dictionary_encode().unify_dictionaries().combine_chunks()
    chunk = coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded
    names = [check_name("a metric's name", name) for name in chunk.dictionary.to_pylist()]
    row = np.flatnonzero(pc.is_valid(value).to_numpy())
    index = chunk.indices.to_numpy().astype(np.int32)[row]
    values = value.drop_null().to_numpy().copy()
    return Points(table.num_rows, [(name,) for name in names], index, row, _at(step, row), _at(ts, row), values)


def _at(values: npt.NDArray[np.int64] | None, row: npt.NDArray[np.intp]) -> npt.NDArray[np.int64] | None:
    return None if values is None else values[row]
