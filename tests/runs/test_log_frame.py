"""Many points at once, from every kind of frame, wide and long; a null was not logged and NaN is a value."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake import InvalidInputError, Lake, RequirementError, Run, RunClosedError
from ckptlake.runs.bulk import read_points

Points = Callable[..., list[tuple[str, int, float]]]
Start = Callable[..., Run]

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
WIDE = {"step": [3, 1, 2], "a": [0.5, math.nan, None], "b": [True, None, False], "c": [7, None, -1]}
WIDE_POINTS = [("a", 1, math.nan), ("a", 3, 0.5), ("b", 2, 0.0), ("b", 3, 1.0), ("c", 2, -1.0), ("c", 3, 7.0)]
LONG = {"step": [1, 1, 2, 3], "metric": ["x", "y", "x", "x"], "value": [0.5, 1.0, math.nan, None]}
LONG_POINTS = [("x", 1, 0.5), ("x", 2, math.nan), ("y", 1, 1.0)]


def bits(points: list[tuple[str, int, float]]) -> list[tuple[str, int, bytes]]:
    return [(metric, step, struct.pack("<d", value)) for metric, step, value in points]


def nullable(columns: dict[str, list[Any]]) -> pd.DataFrame:
    """Return a pandas frame of nullable types, in which NaN and NA are two things."""
    kinds = {bool: "boolean", int: "Int64", float: pd.ArrowDtype(pa.float64()), str: "string"}
    return pd.DataFrame(
        {
            name: pd.array(pa.array(values).to_pylist(), dtype=kinds[type(values[0])])
            if not isinstance(values[0], float)
            else pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values)))
            for name, values in columns.items()
        }
    )


FRAMES: dict[str, Callable[[dict[str, list[Any]]], Any]] = {
    "polars": lambda columns: pl.DataFrame(columns, strict=False),
    "lazy polars": lambda columns: pl.LazyFrame(columns, strict=False),
    "arrow": pa.table,
    "arrow batch": pa.record_batch,
    "chunked arrow": lambda columns: pa.concat_tables([pa.table(columns).slice(0, 1), pa.table(columns).slice(1)]),
    "nullable pandas": nullable,
    "dict of lists": dict,
    "dict of arrow": lambda columns: {name: pa.array(values) for name, values in columns.items()},
    "dict of polars": lambda columns: {name: pl.Series(values) for name, values in columns.items()},
}


class TestKindsOfFrames:
    @pytest.mark.parametrize("kind", FRAMES)
    def test_wide(self, start: Start, points: Points, kind: str) -> None:
        with start() as run:
            run.log_frame(FRAMES[kind](WIDE))
        assert bits(points(run)) == bits(WIDE_POINTS)

    @pytest.mark.parametrize("kind", FRAMES)
    def test_long(self, start: Start, points: Points, kind: str) -> None:
        with start() as run:
            run.log_frame(FRAMES[kind](LONG))
        assert bits(points(run)) == bits(LONG_POINTS)

    def test_pandas_of_numpy_columns(self, start: Start, points: Points) -> None:
        frame = pd.DataFrame({"step": [1, 2], "a": [0.5, math.nan], "b": [True, False], "c": np.array([1, 2], "u1")})
        with start() as run:
            run.log_frame(frame)
        expected = [("a", 1, 0.5), ("a", 2, math.nan), ("b", 1, 1.0), ("b", 2, 0.0), ("c", 1, 1.0), ("c", 2, 2.0)]
        assert bits(points(run)) == bits(expected)

    def test_long_pandas_with_categories(self, start: Start, points: Points) -> None:
        frame = pd.DataFrame(
            {"step": [1, 2], "metric": pd.Categorical(["x", "y"], ["z", "y", "x"]), "value": [1.0, 2.0]}
        )
        with start() as run:
            run.log_frame(frame)
            run.log_frame(
                pl.DataFrame({"step": [3], "metric": ["x"], "value": [3]}, schema_overrides={"metric": pl.Categorical})
            )
        assert points(run) == [("x", 1, 1.0), ("x", 3, 3.0), ("y", 2, 2.0)]

    def test_pandas_numbers_as_column_names(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log_frame(pd.DataFrame({"step": [1], 0: [0.5], 1: [1.5]}))
        assert points(run) == [("0", 1, 0.5), ("1", 1, 1.5)]

    def test_dict_of_pandas_columns_keeps_nan(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log_frame(
                {"step": pd.Series([1, 2]), "a": pd.Series([0.5, math.nan]), "b": pd.Series([1, None], dtype="Int64")}
            )
        assert bits(points(run)) == bits([("a", 1, 0.5), ("a", 2, math.nan), ("b", 1, 1.0)])

    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
    def test_numpy_of_every_dtype(self, start: Start, points: Points, dtype: str) -> None:
        values = np.array([0, 1], dtype=dtype)
        with start() as run:
            run.log_frame({"x": values})
        assert points(run) == [("x", 0, 0.0), ("x", 1, 1.0)]

    @pytest.mark.parametrize(
        "dtype",
        [
            torch.float64,
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.float8_e4m3fn,
            torch.int64,
            torch.uint8,
            torch.bool,
        ],
        ids=str,
    )
    def test_torch_of_every_dtype(self, start: Start, points: Points, dtype: torch.dtype) -> None:
        with start() as run:
            run.log_frame({"step": torch.arange(2), "x": torch.tensor([0, 1]).to(dtype)})
        assert points(run) == [("x", 0, 0.0), ("x", 1, 1.0)]

    def test_torch_with_a_gradient(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log_frame({"x": torch.tensor([0.5, 0.25], requires_grad=True)})
        assert points(run) == [("x", 0, 0.5), ("x", 1, 0.25)]

    def test_bytes_in_another_order(self, start: Start, points: Points) -> None:
        run = start()
        for frame in ({"x": np.array([0.5], ">f8")}, pd.DataFrame({"x": np.array([0.5], ">f8")})):
            try:
                run.log_frame(frame)
            except InvalidInputError as error:
                assert "'x'" in str(error)  # noqa: PT017
            else:
                assert points(run)[-1][2] == 0.5

    @pytest.mark.parametrize(
        "frame", [None, 5, "a.csv", [1, 2], [{"a": 1}], np.zeros((2, 2)), pd.Series([1])], ids=repr
    )
    def test_no_frame(self, start: Start, frame: Any) -> None:
        with pytest.raises(
            InvalidInputError, match="log_frame takes a Polars, Arrow or pandas frame or a dict of arrays"
        ):
            start().log_frame(frame)

    @given(values=st.lists(st.floats(width=64), min_size=1, max_size=20))
    @settings(max_examples=50)
    def test_values_are_exact(self, values: list[float]) -> None:
        points = read_points({"x": np.array(values)}, "step", "ts")
        plain = [value for value in values if not math.isnan(value)]
        assert [struct.pack("<d", value) for value in points.values if not math.isnan(value)] == [
            struct.pack("<d", value) for value in plain
        ]
        assert len(points.values) == len(values)


class TestSteps:
    def test_are_counted_where_there_is_no_column(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log({"x": 0.0}, step=4)
            run.log_frame({"x": [1.0, 2.0]})
            run.log({"x": 3.0})
            run.log_frame({"step": [20, 10], "x": [20.0, 10.0]})
            run.log({"x": 21.0})
        assert points(run) == [
            ("x", 4, 0.0),
            ("x", 5, 1.0),
            ("x", 6, 2.0),
            ("x", 7, 3.0),
            ("x", 10, 10.0),
            ("x", 20, 20.0),
            ("x", 21, 21.0),
        ]

    def test_from_a_column_of_another_name(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log_frame({"iteration": [7, 8], "step": [0.5, 0.25]}, step="iteration")
        assert points(run) == [("step", 7, 0.5), ("step", 8, 0.25)]

    def test_from_a_named_column_that_is_not_there_are_refused(self, start: Start, points: Points) -> None:
        with start() as run, pytest.raises(InvalidInputError, match="'iteraton'"):
            run.log_frame({"iteration": [7, 8], "x": [0.5, 0.25]}, step="iteraton")
        assert points(run) == []

    @pytest.mark.parametrize(
        "steps", [np.array([1, 2], "u8"), [1.0, 2.0], np.array([1, 2], "i1"), torch.tensor([1, 2])], ids=repr
    )
    def test_of_other_number_types(self, start: Start, points: Points, steps: Any) -> None:
        with start() as run:
            run.log_frame({"step": steps, "x": [0.5, 0.25]})
        assert points(run) == [("x", 1, 0.5), ("x", 2, 0.25)]

    @pytest.mark.parametrize(
        "steps",
        [[1, None], [1.5, 2.0], [math.nan, 1.0], [1e300, 1.0], ["1", "2"], [True, False], [2**63, 1], [MOMENT, MOMENT]],
        ids=repr,
    )
    def test_that_are_none_are_refused(self, start: Start, points: Points, steps: Any) -> None:
        with start() as run:
            with pytest.raises(InvalidInputError, match="column 'step'"):
                run.log_frame({"step": steps, "x": [0.5, 0.25]})
            with pytest.raises(InvalidInputError, match="column 'i'"):
                run.log_frame({"i": steps, "metric": ["a", "b"], "value": [1, 2]}, step="i")
        assert points(run) == []

    def test_over_the_whole_range(self, start: Start, points: Points) -> None:
        steps = [-(2**63), -1, 0, 2**63 - 1]
        with start() as run:
            run.log_frame({"step": np.array(steps), "x": [1, 2, 3, 4]})
        assert [step for _, step, _ in points(run)] == steps


class TestCountedRows:
    """Without a step column a row's place in the frame is its step, whatever nulls stand around it."""

    def test_of_a_long_frame_with_nulls(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log_frame({"metric": ["x", "y", "x", "x"], "value": [1.0, None, 3.0, 4.0]})
            run.log({"x": 5.0})
        assert points(run) == [("x", 0, 1.0), ("x", 2, 3.0), ("x", 3, 4.0), ("x", 4, 5.0)]

    @pytest.mark.parametrize("num_metrics", [2, 9])
    def test_of_a_sparse_frame(self, start: Start, points: Points, num_metrics: int) -> None:
        count = 2**num_metrics
        columns = {
            f"m{bit}": [float(row) if row >> bit & 1 else None for row in range(count)] for bit in range(num_metrics)
        }
        with start() as run:
            run.log_frame(columns)
            run.log({"after": 1.0})
        found = points(run)
        assert all(step == value for metric, step, value in found if metric != "after")
        assert found[0] == ("after", count, 1.0)


class TestRepeatedSteps:
    @pytest.mark.parametrize("finish", [False, True], ids=["live", "committed"])
    def test_in_a_wide_frame_show_the_last_row(self, start: Start, points: Points, finish: bool) -> None:
        run = start()
        run.log_frame({"step": [1, 1, 2, 1], "x": [1.0, 2.0, 3.0, 4.0]})
        if finish:
            run.finish()
        assert points(run) == [("x", 1, 4.0), ("x", 2, 3.0)]
        assert points(run, "metrics_raw") == [("x", 1, 1.0), ("x", 1, 2.0), ("x", 1, 4.0), ("x", 2, 3.0)]
        run.finish()

    def test_in_a_sparse_frame_show_the_last_value(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log_frame({"step": [1, 1, 1], "x": [1.0, 2.0, None], "y": [None, 3.0, 4.0]})
        assert points(run) == [("x", 1, 2.0), ("y", 1, 4.0)]

    def test_in_a_long_frame_show_the_last_row(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log_frame({"step": [1, 1, 1, 1], "metric": ["x", "y", "x", "y"], "value": [1.0, 2.0, 3.0, 4.0]})
        assert points(run) == [("x", 1, 3.0), ("y", 1, 4.0)]

    def test_win_over_what_was_logged_before_and_lose_to_what_comes_after(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log({"x": 1.0}, step=0)
            run.log_frame({"step": [0] * 1000, "x": np.arange(1000.0)})
            assert points(run) == [("x", 0, 999.0)]
            run.log({"x": -1.0}, step=0)
        assert points(run) == [("x", 0, -1.0)]

    def test_with_times_show_the_newest(self, start: Start, points: Points) -> None:
        times = [MOMENT + timedelta(seconds=second) for second in (1, 3, 2)]
        with start() as run:
            run.log_frame({"step": [0, 0, 0], "x": [1.0, 2.0, 3.0], "ts": times})
        assert points(run) == [("x", 0, 2.0)]


class TestTimes:
    @pytest.mark.parametrize(
        "times",
        [
            [MOMENT, MOMENT + timedelta(microseconds=1)],
            pl.Series([MOMENT, MOMENT + timedelta(microseconds=1)]),
            np.array(["2026-01-02T03:04:05.678901", "2026-01-02T03:04:05.678902"], "datetime64[us]"),
            np.array(["2026-01-02T03:04:05.678901", "2026-01-02T03:04:05.678902"], "datetime64[ns]"),
            pd.to_datetime(["2026-01-02T05:04:05.678901+02:00", "2026-01-02T05:04:05.678902+02:00"]).to_series(),
        ],
        ids=["datetimes", "polars", "microseconds", "nanoseconds", "another zone"],
    )
    @pytest.mark.parametrize("name", ["ts", "when"])
    def test_are_kept_exactly(self, lake: Lake, start: Start, times: Any, name: str) -> None:
        with start() as run:
            run.log_frame({"x": [1.0, 2.0], name: times}, ts=name)
        found = lake.sql("SELECT epoch_us(ts) FROM metrics ORDER BY step").fetchall()
        first_us = int(MOMENT.timestamp()) * 1_000_000 + 678901
        assert found == [(first_us,), (first_us + 1,)]

    @pytest.mark.parametrize(
        "times",
        [
            [1.0, 2.0],
            ["2026-01-01", "2026-01-02"],
            [MOMENT, None],
            [MOMENT.date(), MOMENT.date()],
            np.array([1, 2], "datetime64[ns]"),
        ],
        ids=["numbers", "texts", "null", "dates", "nanoseconds"],
    )
    def test_that_cannot_be_kept_are_refused(self, start: Start, points: Points, times: Any) -> None:
        with start() as run, pytest.raises(InvalidInputError, match="time column 'ts'"):
            run.log_frame({"x": [1.0, 2.0], "ts": times})
        assert points(run) == []

    def test_are_those_of_the_call_where_there_is_no_column(self, lake: Lake, start: Start) -> None:
        before = datetime.now(UTC)
        with start() as run:
            run.log_frame({"x": [1.0, 2.0]})
        after = datetime.now(UTC)
        ((first, last),) = lake.sql("SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM metrics").fetchall()
        assert before.timestamp() * 1e6 - 1e4 <= first <= last <= after.timestamp() * 1e6 + 1e4


class TestSparseFrames:
    def test_with_many_null_patterns(self, start: Start, points: Points) -> None:
        names = [f"m{index}" for index in range(9)]
        rows = np.arange(512)
        columns = {name: [float(row) if row >> bit & 1 else None for row in rows] for bit, name in enumerate(names)}
        with start() as run:
            run.log_frame({"step": rows, **columns})
        expected = [(name, int(row), float(row)) for bit, name in enumerate(names) for row in rows if row >> bit & 1]
        assert points(run) == sorted(expected)

    @pytest.mark.parametrize("num_metrics", [3, 12])
    def test_of_random_nulls(self, start: Start, points: Points, num_metrics: int) -> None:
        rng = np.random.default_rng(num_metrics)
        present = rng.random((700, num_metrics)) < 0.5
        values = rng.normal(size=present.shape)
        columns = {
            f"m{i:02}": [v if p else None for v, p in zip(values[:, i], present[:, i], strict=True)]
            for i in range(num_metrics)
        }
        with start() as run:
            run.log_frame(pl.DataFrame(columns))
        expected = [
            (f"m{i:02}", row, values[row, i]) for i in range(num_metrics) for row in range(700) if present[row, i]
        ]
        assert bits(points(run)) == bits(expected)

    def test_with_a_column_and_a_row_of_nulls(self, start: Start, points: Points) -> None:
        with start() as run:
            run.log_frame({"x": [1.0, None], "never": pa.nulls(2), "typed": pa.nulls(2, pa.float32())})
        assert points(run) == [("x", 0, 1.0)]

    def test_of_nulls_only(self, lake: Lake, start: Start, points: Points) -> None:
        with start() as run:
            run.log_frame({"x": pa.nulls(3, pa.float64())})
        assert points(run) == []
        assert lake.sql("SELECT status FROM runs").fetchall() == [("finished",)]

    def test_do_not_fulfil_a_requirement_by_names_alone(self, lake: Lake, start: Start) -> None:
        lake.experiment("strict").require(metrics=["val/loss"])
        for frame in (
            {"x": [1.0], "val/loss": pa.nulls(1, pa.float64())},
            {"metric": ["val/loss"], "value": pa.nulls(1, pa.float64())},
            {"val/loss": pa.array([], pa.float64())},
        ):
            run = start("strict")
            run.log_frame(frame)
            with pytest.raises(RequirementError, match="val/loss"):
                run.finish()


EMPTY = {
    "polars": pl.DataFrame({"step": [], "x": []}, schema={"step": pl.Int64, "x": pl.Float64}),
    "polars without types": pl.DataFrame({"step": [], "x": []}),
    "arrow": pa.schema([("step", pa.int64()), ("x", pa.float64())]).empty_table(),
    "arrow without chunks": pa.table(
        {"step": pa.chunked_array([], pa.int64()), "x": pa.chunked_array([], pa.float64())}
    ),
    "pandas": pd.DataFrame({"step": np.array([], "i8"), "x": np.array([], "f8")}),
    "dict of lists": {"step": [], "x": []},
    "without steps": {"x": np.array([])},
    "long": {"step": np.array([], "i8"), "metric": pa.array([], pa.string()), "value": np.array([])},
    "long polars": pl.DataFrame(schema={"step": pl.Int64, "metric": pl.String, "value": pl.Float64}),
    "sparse": {"step": np.array([], "i8"), "x": np.array([]), "y": pa.array([], pa.float64())},
}


class TestEmptyFrames:
    @pytest.mark.parametrize("kind", EMPTY)
    def test_log_nothing(self, lake: Lake, start: Start, points: Points, kind: str) -> None:
        with start() as run:
            run.log_frame(EMPTY[kind])
            run.log({"x": 1.0})
        assert points(run) == [("x", 0, 1.0)]
        assert lake.sql("SELECT status FROM runs").fetchall() == [("finished",)]

    @pytest.mark.parametrize(
        "frame",
        [{}, {"step": [1]}, {"step": [1], "ts": [MOMENT]}, pl.DataFrame()],
        ids=["empty", "step", "ts", "polars"],
    )
    def test_without_metrics_are_refused(self, start: Start, frame: Any) -> None:
        with pytest.raises(InvalidInputError, match="no metric columns"):
            start().log_frame(frame)


BAD_COLUMNS: dict[str, Any] = {
    "text": ["a", "b"],
    "numbers as text": ["1", "2"],
    "mixed": [1.0, "b"],
    "lists": [[1.0], [2.0]],
    "dicts": [{"a": 1}, {"a": 2}],
    "objects": [object(), object()],
    "complex": np.array([1j, 2j]),
    "dates": [MOMENT, MOMENT],
    "durations": [timedelta(1), timedelta(2)],
    "two dimensions": np.zeros((2, 2)),
    "no dimension": np.array(1.0),
    "a number": 1.0,
    "none": None,
    "two dimensions of torch": torch.zeros(2, 2),
    "complex torch": torch.tensor([1j, 2j]),
    "meta torch": torch.empty(2, device="meta"),
    "too fine": [2**53 + 1, 1],
    "too fine numpy": np.array([2**53 + 1, 1]),
    "too fine torch": torch.tensor([2**53 + 1, 1]),
    "too large": [2**70, 1],
}


class TestBadColumns:
    @pytest.mark.parametrize("kind", BAD_COLUMNS)
    def test_are_named_and_nothing_is_recorded(self, start: Start, points: Points, kind: str) -> None:
        with start() as run, pytest.raises(InvalidInputError, match="'bad'"):
            run.log_frame({"good": [1.0, 2.0], "bad": BAD_COLUMNS[kind]})
        assert points(run) == []

    @pytest.mark.parametrize("kind", ["text", "mixed", "lists", "objects", "complex", "dates", "too fine"])
    def test_of_pandas_are_named(self, start: Start, points: Points, kind: str) -> None:
        frame = pd.DataFrame({"good": [1.0, 2.0], "bad": BAD_COLUMNS[kind]})
        with start() as run, pytest.raises(InvalidInputError, match="'bad'"):
            run.log_frame(frame)
        assert points(run) == []

    @pytest.mark.parametrize("kind", ["text", "lists", "objects", "dates", "too fine"])
    def test_of_polars_are_named(self, start: Start, points: Points, kind: str) -> None:
        frame = pl.DataFrame({"good": [1.0, 2.0], "bad": BAD_COLUMNS[kind]})
        with start() as run, pytest.raises(InvalidInputError, match="'bad'"):
            run.log_frame(frame)
        assert points(run) == []

    def test_of_different_lengths_are_named(self, start: Start) -> None:
        with pytest.raises(InvalidInputError, match=r"differ in length.*'bad': 3"):
            start().log_frame({"good": [1.0, 2.0], "bad": [1.0, 2.0, 3.0]})

    def test_large_integers_that_fit_are_kept(self, start: Start, points: Points) -> None:
        """As `log` keeps them."""
        with start() as run:
            run.log({"x": 2**60})
            run.log_frame({"x": np.array([2**60])})
        assert points(run) == [("x", 0, 2.0**60), ("x", 1, 2.0**60)]

    @pytest.mark.parametrize(
        "frame",
        [
            pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["x", "x"]),
            pd.DataFrame([[1.0, 2.0]], columns=["x", "x"]),
            pd.DataFrame([[1.0, 2.0]], columns=["1", 1]),
            {"1": [1.0], 1: [2.0]},
        ],
        ids=["arrow", "pandas", "pandas text and number", "dict"],
    )
    def test_two_columns_of_one_name_are_refused(self, start: Start, points: Points, frame: Any) -> None:
        with start() as run, pytest.raises(InvalidInputError, match="two columns"):
            run.log_frame(frame)
        assert points(run) == []

    @pytest.mark.parametrize("name", ["", "a\0b"], ids=repr)
    def test_bad_names_are_refused(self, start: Start, points: Points, name: str) -> None:
        with start() as run:
            with pytest.raises(InvalidInputError, match="metric's name"):
                run.log_frame({"good": [1.0], name: [1.0]})
            with pytest.raises(InvalidInputError, match="metric's name"):
                run.log_frame({"metric": ["good", name], "value": [1.0, 2.0]})
        assert points(run) == []

    def test_a_long_frame_without_a_name_is_refused(self, start: Start, points: Points) -> None:
        with start() as run, pytest.raises(InvalidInputError, match="'metric' has 1 nulls"):
            run.log_frame({"metric": ["x", None], "value": [1.0, 2.0]})
        assert points(run) == []


class TestManyPoints:
    def test_a_million_in_blocks(self, lake: Lake, start: Start) -> None:
        steps = np.arange(260_000)
        with start() as run:
            run.log_frame({"step": steps, **{f"m{index}": steps * (index + 0.5) for index in range(4)}})
            run.flush()
            (segment,) = (lake.path / "wal").glob("*.wal")
            assert segment.stat().st_size > 1_040_000 * 8
        found = lake.sql(
            "SELECT metric, count(*), min(step), max(step), sum(value) FROM metrics GROUP BY metric ORDER BY metric"
        )
        assert found.fetchall() == [
            (f"m{index}", len(steps), 0, len(steps) - 1, pytest.approx(float((steps * (index + 0.5)).sum())))
            for index in range(4)
        ]

    def test_a_long_frame_is_read_quickly(self, start: Start, lake: Lake) -> None:
        import time

        count = 300_000
        frame = pl.DataFrame(
            {"step": np.arange(count) // 3, "metric": ["a", "b", "c"] * (count // 3), "value": np.arange(count) / 7}
        )
        with start() as run:
            started = time.process_time()
            run.log_frame(frame)
            assert time.process_time() - started < 3
        assert lake.sql("SELECT count(*), count(DISTINCT (metric, step)) FROM metrics_raw").fetchall() == [
            (count, count)
        ]

    @pytest.mark.parametrize("long", [False, True], ids=["wide", "long"])
    def test_changing_the_source_afterwards_changes_nothing(self, start: Start, points: Points, long: bool) -> None:
        steps, values = np.arange(3), np.array([1.0, 2.0, 3.0])
        times = np.array([MOMENT.replace(tzinfo=None)] * 3, "datetime64[us]")
        tensor = torch.tensor([4.0, 5.0, 6.0])
        with start() as run:
            if long:
                run.log_frame({"step": steps, "ts": times, "metric": np.array(["x"] * 3), "value": values})
            else:
                run.log_frame({"step": steps, "ts": times, "x": values, "y": tensor})
            steps[:], values[:], times[:] = 99, 99.0, np.datetime64(0, "us")
            tensor.fill_(99.0)
        expected = [("x", 0, 1.0), ("x", 1, 2.0), ("x", 2, 3.0)]
        assert points(run) == expected + ([] if long else [("y", 0, 4.0), ("y", 1, 5.0), ("y", 2, 6.0)])

    def test_after_the_end_are_refused(self, start: Start) -> None:
        run = start()
        run.finish()
        with pytest.raises(RunClosedError, match=f"resume='{run.id}'"):
            run.log_frame({"x": [1.0]})
