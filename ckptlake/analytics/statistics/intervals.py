"""Ways to find an interval around the centre of a sample, each a value that says which centre and how sure."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from scipy.special import stdtrit

from ckptlake.analytics.arguments import check_count, check_level
from ckptlake.analytics.frames import Floats, Sample
from ckptlake.analytics.results import Check, Interval
from ckptlake.analytics.statistics.checks import normality
from ckptlake.analytics.statistics.estimators import iqm, mean, median, power_of_two, skewness, trimmed_mean
from ckptlake.analytics.statistics.resampling import (
    MOST_RESAMPLES,
    RESAMPLES,
    Statistic,
    bca_interval,
    check_values,
    percentile_interval,
)
from ckptlake.analytics.wording import number
from ckptlake.errors import InvalidInputError

Centre: TypeAlias = Literal["mean", "median", "iqm", "trimmed mean"]
"""Which centre of a sample is meant; the trimmed mean leaves out a tenth at each end."""

CENTRES: Mapping[Centre, Statistic] = {"mean": mean, "median": median, "iqm": iqm, "trimmed mean": trimmed_mean}
_ENOUGH, _TELLING, _PER_SKEWNESS = 5, 10, 5


class IntervalMethod(Protocol):
    """A way to find an interval around a centre."""

    @property
    def centre(self) -> Centre: ...

    def of(self, values: Floats) -> Interval:
        """Return the interval of finite values, shape (n,), of which there are at least two."""
        ...

    def checks(self, sample: Sample) -> tuple[Check, ...]:
        """Return what the method takes for granted of a sample, as its values show it."""
        ...


@dataclass(frozen=True, slots=True)
class StudentT:
    """The interval of the mean by Student's t (1908); right for few values too if they are about normal.

    Args:
        level: the confidence, between 0 and 1.

    Example:
        >>> import numpy as np
        >>> print(StudentT().of(np.array([1.0, 2.0, 3.0, 4.0])))
        95 % interval 0.4457 to 4.554
    """

    level: float = 0.95

    def __post_init__(self) -> None:
        check_level(self.level)

    @property
    def centre(self) -> Centre:
        return "mean"

    def of(self, values: Floats) -> Interval:
        values = check_values(values)
        n, scale = len(values), power_of_two(values)
        scaled = values / scale
        centre = float(scaled.mean())
        half = float(stdtrit(n - 1, (1 + self.level) / 2) * scaled.std(ddof=1)) / n**0.5
        return Interval(scale * (centre - half), scale * (centre + half), self.level, "Student t")

    def checks(self, sample: Sample) -> tuple[Check, ...]:
        return (normality(sample),)


@dataclass(frozen=True, slots=True)
class _Resampling(ABC):
    """An interval by resampling.

    Args:
        centre: ``"mean"``, ``"median"``, ``"iqm"`` or ``"trimmed mean"``.
        level: the confidence, between 0 and 1.
        resamples: how many samples are drawn.
        seed: of the generator.
    """

    centre: Centre = "mean"
    level: float = 0.95
    resamples: int = RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        check_level(self.level)
        check_count(self.resamples, "resamples", most=MOST_RESAMPLES)
        check_count(self.seed, "seed", least=0)
        if self.centre not in CENTRES:
            raise InvalidInputError(f"there is no centre {self.centre!r:.100}: take {', '.join(CENTRES)}")

    def of(self, values: Floats) -> Interval:
        values = check_values(values)
        scale = power_of_two(values)
        found = self._of_scaled(values / scale)
        return Interval(scale * found.low, scale * found.high, found.level, found.method)

    def checks(self, sample: Sample) -> tuple[Check, ...]:
        where = f" in {sample.label}" if sample.label else ""
        enough = Check(
            f"enough values to resample{where}", sample.n >= _ENOUGH, f"n = {sample.n:,}; {_ENOUGH} are wanted"
        )
        skew = skewness(sample.values)
        if self.centre not in ("mean", "trimmed mean") or skew is None:
            return (enough,)
        wanted = math.ceil(_PER_SKEWNESS * skew**2)
        evidence = (
            f"skewness {number(skew, 2)}, n = {sample.n:,}; {_PER_SKEWNESS} times its square, {wanted:,}, are wanted"
        )
        if sample.n >= wanted and sample.n < _TELLING:
            return (enough, Check(f"values not too skewed{where}", None, f"n = {sample.n:,} do not betray it"))
        return (enough, Check(f"values not too skewed{where}", sample.n >= wanted, evidence))

    @abstractmethod
    def _of_scaled(self, values: Floats) -> Interval: ...


@dataclass(frozen=True, slots=True)
class Percentile(_Resampling):
    """The bootstrap percentile interval of a centre (Efron 1979), expanded for few values (Hesterberg 2015).

    Args:
        centre: ``"mean"``, ``"median"``, ``"iqm"`` or ``"trimmed mean"``.
        level: the confidence, between 0 and 1.
        resamples: how many samples are drawn.
        seed: of the generator.

    Example:
        >>> import numpy as np
        >>> 19.5 in Percentile("iqm").of(np.arange(40.0))
        True
    """

    def _of_scaled(self, values: Floats) -> Interval:
        return percentile_interval(
            values, CENTRES[self.centre], level=self.level, resamples=self.resamples, seed=self.seed
        )


@dataclass(frozen=True, slots=True)
class BCa(_Resampling):
    """The bias-corrected and accelerated bootstrap interval of a centre (Efron 1987), for skewed values; expanded.

    Args:
        centre: ``"mean"``, ``"median"``, ``"iqm"`` or ``"trimmed mean"``.
        level: the confidence, between 0 and 1.
        resamples: how many samples are drawn.
        seed: of the generator.

    Example:
        >>> import numpy as np
        >>> BCa().of(np.exp(np.linspace(-2.0, 2.0, 40))).method
        'expanded bootstrap BCa, 10,000 resamples'
    """

    def _of_scaled(self, values: Floats) -> Interval:
        return bca_interval(values, CENTRES[self.centre], level=self.level, resamples=self.resamples, seed=self.seed)
