"""How rows are packed into write-ahead frames and unpacked again.

Points are kept by `log` call: a set of metric names is written once a frame, then each call is its run,
set, step, time and values. That is 8 bytes a point and about 30 a call, against 36 a point in long form.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ckptlake._internal.ids import check_run_id
from ckptlake._internal.names import check_experiment, check_name
from ckptlake.tables.schemas import METRICS, TIMESTAMP, TableSpec, get_spec

Keyset = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """What every point of one run in this process has in common."""

    run_id: str
    experiment: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Call:
    """One `log` call: values in the order of the keyset; each can be made a float."""

    stream: Stream
    keyset: Keyset
    step: int
    ts_us: int
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Many points of one run: row i has the metrics of ``keysets[keyset_index[i]]``, values row by row."""

    stream: Stream
    keysets: Sequence[Keyset]
    keyset_index: npt.NDArray[np.int32]
    step: npt.NDArray[np.int64]
    ts_us: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]


_CALLS_SCHEMA = pa.schema(
    [
        ("run", pa.int32()),
        ("keyset", pa.int32()),
        ("step", pa.int64()),
        ("ts", pa.int64()),
        ("values", pa.list_(pa.field("item", pa.float64(), nullable=False))),
    ]
)


def pack_calls(calls: Sequence[tuple[Stream, Keyset, int, int, tuple[Any, ...]]]) -> pa.RecordBatch:
    """Return `log` calls, as (stream, keyset, step, ts_us, values), as one batch."""
    streams: dict[Stream, int] = {}
    keysets: dict[Keyset, int] = {}
    run = np.fromiter((streams.setdefault(call[0], len(streams)) for call in calls), np.int32, len(calls))
    keyset = np.fromiter((keysets.setdefault(call[1], len(keysets)) for call in calls), np.int32, len(calls))
    step = np.fromiter((call[2] for call in calls), np.int64, len(calls))
    ts = np.fromiter((call[3] for call in calls), np.int64, len(calls))
    values = np.fromiter(chain.from_iterable(call[4] for call in calls), np.float64)
    return _pack(list(streams), list(keysets), run, keyset, step, ts, values)


def pack_block(block: Block) -> pa.RecordBatch:
    """Return a block of points as one batch."""
    run = np.zeros(len(block.step), dtype=np.int32)
    return _pack([block.stream], block.keysets, run, block.keyset_index, block.step, block.ts_us, block.values)


def _pack(
    streams: Sequence[Stream],
    keysets: Sequence[Keyset],
    run: npt.NDArray[np.int32],
    keyset: npt.NDArray[np.int32],
    step: npt.NDArray[np.int64],
    ts: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
) -> pa.RecordBatch:
    sizes = np.array([len(names) for names in keysets], dtype=np.int32)[keyset]
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), type=_CALLS_SCHEMA.field("values").type)
    metadata = {
        "table": METRICS.name,
        "streams": json.dumps([[s.run_id, s.experiment, s.attempt] for s in streams]),
        "keysets": json.dumps(list(keysets)),
    }
    columns = [pa.array(run), pa.array(keyset), pa.array(step), pa.array(ts), lists]
    return pa.RecordBatch.from_arrays(columns, schema=_CALLS_SCHEMA.with_metadata(metadata))


def pack_rows(table: str, rows: Sequence[dict[str, object]]) -> pa.RecordBatch:
    """Return rows of any other table as one batch; columns left out are null.

    A map is given as a dict or as pairs; of pairs with the same key the last counts, as in a dict.

    Raises:
        InvalidInputError: a row of a table with partitions names none.
    """
    spec = get_spec(table)
    maps = [field.name for field in spec.schema if pa.types.is_map(field.type)]
    unique = [_with_unique_keys(row, maps) for row in rows]
    batch = pa.RecordBatch.from_pylist(unique, schema=spec.schema.with_metadata({"table": table}))
    _check_partitions(batch, spec)
    return batch


def _with_unique_keys(row: dict[str, Any], maps: Sequence[str]) -> dict[str, Any]:
    return {**row, **{name: list(dict(row[name]).items()) for name in maps if row.get(name)}}


def table_of(batch: pa.RecordBatch) -> str:
    """Return which table a packed batch belongs to."""
    return str((batch.schema.metadata or {})[b"table"].decode())


def check_packed(batch: pa.RecordBatch, most_bytes: int) -> None:
    """Check that a batch is what `pack_calls`, `pack_block` or `pack_rows` make, and no larger than it may be.

    Raises:
        ValueError: it is not (or another error of what is expected there, from hostile contents).
    """
    metadata = batch.schema.metadata or {}
    table = table_of(batch)
    spec = get_spec(table)
    if not batch.schema.equals(_CALLS_SCHEMA if spec is METRICS else spec.schema):
        raise ValueError(f"the columns are not those of the table {table!r:.60}")
    batch.validate(full=True)  # before anything else looks at its contents: Arrow follows offsets wherever they lead
    if batch.nbytes > most_bytes:
        raise ValueError("the batch is larger than its frame")
    if spec is not METRICS:
        _check_partitions(batch, spec)
        _check_maps(batch)
        return
    if any(column.null_count for column in batch.columns):
        raise ValueError("a point lacks something")
    streams, keysets = json.loads(metadata[b"streams"]), json.loads(metadata[b"keysets"])
    for run_id, experiment, attempt in streams:
        check_run_id(run_id)
        check_experiment(experiment)
        if type(attempt) is not int or not 0 < attempt < 2**31:
            raise ValueError(f"attempt {attempt!r:.40} is none")
    for keyset in keysets:
        for name in keyset:
            check_name("a metric's name", name)
    lists = batch.column("values")
    index = batch.column("keyset").to_numpy()
    run = batch.column("run").to_numpy()
    if len(index) and not (
        index.min() >= 0 and index.max() < len(keysets) and run.min() >= 0 and run.max() < len(streams)
    ):
        raise ValueError("a row names a run or metrics that are not there")
    sizes = np.array([len(keyset) for keyset in keysets], dtype=np.int64)
    if not np.array_equal(np.diff(lists.offsets.to_numpy()), sizes[index]):
        raise ValueError("a row has more or fewer values than metrics")


def _check_partitions(batch: pa.RecordBatch, spec: TableSpec) -> None:
    if spec.partition_by is not None:
        for experiment in pc.unique(batch.column(spec.partition_by)).to_pylist():
            check_experiment(experiment)


def _check_maps(batch: pa.RecordBatch) -> None:
    """Check that no key occurs twice in a map, which DuckDB would refuse at every question from then on."""
    for column in batch.columns:
        if pa.types.is_map(column.type):
            for entries in column.drop_null().to_pylist():
                if len({key for key, _ in entries}) < len(entries):
                    raise ValueError("a map has a key twice")


def unpack(batch: pa.RecordBatch) -> pa.Table:
    """Return a packed batch as rows of its table."""
    if table_of(batch) != METRICS.name:
        return pa.Table.from_batches([batch]).replace_schema_metadata(None)
    metadata = batch.schema.metadata or {}
    streams = [Stream(*fields) for fields in json.loads(metadata[b"streams"])]
    keysets = json.loads(metadata[b"keysets"])
    lists = batch.column("values")
    sizes = np.diff(lists.offsets.to_numpy())
    names: dict[str, int] = {}
    flat = np.array([names.setdefault(name, len(names)) for name in chain.from_iterable(keysets)], np.int32)
    bases = np.concatenate(([0], np.cumsum([len(keyset) for keyset in keysets])))[:-1]
    row_starts = lists.offsets.to_numpy()[:-1] - lists.offsets.to_numpy()[0]
    keyset = batch.column("keyset").to_numpy()
    total = int(sizes.sum())
    metric = flat[np.repeat(bases[keyset] - row_starts, sizes) + np.arange(total)]
    run = np.repeat(batch.column("run").to_numpy(), sizes)
    attempts = np.array([stream.attempt for stream in streams], dtype=np.int32)
    ts = np.repeat(batch.column("ts").to_numpy(), sizes)
    columns: dict[str, pa.Array] = {
        "experiment": _coded(run, [stream.experiment for stream in streams]),
        "run_id": _coded(run, [stream.run_id for stream in streams]),
        "metric": _coded(metric, list(names)),
        "step": pa.array(np.repeat(batch.column("step").to_numpy(), sizes)),
        "ts": pa.array(ts).cast(TIMESTAMP),
        "value": lists.flatten(),
        "attempt": pa.array(attempts[run]),
    }
    return pa.table({name: columns[name] for name in METRICS.schema.names})


def _coded(codes: npt.NDArray[np.int32], texts: list[str]) -> pa.DictionaryArray:
    distinct = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    remapped = np.array([distinct[text] for text in texts], dtype=np.int32)[codes]
    return pa.DictionaryArray.from_arrays(pa.array(remapped), pa.array(list(distinct), pa.string()))
