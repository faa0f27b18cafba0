"""The slope of a curve and whether it is one: Theil-Sen and Mann-Kendall, honest about autocorrelation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from ckptlake.analytics.arguments import check_level, check_not_huge
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Check, Interval, Result
from ckptlake.analytics.wording import number, p_value, plural
from ckptlake.errors import NotEnoughDataError

MOST_POINTS = 2_000
"""Up to how many points all pairs are compared; longer curves are first made medians of blocks, at most so many."""
FEWEST_POINTS = 8
_HIGHEST_AUTOCORRELATION = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Monotone:
    """A monotone trend in a series.

    Attributes:
        slope: the median of the slopes of all pairs of points.
        low: the lower end of its interval; -inf where the data set none.
        high: the upper end; inf where the data set none.
        intercept: of the line through the medians.
        tau: Kendall's tau-a, from -1 to 1.
        p: two-sided p-value of no trend.
        autocorrelation: at lag 1 of what the line leaves, corrected for bias.
        n_effective: how many independent points the series is worth.
    """

    slope: float
    low: float
    high: float
    intercept: float
    tau: float
    p: float
    autocorrelation: float
    n_effective: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slope(Result):
    """The trend of one curve.

    Attributes:
        label: the run.
        slope: change of the value per unit of step; its interval is `interval`.
        tau: Kendall's tau-a: the share of pairs that rise less the share that fall.
        p: two-sided p-value of no trend.
        autocorrelation: of what the line leaves, from one point to the next.
        n_effective: how many independent points the curve is worth.
        curve: what the line was laid through.
        intercept: of the line.
    """

    label: str
    slope: float
    tau: float
    p: float
    autocorrelation: float
    n_effective: float
    intercept: float
    curve: Curve

    def sentence(self) -> str:
        told = "no trend shows" if self.p >= 0.05 else "it rises" if self.slope > 0 else "it falls"
        return (
            f"{self.label}: {told} ({p_value(self.p)}); the slope is {number(self.slope)} per step ({self.interval}), "
            f"from {plural(self.n, 'point')} worth {number(self.n_effective, 3)} independent ones."
        )

    def chart(self) -> Chart:
        ends = self.curve.steps[[0, -1]]
        rows = [
            {"x": float(x), "value": float(value), "what": self.label}
            for x, value in zip(self.curve.steps, self.curve.values, strict=True)
        ] + [{"x": float(x), "value": float(self.intercept + self.slope * x), "what": "slope"} for x in ends]
        y = Axis("value", self.unit or "value")
        return line_chart(f"Trend of {self.label}", rows, x=Axis("x", "step"), y=y, color="what")


def slope(curve: Curve, *, level: float = 0.95, unit: str = "") -> Slope:
    """Return the slope of a curve with its interval, and whether there is a trend at all.

    The slope is the median over all pairs of points, which one point in four may spoil without moving it far. Points
    of a training curve depend on their neighbours; the test and the interval count how many independent ones they
    are worth. Not for a curve that bends: one slope then means little; smooth or cut it first (`Curve.until`).

    Source: see `monotone`.

    Args:
        curve: eight finite points or more; above 2,000 the medians of at most 2,000 blocks stand for them.
        level: the confidence of the interval.
        unit: the unit of the values.

    Raises:
        NotEnoughDataError: fewer than eight finite points.
        InvalidInputError: the level is not between 0 and 1.

    Example:
        >>> steps = np.arange(100.0)
        >>> found = slope(Curve("a", steps, 3 - 0.01 * steps + np.random.default_rng(0).normal(0, 0.1, 100)))
        >>> -0.01 in found.interval, found.p < 0.001
        (True, True)
    """
    check_level(level)
    finite = curve.finite()
    if finite.n < FEWEST_POINTS:
        raise NotEnoughDataError(
            f"the curve {curve.label!r:.100} has {plural(finite.n, 'finite point')}: a slope takes {FEWEST_POINTS}"
        )
    check_not_huge(finite.values, f"the curve {curve.label!r:.100}")
    used = finite if finite.n <= MOST_POINTS else Curve(curve.label, *blocks(finite.steps, finite.values, MOST_POINTS))
    found = monotone(used.steps, used.values, level)
    notes: list[str] = []
    if n_bad := curve.n - finite.n:
        notes.append(f"{plural(n_bad, 'value')} of {curve.n:,} NaN or infinite")
        if not curve.is_finite[-1]:
            notes.append(f"the curve diverged after step {number(finite.steps[-1])}: this is its trend before")
    if used is not finite:
        notes.append(f"medians of {used.n:,} blocks stand for {finite.n:,} points")
    if np.ptp(used.values) == 0:
        notes.append("all values are equal")
    independent = Check(
        "independent points", bool(abs(found.autocorrelation) < 2 / np.sqrt(used.n)),
        f"autocorrelation {number(found.autocorrelation, 2)} at lag 1, corrected for",
    )  # fmt: skip
    return Slope(
        n=finite.n, method="Theil-Sen slope; Mann-Kendall test with autocorrelation correction", unit=unit,
        checks=(independent,), notes=tuple(notes), interval=Interval(found.low, found.high, level, "Sen"),
        label=curve.label, slope=found.slope, tau=found.tau, p=found.p, autocorrelation=found.autocorrelation,
        n_effective=found.n_effective, intercept=found.intercept, curve=used,
    )  # fmt: skip


def monotone(steps: Floats, values: Floats, level: float = 0.95) -> Monotone:
    """Return the Theil-Sen slope and the Mann-Kendall test of a series with autocorrelated noise.

    The variance of Kendall's S is that of Hamed and Rao for the rank autocorrelations of a first-order process, whose
    coefficient is estimated on what the Theil-Sen line leaves and corrected for bias; the statistic is then compared
    with Student's t of as many degrees of freedom as there are independent points, less two. Estimating every lag
    from the data, as Hamed and Rao do, rejects too often in short series.

    Source: Sen, P. (1968), J. American Statistical Association 63; Hamed, K. and Rao, A. (1998), J. Hydrology 204;
    Marriott, F. and Pope, J. (1954), Biometrika 41, for the bias.

    Args:
        steps: float64, shape (n,), rising.
        values: float64, shape (n,), finite; 4 or more. Time is proportional to n squared.
        level: the confidence of the interval of the slope.

    Example:
        >>> found = monotone(np.arange(20.0), 2.0 * np.arange(20.0))
        >>> found.slope, found.tau
        (2.0, 1.0)
    """
    n = len(values)
    i, j = np.triu_indices(n, 1)
    rises = values[j] - values[i]
    slopes = np.sort(rises / (steps[j] - steps[i]))
    s = float(np.sign(rises).sum())
    middle = float(np.median(slopes))
    residuals = values - middle * steps
    autocorrelation = _autocorrelation(residuals)
    ties = np.unique(values, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    inflation = _inflation(autocorrelation, n)
    n_effective = n / inflation
    deviation, freedom = float(np.sqrt(variance * inflation)), max(min(n_effective, n) - 2, 1.0)
    t = (s - np.sign(s)) / deviation if deviation > 0 else 0.0
    reach = float(special.stdtrit(freedom, (1 + level) / 2)) * deviation
    low, high = int(np.floor((len(slopes) - reach) / 2)), int(np.ceil((len(slopes) + reach) / 2))
    return Monotone(
        slope=middle, low=float(slopes[low]) if low >= 0 else -np.inf,
        high=float(slopes[high]) if high < len(slopes) else np.inf if reach else float(slopes[-1]),
        intercept=float(np.median(residuals)), tau=s / len(slopes), p=float(2 * special.stdtr(freedom, -abs(t))),
        autocorrelation=autocorrelation, n_effective=n_effective,
    )  # fmt: skip


def blocks(
    steps: Floats, values: Floats, most: int, middle: Callable[..., Floats] = np.median
) -> tuple[Floats, Floats]:
    """Return the mean steps and middle values of consecutive blocks of one size, at most so many.

    The first points, fewer than a block, are left out where the blocks do not come out even.

    >>> blocks(np.arange(7.0), np.arange(7.0), 3)
    (array([2., 5.]), array([2., 5.]))
    """
    size = -(-len(steps) // most)
    if size <= 1:
        return steps, values
    begin = len(steps) % size
    shape = (-1, size)
    return steps[begin:].reshape(shape).mean(axis=1), middle(values[begin:].reshape(shape), axis=1)


def _autocorrelation(residuals: Floats) -> float:
    """Return the first-order coefficient r; what a detrended series of n points shows is too low by (2 + 4r)/n."""
    n = len(residuals)
    centred = residuals - residuals.mean()
    power = float(centred @ centred)
    if power <= 1e-24 * n * max(float(np.square(residuals).max()), np.finfo(float).tiny):
        return 0.0
    found = (n * float(centred[1:] @ centred[:-1]) / power + 2) / (n - 4) if n > 4 else 0.0
    return float(np.clip(found, -0.9, _HIGHEST_AUTOCORRELATION))


def _inflation(autocorrelation: float, n: int) -> float:
    """Return by how much autocorrelation of first order widens the variance of Kendall's S (Hamed and Rao, eq. 19)."""
    lag = np.arange(1, n)
    ranks = 6 / np.pi * np.arcsin(autocorrelation**lag / 2)
    weights = (n - lag) * (n - lag - 1.0) * (n - lag - 2.0)
    return float(1 + 2 * (weights * ranks).sum() / (n * (n - 1.0) * (n - 2.0)))
