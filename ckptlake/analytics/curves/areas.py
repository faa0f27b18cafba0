"""The area under curves: how low a loss was along the way, not only at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_not_huge, check_number
from ckptlake.analytics.charts import Axis, Chart, bar_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.curves.aligning import align
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Result
from ckptlake.analytics.wording import number, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Areas(Result):
    """The area under each of several curves, over one range.

    Attributes:
        x: what the steps count.
        start: where the range begins.
        end: where it ends.
        table: a row a run, in the order given: ``run``, ``area`` and ``mean``, the area over the length of the range.
    """

    x: str
    start: float
    end: float
    table: pl.DataFrame

    def sentence(self) -> str:
        by_mean = self.table.sort("mean")
        least, most = by_mean.row(0, named=True), by_mean.row(-1, named=True)
        over = f"from {self.x} {number(self.start)} to {number(self.end)}"
        if self.table.height == 1:
            return f"The mean height of {least['run']} {over} is {number(least['mean'])}."
        return (
            f"Of {plural(self.table.height, 'run')} {over} the least mean height is {number(least['mean'])} "
            f"({least['run']}), the most {number(most['mean'])} ({most['run']})."
        )

    def chart(self) -> Chart:
        title = f"Mean height from {self.x} {number(self.start)} to {number(self.end)}"
        rows = self.table.sort("mean").iter_rows(named=True)
        return bar_chart(title, rows, label="run", value=Axis("mean", self.unit or "mean height"))


def areas_under(
    curves: Sequence[Curve], *, start: float | None = None, end: float | None = None, x: str = "step", unit: str = ""
) -> Areas:
    """Return the area under curves by the trapezoidal rule, over one range for all of them.

    Areas over different ranges cannot be compared, so the range is the part of the axis that all runs cover, or a
    part of it. Not for runs of which some diverged early: they shorten the range for all.

    Args:
        curves: one a run.
        start: where the range begins; by default the last of the runs' first finite points.
        end: where it ends; by default the first of their last finite points.
        x: what the steps count.
        unit: the unit of the values.

    Raises:
        NotEnoughDataError: there is no curve, one without a finite value, or no range that all cover.
        InvalidInputError: the range asked for is not covered by all of them, or is empty.

    Example:
        >>> line = Curve.of("a", np.array([0.0, 10.0]), np.array([4.0, 2.0]))
        >>> areas_under([line]).table.row(0)
        ('a', 30.0, 3.0)
    """
    aligned = align(curves, grid=np.zeros(1))
    covered = float(aligned.starts.max()), float(aligned.ends.min())
    if covered[0] >= covered[1]:
        late, early = aligned.labels[int(np.argmax(aligned.starts))], aligned.labels[int(np.argmin(aligned.ends))]
        raise NotEnoughDataError(
            f"no range lies in all {plural(len(curves), 'run')}: {late} begins at {x} {number(covered[0])} and {early} "
            f"ends at {number(covered[1])}"
        )
    low = covered[0] if start is None else start
    high = covered[1] if end is None else end
    check_number(low, "start")
    check_number(high, "end")
    if not covered[0] <= low < high <= covered[1]:
        raise InvalidInputError(
            f"the range {low} to {high} is not one that all runs cover: they cover {number(covered[0])} to "
            f"{number(covered[1])}"
        )
    finite = [curve.finite() for curve in curves]
    for curve in finite:
        check_not_huge(curve.values, f"the curve {curve.label!r:.100}")
    check_not_huge(np.array([low, high]), f"the range of {x}")
    found = np.array([trapezoid(curve.steps, curve.values, low, high) for curve in finite])
    table = pl.DataFrame({"run": aligned.labels, "area": found, "mean": found / (high - low)})
    return Areas(
        n=sum(curve.n for curve in finite), method="trapezoidal rule", unit=unit, notes=aligned.notes, x=x, start=low,
        end=high, table=table,
    )  # fmt: skip


def trapezoid(steps: Floats, values: Floats, start: float, end: float) -> float:
    """Return the area under straight lines between points, from `start` to `end`.

    Args:
        steps: float64, shape (n,), rising.
        values: float64, shape (n,), finite.
        start: at or after the first step.
        end: at or before the last step.

    Example:
        >>> trapezoid(np.array([0.0, 2.0]), np.array([0.0, 4.0]), 1.0, 2.0)
        3.0
    """
    inner = (steps > start) & (steps < end)
    places = np.concatenate([[start], steps[inner], [end]])
    return float(np.trapezoid(np.interp(places, steps, values), places))
