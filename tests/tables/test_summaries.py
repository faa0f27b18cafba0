"""What commits add to curves, against a slow oracle, in any split and any order of merging."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake.tables.schemas import METRICS, SUMMARIES
from ckptlake.tables.sorting import sort_points
from ckptlake.tables.summaries import is_merged, merge_summaries, summarise

NAN, INF = math.nan, math.inf


@dataclass(frozen=True, slots=True)
class Point:
    run_id: str
    metric: str
    step: int
    ts: int
    value: float
    attempt: int = 1

    @property
    def place(self) -> tuple[int, int, int]:
        return self.step, self.attempt, self.ts


VALUES = st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 5e-324]) | st.floats(-1e100, 1e100)
STEPS = st.integers(-3, 6) | st.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1])
POINTS = st.builds(
    Point,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["m", "é"]),
    STEPS,
    st.integers(0, 99),
    VALUES,
    st.integers(1, 2),
)


def table(points: Sequence[Point]) -> pa.Table:
    rows = [
        {
            "experiment": "e",
            "run_id": p.run_id,
            "metric": p.metric,
            "step": p.step,
            "ts": p.ts,
            "value": p.value,
            "attempt": p.attempt,
        }
        for p in points
    ]
    return pa.Table.from_pylist(rows, schema=METRICS.schema)


def summary(points: Sequence[Point]) -> pa.Table:
    return summarise(sort_points(table(points)))


def curves(points: Sequence[Point]) -> dict[tuple[str, str], list[Point]]:
    found: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        found.setdefault((point.run_id, point.metric), []).append(point)
    return {key: sorted(curve, key=lambda p: p.place) for key, curve in sorted(found.items())}


def by_curve(rows: pa.Table) -> dict[tuple[str, str], dict[str, Any]]:
    assert rows.schema == SUMMARIES.schema
    found = {(row["run_id"], row["metric"]): row for row in rows.to_pylist()}
    assert len(found) == rows.num_rows, "a curve has two rows"
    return found


def same(left: float, right: float, scale: float = 0.0) -> bool:
    if math.isnan(left) or math.isnan(right) or math.isinf(left) or math.isinf(right):
        return left == right or (math.isnan(left) and math.isnan(right))
    return abs(left - right) <= 1e-9 * scale


def check(row: dict[str, Any], curve: list[Point]) -> None:
    """Compare one row with what its points say; a repeated end step leaves open which value is the end's."""
    values = [p.value for p in curve]
    real = [p for p in curve if not math.isnan(p.value)]
    at_step = Counter(p.step for p in curve)
    assert row["n"] == len(curve)
    assert row["n_nan"] == sum(map(math.isnan, values))
    assert row["n_inf"] == sum(map(math.isinf, values))
    assert (row["first_step"], row["last_step"]) == (curve[0].step, curve[-1].step)
    assert same(row["first"], curve[0].value) or at_step[curve[0].step] > 1
    assert same(row["last"], curve[-1].value) or at_step[curve[-1].step] > 1
    if real:
        low, high = min(real, key=lambda p: (p.value, p.step)), max(real, key=lambda p: (p.value, -p.step))
        assert (row["min"], row["min_step"]) == (low.value, low.step)
        assert (row["max"], row["max_step"]) == (high.value, high.step)
    else:
        assert [row[name] for name in ("min", "min_step", "max", "max_step")] == [None] * 4
    assert same(row["sum"], sum(p.value for p in real), sum(abs(p.value) for p in real))
    assert same(row["sum_sq"], sum(p.value**2 for p in real), sum(p.value**2 for p in real))
    micros = [int(row[name].timestamp() * 1e6 + 0.5) for name in ("first_ts", "last_ts")]
    assert micros == [min(p.ts for p in curve), max(p.ts for p in curve)]
    if row["steps_unique"]:
        assert max(at_step.values()) == 1, "a step repeats in a curve said to have none"


def is_apart(curve: list[Point], commit_of: dict[int, int]) -> bool:
    """Return whether steps are unique and no two commits' ranges of steps touch."""
    ranges: dict[int, tuple[int, int]] = {}
    for point in curve:
        low, high = ranges.get(commit_of[id(point)], (point.step, point.step))
        ranges[commit_of[id(point)]] = min(low, point.step), max(high, point.step)
    ordered = sorted(ranges.values())
    unique = len({p.step for p in curve}) == len(curve)
    return unique and all(a[1] < b[0] for a, b in itertools.pairwise(ordered))


@given(points=st.lists(POINTS, max_size=30))
@settings(max_examples=200)
def test_one_commit_is_summarised_exactly(points: list[Point]) -> None:
    found = by_curve(summary(points))
    expected = curves(points)
    assert list(found) == list(expected)
    for key, curve in expected.items():
        check(found[key], curve)
        assert found[key]["experiment"] == "e"
        assert found[key]["steps_unique"] == (len({p.step for p in curve}) == len(curve))


@given(points=st.lists(POINTS, max_size=24), data=st.data())
@settings(max_examples=200)
def test_any_split_into_commits_merges_to_the_same(points: list[Point], data: st.DataObject) -> None:
    commits = data.draw(st.lists(st.integers(0, 4), min_size=len(points), max_size=len(points)))
    parts = [summary([p for p, c in zip(points, commits, strict=True) if c == number]) for number in range(5)]
    parts = data.draw(st.permutations(parts))
    split = data.draw(st.integers(0, 5))
    halves = [merge_summaries(pa.concat_tables(half)) for half in (parts[:split], parts[split:]) if half]
    commit_of = {id(p): c for p, c in zip(points, commits, strict=True)}
    at_once = merge_summaries(pa.concat_tables(parts))
    for merged in (at_once, merge_summaries(pa.concat_tables(halves))):
        found = by_curve(merged)
        expected = curves(points)
        assert sorted(found) == list(expected)
        for key, curve in expected.items():
            check(found[key], curve)
            if merged is at_once and is_apart(curve, commit_of):
                assert found[key]["steps_unique"], "commits one after the other are known to repeat nothing"


@given(points=st.lists(POINTS, max_size=20), data=st.data())
def test_merged_rows_are_known_by_their_order(points: list[Point], data: st.DataObject) -> None:
    rows = summary(points)
    assert is_merged(rows)
    order = data.draw(st.lists(st.integers(0, rows.num_rows - 1)) if rows.num_rows else st.just([]))
    taken = rows.take(pa.array(order, pa.int64()))
    curves_in_order = list(zip(taken["run_id"].to_pylist(), taken["metric"].to_pylist(), strict=True))
    assert is_merged(taken) == (curves_in_order == sorted(set(curves_in_order)))


@given(points=st.lists(POINTS, min_size=1, max_size=20))
def test_merging_one_row_a_curve_changes_nothing(points: list[Point]) -> None:
    once = summary(points)
    again = merge_summaries(once)
    for key, row in by_curve(once).items():
        for name, value in by_curve(again)[key].items():
            assert value == row[name] or (value != value and row[name] != row[name]), name


@pytest.mark.parametrize("infinity", [INF, -INF])
def test_an_infinity_behind_a_nan_is_found_at_its_own_step(infinity: float) -> None:
    row = by_curve(summary([Point("a", "m", 0, 0, NAN), Point("a", "m", 5, 1, infinity)]))["a", "m"]
    assert (row["min"], row["min_step"]) == (infinity, 5)
    assert (row["max"], row["max_step"]) == (infinity, 5)


def test_nothing_but_nan_has_no_extremes() -> None:
    parts = [summary([Point("a", "m", step, step, NAN)]) for step in range(3)]
    row = by_curve(merge_summaries(pa.concat_tables(parts)))["a", "m"]
    assert (row["n"], row["n_nan"], row["min"], row["max_step"], row["sum"]) == (3, 3, None, None, 0.0)
    assert math.isnan(row["first"])
    assert math.isnan(row["last"])
    assert row["steps_unique"]


def test_a_step_repeated_in_a_later_commit_is_noticed() -> None:
    early = summary([Point("a", "m", step, step, 1.0) for step in range(10)])
    late = summary([Point("a", "m", 4, 20, 2.0)])
    assert not by_curve(merge_summaries(pa.concat_tables([early, late])))["a", "m"]["steps_unique"]


def test_no_rows_have_no_summaries() -> None:
    assert summarise(METRICS.schema.empty_table()) == SUMMARIES.schema.empty_table()
    assert merge_summaries(SUMMARIES.schema.empty_table()) == SUMMARIES.schema.empty_table()
