"""Where a value may end: a forecast with the errors that such forecasts had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptlake.analytics.frames import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """A forecast of one value and how far off it may be, to either side alike.

    Attributes:
        centre: the forecast.
        spread: the unit in which errors are counted, such as a standard deviation.
        errors: float64, shape (n,), ascending: absolute errors of such forecasts, in units of `spread`.
        ranks: float64, shape (n,), ascending, each below 1: the probability that an error is at most as large.
    """

    centre: float
    spread: float
    errors: Floats
    ranks: Floats

    @classmethod
    def of(cls, centre: float, spread: float, errors: Floats, weights: Floats) -> Outlook:
        """Return the outlook of weighted errors in any order.

        The weights of one independent group add up to one. An error's rank is its place among the groups and the one
        to come: with a weight of one each it is i / (n + 1), the interpolated quantile of split conformal prediction
        (Lei et al. 2018, "Distribution-free predictive inference for regression"); with several errors a group these
        share the group's place (Lee, Barber and Willett 2023, "Distribution-free inference with hierarchical data").

        Example:
            >>> outlook = Outlook.of(3.0, 1.0, np.array([0.2, 0.1, 0.3]), np.ones(3))
            >>> outlook.ends(0.5), outlook.ends(0.9)
            ((2.8, 3.2), None)
        """
        order = np.argsort(errors, kind="stable")
        weights = weights[order]
        return cls(float(centre), float(spread), errors[order], np.cumsum(weights) / (weights.sum() + 1))

    def ends(self, level: float) -> tuple[float, float] | None:
        """Return the ends of the interval that holds the value with a probability, or None if too few errors tell."""
        if not len(self.ranks) or level > self.ranks[-1] + 1e-9:
            return None
        reach = self.spread * float(np.interp(level, [0.0, *self.ranks], [0.0, *self.errors]))
        return self.centre - reach, self.centre + reach

    def probability_below(self, value: float) -> float:
        """Return the probability that the value ends below another, one half where nothing tells.

        Example:
            >>> outlook = Outlook.of(3.0, 1.0, np.array([0.1, 0.2, 0.3]), np.ones(3))
            >>> round(outlook.probability_below(2.8), 6), outlook.probability_below(9.0)
            (0.25, 0.875)
        """
        distance = value - self.centre
        if distance == 0:
            return 0.5
        if self.spread == 0:
            inside = float(self.ranks[-1]) if len(self.ranks) else 0.0
        else:
            inside = float(np.interp(abs(distance) / self.spread, [0.0, *self.errors], [0.0, *self.ranks]))
        return 0.5 * (1 + inside) if distance > 0 else 0.5 * (1 - inside)
