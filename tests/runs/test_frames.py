"""Rows packed into frames and unpacked again are the same rows."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake.errors import InvalidInputError
from ckptlake.runs.frames import Block, Stream, check_packed, pack_block, pack_calls, pack_rows, table_of, unpack
from ckptlake.tables.schemas import METRICS, TABLES

STREAMS = [
    Stream("run-a", "pose", 1),
    Stream("run-a", "pose", 2),
    Stream("run-b", "pose/vit", 1),
    Stream("ü", "é/損", 7),
]
KEYSETS = [
    ("loss",),
    ("loss", "acc"),
    ("acc", "loss"),
    (),
    ("a/b", "ü", "\n", "x" * 300),
    tuple(f"m{i}" for i in range(40)),
]
INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.integers(-(2**60), 2**60)


def call_of(keyset: tuple[str, ...]) -> st.SearchStrategy[tuple[Any, ...]]:
    values = st.lists(st.floats(width=64), min_size=len(keyset), max_size=len(keyset)).map(tuple)
    return st.tuples(st.sampled_from(STREAMS), st.just(keyset), INT64, TIMES, values)


CALLS = st.lists(st.sampled_from(KEYSETS).flatmap(call_of), min_size=1, max_size=25)
Row = tuple[str, str, str, int, int, bytes, int]


def bits(value: float) -> bytes:
    return b"nan" if value != value else struct.pack("<d", value)


def rows_of(table: pa.Table) -> list[Row]:
    columns = [table.column(name) for name in ("experiment", "run_id", "metric", "step")]
    texts = [column.to_pylist() for column in columns]
    ts = table.column("ts").cast(pa.int64()).to_pylist()
    values = [bits(value) for value in table.column("value").to_pylist()]
    return list(zip(*texts, ts, values, table.column("attempt").to_pylist(), strict=True))


def expected_rows(calls: list[tuple[Any, ...]]) -> list[Row]:
    return [
        (stream.experiment, stream.run_id, name, step, ts_us, bits(value), stream.attempt)
        for stream, keyset, step, ts_us, values in calls
        for name, value in zip(keyset, values, strict=True)
    ]


def through_the_wire(batch: pa.RecordBatch) -> pa.RecordBatch:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    with pa.ipc.open_stream(sink.getvalue()) as stream:
        return stream.read_next_batch()


@given(calls=CALLS)
@settings(max_examples=40, deadline=None)
def test_calls_come_back_as_they_were(calls: list[tuple[Any, ...]]) -> None:
    batch = through_the_wire(pack_calls(calls))
    assert table_of(batch) == METRICS.name
    table = unpack(batch)
    assert table.column_names == METRICS.schema.names
    assert rows_of(table) == expected_rows(calls)


@given(calls=CALLS, start=st.integers(0, 10), length=st.integers(0, 10))
@settings(max_examples=30, deadline=None)
def test_a_slice_of_a_batch_is_its_own_rows(calls: list[tuple[Any, ...]], start: int, length: int) -> None:
    table = unpack(pack_calls(calls).slice(start, length))
    assert rows_of(table) == expected_rows(calls[start : start + length])


def test_streams_are_told_apart_by_all_they_hold() -> None:
    calls = [
        (stream, ("x",), 0, 0, (float(index),)) for index, stream in enumerate([*STREAMS, Stream("run-a", "pose", 1)])
    ]
    assert rows_of(unpack(pack_calls(calls))) == expected_rows(calls)


def test_names_are_written_once() -> None:
    names = tuple(f"a long name of a metric {index}" for index in range(20))
    calls = [(STREAMS[0], names, step, step, tuple(map(float, range(20)))) for step in range(1000)]
    assert pack_calls(calls).nbytes < 1000 * (20 * 8 + 40)


def test_values_are_made_floats_only_here() -> None:
    class Late:
        read = 0

        def __float__(self) -> float:
            Late.read += 1
            return 1.5

    calls = [(STREAMS[0], ("x", "y"), 0, 0, (Late(), 2.0))]
    assert Late.read == 0
    assert [row[5] for row in rows_of(unpack(pack_calls(calls)))] == [bits(1.5), bits(2.0)]


@given(data=st.data(), num_rows=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_blocks_come_back_as_they_were(data: st.DataObject, num_rows: int) -> None:
    keysets = data.draw(st.lists(st.sampled_from(KEYSETS), min_size=1, max_size=4, unique=True))
    index = data.draw(st.lists(st.integers(0, len(keysets) - 1), min_size=num_rows, max_size=num_rows))
    calls = [data.draw(call_of(keysets[which])) for which in index]
    block = Block(
        STREAMS[2],
        keysets,
        np.array(index, dtype=np.int32),
        np.array([call[2] for call in calls], dtype=np.int64),
        np.array([call[3] for call in calls], dtype=np.int64),
        np.array([value for call in calls for value in call[4]], dtype=np.float64),
    )
    table = unpack(through_the_wire(pack_block(block)))
    assert rows_of(table) == expected_rows([(STREAMS[2], *call[1:]) for call in calls])


@pytest.mark.parametrize("name", [name for name in TABLES if name != METRICS.name])
def test_rows_of_other_tables_come_back_as_they_were(name: str) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    samples = {
        pa.string(): "text ü",
        pa.int32(): 3,
        pa.int64(): 2**62,
        pa.float64(): 0.1,
        pa.bool_(): False,
        pa.timestamp("us", "UTC"): moment + timedelta(microseconds=1),
        pa.list_(pa.int64()): [2**62, -1],
        pa.list_(pa.string()): ["ü", ""],
        pa.map_(pa.string(), pa.float64()): [("b ü", 0.1), ("a", None), ("", float("inf"))],
    }
    schema = TABLES[name].schema
    full = {field.name: samples[field.type] for field in schema}
    empty = {field.name: [] for field in schema if pa.types.is_nested(field.type)}
    rows = [full, {"experiment": "only"}, {"experiment": "only", **empty}]
    rows = [{column: value for column, value in row.items() if column in schema.names} for row in rows]
    batch = through_the_wire(pack_rows(name, rows))
    assert table_of(batch) == name
    table = unpack(batch)
    assert table.schema == schema
    assert table.to_pylist() == [{column: row.get(column) for column in schema.names} for row in rows]


def test_a_map_is_given_as_a_dict_or_as_pairs() -> None:
    given = [{"loss": 0.5, "acc": np.float32(0.25)}, [("loss", 0.5), ("acc", 1)], {}, None, [("a", 1.0), ("a", 2.0)]]
    batch = through_the_wire(pack_rows("checkpoints", [{"metrics": metrics} for metrics in given]))
    check_packed(batch, batch.nbytes)
    assert unpack(batch).column("metrics").to_pylist() == [
        [("loss", 0.5), ("acc", 0.25)], [("loss", 0.5), ("acc", 1.0)], [], None, [("a", 2.0)],
    ]  # fmt: skip


@given(
    maps=st.lists(st.none() | st.dictionaries(st.text(max_size=3), st.none() | st.floats(), max_size=4), max_size=6),
    start=st.integers(0, 6),
)
@settings(max_examples=40, deadline=None)
def test_any_map_comes_back_also_from_a_slice(maps: list[Any], start: int) -> None:
    batch = through_the_wire(pack_rows("checkpoints", [{"metrics": metrics} for metrics in maps]).slice(start))
    check_packed(batch, batch.nbytes)
    expected = [None if metrics is None else list(metrics.items()) for metrics in maps[start:]]
    assert repr(unpack(batch).column("metrics").to_pylist()) == repr(expected)


def test_a_frame_with_a_key_twice_is_none() -> None:
    """DuckDB refuses every question to such a map, so one bad frame would spoil the table for good."""
    good = pack_rows("checkpoints", [{"metrics": {"a": 1.0, "b": 2.0}}])
    column = pa.array([[("a", 1.0), ("a", 2.0)]], good.schema.field("metrics").type)
    position = good.schema.names.index("metrics")
    bad = pa.RecordBatch.from_arrays(
        [column if index == position else array for index, array in enumerate(good.columns)], schema=good.schema
    )
    check_packed(good, good.nbytes)
    with pytest.raises(ValueError, match="twice"):
        check_packed(bad, bad.nbytes)


@pytest.mark.parametrize("experiment", [None, "", "../../etc", "a//b", "x\n", "é" * 300])
def test_a_row_of_a_partitioned_table_names_an_experiment(experiment: str | None) -> None:
    with pytest.raises(InvalidInputError, match="experiment"):
        pack_rows("tensors", [{"experiment": "good"}, {"experiment": experiment}])
    schema = TABLES["tensors"].schema.with_metadata({"table": "tensors"})
    with pytest.raises(ValueError, match="experiment"):
        check_packed(pa.RecordBatch.from_pylist([{"experiment": experiment}], schema=schema), 10_000)
