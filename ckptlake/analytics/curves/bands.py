"""The mean curve of several runs, with a band that holds along the whole curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_count, check_direction, check_level
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.curves.aligning import align
from ckptlake.analytics.curves.simultaneous import difference_band, mean_band
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Check, Result
from ckptlake.analytics.wording import number, plural
from ckptlake.errors import NotEnoughDataError
from ckptlake.types import Direction

FEWEST_RUNS = 3
"""How many runs a band takes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Band(Result):
    """The mean curve of several runs.

    Attributes:
        x: what the grid counts.
        level: the confidence that the whole true mean curve lies in the band.
        table: a row a grid point: ``x``, ``mean``, ``low`` and ``high``.
    """

    x: str
    level: float
    table: pl.DataFrame

    def sentence(self) -> str:
        last = self.table.row(-1, named=True)
        return (
            f"Over {plural(self.n, 'run')} the mean ends at {number(last['mean'])} at {self.x} {number(last['x'])}; "
            f"with {100 * self.level:g} % confidence the whole mean curve lies in the band, there "
            f"{number(last['low'])} to {number(last['high'])}."
        )

    def chart(self) -> Chart:
        rows = self.table.iter_rows(named=True)
        y = Axis("mean", self.unit or "mean")
        title = f"Mean of {plural(self.n, 'run')} with its {100 * self.level:g} % simultaneous band"
        return line_chart(title, rows, x=Axis("x", self.x), y=y, low="low", high="high")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FirstBetter(Result):
    """From where on one group of runs is better than another.

    Attributes:
        x: what the grid counts.
        first: the name of the first group.
        second: the name of the second group.
        winner: the group that is reliably better at the end of the shared range, or None.
        step: the first grid point from which its lead stays reliable until that end, or None.
        end: where the shared range ends.
        level: the confidence that the whole true difference lies in the band.
        table: a row a grid point: ``x``, ``difference`` (first less second), ``low``, ``high``.
    """

    x: str
    first: str
    second: str
    winner: str | None
    step: float | None
    end: float
    level: float
    table: pl.DataFrame

    def sentence(self) -> str:
        sure = f"{100 * self.level:g} % simultaneous band, {plural(self.n, 'run')}"
        if self.winner is None or self.step is None:
            return (
                f"Neither {self.first} nor {self.second} is reliably better at {self.x} {number(self.end)}, "
                f"the end of the shared range ({sure})."
            )
        loser = self.second if self.winner == self.first else self.first
        return (
            f"{self.winner} is reliably better than {loser} from {self.x} {number(self.step)} on, "
            f"to the end of the shared range at {number(self.end)} ({sure})."
        )

    def chart(self) -> Chart:
        rows = self.table.iter_rows(named=True)
        marks = [] if self.step is None else [self.step]
        y = Axis("difference", f"{self.first} less {self.second}" + (f" ({self.unit})" if self.unit else ""))
        title = f"{self.first} against {self.second}"
        return line_chart(title, rows, x=Axis("x", self.x), y=y, low="low", high="high", marks=marks, levels=[0.0])


def band(
    curves: Sequence[Curve], *, level: float = 0.95, grid: Floats | None = None, x: str = "step", unit: str = "",
    n_resamples: int = 1000, seed: int = 0,
) -> Band:  # fmt: skip
    """Return the mean curve of runs with a band that holds at every grid point at once.

    A pointwise band of 95 % is left somewhere by most true curves; this one is left anywhere by 5 % of them. It
    covers the part of the axis on which every run has values. Not for runs that are not exchangeable, such as a sweep
    over learning rates: the mean of those means nothing.

    Source: see `ckptlake.analytics.curves.simultaneous.mean_band`.

    Args:
        curves: one a run, three or more.
        level: the confidence, between 0 and 1.
        grid: float64, shape (m,), rising; by default as `align` chooses it.
        x: what the steps count.
        unit: the unit of the values.
        n_resamples: how many sign flips are drawn (for more than 10 runs; all of them are taken below).
        seed: of those draws.

    Raises:
        NotEnoughDataError: fewer than three runs, or no point that lies in all of them.
        InvalidInputError: the level is not between 0 and 1, or as `align` raises.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> runs = [Curve(str(run), np.arange(50.0), 3 + rng.normal(0, 0.1, 50)) for run in range(8)]
        >>> found = band(runs)
        >>> bool(found.table["low"].max() < 3 < found.table["high"].min())
        True
    """
    _check(level, curves, n_resamples, seed)
    aligned = align(curves, grid=grid, x=x, unit=unit).overlap()
    found = mean_band(aligned.values, level, n_resamples, seed)
    table = pl.DataFrame({"x": aligned.grid, "mean": found.estimate, "low": found.low, "high": found.high})
    return Band(
        n=len(curves), method=found.method, unit=unit, checks=(_normality(len(curves)),),
        notes=aligned.notes + _equal(aligned.values), x=x, level=level, table=table,
    )  # fmt: skip


def first_better(
    first: Sequence[Curve], second: Sequence[Curve], direction: Direction, *, labels: tuple[str, str] = ("A", "B"),
    level: float = 0.95, grid: Floats | None = None, x: str = "step", unit: str = "", n_resamples: int = 1000,
    seed: int = 0,
) -> FirstBetter:  # fmt: skip
    """Return the first step from which one group of runs is reliably better than another, until the end.

    The difference of the mean curves gets a band that holds everywhere at once. A group is reliably better from the
    step at which that band enters the group's side and does not leave it again. As the band is simultaneous, looking
    at every step costs no false alarms: one of two equal groups is called better in at most 1 - `level` of cases.

    Source: see `ckptlake.analytics.curves.simultaneous.difference_band`.

    Args:
        first: curves of the first group, three or more.
        second: curves of the second group, three or more.
        direction: whether smaller (``"min"``) or larger (``"max"``) values are better.
        labels: the names of the groups.
        level: the confidence, between 0 and 1.
        grid: float64, shape (m,), rising; by default as `align` chooses it.
        x: what the steps count.
        unit: the unit of the values.
        n_resamples: how many sign flips are drawn (for more than 10 runs; all of them are taken below).
        seed: of those draws.

    Raises:
        NotEnoughDataError: a group has fewer than three runs, or no point lies in all of them.
        InvalidInputError: the level or the direction is none, or as `align` raises.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> steps = np.arange(100.0)
        >>> slow = [Curve(f"slow{run}", steps, 3 + rng.normal(0, 0.1, 100)) for run in range(6)]
        >>> fast = [Curve(f"fast{run}", steps, 3 - steps / 100 + rng.normal(0, 0.1, 100)) for run in range(6)]
        >>> first_better(fast, slow, "min", labels=("fast", "slow")).winner
        'fast'
    """
    check_direction(direction)
    _check(level, first, n_resamples, seed)
    _check(level, second, n_resamples, seed)
    runs = [_named(curve, label) for group, label in zip((first, second), labels, strict=True) for curve in group]
    aligned = align(runs, grid=grid, x=x, unit=unit).overlap()
    ours, theirs = aligned.values[: len(first)], aligned.values[len(first) :]
    found = difference_band(ours, theirs, level, n_resamples, seed)
    sides = np.where(found.high < 0, -1, np.where(found.low > 0, 1, 0))
    winner: str | None = None
    step: float | None = None
    if sides[-1]:
        others = np.flatnonzero(sides != sides[-1])
        step = float(aligned.grid[others[-1] + 1 if len(others) else 0])
        winner = labels[0 if (sides[-1] < 0) == (direction == "min") else 1]
    table = pl.DataFrame({"x": aligned.grid, "difference": found.estimate, "low": found.low, "high": found.high})
    return FirstBetter(
        n=len(first) + len(second), method=f"Welch standard error, {found.method}", unit=unit,
        checks=(_normality(min(len(first), len(second))),), notes=aligned.notes, x=x, first=labels[0],
        second=labels[1], winner=winner, step=step, end=float(aligned.grid[-1]), level=level, table=table,
    )  # fmt: skip


def _check(level: float, curves: Sequence[Curve], n_resamples: int, seed: int) -> None:
    check_level(level)
    check_count(n_resamples, "n_resamples", least=100, most=1_000_000)
    check_count(seed, "seed", least=0)
    if len(curves) < FEWEST_RUNS:
        raise NotEnoughDataError(f"a band takes {FEWEST_RUNS} runs or more in a group, got {len(curves)}")


def _named(curve: Curve, group: str) -> Curve:
    return replace(curve, label=f"{group}: {curve.label}")


def _normality(n: int) -> Check:
    return Check("means near a normal distribution", True if n >= 30 else None, f"{plural(n, 'run')} in a group")


def _equal(values: Floats) -> tuple[str, ...]:
    n_equal = int((np.ptp(values, axis=0) == 0).sum())
    return (f"at {plural(n_equal, 'grid point')} all runs have one value, and the band no width",) * bool(n_equal)
