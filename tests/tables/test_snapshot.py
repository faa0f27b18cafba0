"""Pruning by partition and statistics: never a file too few, and as few as the statistics allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlake.errors import DamagedTableError
from ckptlake.tables.schemas import METRICS
from ckptlake.tables.snapshot import Bound, OneOf, Predicates, Snapshot
from ckptlake.tables.store import Batch

LONG = "z" * 300
EXPERIMENTS = ["a", "a/b", "a/b/c", "ab", "é"]
RUNS = ["r1", "r2", "r3", "\U0001f600"]
METRIC_NAMES = ["acc", "loss", "lossy", LONG]
STEPS = [-(2**63), -1, 0, 1, 5, 10, 2**53, 2**53 + 1, 2**63 - 1]


@pytest.fixture
def snapshot(make_store: Any, make_points: Any) -> Snapshot:
    """Files of one or two curves each, in many partitions, some with names too long for statistics."""
    store = make_store()
    for number in range(24):
        parts = [
            make_points(
                2,
                RUNS[(number + i) % 4],
                METRIC_NAMES[(number // 4 + i) % 4],
                EXPERIMENTS[number % 5],
                min(STEPS[number % 9], 2**63 - 2),
            )
            for i in range(1 + number % 2)
        ]
        store.append([Batch("w", number, pa.concat_tables(parts))])
    return store.snapshot()


def value_of(column: str) -> st.SearchStrategy[Any]:
    if column == "step":
        return st.sampled_from(STEPS) | st.integers(-3, 12)
    named = {"experiment": EXPERIMENTS, "run_id": RUNS, "metric": METRIC_NAMES}[column]
    return st.sampled_from([*named, "", "m", "\U0010ffff"])


@st.composite
def predicates(draw: st.DrawFn) -> Predicates:
    found = {}
    for column in draw(st.sets(st.sampled_from(["experiment", "run_id", "metric", "step"]), min_size=1, max_size=3)):
        value = value_of(column)
        bound = st.builds(Bound, st.none() | value, st.none() | value)
        found[column] = draw(bound | st.builds(OneOf, st.frozensets(value, min_size=1, max_size=3)))
    return found


def fulfils(value: Any, condition: Bound | OneOf) -> bool:
    if isinstance(condition, OneOf):
        return value in condition.values
    return (condition.low is None or value >= condition.low) and (condition.high is None or value <= condition.high)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(alternatives=st.lists(predicates(), min_size=1, max_size=3))
def test_every_file_with_a_matching_row_is_kept(snapshot: Snapshot, alternatives: list[Predicates]) -> None:
    kept = set(snapshot.prune(alternatives))
    assert kept <= set(snapshot.paths())
    for path, file in zip(snapshot.paths(), snapshot.files(), strict=True):
        rows = [row | {"experiment": file.partition} for row in pq.ParquetFile(path).read().to_pylist()]
        if any(all(fulfils(row[name], c) for name, c in one.items()) for one in alternatives for row in rows):
            assert path in kept


def test_one_run_and_metric_open_only_their_files(snapshot: Snapshot) -> None:
    kept = snapshot.prune([{"run_id": OneOf(frozenset({"r1"})), "metric": OneOf(frozenset({"acc"}))}])
    rows = {path: pq.ParquetFile(path).read() for path in snapshot.paths()}
    ranges = {
        path: [(min(names), max(names)) for names in (table["run_id"].to_pylist(), table["metric"].to_pylist())]
        for path, table in rows.items()
    }
    overlap = [
        path
        for path, (run, metric) in ranges.items()
        if run[0] <= "r1" <= run[1] and (metric[0] <= "acc" <= metric[1] or metric[1] == LONG)
    ]
    assert sorted(kept) == sorted(overlap)
    assert 0 < len(kept) < snapshot.num_files / 2


def test_without_conditions_everything_is_read(snapshot: Snapshot) -> None:
    assert snapshot.prune([{}]) == snapshot.prune([{"step": OneOf(frozenset({5}))}, {}]) == snapshot.paths()
    assert snapshot.prune([]) == []


def test_what_never_was_has_no_files(snapshot: Snapshot) -> None:
    assert snapshot.prune([{"experiment": OneOf(frozenset({"absent"}))}]) == []
    assert snapshot.prune([{"run_id": OneOf(frozenset({"a"}))}]) == []


def test_of_a_table_that_does_not_exist_is_empty(tmp_path: Any) -> None:
    empty = Snapshot.empty(METRICS, tmp_path)
    assert (empty.version, empty.num_files, empty.paths(), empty.files()) == (-1, 0, [], [])
    assert empty.prune([{"run_id": OneOf(frozenset({"r"}))}]) == []


def test_a_table_that_lost_its_log_is_no_empty_one(make_store: Any, make_points: Any) -> None:
    make_store().append([Batch("w", 1, make_points(2))])
    store = make_store()
    (store.path / "_delta_log").rename(store.path / "elsewhere")
    with pytest.raises(DamagedTableError, match="restore"):
        store.snapshot()


def test_a_table_created_at_this_moment_is_not_taken_for_a_damaged_one(
    make_store: Any, make_points: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = make_store(), make_store()
    glob = Path.glob

    def after_a_first_commit(folder: Path, pattern: str) -> Any:
        monkeypatch.setattr(Path, "glob", glob)
        writer.append([Batch("w", 1, make_points(2))])
        return glob(folder, pattern)

    monkeypatch.setattr(Path, "glob", after_a_first_commit)
    assert reader.snapshot().num_files == 0, "it was looked at before"
    assert reader.snapshot().num_files == 1
