"""Data files as designed: encodings, row groups, pages and codec from the file itself, statistics from the log."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ckptlake.tables.parquet import discard, publish, statistics, write_staged
from ckptlake.tables.schemas import CHECKPOINTS, METRICS, PARAMS, TAGS, TENSORS
from ckptlake.tables.store import Batch

ROW_GROUP_ROWS = 131_072
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ThriftReader:
    """Reads Thrift compact structs, which Parquet writes before each page."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data, self.offset = data, offset

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.offset]
            self.offset += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def integer(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (head := self.data[self.offset]) != 0:
            self.offset += 1
            number = number + (head >> 4) if head >> 4 else self.integer()
            fields[number] = self.value(head & 0x0F)
        self.offset += 1
        return fields

    def value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind in (4, 5, 6):
            return self.integer()
        if kind == 8:
            size = self.varint()
            self.offset += size
            return self.data[self.offset - size : self.offset]
        assert kind == 12, f"unexpected Thrift type {kind}"
        return self.struct()


def pages(path: Path, column: pq.ColumnChunkMetaData) -> list[tuple[str, int]]:
    """Return kind and number of values of each page of a column chunk."""
    data, found = path.read_bytes(), []
    start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    offset = start
    while offset < start + column.total_compressed_size:
        reader = ThriftReader(data, offset)
        header = reader.struct()
        kind = {0: "data", 2: "dictionary", 3: "data"}[header[1]]
        found.append((kind, (header.get(5) or header.get(7) or header.get(8))[1]))
        offset = reader.offset + header[3]
    return found


def many_points(count: int) -> pa.Table:
    """Return realistic points of two runs: float32 losses, one time a step."""
    noise = np.random.default_rng(7).lognormal(size=count).astype(np.float32).astype(np.float64)
    half = count // 2
    step = np.concatenate([np.arange(half), np.arange(count - half)])
    return pa.table(
        {
            "experiment": pa.array(["e"] * count),
            "run_id": pa.array(["a"] * half + ["b"] * (count - half)),
            "metric": pa.array(["loss"] * count),
            "step": pa.array(step),
            "ts": pa.array(1_700_000_000_000_000 + step * 731).cast(METRICS.schema.field("ts").type),
            "value": pa.array(noise),
            "attempt": pa.array(np.ones(count, np.int32)),
        }
    )


class TestEncodings:
    @pytest.mark.parametrize(
        ("profile", "floats"), [("compact", "BYTE_STREAM_SPLIT"), ("portable", "PLAIN")], ids=["compact", "portable"]
    )
    def test_of_points(self, tmp_path: Path, profile: Any, floats: str) -> None:
        count = 2 * ROW_GROUP_ROWS + 1000
        file = write_staged(many_points(count), tmp_path, METRICS, "e", profile)
        publish([file], tmp_path)
        path = tmp_path / file.path
        metadata = pq.read_metadata(path)
        assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [131_072, 131_072, 1000]
        assert metadata.schema.to_arrow_schema().names == METRICS.file_schema.names
        designed = {"step": {"DELTA_BINARY_PACKED"}, "ts": {floats}, "value": {floats}, "attempt": {"PLAIN"}}
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            for number in range(group.num_columns):
                column = group.column(number)
                encodings = set(column.encodings) - {"RLE"}
                name = column.path_in_schema
                assert column.compression == "ZSTD"
                if name in designed:
                    assert encodings == designed[name], name
                    assert pages(path, column) == [("data", group.num_rows)], name
                else:
                    assert "RLE_DICTIONARY" in encodings, name
                    assert Counter(kind for kind, _ in pages(path, column)) == {"dictionary": 1, "data": 1}, name

    @pytest.mark.parametrize("profile", ["compact", "portable"])
    def test_of_tensors(self, tmp_path: Path, profile: Any) -> None:
        rows = [
            {"experiment": "e", "run_id": "r", "checkpoint_id": f"c{i // 100}", "step": i // 100, "path": f"p{i % 100}",
             "dtype": "float32", "shape": [i, 2], "l2_norm": i / 7, "exponent_histogram": list(range(i % 30))}
            for i in range(40_000)
        ]  # fmt: skip
        file = write_staged(pa.Table.from_pylist(rows, schema=TENSORS.schema), tmp_path, TENSORS, "e", profile)
        publish([file], tmp_path)
        metadata = pq.read_metadata(tmp_path / file.path)
        assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [32_768, 40_000 - 32_768]
        columns = [metadata.row_group(0).column(i) for i in range(metadata.num_columns)]
        encodings = {column.path_in_schema: set(column.encodings) for column in columns}
        assert all("BYTE_STREAM_SPLIT" not in found for found in encodings.values()), "any reader reads them"
        assert encodings["exponent_histogram.list.element"] - {"RLE"} == {"DELTA_BINARY_PACKED"}
        assert encodings["l2_norm"] - {"RLE"} == {"PLAIN"}
        for name in ("run_id", "checkpoint_id", "path", "dtype", "shape.list.element", "n_nan"):
            assert "RLE_DICTIONARY" in encodings[name], name
        found = pq.read_table(tmp_path / file.path)
        assert found.column("exponent_histogram").to_pylist() == [row["exponent_histogram"] for row in rows]
        assert found.column("shape").to_pylist() == [row["shape"] for row in rows]

    def test_compact_is_smaller_than_portable_and_both_than_the_default(self, tmp_path: Path) -> None:
        points = many_points(200_000)
        sizes = {
            profile: write_staged(points, tmp_path, METRICS, "e", profile).size_bytes  # type: ignore[arg-type]
            for profile in ("compact", "portable")
        }
        default = tmp_path / "default.parquet"
        pq.write_table(points.drop_columns("experiment"), default)
        assert sizes["compact"] < sizes["portable"] < default.stat().st_size

    def test_small_tables_hold_plain_texts(self, tmp_path: Path) -> None:
        rows = pa.Table.from_pylist([{"run_id": "a", "key": "k", "text": "v"}] * 4, schema=TAGS.schema)
        file = write_staged(rows, tmp_path, TAGS, None, "compact")
        publish([file], tmp_path)
        assert pq.read_table(tmp_path / file.path).schema == TAGS.schema

    def test_dictionary_arrays_are_written_as_texts(self, tmp_path: Path) -> None:
        points = many_points(10)
        coded = points.set_column(1, "run_id", points.column("run_id").dictionary_encode())
        file = write_staged(coded, tmp_path, METRICS, "e", "compact")
        publish([file], tmp_path)
        assert pq.read_schema(tmp_path / file.path) == METRICS.file_schema


class TestBits:
    def test_of_floats_and_integers_survive(self, tmp_path: Path) -> None:
        patterns = [0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001, 0x7FF0000000000000]
        patterns += [0xFFF0000000000000, 0x8000000000000000, 0x0000000000000001, 0x3FF0000000000001]
        values = np.array(patterns, np.uint64).view(np.float64)
        steps = np.array([-(2**63), -1, 0, 1, 2**53 + 1, 2**62, 2**63 - 2, 2**63 - 1])
        points = many_points(8).set_column(5, "value", pa.array(values)).set_column(3, "step", pa.array(steps))
        for profile in ("compact", "portable"):
            file = write_staged(points, tmp_path, METRICS, "e", profile)  # type: ignore[arg-type]
            publish([file], tmp_path)
            read = pq.read_table(tmp_path / file.path)
            assert read.column("value").to_numpy().view(np.uint64).tolist() == patterns
            assert read.column("step").to_pylist() == steps.tolist()


class TestStaging:
    def test_files_are_invisible_until_published(self, tmp_path: Path) -> None:
        file = write_staged(many_points(3), tmp_path, METRICS, "a/b", "compact")
        assert not (tmp_path / file.path).exists()
        assert file.path.startswith("experiment=a%2Fb/")
        publish([file], tmp_path)
        assert (tmp_path / file.path).stat().st_size == file.size_bytes
        assert list((tmp_path / "_staging").iterdir()) == []

    def test_discarded_files_are_gone(self, tmp_path: Path) -> None:
        file = write_staged(many_points(3), tmp_path, METRICS, "e", "compact")
        discard([file, file], tmp_path)
        assert list((tmp_path / "_staging").iterdir()) == []

    def test_a_failed_write_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full_disk(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("ckptlake.tables.parquet.sync_file", full_disk)
        with pytest.raises(OSError, match="No space"):
            write_staged(many_points(3), tmp_path, METRICS, "e", "compact")
        assert list((tmp_path / "_staging").iterdir()) == []


def bounds(values: list[Any], kind: pa.DataType) -> tuple[Any, Any] | None:
    found = statistics(pa.table({"c": pa.array(values, kind)}))
    json.loads(json.dumps(found, allow_nan=False))
    assert found["numRecords"] == len(values)
    assert found["nullCount"] == {"c": values.count(None)}
    assert set(found["minValues"]) == set(found["maxValues"])
    return (found["minValues"]["c"], found["maxValues"]["c"]) if "c" in found["minValues"] else None


class TestStatistics:
    @pytest.mark.parametrize(
        ("values", "kind", "expected"),
        [
            ([3, -1, None, 2], pa.int64(), (-1, 3)),
            ([-(2**63), 2**63 - 1, 2**53 + 1], pa.int64(), (-(2**63), 2**63 - 1)),
            ([0.1, -2.5e-300, 1e300], pa.float64(), (-2.5e-300, 1e300)),
            ([1.0, math.nan], pa.float64(), None),
            ([math.nan], pa.float64(), None),
            ([1.0, math.inf], pa.float64(), None),
            ([-math.inf, 1.0], pa.float64(), None),
            ([None, None], pa.float64(), None),
            ([], pa.string(), None),
            (["b", "a", None, "é", "😀", ""], pa.string(), ("", "😀")),
            (["\uffff", "\U00010000"], pa.string(), ("\uffff", "\U00010000")),
            (["quote\"s, \\ and 'more'", "\n"], pa.string(), ("\n", "quote\"s, \\ and 'more'")),
            (["a", "z" * 300], pa.string(), None),
            (["y" * 256, "z" * 256], pa.string(), ("y" * 256, "z" * 256)),
            ([True, False], pa.bool_(), None),
        ],
    )
    def test_bounds_are_exact_or_absent(self, values: list[Any], kind: pa.DataType, expected: object) -> None:
        assert bounds(values, kind) == expected

    def test_times_have_microseconds(self) -> None:
        moments = [EPOCH + timedelta(microseconds=us) for us in (1_700_000_000_000_001, -1, 1_600_000_000_123_456)]
        found = bounds(moments, pa.timestamp("us", "UTC"))
        assert found is not None
        assert found[0].endswith("Z")
        assert [datetime.fromisoformat(text) for text in found] == [min(moments), max(moments)]

    def test_a_dictionary_counts_only_values_in_use(self) -> None:
        column = pa.DictionaryArray.from_arrays(pa.array([1, 1, 2]), pa.array(["a", "m", "n", "z"]))
        found = statistics(pa.table({"c": column}))
        assert (found["minValues"], found["maxValues"]) == ({"c": "m"}, {"c": "n"})

    def test_maps_and_lists_have_counts_of_nothing_alone(self) -> None:
        rows = [{"checkpoint_id": "a", "metrics": {"x": 1.0}, "packs": ["p"], "digest": "f0"}, {"metrics": {}}]
        found = statistics(pa.Table.from_pylist(rows, schema=CHECKPOINTS.schema))
        assert (found["minValues"], found["maxValues"]) == ({"checkpoint_id": "a"}, {"checkpoint_id": "a"})
        assert {name: found["nullCount"][name] for name in ("metrics", "packs", "digest")} == {
            "metrics": 0,
            "packs": 1,
            "digest": 1,
        }

    def test_texts_of_any_length_have_none(self) -> None:
        rows = [{"run_id": "a", "key": "k", "text": "secret", "json": '"secret"', "number": 2.0}]
        found = statistics(pa.Table.from_pylist(rows, schema=PARAMS.schema))
        assert found["minValues"] == {"run_id": "a", "key": "k", "number": 2.0}

    def test_the_log_says_what_the_file_holds(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        names = ["ü/1", "q\"uote'd", "z" * 300, "plain"]
        for number, name in enumerate(names):
            store.append([Batch("w", number, make_points(5, run_id=f"run-{number}", metric=name, start=number))])
        logged = {}
        for entry in sorted((store.path / "_delta_log").glob("*.json")):
            for line in entry.read_text().splitlines():
                action = json.loads(line)
                if "add" in action:
                    stats = json.loads(action["add"]["stats"])
                    logged[stats["minValues"]["run_id"]] = stats
        assert len(logged) == len(names)
        for number, name in enumerate(names):
            stats = logged[f"run-{number}"]
            assert stats["numRecords"] == 5
            assert (stats["minValues"]["step"], stats["maxValues"]["step"]) == (number, number + 4)
            assert stats["minValues"].get("metric") == (name if len(name) <= 256 else None)
            assert stats["maxValues"]["value"] == (number + 4) / 7
