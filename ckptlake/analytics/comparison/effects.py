"""How large a difference is: effect sizes of two configurations, each with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from ckptlake.analytics.arguments import check_level
from ckptlake.analytics.charts import Axis, Chart, interval_chart
from ckptlake.analytics.comparison.outcome import finite_values
from ckptlake.analytics.comparison.two_samples import pair_differences, variance
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Interval, Result
from ckptlake.analytics.statistics.shares import pairs_won_interval
from ckptlake.analytics.wording import number
from ckptlake.errors import InvalidInputError, NotEnoughDataError

_NODES = 1_000
_BEYOND = 40.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effect(Result):
    """How large the difference of two configurations is.

    Attributes:
        name: which effect size.
        value: its estimate; positive, above a half or above one where the first has higher values.
        none: the value that means no difference.
    """

    name: str
    value: float
    none: float

    def sentence(self) -> str:
        return f"{self} ({self.method})."

    def __str__(self) -> str:
        within = f" ({self.interval})" if self.interval is not None else ""
        return f"{self.name} {number(self.value, 3)}{within}"

    def chart(self) -> Chart:
        low, high = (self.value,) * 2 if self.interval is None else (self.interval.low, self.interval.high)
        rows = [{"effect": self.name, "value": self.value, "low": low, "high": high}]
        return interval_chart(
            self.name, rows, label="effect", value=Axis("value", self.name), low="low", high="high", reference=self.none
        )


def hedges_g(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Effect:
    """Return the difference of means in standard deviations, without the bias of small samples (Hedges 1981).

    The correction is the exact one by gamma functions. The interval inverts the noncentral t (Steiger & Fouladi 1997);
    it is exact for normal values of equal variance.

    Args:
        first: float, shape (n,), n >= 2, all finite.
        second: float, shape (m,), m >= 2, all finite.
        level: the confidence of the interval.

    Raises:
        NotEnoughDataError: a sample has fewer than two values, or no value varies within its sample.
        InvalidInputError: a value is not finite.

    Example:
        >>> print(hedges_g([1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]))
        Hedges g -0.673 (95 % interval -2.197 to 0.7046)
    """
    first, second = finite_values(first, least=2), finite_values(second, least=2)
    df = len(first) + len(second) - 2
    pooled = math.sqrt(((len(first) - 1) * variance(first) + (len(second) - 1) * variance(second)) / df)
    per_t = math.sqrt(1 / len(first) + 1 / len(second))
    return _standardized("Hedges g", df + 2, float(first.mean() - second.mean()), pooled, per_t, df, level)


def paired_hedges_g(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Effect:
    """Return the mean difference of pairs in standard deviations of the differences, corrected as in `hedges_g`.

    Args:
        first: float, shape (n,), n >= 2, all finite.
        second: float, shape (n,), in the same order.
        level: the confidence of the interval, exact for normal differences.

    Raises:
        NotEnoughDataError: there are fewer than two pairs, or their differences do not vary.
        InvalidInputError: a value is not finite, or the lengths differ.

    Example:
        >>> round(paired_hedges_g([1.0, 2.0, 3.0], [1.5, 2.6, 3.4]).value, 3)
        -2.821
    """
    differences = finite_values(pair_differences(first, second), least=2)
    spread = math.sqrt(variance(differences))
    n = len(differences)
    return _standardized("Hedges g of pairs", n, float(differences.mean()), spread, math.sqrt(1 / n), n - 1, level)


def vargha_delaney(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Effect:
    """Return A12, the chance that a value of the first is higher than one of the second (Vargha & Delaney 2000).

    Equal values count half. The interval is Newcombe's (2006, method 5), which keeps its coverage where samples do not
    overlap.

    Args:
        first: float, shape (n,), n >= 1, all finite.
        second: float, shape (m,), m >= 1, all finite.
        level: the confidence of the interval.

    Raises:
        NotEnoughDataError: a sample is empty.
        InvalidInputError: a value is not finite.

    Example:
        >>> print(vargha_delaney([3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0, 4.0]))
        A12 0.875 (95 % interval 0.4528 to 0.9812)
    """
    first, second = finite_values(first, least=1), finite_values(second, least=1)
    check_level(level)
    n, m = len(first), len(second)
    share = (float(stats.rankdata(np.concatenate([first, second]))[:n].sum()) - n * (n + 1) / 2) / (n * m)
    low, high = pairs_won_interval([share], [(n, m)], level)
    method = "share of pairs with the higher value"
    return Effect(
        n=n + m, method=method, name="A12", value=share, none=0.5, interval=Interval(low, high, level, "Newcombe")
    )


def cliffs_delta(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Effect:
    """Return Cliff's delta, the share of pairs with a higher value minus that with a lower one (Cliff 1993).

    It is 2 A12 - 1, and so is its interval.

    Args:
        first: float, shape (n,), n >= 1, all finite.
        second: float, shape (m,), m >= 1, all finite.
        level: the confidence of the interval.

    Raises:
        NotEnoughDataError: a sample is empty.
        InvalidInputError: a value is not finite.

    Example:
        >>> cliffs_delta([3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0, 4.0]).value
        0.75
    """
    share = vargha_delaney(first, second, level=level)
    assert share.interval is not None
    interval = Interval(2 * share.interval.low - 1, 2 * share.interval.high - 1, level, share.interval.method)
    method = "share of pairs with the higher value minus that with the lower"
    return Effect(
        n=share.n, method=method, name="Cliff's delta", value=2 * share.value - 1, none=0.0, interval=interval
    )


def ratio_of_means(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Effect:
    """Return the mean of the first divided by that of the second, with Fieller's interval.

    Fieller (1954), with unequal variances and Satterthwaite's degrees of freedom at the estimated ratio. The interval
    is None, and a note says so, where the second mean is not told from zero.

    Args:
        first: float, shape (n,), n >= 2, all finite.
        second: float, shape (m,), m >= 2, all finite, of a mean other than zero.
        level: the confidence of the interval.

    Raises:
        NotEnoughDataError: a sample has fewer than two values.
        InvalidInputError: a value is not finite, or the second mean is zero.

    Example:
        >>> print(ratio_of_means([11.0, 12.0, 13.0], [10.0, 10.5, 9.5]))
        ratio of means 1.2 (95 % interval 1.004 to 1.415)
    """
    first, second = finite_values(first, least=2), finite_values(second, least=2)
    check_level(level)
    over, under = float(first.mean()), float(second.mean())
    if under == 0.0:
        raise InvalidInputError("the mean of the second sample is 0: a ratio to it does not exist, use the difference")
    ratio = over / under
    if not math.isfinite(ratio):
        raise InvalidInputError(f"the ratio of means {over:.3g} and {under:.3g} is beyond float64: use the difference")
    own, other = variance(first) / len(first), variance(second) / len(second)
    interval, notes = _fieller(over, under, own, other, (len(first) - 1, len(second) - 1), level)
    return Effect(
        n=len(first) + len(second), method="ratio of arithmetic means", name="ratio of means", value=ratio, none=1.0,
        interval=interval, notes=notes,
    )  # fmt: skip


def noncentrality_interval(t: float, df: float, level: float) -> tuple[float, float]:
    """Return the noncentralities for which an observed t is just not refused.

    >>> low, high = noncentrality_interval(2.0, 10, 0.95)
    >>> round(low, 3), round(high, 3)
    (-0.184, 4.101)
    """
    roots, weights = _chi_roots(df)
    reached = t * roots

    def edge(share: float) -> float:
        low, high = float(reached.min()) - _BEYOND, float(reached.max()) + _BEYOND
        return float(optimize.brentq(lambda nc: float(weights @ special.ndtr(reached - nc)) - share, low, high))

    return edge((1 + level) / 2), edge((1 - level) / 2)


@lru_cache(maxsize=64)
def _chi_roots(df: float) -> tuple[Floats, Floats]:
    """Return quantiles of sqrt(chi-square / df) and their weights, denser where the tails are.

    A noncentral t is below t where a normal is below t sqrt(chi-square / df): its distribution is the mean of that over
    these, also far out in its tails, where the library's own is not a number.
    """
    at = (np.arange(_NODES) + 0.5) / _NODES
    weights = 6 * at * (1 - at)
    return np.sqrt(special.chdtri(df, 1 - at**2 * (3 - 2 * at)) / df), weights / weights.sum()


def _standardized(name: str, n: int, difference: float, spread: float, per_t: float, df: int, level: float) -> Effect:
    check_level(level)
    if spread == 0.0:
        raise NotEnoughDataError(
            f"the values do not vary (standard deviation 0), so {name} does not exist: repeat runs with other seeds"
        )
    correction = (
        math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else 0.0
    )
    low, high = noncentrality_interval(difference / spread / per_t, df, level)
    return Effect(
        n=n, method="difference of means by standard deviation", name=name, value=correction * difference / spread,
        none=0.0, interval=Interval(low * per_t, high * per_t, level, "noncentral t"),
    )  # fmt: skip


def _fieller(
    over: float, under: float, own: float, other: float, df: tuple[int, int], level: float
) -> tuple[Interval | None, tuple[str, ...]]:
    ratio = over / under
    together = own + ratio**2 * other
    if together == 0.0:
        return None, ("the values do not vary, so that no interval can be told",)
    freedom = together**2 / (own**2 / df[0] + (ratio**2 * other) ** 2 / df[1])
    squared = float(stats.t.ppf((1 + level) / 2, freedom)) ** 2
    leading = under**2 - squared * other
    if leading <= 0.0:
        return None, ("the second mean cannot be told from zero, so that the ratio has no finite interval",)
    middle = over * under / leading
    reach = math.sqrt(max((over * under) ** 2 - leading * (over**2 - squared * own), 0.0)) / leading
    return Interval(middle - reach, middle + reach, level, "Fieller"), ()
