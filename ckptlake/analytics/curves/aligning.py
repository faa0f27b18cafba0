"""Curves of many runs on one grid, interpolated and never extrapolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import numbers
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Result
from ckptlake.analytics.wording import listing, number, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError

MOST_DISTINCT_STEPS = 2_000
"""Up to how many distinct steps the grid is made of them all; beyond, it is evenly spaced."""
_EVEN_POINTS = 500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aligned(Result):
    """Curves on one grid.

    Attributes:
        x: what the grid counts, such as ``"step"``.
        labels: the runs, in order.
        grid: float64, shape (m,), rising.
        values: float64, shape (runs, m); NaN before a run's first finite point and after its last.
        starts: float64, shape (runs,): where each run's finite points begin.
        ends: float64, shape (runs,): where they end.
    """

    x: str
    labels: tuple[str, ...]
    grid: Floats
    values: Floats
    starts: Floats
    ends: Floats

    @property
    def table(self) -> pl.DataFrame:
        """One row a run and grid point: ``run``, ``x`` and ``value``, null outside the run."""
        return pl.DataFrame(
            {
                "run": np.repeat(self.labels, len(self.grid)),
                "x": np.tile(self.grid, len(self.labels)),
                "value": self.values.ravel(),
            }
        ).with_columns(pl.col("value").fill_nan(None))

    def overlap(self) -> Aligned:
        """Return the part of the grid on which every run has values.

        Raises:
            NotEnoughDataError: there is no such part; the message names the runs that keep it from existing.
        """
        inside = np.isfinite(self.values).all(axis=0)
        late, early = int(np.argmax(self.starts)), int(np.argmin(self.ends))
        if not inside.any():
            raise NotEnoughDataError(
                f"no grid point lies in all {plural(len(self.labels), 'run')}: {self.labels[late]} begins at "
                f"{self.x} {number(self.starts[late])} and {self.labels[early]} ends at {self.x} "
                f"{number(self.ends[early])}; leave one of them out or log them over the same range"
            )
        notes = self.notes
        if not inside.all():
            notes += (
                f"only {self.x} {number(self.grid[inside][0])} to {number(self.grid[inside][-1])} lies in every run, "
                f"of {number(self.grid[0])} to {number(self.grid[-1])}; {self.labels[early]} ends first",
            )
        return Aligned(
            n=self.n, method=self.method, unit=self.unit, notes=notes, x=self.x, labels=self.labels,
            grid=self.grid[inside], values=self.values[:, inside], starts=self.starts, ends=self.ends,
        )  # fmt: skip

    def sentence(self) -> str:
        low, high = number(self.grid[0]), number(self.grid[-1])
        ends = "all runs end there" if np.ptp(self.ends) == 0 else f"the first run ends at {number(self.ends.min())}"
        return (
            f"{plural(len(self.labels), 'run')} on {plural(len(self.grid), 'point')} from {self.x} {low} to {high}; "
            f"{ends}."
        )

    def chart(self) -> Chart:
        rows = self.table.drop_nulls().iter_rows(named=True)
        return line_chart(
            "Aligned curves", rows, x=Axis("x", self.x), y=Axis("value", self.unit or "value"), color="run"
        )


def align(curves: Sequence[Curve], *, grid: Floats | None = None, x: str = "step", unit: str = "") -> Aligned:
    """Return curves on one grid, by linear interpolation between neighbouring finite points.

    Outside its own first and last finite point a run has no value: nothing is extrapolated. Non-finite values inside
    a run are bridged and counted in the notes; a run whose last value is not finite is named there as diverged.

    Args:
        curves: one a run.
        grid: float64, shape (m,), rising. By default every step of every run, and 500 evenly spaced points where
            there are more than 2,000 distinct ones; the method says which.
        x: what the steps count, such as ``"step"``, ``"seconds"`` or ``"tokens"``.
        unit: the unit of the values.

    Raises:
        NotEnoughDataError: there is no curve, or a curve without a finite value.
        InvalidInputError: the grid is empty, not finite or does not rise, or two curves have one label.

    Example:
        >>> one = Curve.of("a", np.array([0.0, 10.0]), np.array([4.0, 2.0]))
        >>> two = Curve.of("b", np.array([0.0, 5.0]), np.array([3.0, 1.0]))
        >>> align([one, two]).values.tolist()
        [[4.0, 3.0, 2.0], [3.0, 1.0, nan]]
    """
    if not curves:
        raise NotEnoughDataError("there is no curve to align: it takes at least one")
    labels = tuple(curve.label for curve in curves)
    if len(set(labels)) < len(labels):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        raise InvalidInputError(f"several curves have the label {listing(twice)}: name more columns in `run`")
    finite = [curve.finite() for curve in curves]
    if empty := [curve.label for curve in finite if not curve.n]:
        raise NotEnoughDataError(f"no finite value in {listing(empty)}: leave such runs out and count them as failed")
    chosen, how = _grid(finite, grid)
    values = np.stack([np.interp(chosen, curve.steps, curve.values, np.nan, np.nan) for curve in finite])
    return Aligned(
        n=sum(curve.n for curve in finite), method=f"linear interpolation onto {how}", unit=unit, notes=_notes(curves),
        x=x, labels=labels, grid=chosen, values=values, starts=np.array([curve.steps[0] for curve in finite]),
        ends=np.array([curve.steps[-1] for curve in finite]),
    )  # fmt: skip


def _grid(curves: Sequence[Curve], grid: Floats | None) -> tuple[Floats, str]:
    if grid is None:
        every = np.unique(np.concatenate([curve.steps for curve in curves]))
        if len(every) <= MOST_DISTINCT_STEPS:
            return every, f"all {plural(len(every), 'distinct step')}"
        return np.linspace(every[0], every[-1], _EVEN_POINTS), f"{_EVEN_POINTS} evenly spaced points"
    given = numbers(grid, "the grid")
    if not given.size or not np.isfinite(given).all() or (given[1:] <= given[:-1]).any():
        raise InvalidInputError(f"grid={grid!r:.100}: a row of finite numbers that rises is needed")
    return given, plural(len(given), "given point")


def _notes(curves: Sequence[Curve]) -> tuple[str, ...]:
    notes = []
    for curve in curves:
        if n_bad := int((~curve.is_finite).sum()):
            last = number(curve.steps[curve.is_finite][-1])
            diverged = f"; it diverged and counts until {last}" if not curve.is_finite[-1] else ""
            notes.append(f"{curve.label}: {plural(n_bad, 'value')} of {curve.n:,} NaN or infinite{diverged}")
    return tuple(notes)
