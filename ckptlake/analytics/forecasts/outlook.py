"""Where a value may end: a forecast with what such forecasts came to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptlake.analytics.frames import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """A forecast of one value and its distribution.

    Attributes:
        centre: the forecast.
        values: float64, shape (n,), ascending: values that it may come to.
        ranks: float64, shape (n,), ascending, each between 0 and 1: the probability that it ends below each of them.
        n: how many errors or draws this rests on.
    """

    centre: float
    values: Floats
    ranks: Floats
    n: int

    @classmethod
    def of(cls, centre: float, spread: float, errors: Floats, weights: Floats) -> Outlook:
        """Return the outlook of weighted absolute errors in any order, which may come to either side alike.

        The weights of one independent group add up to one. An error's rank is its place among the groups and the one
        to come: with a weight of one each it is i / (n + 1), the interpolated quantile of split conformal prediction
        (Lei et al. 2018, "Distribution-free predictive inference for regression"); with several errors a group these
        share the group's place (Lee, Barber and Willett 2023, "Distribution-free inference with hierarchical data").

        Args:
            centre: the forecast.
            spread: the unit in which errors are counted, such as a standard deviation.
            errors: float64, shape (n,): absolute errors of such forecasts, in that unit.
            weights: float64, shape (n,).

        Example:
            >>> outlook = Outlook.of(3.0, 1.0, np.array([0.2, 0.1, 0.3]), np.ones(3))
            >>> outlook.ends(0.5), outlook.ends(0.9)
            ((2.8, 3.2), None)
        """
        order = np.argsort(errors, kind="stable")
        reach, inside = spread * errors[order], np.cumsum(weights[order]) / (weights.sum() + 1)
        values = np.concatenate([centre - reach[::-1], [centre], centre + reach])
        ranks = np.concatenate([(1 - inside[::-1]) / 2, [0.5], (1 + inside) / 2])
        return cls(float(centre), values, ranks, len(errors))

    @classmethod
    def drawn(cls, centre: float, values: Floats) -> Outlook:
        """Return the outlook of values in any order that are as likely as what will be.

        Example:
            >>> Outlook.drawn(2.0, np.array([1.0, 2.0, 7.0])).ends(0.5)
            (1.0, 7.0)
        """
        return cls(float(centre), np.sort(values), np.arange(1, len(values) + 1) / (len(values) + 1), len(values))

    @property
    def highest_level(self) -> float:
        """The level of the widest interval that can be told, 0 where nothing tells."""
        return 1 - 2 * max(float(self.ranks[0]), 1 - float(self.ranks[-1]))

    def ends(self, level: float) -> tuple[float, float] | None:
        """Return the ends of the interval that holds the value with a probability, or None if too little tells.

        The value ends below it as often as above.
        """
        if level > self.highest_level + 1e-9:
            return None
        low, high = np.interp([(1 - level) / 2, (1 + level) / 2], self.ranks, self.values)
        return float(low), float(high)

    def probability_below(self, value: float) -> float:
        """Return the probability that the value ends below another, one half where nothing tells.

        Example:
            >>> outlook = Outlook.of(3.0, 1.0, np.array([0.1, 0.2, 0.3]), np.ones(3))
            >>> round(outlook.probability_below(2.8), 6), outlook.probability_below(9.0)
            (0.25, 0.875)
        """
        first, last = (
            np.searchsorted(self.values, value, side="left"),
            np.searchsorted(self.values, value, side="right"),
        )
        if first < last:  # of values that are equal none is more likely
            return float(self.ranks[first] + self.ranks[last - 1]) / 2
        if first in (0, len(self.values)):
            return float(self.ranks[0 if first == 0 else -1])
        # The slope that np.interp takes is infinite between values that are next to none apart.
        part = (value - self.values[first - 1]) / (self.values[first] - self.values[first - 1])
        return float(self.ranks[first - 1] + part * (self.ranks[first] - self.ranks[first - 1]))

    def turned(self) -> Outlook:
        """Return the outlook of the value with its sign turned."""
        return Outlook(-self.centre, -self.values[::-1], 1 - self.ranks[::-1], self.n)
