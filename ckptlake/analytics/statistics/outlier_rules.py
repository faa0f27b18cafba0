"""Rules that tell which values of a sample are outliers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ckptlake.analytics.arguments import check_count, check_number, check_probability
from ckptlake.analytics.frames import Floats, Sample
from ckptlake.analytics.results import Check
from ckptlake.analytics.statistics.checks import normality
from ckptlake.analytics.statistics.estimators import is_constant, mad, power_of_two

_MAD_OF_NORMAL, _MEAN_DEVIATION_OF_NORMAL = 0.6745, 0.7979
_ROSNER_FROM = 15


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """How far each value of a sample lies from the others.

    Attributes:
        distance: float64, shape (n,), signed, in the spread that the rule measures by.
        limit: float64, shape (n,): the magnitude beyond which the rule doubts a value.
        is_outlier: bool, shape (n,).
        checks: what the rule takes for granted, as the values show it.
        notes: what a reader must know.
    """

    distance: Floats
    limit: Floats
    is_outlier: NDArray[np.bool_]
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()


class OutlierRule(Protocol):
    """A way to tell outliers."""

    @property
    def name(self) -> str: ...

    def distances(self, sample: Sample) -> Distances:
        """Return how far the values of a sample lie from each other: at least three, not all equal."""
        ...


@dataclass(frozen=True, slots=True)
class MedianDeviation:
    """The distance from the median in median absolute deviations (Iglewicz and Hoaglin 1993).

    The distance is scaled to be in standard deviations if the values are normal. Several outliers do not hide each
    other, up to nearly half of the values. Where more than half of the values are equal their median absolute
    deviation is 0, and the mean absolute deviation takes its place, as these authors advise. It is a rule of thumb,
    not a test: of normal values about one in 2,000 is beyond 3.5 in a large sample, more in small ones.

    Args:
        limit: the distance beyond which a value is an outlier.

    Example:
        >>> MedianDeviation().distances(Sample("", np.array([1.0, 1.1, 0.9, 1.0, 1.2, 5.0]))).is_outlier.tolist()
        [False, False, False, False, False, True]
    """

    limit: float = 3.5

    def __post_init__(self) -> None:
        check_number(self.limit, "limit", above=0.0)

    @property
    def name(self) -> str:
        return f"modified z-score by the median absolute deviation, limit {self.limit:g}"

    def distances(self, sample: Sample) -> Distances:
        scaled = sample.values / power_of_two(sample.values)
        away = scaled - np.median(scaled)
        spread, notes = float(mad(scaled)) / _MAD_OF_NORMAL, list[str]()
        if spread == 0:
            spread = float(np.abs(away).mean()) / _MEAN_DEVIATION_OF_NORMAL
            notes.append("more than half of the values are equal: distances are in mean absolute deviations")
        with np.errstate(over="ignore"):  # farther than float64 can tell is told as infinite
            distance = away / spread
        limit = np.full(sample.n, self.limit)
        return Distances(distance, limit, np.abs(distance) > limit, notes=tuple(notes))


@dataclass(frozen=True, slots=True)
class Grubbs:
    """Grubbs' test for one outlier at either end (Grubbs 1950); two outliers can hide each other from it.

    Args:
        alpha: the chance to find an outlier among normal values that have none.

    Example:
        >>> Grubbs().distances(Sample("", np.array([1.0, 1.1, 0.9, 1.0, 1.2, 5.0]))).is_outlier.tolist()
        [False, False, False, False, False, True]
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        check_probability(self.alpha, "alpha")

    @property
    def name(self) -> str:
        return f"Grubbs' test, alpha {self.alpha:g}"

    def distances(self, sample: Sample) -> Distances:
        return _most_deviant(sample, 1, self.alpha)


@dataclass(frozen=True, slots=True)
class GeneralisedESD:
    """The generalised extreme studentised deviate test for up to `most` outliers (Rosner 1983).

    It takes out the most deviant value again and again, and holds all those for outliers up to the last one beyond its
    limit, so outliers that hide each other are found. Its limits are accurate from 15 values on.

    Args:
        most: how many outliers there may be at most; never more than half of the values.
        alpha: the chance to find an outlier among normal values that have none.

    Example:
        >>> values = np.array([*np.linspace(0.9, 1.1, 18), 5.0, 5.1])
        >>> np.flatnonzero(GeneralisedESD(most=4).distances(Sample("", values)).is_outlier).tolist()
        [18, 19]
    """

    most: int = 5
    alpha: float = 0.05

    def __post_init__(self) -> None:
        check_probability(self.alpha, "alpha")
        check_count(self.most, "most")

    @property
    def name(self) -> str:
        return f"generalised ESD test for at most {self.most} outliers, alpha {self.alpha:g}"

    def distances(self, sample: Sample) -> Distances:
        enough = Check(
            "enough values for accurate limits", sample.n >= _ROSNER_FROM, f"n = {sample.n} of {_ROSNER_FROM}"
        )
        found = _most_deviant(sample, self.most, self.alpha)
        return replace(found, checks=(enough, *found.checks))


def _most_deviant(sample: Sample, most: int, alpha: float) -> Distances:
    """Return the studentised deviates of values taken out one by one; the rest is measured against the last state."""
    n = sample.n
    left = np.ones(n, bool)
    distance, limit = np.empty(n), np.empty(n)
    taken: list[int] = []
    for size in range(n, n - min(most, n // 2), -1):
        kept = sample.values[left]
        if is_constant(kept):
            break
        kept = kept / power_of_two(kept)
        distance[left] = (kept - kept.mean()) / kept.std(ddof=1)
        limit[left] = _limit(size, alpha)
        worst = int(np.flatnonzero(left)[np.abs(distance[left]).argmax()])
        taken.append(worst)
        left[worst] = False
    beyond = [place for place, at in enumerate(taken) if abs(distance[at]) > limit[at]]
    is_outlier = np.zeros(n, bool)
    is_outlier[taken[: beyond[-1] + 1] if beyond else []] = True
    label = f"{sample.label} without its outliers" if sample.label else "the values that are no outliers"
    return Distances(distance, limit, is_outlier, (normality(Sample(label, sample.values[~is_outlier])),))


def _limit(n: int, alpha: float) -> float:
    """Return the largest studentised deviate of n normal values that alpha allows (Grubbs 1950, Rosner 1983)."""
    t = -float(stdtrit(n - 2, alpha / (2 * n)))
    return float((n - 1) * t / np.sqrt(n * (n - 2 + t * t)))
