"""The order of rows in files, against sorted() on tuples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ckptlake.tables.schemas import METRICS, RUNS, TAGS
from ckptlake.tables.sorting import group_codes, ranks, sort_points, sort_rows, split_by_partition

NAMES = st.sampled_from(["", "a", "A", "B", "b", "a/b", "ab", "é", "ß", "日本", "😀", "\uffff", "~", "z" * 40])
SMALL = st.integers(-2, 2)
EXTREMES = st.sampled_from([-(2**63), -1, 0, 1, 2**53 + 1, 2**63 - 1])
Key = tuple[str, str, int, int, int]
KEYS = st.tuples(NAMES, NAMES, SMALL | EXTREMES, st.integers(1, 3), SMALL | st.integers(0, 2**60))


def as_table(keys: Sequence[Key], *, dictionaries: bool, cuts: Sequence[int] = ()) -> pa.Table:
    """Return points whose value is their place in `keys`, in one or more chunks."""
    columns = {
        "experiment": pa.array(["e"] * len(keys), pa.string()),
        "run_id": pa.array([key[0] for key in keys], pa.string()),
        "metric": pa.array([key[1] for key in keys], pa.string()),
        "step": pa.array([key[2] for key in keys], pa.int64()),
        "ts": pa.array([key[4] for key in keys], pa.int64()).cast(pa.timestamp("us", "UTC")),
        "value": pa.array([float(place) for place in range(len(keys))]),
        "attempt": pa.array([key[3] for key in keys], pa.int32()),
    }
    bounds = [0, *sorted(cut % (len(keys) + 1) for cut in cuts), len(keys)]
    parts = []
    for low, high in itertools.pairwise(bounds):
        part = pa.table({name: column.slice(low, high - low) for name, column in columns.items()})
        if dictionaries:
            for index, name in enumerate(("experiment", "run_id", "metric")):
                part = part.set_column(index, name, part.column(name).dictionary_encode())
        parts.append(part)
    return pa.concat_tables(parts)


def places(points: pa.Table) -> list[int]:
    return [int(value) for value in points.column("value").to_pylist()]


@given(keys=st.lists(KEYS, max_size=40), dictionaries=st.booleans(), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_points_are_sorted_like_tuples_and_equal_ones_keep_their_order(
    keys: list[Key], dictionaries: bool, cuts: list[int]
) -> None:
    result = sort_points(as_table(keys, dictionaries=dictionaries, cuts=cuts))
    assert places(result) == sorted(range(len(keys)), key=keys.__getitem__)
    rows = result.select(["run_id", "metric", "step"]).to_pylist()
    assert [(row["run_id"], row["metric"], row["step"]) for row in rows] == [key[:3] for key in sorted(keys)]


@given(stretches=st.lists(st.lists(KEYS, max_size=12).map(sorted), max_size=5))
def test_sorted_stretches_are_merged(stretches: list[list[Key]]) -> None:
    keys = [key for stretch in stretches for key in stretch]
    result = sort_rows(as_table(keys, dictionaries=True), METRICS)
    assert places(result) == sorted(range(len(keys)), key=keys.__getitem__)


@given(keys=st.lists(KEYS, min_size=1, max_size=30))
def test_group_codes_order_curves(keys: list[Key]) -> None:
    codes = group_codes(as_table(keys, dictionaries=False)).tolist()
    for i, left in enumerate(keys):
        for j, right in enumerate(keys):
            assert (codes[i] < codes[j]) == (left[:2] < right[:2])


@given(texts=st.lists(st.text(max_size=4), max_size=30))
def test_ranks_follow_the_order_of_code_points(texts: list[str]) -> None:
    try:
        column = pa.chunked_array([pa.array(texts, pa.string())])
    except UnicodeEncodeError:
        return
    found, names = ranks(column)
    assert names == sorted(set(texts))
    assert [names[rank] for rank in found] == texts


@given(
    rows=st.lists(
        st.tuples(NAMES, NAMES | st.none(), st.integers(1, 2), st.integers(0, 3), st.integers(0, 99)), max_size=30
    )
)
def test_other_tables_are_sorted_stably_with_missing_texts_last(
    rows: list[tuple[str, str | None, int, int, int]],
) -> None:
    table = pa.Table.from_pylist(
        [{"run_id": r, "key": k, "attempt": a, "ts": t, "number": float(n)} for r, k, a, t, n in rows],
        schema=TAGS.schema,
    )
    order = sorted(rows, key=lambda row: (row[0], row[1] is None, row[1] or "", row[2], row[3]))
    assert sort_rows(table, TAGS).column("number").to_pylist() == [float(row[4]) for row in order]


@given(experiments=st.lists(NAMES, max_size=30), dictionaries=st.booleans())
def test_every_partition_holds_its_rows_in_order(experiments: list[str], dictionaries: bool) -> None:
    table = as_table([("r", "m", step, 1, 0) for step in range(len(experiments))], dictionaries=False)
    column = pa.array(experiments, pa.string())
    table = table.set_column(0, "experiment", column.dictionary_encode() if dictionaries else column)
    found = {partition: places(part) for partition, part in split_by_partition(table, METRICS)}
    assert found == {name: [i for i, e in enumerate(experiments) if e == name] for name in set(experiments)}


def test_a_table_without_partitions_stays_whole() -> None:
    table = pa.Table.from_pylist([{"run_id": "a"}, {"run_id": "b"}], schema=RUNS.schema)
    assert list(split_by_partition(table, RUNS)) == [(None, table)]
    assert list(split_by_partition(table.slice(0, 0), RUNS)) == []
