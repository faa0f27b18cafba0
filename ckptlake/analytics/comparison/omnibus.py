"""Whether several configurations differ at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ckptlake.analytics.arguments import numbers
from ckptlake.analytics.comparison.outcome import Outcome, finite_values
from ckptlake.analytics.comparison.two_samples import variance
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.wording import plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError

_FLAT = "the values of a configuration do not vary, so that this test cannot tell anything"
_NOISE = 1e-12


def anova(samples: Sequence[ArrayLike]) -> Outcome:
    """Test whether means differ, with variances taken for equal (Fisher 1925).

    Args:
        samples: at least two float arrays of shape (n_i,), n_i >= 2, all finite.

    Raises:
        NotEnoughDataError: a sample has fewer than two values.
        InvalidInputError: a value is not finite, or there is one sample.

    Example:
        >>> round(anova([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [6.0, 7.0, 8.0]]).p_value, 5)
        0.00195
    """
    found = several(samples)
    if not any(variance(values) for values in found):
        return Outcome("one-way ANOVA", np.inf, None, notes=(_FLAT,))
    # Rounding can take the ratio of equal means below 0, where the library has no p-value.
    ratio = max(float(stats.f_oneway(*found).statistic), 0.0)
    df = (len(found) - 1, sum(map(len, found)) - len(found))
    return Outcome("one-way ANOVA", ratio, float(stats.f.sf(ratio, *df)), df[0])


def welch_anova(samples: Sequence[ArrayLike]) -> Outcome:
    """Test whether means differ, with variances that may differ (Welch 1951).

    Args:
        samples: at least two float arrays of shape (n_i,), n_i >= 2, all finite.

    Raises:
        NotEnoughDataError: a sample has fewer than two values.
        InvalidInputError: a value is not finite, or there is one sample.

    Example:
        >>> round(welch_anova([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [5.0, 7.0, 9.0]]).p_value, 4)
        0.0613
    """
    found = several(samples)
    if not all(variance(values) for values in found):
        return Outcome("Welch ANOVA", np.inf, None, notes=(_FLAT,))
    tested = stats.f_oneway(*found, equal_var=False)
    return Outcome("Welch ANOVA", float(tested.statistic), float(tested.pvalue), float(len(found) - 1))


def kruskal(samples: Sequence[ArrayLike]) -> Outcome:
    """Test whether values of some configuration tend to be higher, by ranks (Kruskal & Wallis 1952).

    Args:
        samples: at least two float arrays of shape (n_i,), n_i >= 1, all finite.

    Raises:
        NotEnoughDataError: a sample is empty.
        InvalidInputError: a value is not finite, or there is one sample.

    Example:
        >>> round(kruskal([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]).p_value, 4)
        0.0273
    """
    found = several(samples, least=1)
    if np.ptp(np.concatenate(found)) == 0.0:
        return Outcome("Kruskal-Wallis", 0.0, 1.0, len(found) - 1)
    tested = stats.kruskal(*found)
    return Outcome("Kruskal-Wallis", float(tested.statistic), float(tested.pvalue), len(found) - 1)


def block_anova(blocks: ArrayLike) -> Outcome:
    """Test whether means differ where each block, such as a seed, has every configuration (Fisher 1935).

    Args:
        blocks: float, shape (n, k): one row a block, one column a configuration, n >= 2, k >= 2, all finite.

    Raises:
        NotEnoughDataError: there are fewer than two blocks.
        InvalidInputError: a value is not finite, or the shape is another.

    Example:
        >>> round(block_anova([[1.0, 2.0, 4.0], [2.0, 3.0, 4.5], [0.0, 1.5, 3.0]]).p_value, 5)
        0.00018
    """
    table = block_table(blocks)
    n, k = table.shape
    centred = table - table.mean(axis=1, keepdims=True)
    between = n * float((centred.mean(axis=0) ** 2).sum())
    within = float(((centred - centred.mean(axis=0)) ** 2).sum())
    df = (k - 1, (n - 1) * (k - 1))
    if within <= _NOISE**2 * float((table**2).sum()):
        return Outcome("randomized block ANOVA", np.inf, None, notes=(_FLAT,))
    ratio = between / df[0] / (within / df[1])
    return Outcome("randomized block ANOVA", ratio, float(stats.f.sf(ratio, *df)), df[0])


def friedman(blocks: ArrayLike) -> Outcome:
    """Test whether some configuration ranks higher within blocks, such as tasks or seeds (Friedman 1937).

    By the F of Iman and Davenport (1980), as the chi-square of Friedman refuses too seldom for few blocks.

    Args:
        blocks: float, shape (n, k): one row a block, one column a configuration, n >= 2, k >= 3, all finite.

    Raises:
        NotEnoughDataError: there are fewer than two blocks.
        InvalidInputError: a value is not finite, or there are fewer than three configurations.

    Example:
        >>> round(friedman([[1, 2, 3], [1, 3, 2], [1, 2, 3], [1, 2, 3]]).p_value, 4)
        0.0066
    """
    table = block_table(blocks)
    n, k = table.shape
    if k < 3:
        raise InvalidInputError(f"Friedman's test is of three or more configurations, got {k}: take 'wilcoxon' for two")
    if not (table - table[:, :1]).any():
        return Outcome("Friedman (Iman-Davenport F)", 0.0, 1.0, k - 1)
    chi_square = float(stats.friedmanchisquare(*table.T).statistic)
    rest = n * (k - 1) - chi_square
    # Where every block ranks alike, F is infinite: its p-value is then the chance of that, (1 / k!)^(n - 1).
    if rest <= _NOISE * n * k:
        every = float(np.exp(-(n - 1) * np.log(np.arange(1, k + 1)).sum()))
        return Outcome("Friedman (exact, every block ranks alike)", np.inf, every, k - 1)
    ratio = (n - 1) * chi_square / rest
    return Outcome("Friedman (Iman-Davenport F)", ratio, float(stats.f.sf(ratio, k - 1, (k - 1) * (n - 1))), k - 1)


def several(samples: Sequence[ArrayLike], least: int = 2) -> list[Floats]:
    """Return at least two samples as float64 arrays.

    Raises:
        NotEnoughDataError: a sample has fewer than `least` values.
        InvalidInputError: a value is not finite, or there is one sample.
    """
    if len(samples) < 2:
        raise InvalidInputError(f"at least two samples are needed, got {len(samples)}")
    return [finite_values(values, least=least, of=f"sample {place}") for place, values in enumerate(samples, 1)]


def block_table(blocks: ArrayLike) -> Floats:
    """Return blocks as a float64 array of shape (n, k).

    Raises:
        NotEnoughDataError: there are fewer than two blocks.
        InvalidInputError: a value is not finite, or the shape is another.
    """
    table = numbers(blocks, "the table of blocks", dimensions=2)
    if table.shape[1] < 2:
        raise InvalidInputError(f"blocks of shape {table.shape}: one row a block and two or more columns are needed")
    if len(table) < 2:
        raise NotEnoughDataError(
            f"{plural(len(table), 'whole block')}, at least 2 are needed: run every configuration with the same seeds"
        )
    finite_values(table.ravel(), least=2, of="a block")
    return table
