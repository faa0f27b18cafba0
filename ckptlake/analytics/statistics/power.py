"""How many seeds it takes to see a difference between two configurations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats
from scipy.special import chdtr, ndtr

from ckptlake.analytics.arguments import check_count, check_level, check_magnitude, check_number, check_probability
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.frames import Columns, Floats, Sample, samples
from ckptlake.analytics.results import Interval, Result
from ckptlake.analytics.statistics.checks import normality
from ckptlake.analytics.wording import listing, number, percent, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError

_MOST = 100_000
_MOST_IN_A_GROUP = 10**9
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(300)
_TAIL, _MANY_DEGREES = 9.0, 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeedsNeeded(Result):
    """How many seeds a configuration needs for Welch's test to see a difference.

    The interval tells how the number moves with the standard deviations, which a few runs tell only roughly.

    Attributes:
        first: one configuration.
        second: the other.
        difference: between their means, in the unit of the values.
        std_first: standard deviation between seeds of the first.
        std_second: the same of the second.
        power: the probability asked for, to find a difference of that size.
        alpha: the probability to find one where there is none.
        seeds: how many each configuration needs in all.
        more_first: how many the first needs beyond those it has.
        more_second: the same for the second.
    """

    first: str
    second: str
    difference: float
    std_first: float
    std_second: float
    power: float
    alpha: float
    seeds: int
    more_first: int
    more_second: int

    def sentence(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        spread = f" ({self.interval})" if self.interval is not None else ""
        lacking = ((self.more_first, self.first), (self.more_second, self.second))
        more = listing(f"{count:,} more of {label}" for count, label in lacking if count)
        return (
            f"To see a difference of {number(self.difference)}{unit} between {self.first} and {self.second} with "
            f"probability {percent(self.power)} takes {plural(self.seeds, 'seed')} each{spread}: "
            f"{more if self.more_first or self.more_second else 'both have as many already'}."
        )

    def chart(self) -> Chart:
        sizes = np.unique(np.linspace(2, max(2 * self.seeds, 10), 60).astype(int))
        rows = [
            {"seeds": n, "power": welch_power(n, self.difference, self.std_first, self.std_second, alpha=self.alpha)}
            for n in map(int, sizes)
        ]
        return line_chart(
            f"Power to see a difference of {number(self.difference)}",
            rows,
            x=Axis("seeds", "seeds of each configuration", zero=True),
            y=Axis("power", "probability to see it", zero=True),
            marks=[self.seeds],
            levels=[self.power],
        )


def welch_power(
    n: int, difference: float, std_first: float, std_second: float | None = None, *, alpha: float = 0.05
) -> float:
    """Return the probability that Welch's two-sided test finds a difference between two groups of n normal values.

    By the noncentral t distribution with the degrees of freedom of Welch (1947) at the true deviations; for equal
    deviations it is exact for Student's test, for unequal ones within about 0.01 from n = 5 on.

    Args:
        n: how many values each group has, at least 2.
        difference: between the true means, in the unit of the values.
        std_first: true standard deviation of the first group, above 0.
        std_second: the same of the second; that of the first where None.
        alpha: the probability to find a difference where there is none.

    Raises:
        InvalidInputError: a number is out of range.

    Example:
        >>> round(welch_power(17, 1.0, 1.0), 2)
        0.81
    """
    _check(difference, std_first, std_second, alpha)
    check_count(n, "n", least=2, most=_MOST_IN_A_GROUP)
    # Power depends on their ratios alone, and squares of very small deviations vanish.
    other = std_first if std_second is None else std_second
    scale = max(std_first, other)
    first, second = (std_first / scale) ** 2 / n, (other / scale) ** 2 / n
    degrees = (first + second) ** 2 * (n - 1) / (first**2 + second**2)
    shift = abs(difference) / scale / (first + second) ** 0.5
    critical = float(stats.t.ppf(1 - alpha / 2, degrees))
    return min(sum(noncentral_t_above(critical, degrees, side * shift) for side in (1, -1)), 1.0)


def noncentral_t_above(critical: float, degrees: float, shift: float) -> float:
    """Return the probability that a noncentral t variable is above a positive value.

    By Gauss-Legendre quadrature, over the normal numerator where degrees are few and over the denominator where they
    are many, whichever is smooth; within 1e-9. ``scipy.stats.nct`` gives NaN or does not converge for large shifts.

    Args:
        critical: the value, above 0.
        degrees: degrees of freedom, at least 1.
        shift: the noncentrality.

    Example:
        >>> round(noncentral_t_above(2.0, 10.0, 3.0), 6), round(float(stats.nct.sf(2.0, 10.0, 3.0)), 6)
        (0.831514, 0.831514)
    """
    if degrees < _MANY_DEGREES:
        low = max(-shift, -_TAIL)
        if low >= _TAIL:
            return 0.0
        z, weights = _quadrature(low, _TAIL)
        shares = chdtr(degrees, degrees * ((z + shift) / critical) ** 2) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        return min(float(shares @ weights), 1.0)
    # By Wilson and Hilferty the cube root of chi-squared is nearly normal, which tells where its density ends.
    spread = np.sqrt(2 / (9 * degrees))
    low, high = (max(1 - spread**2 + side * _TAIL * spread, 1e-3) ** 1.5 for side in (-1, 1))
    ratio, weights = _quadrature(low, high)
    density = stats.chi.pdf(ratio * np.sqrt(degrees), degrees) * np.sqrt(degrees)
    return min(float((density * ndtr(shift - critical * ratio)) @ weights), 1.0)


def _quadrature(low: float, high: float) -> tuple[Floats, Floats]:
    return low + (high - low) * (_NODES + 1) / 2, (high - low) / 2 * _WEIGHTS


def seeds_for_power(
    difference: float,
    std_first: float,
    std_second: float | None = None,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int:
    """Return how many seeds each of two configurations needs to see a difference with a given probability.

    Args:
        difference: the smallest difference of means worth seeing, in the unit of the values, not 0. Do not put in the
            difference that was observed: it tells nothing beyond the p-value (Hoenig and Heisey 2001).
        std_first: standard deviation between seeds of the first configuration, above 0.
        std_second: the same of the second; that of the first where None.
        power: the probability to see it, above alpha and below 1.
        alpha: the probability to see one where there is none.

    Raises:
        InvalidInputError: a number is out of range, or more than 100,000 seeds would be needed.

    Example:
        >>> seeds_for_power(0.01, 0.01), seeds_for_power(0.005, 0.01)
        (17, 64)
    """
    _check(difference, std_first, std_second, alpha)
    if difference == 0:
        raise InvalidInputError(
            "difference=0: no number of seeds shows that there is none; test for equivalence instead"
        )
    check_probability(power, "power", 0.8)
    if power <= alpha:
        raise InvalidInputError(f"power={power}: a probability between alpha and 1 is needed, such as 0.8")
    found = _search(difference, std_first, std_first if std_second is None else std_second, power, alpha)
    if found is None:
        raise InvalidInputError(
            f"a difference of {number(difference)} at standard deviation {number(std_first)} takes more than "
            f"{_MOST:,} seeds: look for a larger one"
        )
    return found


def seeds_needed(
    frame: pl.DataFrame,
    value: str,
    *,
    by: Columns,
    difference: float,
    power: float = 0.8,
    alpha: float = 0.05,
    level: float = 0.95,
    unit: str = "",
) -> SeedsNeeded:
    """Return how many more seeds two configurations need before Welch's test would see a difference.

    Args:
        frame: one row a run, of two configurations.
        value: the column with the values.
        by: the columns that tell the configurations apart.
        difference: the smallest difference of means worth seeing, in the unit of the values, not 0.
        power: the probability to see it.
        alpha: the probability to see one where there is none.
        level: the confidence of the interval, which comes from that of the standard deviations (chi-squared).
        unit: of the values.

    Raises:
        NotEnoughDataError: a configuration has fewer than two finite values.
        InvalidInputError: there are not two configurations, all values of both are equal, or a number is out of range.

    Example:
        >>> frame = pl.DataFrame({"opt": ["adam"] * 3 + ["muon"] * 3, "loss": [3.30, 3.32, 3.31, 3.28, 3.29, 3.27]})
        >>> found = seeds_needed(frame, "loss", by="opt", difference=0.01)
        >>> found.seeds, found.more_first
        (17, 14)
    """
    check_level(level)
    groups = samples(frame, value, by)
    if len(groups) != 2:
        raise InvalidInputError(f"{plural(len(groups), 'configuration')} in the frame: filter it to two")
    stds = [_std(group) for group in groups]
    if stds == [0.0, 0.0]:
        raise InvalidInputError("all values of both configurations are equal: there is no spread to plan by")
    seeds = seeds_for_power(difference, stds[0], stds[1], power=power, alpha=alpha)
    degrees = sum(group.n - 1 for group in groups)
    ends = np.sqrt(degrees / stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], degrees))
    low, high = (_search(difference, factor * stds[0], factor * stds[1], power, alpha) for factor in map(float, ends))
    span = Interval(low or math.inf, high or math.inf, level, "chi-squared interval of the pooled variance")
    first, second = groups
    return SeedsNeeded(
        n=first.n + second.n,
        unit=unit,
        method=f"power of Welch's t test by the noncentral t distribution, alpha {alpha:g}",
        checks=tuple(map(normality, groups)),
        interval=span,
        notes=first.notes + second.notes,
        first=first.label,
        second=second.label,
        difference=difference,
        std_first=stds[0],
        std_second=stds[1],
        power=power,
        alpha=alpha,
        seeds=seeds,
        more_first=max(seeds - first.n, 0),
        more_second=max(seeds - second.n, 0),
    )


def _search(difference: float, std_first: float, std_second: float, power: float, alpha: float) -> int | None:
    """Return the least number of values in each group that gives the power; None beyond 100,000."""
    low, high = 1, 2
    while welch_power(high, difference, std_first, std_second, alpha=alpha) < power:
        if high == _MOST:
            return None
        low, high = high, min(2 * high, _MOST)
    while high - low > 1:
        middle = (low + high) // 2
        enough = welch_power(middle, difference, std_first, std_second, alpha=alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def _std(group: Sample) -> float:
    if group.n < 2:
        raise NotEnoughDataError(f"{group.label} has {plural(group.n, 'finite value')}: at least two are needed")
    check_magnitude(group.values, group.label)
    return float(group.values.std(ddof=1))


def _check(difference: float, std_first: float, std_second: float | None, alpha: float) -> None:
    other = std_first if std_second is None else std_second
    for name, number_given in (("std_first", std_first), ("std_second", other)):
        check_number(number_given, name, least=0.0)
    if std_first == other == 0:
        raise InvalidInputError("std_first and std_second are both 0: one of them must be above 0")
    check_number(difference, "difference")
    check_probability(alpha, "alpha")
