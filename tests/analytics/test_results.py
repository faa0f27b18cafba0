"""What every analysis returns, and the sentences, rows and charts made of it."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import polars as pl
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from ckptlake.analytics import charts
from ckptlake.analytics.charts import Axis, Chart
from ckptlake.analytics.curve import Curve, curves_of
from ckptlake.analytics.frames import floats, samples
from ckptlake.analytics.progress import track
from ckptlake.analytics.results import Check, Interval, Result
from ckptlake.errors import InvalidInputError

ROWS = [
    {"who": "a", "x": 1.0, "mean": 2.0, "low": 1.0, "high": 3.0},
    {"who": "b", "x": 2.0, "mean": 4.0, "low": float("nan"), "high": float("inf")},
]
VALUE = Axis("mean", "loss (nats)")
CHARTS = {
    "intervals": charts.interval_chart("t", ROWS, label="who", value=VALUE, low="low", high="high", reference=2.5),
    "lines": charts.line_chart(
        "t",
        ROWS,
        x=Axis("x", "step", log=True),
        y=VALUE,
        color="who",
        low="low",
        high="high",
        marks=[1.5],
        levels=[2.0],
    ),
    "points": charts.point_chart("t", ROWS, x=Axis("x", "step"), y=VALUE, color="who"),
    "bars": charts.bar_chart("t", ROWS, label="who", value=VALUE, low="low", high="high"),
    "heat": charts.heat_chart("t", ROWS, x="who", y="x", value=VALUE),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mean(Result):
    value: float

    def sentence(self) -> str:
        return f"The mean is {self.value}."

    def chart(self) -> Chart:
        return CHARTS["bars"]


MEAN = Mean(
    n=3,
    method="arithmetic mean",
    value=2.0,
    interval=Interval(1.0, 3.0, 0.95, "Student t"),
    checks=(Check("normal values", False, "W = 0.5, p = 0.001"), Check("equal variances", None, "one value")),
    notes=("left out 1 value",),
)


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_drawn_by_vega(name: str) -> None:
    spec = json.dumps(CHARTS[name].spec, allow_nan=False)
    assert vl_convert.vegalite_to_png(spec, vl_version="5.20").startswith(b"\x89PNG")
    svg = vl_convert.vegalite_to_svg(spec, vl_version="5.20")
    assert ("who" if name in {"lines", "points"} else "a") in svg


def test_the_ends_of_an_interval_are_told_apart() -> None:
    assert str(Interval(3.27821, 3.27868, 0.95, "Student t")) == "95 % interval 3.27821 to 3.27868"
    assert str(Interval(-1.0, math.inf, 0.9, "Sen")) == "90 % interval -1 to inf"
    assert str(Interval(2.5, 2.5, 0.9, "Sen")) == "90 % interval 2.5 to 2.5"


def test_a_result_is_a_row_a_sentence_and_a_chart() -> None:
    assert MEAN.row() == {
        "n": 3, "method": "arithmetic mean", "unit": "", "low": 1.0, "high": 3.0, "level": 0.95, "value": 2.0,
        "doubts": "normal values: does not hold (W = 0.5, p = 0.001)", "notes": "left out 1 value",
    }  # fmt: skip
    assert str(MEAN) == "The mean is 2.0."
    bundle = MEAN._repr_mimebundle_()
    assert bundle["text/plain"] == "The mean is 2.0."
    assert bundle["application/vnd.vegalite.v5+json"]["title"] == "t"
    assert MEAN.interval is not None
    assert 1.0 in MEAN.interval
    assert 3.1 not in MEAN.interval
    with pytest.raises(FrozenInstanceError):
        MEAN.value = 3.0  # type: ignore[misc]


class TestFrames:
    def test_what_is_left_out_is_counted(self) -> None:
        frame = pl.DataFrame({"lr": [1, 1, 1, 2], "loss": [0.5, None, float("inf"), 1.0]})
        first, second = samples(frame, "loss", by="lr")
        assert (first.n, first.n_missing, first.n_nonfinite, second.n) == (1, 1, 1, 1)
        assert first.notes == ("lr=1: left out 1 missing and 1 NaN or infinite of 3 values",)
        assert second.notes == ()

    def test_columns_are_named_in_errors(self) -> None:
        frame = pl.DataFrame({"val_loss": [1.0], "name": ["a"]})
        with pytest.raises(InvalidInputError, match="'val_los'; did you mean 'val_loss'"):
            floats(frame, "val_los")
        with pytest.raises(InvalidInputError, match="'name' holds String"):
            floats(frame, "name")
        with pytest.raises(InvalidInputError, match="got dict"):
            floats({"a": [1]}, "a")  # type: ignore[arg-type]


class TestCurves:
    @given(st.lists(st.tuples(st.integers(-5, 5), st.floats(allow_nan=False)), max_size=30))
    def test_the_last_of_each_step_counts_whatever_the_order(self, points: list[tuple[int, float]]) -> None:
        steps, values = (np.array([point[side] for point in points], np.float64) for side in (0, 1))
        curve = Curve.of("a", steps, values)
        assert dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True)) == {float(s): v for s, v in points}
        assert curve.n_repeated == len(points) - curve.n

    def test_steps_must_be_finite(self) -> None:
        frame = pl.DataFrame({"run_id": ["a", "a"], "step": [1, None], "value": [1.0, 2.0]})
        with pytest.raises(InvalidInputError, match="'a' must be finite"):
            curves_of(frame)

    def test_parts_of_a_curve(self) -> None:
        curve = Curve.of("a", np.arange(4.0), np.array([1.0, np.nan, 3.0, 4.0]))
        assert curve.until(2).values.tolist()[::2] == [1.0, 3.0]
        assert curve.finite().steps.tolist() == [0.0, 2.0, 3.0]


def test_everything_tracked_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptlake.analytics.progress._PATIENCE_S", -1.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(track(range(5), "counting")) == [0, 1, 2, 3, 4]
