"""Which of several configurations differ: every pair after a test of all, at one joint confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from ckptlake.analytics.arguments import check_level
from ckptlake.analytics.comparison.omnibus import block_table, several
from ckptlake.analytics.comparison.outcome import Outcome
from ckptlake.analytics.comparison.two_samples import variance, welch_terms
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Interval

Pairs: TypeAlias = Mapping[tuple[int, int], Outcome]
"""The outcome for each pair of places i < j; its estimate is the mean of i minus that of j."""

_FLAT = "the values do not vary, so that this pair cannot be told"


@dataclass(frozen=True, slots=True, eq=False)
class CriticalDifference:
    """The data of a critical difference diagram (Demšar 2006).

    Attributes:
        mean_ranks: float64, shape (k,), the lowest value of a block has rank 1.
        difference: mean ranks that differ by more than this are told apart.
        level: the joint confidence of that.
    """

    mean_ranks: Floats
    difference: float
    level: float


def tukey_hsd(samples: Sequence[ArrayLike], *, level: float = 0.95) -> Pairs:
    """Return all pairs of means at one joint confidence, with variances taken for equal (Tukey 1953, Kramer 1956).

    Args:
        samples: at least two float arrays of shape (n_i,), n_i >= 2, all finite.
        level: the joint confidence of the intervals.

    Returns:
        The outcomes, with p-values that are already corrected for the number of pairs.

    Raises:
        NotEnoughDataError: a sample has fewer than two values.
        InvalidInputError: a value is not finite, or there is one sample.

    Example:
        >>> found = tukey_hsd([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [6.0, 7.0, 8.0]])
        >>> {pair: round(outcome.p_value, 4) for pair, outcome in found.items()}
        {(0, 1): 0.4827, (0, 2): 0.0021, (1, 2): 0.0065}
    """
    found = several(samples)
    df = sum(map(len, found)) - len(found)
    pooled = sum((len(values) - 1) * variance(values) for values in found) / df
    critical = studentized_quantile(level, len(found), df)

    def outcome(i: int, j: int) -> Outcome:
        se = math.sqrt(pooled * (1 / len(found[i]) + 1 / len(found[j])))
        return _range_outcome(
            "Tukey HSD", float(found[i].mean() - found[j].mean()), se, len(found), df, critical, level
        )

    return {pair: outcome(*pair) for pair in combinations(range(len(found)), 2)}


def games_howell(samples: Sequence[ArrayLike], *, level: float = 0.95) -> Pairs:
    """Return all pairs of means at one joint confidence, with variances that may differ (Games & Howell 1976).

    Args:
        samples: at least two float arrays of shape (n_i,), n_i >= 2, all finite.
        level: the joint confidence of the intervals.

    Returns:
        The outcomes, with p-values that are already corrected for the number of pairs.

    Raises:
        NotEnoughDataError: a sample has fewer than two values.
        InvalidInputError: a value is not finite, or there is one sample.

    Example:
        >>> found = games_howell([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [6.0, 7.0, 8.0]])
        >>> round(found[0, 2].p_value, 4)
        0.0079
    """
    found = several(samples)

    def outcome(i: int, j: int) -> Outcome:
        difference, se, df = welch_terms(found[i], found[j])
        critical = studentized_quantile(level, len(found), df) if se > 0.0 else math.inf
        return _range_outcome("Games-Howell", difference, se, len(found), df, critical, level)

    return {pair: outcome(*pair) for pair in combinations(range(len(found)), 2)}


def dunn(samples: Sequence[ArrayLike]) -> Pairs:
    """Return all pairs by their mean ranks among all values, with the correction for ties (Dunn 1964).

    Args:
        samples: at least two float arrays of shape (n_i,), n_i >= 1, all finite.

    Returns:
        The outcomes, with p-values that are not yet corrected for the number of pairs.

    Raises:
        NotEnoughDataError: a sample is empty.
        InvalidInputError: a value is not finite, or there is one sample.

    Example:
        >>> found = dunn([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
        >>> round(found[0, 2].statistic, 3), round(found[0, 2].p_value, 4)
        (-2.683, 0.0073)
    """
    found = several(samples, least=1)
    sizes = np.array([len(values) for values in found])
    together = np.concatenate(found)
    n = len(together)
    ranks = np.split(stats.rankdata(together), np.cumsum(sizes)[:-1])
    ties = np.unique(together, return_counts=True)[1].astype(np.float64)
    spread = n * (n + 1) / 12 - float((ties**3 - ties).sum()) / (12 * (n - 1))

    def outcome(i: int, j: int) -> Outcome:
        if spread <= 0.0:
            return Outcome("Dunn", 0.0, 1.0)
        z = float(ranks[i].mean() - ranks[j].mean()) / math.sqrt(spread * (1 / sizes[i] + 1 / sizes[j]))
        return Outcome("Dunn", z, 2 * float(stats.norm.sf(abs(z))))

    return {pair: outcome(*pair) for pair in combinations(range(len(found)), 2)}


def nemenyi(blocks: ArrayLike, *, level: float = 0.95) -> tuple[Pairs, CriticalDifference]:
    """Return all pairs by their mean ranks within blocks, and the critical difference (Nemenyi 1963, Demšar 2006).

    Args:
        blocks: float, shape (n, k): one row a block, one column a configuration, n >= 2, k >= 2, all finite.
        level: the joint confidence.

    Returns:
        The outcomes, with p-values that are already corrected for the number of pairs, and the mean ranks with the
        difference that tells two apart.

    Raises:
        NotEnoughDataError: there are fewer than two blocks.
        InvalidInputError: a value is not finite, or the shape is another.

    Example:
        >>> pairs, critical = nemenyi([[1, 2, 3], [1, 3, 2], [1, 2, 3], [1, 2, 3]])
        >>> critical.mean_ranks.tolist(), round(critical.difference, 3), round(pairs[0, 2].p_value, 3)
        ([1.0, 2.25, 2.75], 1.657, 0.036)
    """
    table = block_table(blocks)
    n, k = table.shape
    ranks = stats.rankdata(table, axis=1).mean(axis=0)
    se = math.sqrt(k * (k + 1) / (12 * n))
    critical = CriticalDifference(ranks, studentized_quantile(level, k, math.inf) * se, level)

    def outcome(i: int, j: int) -> Outcome:
        apart = float(ranks[i] - ranks[j]) / se
        return Outcome("Nemenyi", apart, _studentized_p(apart, k, math.inf))

    return {pair: outcome(*pair) for pair in combinations(range(k), 2)}, critical


@lru_cache(maxsize=256)
def studentized_quantile(level: float, k: int, df: float) -> float:
    """Return what the range of k studentized means stays below with a given probability.

    It lies between the quantiles for one pair and for all pairs by Bonferroni, which makes finding it quick.

    >>> round(studentized_quantile(0.95, 3, math.inf), 3)
    3.314
    """
    check_level(level)
    tail = (1 - level) / 2
    least, most = (math.sqrt(2) * float(stats.t.isf(tail / pairs, df)) for pairs in (1, math.comb(k, 2)))
    if k == 2:
        return least
    return float(optimize.brentq(lambda q: _studentized_p(q, k, df) - (1 - level), least, most, xtol=1e-6 * most))


def _studentized_p(apart: float, k: int, df: float) -> float:
    return float(np.clip(stats.studentized_range.sf(abs(apart), k, df), 0.0, 1.0))


def _range_outcome(
    method: str, difference: float, se: float, k: int, df: float, critical: float, level: float
) -> Outcome:
    if se == 0.0:
        return Outcome(
            method, math.copysign(math.inf, difference) if difference else 0.0, None, df, difference, notes=(_FLAT,)
        )
    apart = difference / se * math.sqrt(2)
    reach = critical * se / math.sqrt(2)
    interval = Interval(difference - reach, difference + reach, level, f"{method}, joint")
    return Outcome(method, apart, _studentized_p(apart, k, df), df, difference, interval)
