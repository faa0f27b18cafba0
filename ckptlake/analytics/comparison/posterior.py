"""How likely it is that one configuration is better, given the runs: a posterior of the difference of means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from ckptlake.analytics.arguments import LARGEST, check_direction, check_level, check_number
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.comparison.outcome import finite_values
from ckptlake.analytics.comparison.two_samples import pair_differences, variance
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Interval, Result
from ckptlake.analytics.wording import number, percent
from ckptlake.errors import NotEnoughDataError
from ckptlake.types import Direction

_NODES = 1_000
_CURVE_POINTS = 121
_PRIOR = "flat prior"


@dataclass(frozen=True, slots=True)
class MeanPosterior:
    """A mean as the data tell it: Student's t, moved and scaled.

    Attributes:
        mean: where it is centred.
        scale: the standard error; 0 where values do not vary.
        df: the degrees of freedom.
    """

    mean: float
    scale: float
    df: float

    @classmethod
    def of(cls, values: Floats) -> MeanPosterior:
        return cls(float(values.mean()), math.sqrt(variance(values) / len(values)), len(values) - 1)


@dataclass(frozen=True, slots=True)
class DifferencePosterior:
    """The difference of two independent means: the distribution of Behrens and Fisher."""

    first: MeanPosterior
    second: MeanPosterior

    @property
    def mean(self) -> float:
        return self.first.mean - self.second.mean

    def below(self, at: float) -> float:
        """Return the probability that the difference is below a value."""
        return self.below_mean_plus(at - self.mean)

    def below_mean_plus(self, offset: float) -> float:
        """Return the probability that the difference is below its mean plus an offset.

        It is the mean, over the quantiles of the narrower one, of the distribution of the wider one, which is smooth.
        """
        wide, narrow = self.first, self.second
        if wide.scale < narrow.scale:
            wide, narrow = narrow, wide  # the distribution of the difference is symmetric around its mean
        quantiles, weights = _t_quantiles(narrow.df)
        away = offset + narrow.scale * quantiles
        return float(weights @ special.stdtr(wide.df, away / wide.scale))


@lru_cache(maxsize=64)
def _t_quantiles(df: float) -> tuple[Floats, Floats]:
    """Return quantiles of Student's t and their weights, denser where the tails are."""
    share = (np.arange(_NODES) + 0.5) / _NODES
    weights = 6 * share * (1 - share)
    return np.asarray(special.stdtrit(df, share**2 * (3 - 2 * share)), np.float64), weights / weights.sum()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Posterior(Result):
    """How likely each order of two configurations is.

    Attributes:
        first: the name of one.
        second: the name of the other.
        direction: whether lower or higher is better.
        rope: a difference up to this counts as none, in the unit of the values (region of practical equivalence).
        difference: the mean of the first minus that of the second, where its posterior is centred.
        p_first_better: the probability that the first is better by more than `rope`.
        p_same: the probability that they differ by at most `rope`.
        p_second_better: the probability that the second is better by more than `rope`.
        density: the posterior, told by what lies below each of some differences: `difference`, `below`.
    """

    first: str
    second: str
    direction: Direction
    rope: float
    difference: float
    p_first_better: float
    p_same: float
    p_second_better: float
    density: tuple[tuple[float, float], ...]

    def sentence(self) -> str:
        first = f"The mean of {self.first} is better than that of {self.second}"
        if self.rope == 0.0:
            return f"{first} with probability {chance(self.p_first_better)} ({self.method})."
        unit = f" {self.unit}" if self.unit else ""
        better, worse, same = map(chance, (self.p_first_better, self.p_second_better, self.p_same))
        return (
            f"{first} by more than {number(self.rope)}{unit} with probability {better}, worse by more than that with "
            f"{worse}, and within it with {same} ({self.method})."
        )

    def chart(self) -> Chart:
        rows = [{"difference": at, "density": height} for at, height in self.density]
        title = f"{self.first} minus {self.second}"
        label = f"difference of means{f' ({self.unit})' if self.unit else ''}"
        marks = [0.0] if self.rope == 0.0 else [-self.rope, self.rope]
        return line_chart(
            title, rows, x=Axis("difference", label), y=Axis("density", "posterior density", zero=True), marks=marks
        )


def posterior(
    first: ArrayLike, second: ArrayLike, *, direction: Direction = "min", rope: float = 0.0, paired: bool = False,
    level: float = 0.95, labels: tuple[str, str] = ("the first", "the second"), unit: str = "",
) -> Posterior:  # fmt: skip
    """Return how likely each of two configurations has the better mean.

    Under a normal model with the reference prior, flat in each mean and in the logarithm of each standard deviation,
    a mean is a moved and scaled Student t (Box & Tiao 1973, ch. 2), and the difference of two has the distribution of
    Behrens and Fisher, here integrated numerically. The region of practical equivalence is Kruschke's (2013). This
    probability speaks of means; how often a single run is better is told by A12 (`vargha_delaney`).

    Args:
        first: float, shape (n,), n >= 2, all finite.
        second: float, shape (m,), m >= 2, all finite; of shape (n,) and in the same order where paired.
        direction: ``"min"`` where lower is better.
        rope: a difference up to this counts as none, in the unit of the values.
        paired: whether values belong together, such as by seed; the model is then of their differences.
        level: the probability of the interval.
        labels: the names of both.
        unit: of the values.

    Raises:
        NotEnoughDataError: a sample has fewer than two values, or no value varies within its sample.
        InvalidInputError: a value is not finite, `rope` is negative or not finite, or pairs have different lengths.

    Example:
        >>> print(posterior([3.27, 3.28, 3.275], [3.30, 3.29, 3.31], labels=("a", "b")))
        The mean of a is better than that of b with probability 96.6 % (normal model, flat prior).
    """
    check_direction(direction)
    check_level(level)
    check_number(rope, "rope", least=0.0, most=LARGEST)
    one, other = finite_values(first, least=2, of=labels[0]), finite_values(second, least=2, of=labels[1])
    found = paired_posterior(one, other) if paired else independent_posterior(one, other)
    scale = spread(found, level)
    below, within = found.below(-rope), found.below(rope) - found.below(-rope)
    lower_is_better = direction == "min"
    return Posterior(
        n=len(one) if paired else len(one) + len(other), unit=unit,
        method=f"normal model{' of pairs' * paired}, {_PRIOR}",
        interval=Interval(found.mean - scale, found.mean + scale, level, "posterior"),
        first=labels[0], second=labels[1], direction=direction, rope=rope, difference=found.mean,
        p_first_better=below if lower_is_better else 1 - below - within, p_same=within,
        p_second_better=1 - below - within if lower_is_better else below, density=_density(found, scale),
    )  # fmt: skip


def independent_posterior(first: Floats, second: Floats) -> DifferencePosterior:
    """Return the posterior of the difference of two means.

    Raises:
        NotEnoughDataError: no value varies within its sample.
    """
    found = DifferencePosterior(MeanPosterior.of(first), MeanPosterior.of(second))
    _check_spread(found)
    return found


def paired_posterior(first: Floats, second: Floats) -> DifferencePosterior:
    """Return the posterior of the mean difference of pairs.

    Raises:
        NotEnoughDataError: the differences do not vary.
        InvalidInputError: the lengths differ.
    """
    mean = MeanPosterior.of(pair_differences(first, second))
    found = DifferencePosterior(mean, MeanPosterior(0.0, 0.0, mean.df))
    _check_spread(found)
    return found


def chance(probability: float) -> str:
    """Return a probability as percent that is not rounded to certainty.

    >>> chance(0.973), chance(0.99999), chance(1e-9)
    ('97.3 %', 'over 99.9 %', 'under 0.1 %')
    """
    if not 0.001 <= probability <= 0.999:
        return "over 99.9 %" if probability > 0.5 else "under 0.1 %"
    return percent(probability)


def spread(found: DifferencePosterior, level: float) -> float:
    """Return how far the interval of a posterior reaches from its mean, on either side."""
    reach = math.hypot(found.first.scale, found.second.scale)
    while found.below_mean_plus(reach) < (1 + level) / 2:
        reach *= 2
    return float(optimize.brentq(lambda offset: found.below_mean_plus(offset) - (1 + level) / 2, 0.0, reach))


def _check_spread(found: DifferencePosterior) -> None:
    if found.first.scale == found.second.scale == 0.0:
        raise NotEnoughDataError(
            "the values do not vary, so that nothing is known of their spread: repeat runs with other seeds"
        )


def _density(found: DifferencePosterior, scale: float) -> tuple[tuple[float, float], ...]:
    offsets = np.linspace(-2 * scale, 2 * scale, _CURVE_POINTS)
    below = np.array([found.below_mean_plus(float(offset)) for offset in offsets])
    heights, middles = np.diff(below) / np.diff(offsets), found.mean + (offsets[1:] + offsets[:-1]) / 2
    return tuple((float(x), float(y)) for x, y in zip(middles, heights, strict=True))
