"""Compaction: what it plans, that it changes no row, and that two never count double."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlake.errors import CommitConflictError, VersionNotFoundError
from ckptlake.tables import compaction
from ckptlake.tables.compaction import CROWDED_FILES, FILE_ROWS, compact, plan_all, plan_routine, trim_log
from ckptlake.tables.delta import DataFile
from ckptlake.tables.reading import read_files
from ckptlake.tables.schemas import CHECKPOINTS, PARAMS, SUMMARIES, TENSORS, VERIFICATIONS, TableSpec
from ckptlake.tables.sorting import sort_points
from ckptlake.tables.store import Batch, TableStore
from ckptlake.tables.summaries import merge_summaries, summarise

FILES = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1, 9, 10, 5000, 1_999_999, 2_000_000, 5_000_000])),
    max_size=60,
)


def data_files(described: Sequence[tuple[str | None, int]]) -> list[DataFile]:
    return [DataFile(f"x={p}/part-{i:05}.parquet", 1, rows, p, "", 0) for i, (p, rows) in enumerate(described)]


class TestPlan:
    @given(described=FILES, repeat=st.sampled_from([1, 20]))
    def test_groups_stay_inside_a_partition_and_under_the_target(
        self, described: list[tuple[str | None, int]], repeat: int
    ) -> None:
        files = data_files(described * repeat)
        for plan in (plan_routine(files), plan_all(files)):
            for group in plan:
                assert len({file.partition for file in group}) == 1
                assert len(group) > 1
                assert sum(file.num_records for file in group) <= FILE_ROWS
                assert all(file.num_records < FILE_ROWS // 2 for file in group), "a large file is rewritten"
            assert max(Counter(file.path for group in plan for file in group).values(), default=1) == 1

    @given(described=FILES)
    def test_a_full_compaction_leaves_nothing_worth_merging(self, described: list[tuple[str | None, int]]) -> None:
        files = data_files(described)
        plan = plan_all(files)
        merged = {file.path for group in plan for file in group}
        left = data_files([(group[0].partition, sum(f.num_records for f in group)) for group in plan])
        small = Counter(f.partition for f in left if f.num_records < FILE_ROWS // 2)
        small.update(f.partition for f in files if f.path not in merged and f.num_records < FILE_ROWS // 2)
        rows = Counter()
        for file in files:
            rows[file.partition] += file.num_records * (file.num_records < FILE_ROWS // 2)
        for partition, count in small.items():
            assert count <= 1 + rows[partition] // (FILE_ROWS // 2), partition

    @given(described=FILES, file_rows=st.sampled_from([20, 8000, 250_000]))
    def test_a_table_of_wide_rows_has_smaller_files(
        self, described: list[tuple[str | None, int]], file_rows: int
    ) -> None:
        files = data_files(described * 20)
        groups = [*plan_routine(files, file_rows), *plan_all(files, file_rows)]
        assert all(len(group) > 1 and sum(file.num_records for file in group) <= file_rows for group in groups)

    def test_nothing_is_planned_for_few_files(self) -> None:
        assert plan_routine(data_files([("a", 100)] * 15)) == []
        assert len(plan_routine(data_files([("a", 100)] * 16))) == 1


class Simulation:
    """A table of file sizes under appends and routine merges; counts how often rows are rewritten."""

    def __init__(self) -> None:
        self.files: list[tuple[DataFile, int]] = []
        self.rewritten_rows = 0
        self.most_files = 0
        self._number = 0

    def add(self, partition: str, rows: int, rewrites: int = 0) -> None:
        self._number += 1
        file = DataFile(f"x={partition}/part-{self._number:08}.parquet", 1, rows, partition, "", 0)
        self.files.append((file, rewrites))

    def upkeep(self) -> None:
        self.most_files = max(self.most_files, len(self.files))
        for group in plan_routine([file for file, _ in self.files]):
            paths = {file.path for file in group}
            rewrites = 1 + max(count for file, count in self.files if file.path in paths)
            self.files = [entry for entry in self.files if entry[0].path not in paths]
            rows = sum(file.num_records for file in group)
            self.rewritten_rows += rows
            self.add(str(group[0].partition), rows, rewrites)


class TestLongRun:
    @pytest.mark.parametrize("rows", [1, 7, 120, 9000])
    def test_many_appends_leave_few_files_and_rewrite_rows_rarely(self, rows: int) -> None:
        table = Simulation()
        for _ in range(3000):
            table.add("a", rows)
            table.upkeep()
        assert table.most_files <= CROWDED_FILES
        assert len(table.files) <= 15 * 7 + 3000 * rows // (FILE_ROWS // 2)
        assert max(count for _, count in table.files) <= 7, "a row is rewritten at most once a power of ten"
        assert sum(file.num_records for file, _ in table.files) == 3000 * rows

    def test_many_experiments_do_not_make_every_commit_rewrite_them(self) -> None:
        table = Simulation()
        for number in range(CROWDED_FILES + 50):
            table.add(f"experiment-{number}", 50_000)
        for _ in range(300):
            table.add("experiment-0", 10)
            table.upkeep()
        assert len(table.files) < 2 * CROWDED_FILES
        appended = 300 * 10
        assert table.rewritten_rows <= 7 * (50_000 + appended), f"{table.rewritten_rows} rows for {appended} new ones"


def awkward_points(number: int, rows: int = 40) -> pa.Table:
    """Return points of several runs with every class of float, in no order."""
    random = np.random.default_rng(number)
    patterns = random.integers(0, 2**64, rows, dtype=np.uint64)
    patterns[:4] = [0x7FF8000000000001, 0xFFF0000000000000, 0x8000000000000000, 0xFFF8000000000000]
    names = [f"m/{i % 3} é" for i in random.integers(0, 9, rows)]
    return pa.table(
        {
            "experiment": pa.array([["a", "b/c ü"][i] for i in random.integers(0, 2, rows)]),
            "run_id": pa.array([f"run-{i}" for i in random.integers(0, 3, rows)]),
            "metric": pa.array(names),
            "step": pa.array(random.integers(-5, 50, rows)),
            "ts": pa.array(random.integers(0, 10**15, rows)).cast(pa.timestamp("us", "UTC")),
            "value": pa.array(patterns.view(np.float64)),
            "attempt": pa.array(random.integers(1, 3, rows).astype(np.int32)),
        }
    )


def bits(store: TableStore, version: int | None = None) -> list[tuple[Any, ...]]:
    """Return all rows with their values as bit patterns, in a fixed order, as another reader sees them."""
    rows = deltalake.DeltaTable(store.path, version=version).to_pyarrow_table().select(store.spec.schema.names)
    columns = [
        column.to_numpy().view(np.uint64).tolist() if name == "value" else column.to_pylist()
        for name, column in zip(rows.column_names, rows.columns, strict=True)
    ]
    return sorted(zip(*columns, strict=True))


class TestCompact:
    def test_rows_are_the_same_bit_for_bit(self, make_store: Any) -> None:
        store = make_store()
        for number in range(9):
            store.append([Batch("w", number, awkward_points(number))])
        before, files = bits(store), store.snapshot().files()
        done = compact(store, everything=True)
        assert bits(store) == before
        assert (done.files_before, done.files_after, done.rows) == (len(files), 2, 9 * 40)
        assert done.bytes_before == sum(file.size_bytes for file in files)
        assert done.bytes_after == sum(file.size_bytes for file in store.snapshot().files())
        for path in store.snapshot().paths():
            keys = pa.parquet.ParquetFile(path).read().drop_columns("value")
            assert sort_points(keys) == keys, "a merged file is sorted"
        assert bits(store, 9) == before, "and the past is still there"
        assert compact(store, everything=True).files_before == 0

    def test_small_tables_too(self, make_store: Any) -> None:
        store = make_store(PARAMS)
        for number in range(5):
            rows = [{"run_id": "r", "key": f"k{number}", "kind": "str", "text": "ü" * number, "ts": number}]
            store.append([Batch("w", number, pa.Table.from_pylist(rows, schema=PARAMS.schema))])
        before = deltalake.DeltaTable(store.path).to_pyarrow_table().sort_by("key")
        assert compact(store, everything=True).files_after == 1
        assert deltalake.DeltaTable(store.path).to_pyarrow_table().sort_by("key") == before

    @pytest.mark.parametrize("spec", [TENSORS, CHECKPOINTS, VERIFICATIONS], ids=lambda spec: spec.name)
    def test_lists_and_maps_too(self, make_store: Any, spec: TableSpec) -> None:
        store = make_store(spec)
        nested = {
            "shape": [[], [3, 4], None, [2**62]],
            "exponent_histogram": [None, [1] * 40, [], [0]],
            "metrics": [{}, {"ü": math.nan, "a": None}, None, {"x": -0.0}],
            "packs": [["b", "a"], None, [], ["c"]],
            "tensors_lost": [None, ["x", ""], ["y"], []],
        }
        for number in range(8):
            rows = [
                {"experiment": "ab"[number % 2], "run_id": f"r{(number + i) % 3}", "checkpoint_id": f"c{9 - number}",
                 "step": i, "path": f"p{i}", "ts": number}
                | {name: values[(number + i) % 4] for name, values in nested.items()}
                for i in range(5)
            ]  # fmt: skip
            rows = [{name: value for name, value in row.items() if name in spec.schema.names} for row in rows]
            store.append([Batch("w", number, pa.Table.from_pylist(rows, schema=spec.schema))])

        def seen() -> list[str]:
            found = deltalake.DeltaTable(store.path).to_pyarrow_table().select(spec.schema.names).to_pylist()
            return sorted(map(repr, found))

        before = seen()
        assert compact(store, everything=True).files_after == (2 if spec.partition_by else 1)
        assert seen() == before
        for file in store.snapshot().files():
            rows = read_files(store.path, spec, [file])
            keys = list(zip(*(rows.column(name).to_pylist() for name in spec.sort_by), strict=True))
            assert keys == sorted(keys), "a merged file is sorted"

    def test_files_of_tensors_stay_as_small_as_their_rows_are_wide(self, make_store: Any) -> None:
        spec = replace(TENSORS, layout=replace(TENSORS.layout, file_rows=10))
        store = make_store(spec)
        for number in range(12):
            rows = [{"experiment": "e", "run_id": "r", "path": f"p{i}", "step": number} for i in range(4)]
            store.append([Batch("w", number, pa.Table.from_pylist(rows, schema=spec.schema))])
        compact(store, everything=True)
        assert [file.num_records for file in store.snapshot().files()] == [8] * 6

    def test_summaries_are_merged_to_one_row_a_curve(self, make_store: Any, make_points: Any) -> None:
        store = make_store(SUMMARIES)
        points = [make_points(4, start=4 * number) for number in range(5)]
        for number, part in enumerate(points):
            store.append([Batch("w", number, summarise(part))])
        before = merge_summaries(deltalake.DeltaTable(store.path).to_pyarrow_table())
        compact(store, everything=True)
        after = deltalake.DeltaTable(store.path).to_pyarrow_table()
        assert after == before
        assert after.to_pylist()[0] | {"sum": 0, "sum_sq": 0} == summarise(pa.concat_tables(points)).to_pylist()[0] | {
            "sum": 0,
            "sum_sq": 0,
        }

    def test_whoever_opens_the_table_afterwards_reads_no_entry_before(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        for number in range(1, 25):
            store.append([Batch("w", number, make_points(10, start=10 * number))])
        expected = sorted(store.log.history(), key=lambda entry: entry["version"])
        compact(store, everything=True)
        checkpointed = json.loads((store.log.directory / "_last_checkpoint").read_text())["version"]
        assert checkpointed == store.version() == expected[-1]["version"] + 1
        again = make_store()
        assert again.snapshot().files() == store.snapshot().files()
        assert again.log.transaction_version("w") == 24

    def test_the_second_of_two_that_saw_the_same_files_is_refused(self, make_store: Any, make_points: Any) -> None:
        first, second = make_store(), make_store()
        for number in range(3):
            first.append([Batch("w", number, make_points(2, start=2 * number))])
        plans = []
        for store in (first, second):
            files, guard = store.snapshot().files(), store.replacements()
            rows = pa.concat_tables([make_points(2, start=2 * number) for number in range(3)])
            plans.append((files, store.stage(rows), guard))
        before = bits(first)
        first.replace(plans[0][0], plans[0][1], guard=plans[0][2], operation="compact", data_change=False)
        with pytest.raises(CommitConflictError, match="metrics"):
            second.replace(plans[1][0], plans[1][1], guard=plans[1][2], operation="compact", data_change=False)
        assert bits(first) == before
        assert second.snapshot().num_files == 1
        assert list((first.path / "_staging").glob("*.parquet")) == []

    def test_a_guard_alone_does_not_pass_for_files_that_are_gone(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        store.append([Batch("w", 1, make_points(2))])
        files = store.snapshot().files()
        store.replace(files, store.stage(make_points(2)), guard=-1, operation="compact", data_change=False)
        guard = store.replacements()
        assert guard == 0
        with pytest.raises(CommitConflictError):
            store.replace(files, store.stage(make_points(2)), guard=guard, operation="compact", data_change=False)
        assert len(bits(store)) == 2

    def test_beside_writers_and_another_compaction_no_row_is_lost_or_doubled(
        self, make_store: Any, make_points: Any
    ) -> None:
        make_store().append([Batch("w0", 0, make_points(1))])
        done = threading.Event()
        failures: list[BaseException] = []

        def guarded(work: Any) -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                done.set()

        def write() -> None:
            store = make_store()
            for number in range(1, 25):
                store.append([Batch("w0", number, make_points(1, start=number))])
            done.set()

        def merge() -> None:
            store = make_store()
            while not done.is_set():
                compact(store, everything=True)

        threads = [threading.Thread(target=guarded, args=(work,)) for work in (write, merge, merge)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        store = make_store()
        assert [row[3] for row in bits(store)] == list(range(25))
        assert store.snapshot().num_files < 25

    def test_one_that_finds_another_at_work_leaves_it_to_that(self, make_store: Any, make_points: Any) -> None:
        from ckptlake._internal.locks import exclusive_if_free

        store = make_store()
        for number in range(3):
            store.append([Batch("w", number, make_points(1, start=number))])
        with exclusive_if_free(store.path / ".compact.lock") as free:
            assert free
            assert compact(make_store(), everything=True).files_before == 0
        assert compact(store, everything=True).files_before == 3


class TestTrimLog:
    def test_what_stays_in_the_log_stays_readable(
        self, make_store: Any, make_points: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compaction, "MAX_LOG_ENTRIES", 10)
        monkeypatch.setattr(compaction, "KEPT_LOG_ENTRIES", 5)
        store = make_store()
        for number in range(14):
            store.append([Batch("w", number, make_points(1, start=number))])
            if number in (3, 7, 11):
                deltalake.DeltaTable(store.path).create_checkpoint()
        assert store.version() == 14
        assert trim_log(store) == 8
        for handle in (store, make_store()):
            assert handle.log.entry_versions() == list(range(8, 15))
            assert handle.log.oldest_version() == 8
            assert [handle.snapshot(version).num_files for version in range(8, 15)] == list(range(8, 15))
            with pytest.raises(VersionNotFoundError, match="oldest kept is 8"):
                handle.snapshot(7)
        assert [row[3] for row in bits(store)] == list(range(14))
        store.append([Batch("w", 13, make_points(1, start=99)), Batch("w", 14, make_points(1, start=14))])
        assert [row[3] for row in bits(store)] == list(range(15)), "transactions outlive the entries that set them"

    def test_a_short_log_or_one_without_checkpoint_is_left(
        self, make_store: Any, make_points: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = make_store()
        for number in range(6):
            store.append([Batch("w", number, make_points(1, start=number))])
        assert trim_log(store) == 0
        monkeypatch.setattr(compaction, "MAX_LOG_ENTRIES", 3)
        monkeypatch.setattr(compaction, "KEPT_LOG_ENTRIES", 2)
        assert trim_log(store) == 0
        assert store.log.entry_versions() == list(range(7))

    def test_a_checkpoint_is_on_disk_before_entries_it_replaces_go(
        self, make_store: Any, make_points: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import os

        monkeypatch.setattr(compaction, "MAX_LOG_ENTRIES", 3)
        monkeypatch.setattr(compaction, "KEPT_LOG_ENTRIES", 1)
        store = make_store()
        for number in range(6):
            store.append([Batch("w", number, make_points(1, start=number))])
        deltalake.DeltaTable(store.path).create_checkpoint()
        checkpoint = next((store.path / "_delta_log").glob("*.checkpoint.parquet"))
        synced, fsync = set(), os.fsync

        def spy(descriptor: int) -> None:
            if (store.path / "_delta_log" / f"{0:020}.json").exists():
                synced.add(os.fstat(descriptor).st_ino)
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", spy)
        assert trim_log(store) > 0
        assert checkpoint.stat().st_ino in synced, "a power cut would leave neither checkpoint nor entries"
