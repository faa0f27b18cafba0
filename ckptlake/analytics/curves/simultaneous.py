"""Simultaneous bands: how many standard errors wide a band must be to hold everywhere at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ckptlake.analytics.arguments import check_not_huge, generator
from ckptlake.analytics.frames import Floats

FEWEST_FOR_SIGN_FLIPS = 6
"""Runs a group below which sign flips cannot tell the tail; Student t with Šidák's correction is used there."""
_ALL_FLIPS_UP_TO = 10


@dataclass(frozen=True, slots=True, eq=False)
class SimultaneousBand:
    """A mean, or a difference of means, at every point of a grid with a band around it.

    Attributes:
        estimate: float64, shape (m,).
        low: float64, shape (m,).
        high: float64, shape (m,).
        method: how the width was found.
    """

    estimate: Floats
    low: Floats
    high: Floats
    method: str


def mean_band(values: Floats, level: float, n_resamples: int, seed: int) -> SimultaneousBand:
    """Return the band of the mean over rows that holds at all columns at once.

    Source: Telschow, F. and Schwartzman, A. (2022), "Simultaneous confidence bands for functional data using the
    Gaussian kinematic formula", J. Statistical Planning and Inference 216 (their multiplier-t bootstrap with
    Rademacher multipliers); Šidák, Z. (1967), J. American Statistical Association 62, for few rows.

    Args:
        values: float64, shape (rows, m), finite; two rows or more.
        level: the confidence.
        n_resamples: how many sign flips are drawn where there are too many to take all.
        seed: of those draws.
    """
    return _band([values], level, n_resamples, seed)


def difference_band(first: Floats, second: Floats, level: float, n_resamples: int, seed: int) -> SimultaneousBand:
    """Return the band of the difference of two means, first less second, that holds at all columns at once.

    Sources as for `mean_band`; the standard error is Welch's (1947), so the groups may vary differently.

    Args:
        first: float64, shape (rows, m), finite; two rows or more.
        second: float64, shape (other rows, m), finite; two rows or more.
        level: the confidence.
        n_resamples: how many sign flips are drawn where there are too many to take all.
        seed: of those draws.
    """
    return _band([first, second], level, n_resamples, seed)


def _band(groups: Sequence[Floats], level: float, n_resamples: int, seed: int) -> SimultaneousBand:
    for group in groups:
        check_not_huge(group, "a group of curves")
    means = [group.mean(axis=0) for group in groups]
    estimate = means[0] if len(means) == 1 else means[0] - means[1]
    squares = np.stack([group.var(axis=0, ddof=1) / len(group) for group in groups])
    error = np.sqrt(squares.sum(axis=0))
    if min(map(len, groups)) < FEWEST_FOR_SIGN_FLIPS:
        width = error * _sidak(squares, [len(group) for group in groups], level)
        method = "Student t with Šidák's correction"
    else:
        width = error * _sup_t(groups, level, n_resamples, seed)
        method = "sup-t bootstrap with sign flips"
    return SimultaneousBand(estimate, estimate - width, estimate + width, method)


def _sidak(squares: Floats, sizes: Sequence[int], level: float) -> Floats:
    """Return the critical value of each point; degrees of freedom after Welch and Satterthwaite."""
    total = squares.sum(axis=0)
    spread = sum(square**2 / (size - 1) for square, size in zip(squares, sizes, strict=True))
    varies = total > 0
    freedom = np.full(len(total), float(min(sizes) - 1))
    np.divide(total**2, spread, out=freedom, where=varies & (spread > 0))
    each = level ** (1.0 / max(int(varies.sum()), 1))
    critical: Floats = stats.t.isf((1.0 - each) / 2.0, freedom)
    return critical


def _sup_t(groups: Sequence[Floats], level: float, n_resamples: int, seed: int) -> float:
    """Return the quantile of the largest |t| over the grid when the residuals of each run change sign at random."""
    rng = generator(seed)
    size = sum(map(len, groups))
    flips = _signs(size, n_resamples, rng)
    shift, square, begin = np.float64(0.0), np.float64(0.0), 0
    for group, side in zip(groups, (1.0, -1.0), strict=False):
        n = len(group)
        residuals = group - group.mean(axis=0)
        means = flips[:, begin : begin + n] @ residuals / n
        shift = shift + side * means
        square = square + np.maximum((residuals**2).mean(axis=0) - means**2, 0.0) / (n - 1)
        begin += n
    # Where all runs agree there is nothing to cover, and rounding must not make it look like a peak.
    varies = square > 1e-20 * np.maximum(np.square(np.concatenate(groups)).max(axis=0), np.finfo(float).tiny)
    t = np.divide(np.abs(shift), np.sqrt(square), out=np.zeros(np.shape(shift)), where=varies)
    return float(np.quantile(t.max(axis=1), level, method="higher"))


def _signs(n: int, n_resamples: int, rng: np.random.Generator) -> Floats:
    if n <= _ALL_FLIPS_UP_TO:
        # A flip and its mirror image have the same |t|, so the first sign can stay; the identity has no spread.
        halves = itertools.product((1.0, -1.0), repeat=n - 1)
        return np.array([(1.0, *half) for half in halves][1:])
    return rng.choice(np.array([-1.0, 1.0]), (n_resamples, n))
