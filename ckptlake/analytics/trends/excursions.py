"""Where a curve left its best level: spikes it came back from, and the departure it did not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptlake.analytics.arguments import check_level, check_number
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.trends.smoothing import median_of_neighbours

FEWEST_AWAY = 3
"""How many points at the end must be away from the best level before that is more than a spike."""
_MOST_PARTS = 10
_FEWEST_IN_PART = 20
_FEWEST_FOR_SECOND = 5
_FEWEST_SWINGS = 3
_GROWTH = 1.5
_NORMAL_QUARTER = 0.3186
_FEWEST_FOR_MEMORY = 100
_PARTS_FOR_MEMORY, _POINTS_FOR_MEMORY = 4, 50
_LONGEST_MEMORY = 0.95


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as how much.

    Attributes:
        lost_share: the share of what a run had gained that it must lose for good to have diverged.
        spike_share: the share of it that a spike must lose for a while to be told.
        noise: how many standard deviations of its noise either must be at the least.
        plateau_share: the share of the gain that still counts as no change over the last quarter of a run.
        level: the confidence of tests and intervals.

    Raises:
        InvalidInputError: one of them is no finite number above 0, or `level` not between 0 and 1.
    """

    lost_share: float = 0.25
    spike_share: float = 0.1
    noise: float = 8.0
    plateau_share: float = 0.01
    level: float = 0.95

    def __post_init__(self) -> None:
        check_level(self.level)
        for name in ("lost_share", "spike_share", "noise", "plateau_share"):
            check_number(getattr(self, name), name, above=0)


@dataclass(frozen=True, slots=True)
class Excursion:
    """A stretch of points away from the best level so far.

    Attributes:
        first: the place of its first point.
        last: the place of its last point.
        peak: the place of its farthest point.
        height: how far that is from the best level so far.
    """

    first: int
    last: int
    peak: int
    height: float


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """How a curve went, with small values good.

    Attributes:
        values: float64, shape (n,), finite.
        level: float64, shape (n,): the median of a few neighbours of each.
        best: float64, shape (n,): the least level before each.
        noise: the standard deviation of single points about their neighbours.
        gain: how far the best level lies below the first.
        lost: how far the level must be from the best for a run to have diverged.
        away: how far a point must be from it to be a spike.
        excursions: those stretches that reached `away`, in order.
    """

    values: Floats
    level: Floats
    best: Floats
    noise: float
    gain: float
    lost: float
    away: float
    excursions: tuple[Excursion, ...]

    @property
    def is_away(self) -> bool:
        """Whether the last excursion reaches to the end, long enough to be more than a spike."""
        if not self.excursions or self.excursions[-1].last < len(self.values) - 1:
            return False
        return self.excursions[-1].last - self.excursions[-1].first + 1 >= FEWEST_AWAY

    @property
    def has_diverged(self) -> bool:
        if not self.is_away:
            return False
        return bool(np.median(self.values[-FEWEST_AWAY:]) - self.best[-1] > self.lost)

    @property
    def swings_apart(self) -> bool:
        """Whether the curve leaves its best level ever farther, and comes back each time."""
        heights = np.array([excursion.height for excursion in self.excursions])
        if len(heights) < _FEWEST_SWINGS or heights[-2:].max() <= self.lost:
            return False
        apart = np.median(np.diff([excursion.peak for excursion in self.excursions]))
        is_recent = len(self.values) - 1 - self.excursions[-1].last <= 2 * apart
        return bool(is_recent and heights[-2:].max() >= _GROWTH * heights[: len(heights) // 2].max())


def course(values: Floats, limits: Limits) -> Course:
    """Return how a curve went.

    Args:
        values: float64, shape (n,), finite, small ones good; one or more.
        limits: what counts as how much.

    Example:
        >>> found = course(np.array([9.0, 5, 4, 3, 3, 3, 3, 8, 8, 8]), Limits())
        >>> found.has_diverged, found.excursions[0].first
        (True, 7)
    """
    n = len(values)
    window = min(max(3, 2 * (n // 200) + 1), 51)
    level = median_of_neighbours(values, window)
    # A point is compared with levels that it has no part in: those at least half a window before it.
    lag = min(window // 2 + 1, n)
    best = np.minimum.accumulate(np.concatenate([np.full(lag, values[:lag].max()), level[: n - lag]]))
    noise = noise_of(values)
    gain = float(level[0] - level.min())
    away = max(limits.spike_share * gain, limits.noise * noise)
    near = away / 2
    high = (values - best > away) | (level - best > away)
    found = _stretches(high | (level - best > near), high)
    # Rounding at the scale of the values is no departure.
    real = np.finfo(float).eps * 16 * float(np.abs(values).max())
    excursions = [_excursion(values - best, first, last) for first, last in found]
    return Course(
        values, level, best, noise, gain, max(limits.lost_share * gain, limits.noise * noise), away,
        tuple(excursion for excursion in excursions if excursion.height > real),
    )  # fmt: skip


def noise_of(values: Floats) -> float:
    """Return the standard deviation of a curve's noise about its course, robustly.

    It is the larger of two. One is that of first-order noise with the second differences and the `memory_of` the
    curve, whose wander is wider than its neighbours tell. The other is that within up to ten parts of twenty points or
    more about their own lines, for noise of another kind. The calm part counts, the least quarter of differences and
    the calmest part but one (of fewer than five the calmest), so that a curve may be wild for most of its length and
    still be judged by how calm it was.

    Example:
        >>> noise = np.random.default_rng(0).normal(0, 2.0, 1000)
        >>> round(noise_of(noise + np.arange(1000.0)))
        2
    """
    n = len(values)
    if n < 3:
        return 0.0
    second = np.abs(values[:-2] - 2 * values[1:-1] + values[2:]) / np.sqrt(6)
    rough = float(np.partition(second, len(second) // 4)[len(second) // 4]) / _NORMAL_QUARTER
    memory = memory_of(values)
    # Second differences of first-order noise have a variance of 2 (1 - r) (3 - r), those of white noise of 6.
    wander = rough * math.sqrt(3 / ((1 - memory) * (3 - memory)))
    n_parts = min(_MOST_PARTS, n // _FEWEST_IN_PART)
    if n_parts < 2:
        return wander
    spreads = np.sort(_about_lines(values, n_parts).std(axis=1))
    return max(wander, float(spreads[1 if n_parts >= _FEWEST_FOR_SECOND else 0]))


def memory_of(values: Floats) -> float:
    """Return the coefficient of first-order noise about the course of a curve, 0 for fewer than 100 points.

    It is the lower median of those of four to ten parts about their own lines, so that a fall, a jump or a spike in
    half of them does not count as memory. A line takes (2 + 4 r) / n from the coefficient r of n points, which is
    given back, and one standard error more, as too little memory makes noise look like a departure.

    Source: Marriott, F. and Pope, J. (1954), Biometrika 41, for the bias; Bartlett, M. (1946), Supplement to the J.
    Royal Statistical Society 8, for the error.

    Example:
        >>> white = np.random.default_rng(0).normal(size=3000)
        >>> walk = np.cumsum(white)
        >>> round(memory_of(white), 1), memory_of(walk) > 0.9
        (0.0, True)
    """
    n = len(values)
    if n < _FEWEST_FOR_MEMORY:
        return 0.0
    n_parts = min(_MOST_PARTS, max(n // _POINTS_FOR_MEMORY, _PARTS_FOR_MEMORY))
    rest = _about_lines(values, n_parts)
    size, squares = n // n_parts, np.square(rest).sum(axis=1)
    products = (rest[:, 1:] * rest[:, :-1]).sum(axis=1)
    found = np.divide(products, squares, out=np.zeros(n_parts), where=squares > 0)
    middle = float(np.sort(found)[(n_parts - 1) // 2])
    unbiased = min(max((size * middle + 2) / (size - 4), 0.0), _LONGEST_MEMORY)
    return min(unbiased + math.sqrt((1 - unbiased**2) / n), _LONGEST_MEMORY)


def _about_lines(values: Floats, n_parts: int) -> Floats:
    """Return even parts of the end of a curve, one a row, each less the line through it."""
    size = len(values) // n_parts
    parts = values[len(values) - size * n_parts :].reshape(n_parts, size)
    place = np.arange(size) - (size - 1) / 2
    centred = parts - parts.mean(axis=1, keepdims=True)
    return np.asarray(centred - np.outer(centred @ place / (place @ place), place))


def _stretches(near: NDArray[np.bool_], high: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the ends of the runs of `near` that hold a point of `high`."""
    edges = np.flatnonzero(np.diff(near, prepend=False, append=False))
    return [
        (int(first), int(end) - 1) for first, end in zip(edges[::2], edges[1::2], strict=True) if high[first:end].any()
    ]


def _excursion(excess: Floats, first: int, last: int) -> Excursion:
    peak = first + int(np.argmax(excess[first : last + 1]))
    return Excursion(first, last, peak, float(excess[peak]))
