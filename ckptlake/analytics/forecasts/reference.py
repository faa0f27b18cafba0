"""The reference class: how much finished runs still changed, for what they had shown after the same part of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts.outlook import Outlook
from ckptlake.analytics.forecasts.seen import FEWEST_POINTS, Seen, window_means
from ckptlake.analytics.frames import Floats

Integers = NDArray[np.intp]
_CELLS = 512
_GRID = np.arange(_CELLS + 1) / _CELLS
_WINDOW = 1 / 8
_FEATURES = ("logarithm of the recent change", "bend", "level")
# Alike means within about two standard deviations of the finished runs; a tenth of the variance is chance.
_LENGTH, _NOISE = 2.0, 0.1


@dataclass(frozen=True, slots=True, eq=False)
class FinishedRuns:
    """Finished curves on one grid of fractions of a run, turned so that lower is better.

    Attributes:
        areas: float64, shape (n, 513): the integral of the curve from the start of the run.
        last: float64, shape (n, 513): its last value so far.
        best: float64, shape (n, 513): its best value so far.
        counts: how many points it has so far, shape (n, 513).
        firsts: float64, shape (n,): the fraction of its first point.
        ends: float64, shape (n,): what became of it.
        groups: which runs are repeats of each other, shape (n,).
    """

    areas: Floats
    last: Floats
    best: Floats
    counts: Integers
    firsts: Floats
    ends: Floats
    groups: Integers

    @classmethod
    def of(cls, curves: Sequence[Curve], ends: Floats, groups: Integers, sign: float) -> FinishedRuns:
        areas, last, best, counts = [], [], [], []
        for curve in curves:
            steps, values = curve.steps / curve.steps[-1], sign * curve.values
            areas.append(window_means(steps, values, _GRID[1:], 1 / _CELLS).cumsum() / _CELLS)
            count = np.searchsorted(steps, _GRID, side="right")
            at = np.maximum(count - 1, 0)
            counts.append(count)
            last.append(values[at])
            best.append(np.minimum.accumulate(values)[at])
        firsts = np.array([curve.steps[0] / curve.steps[-1] for curve in curves])
        padded = np.hstack([np.zeros((len(curves), 1)), np.array(areas)])
        return cls(padded, np.array(last), np.array(best), np.array(counts), firsts, sign * ends, groups)

    def levels(self, ends: Floats, width: float | Floats) -> Floats:
        """Return the mean of each run over (end - width, end] for each end, shape (n, number of ends)."""
        return np.asarray((self._area(ends) - self._area(ends - width)) / width)

    def _area(self, fractions: Floats) -> Floats:
        cell = np.minimum((fractions * _CELLS).astype(int), _CELLS - 1)
        part = fractions * _CELLS - cell
        return np.asarray(self.areas[:, cell] * (1 - part) + self.areas[:, cell + 1] * part)

    def only(self, keep: NDArray[np.bool_]) -> FinishedRuns:
        return FinishedRuns(
            self.areas[keep], self.last[keep], self.best[keep], self.counts[keep], self.firsts[keep], self.ends[keep],
            self.groups[keep],
        )  # fmt: skip

    def usable(self, fraction: float) -> FinishedRuns:
        """Return the runs that had shown enough after a fraction, and had improved."""
        at = int(fraction * _CELLS)
        enough = (self.counts[:, at] >= FEWEST_POINTS) & (self.firsts < fraction * (0.5 - _WINDOW))
        now, _, half = self.levels(fraction * _marks(), fraction * _WINDOW).T
        return self.only(enough & (half > now))


def _marks() -> Floats:
    """Return where a curve is looked at, as parts of what was seen."""
    return np.array([1.0, 0.75, 0.5])


def features_of(levels: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the current level, the recent change and the features, of levels now, at three quarters and at half."""
    now, later, half = levels.T
    change = half - now
    return now, change, np.column_stack([np.log(change), (later - now) / change, now])


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceClass:
    """Finished runs after a fraction, and a Gaussian process of their remaining change on what they had shown.

    The remaining change is counted in units of the change over the second half of what was seen, as a change that
    was fast so far stays fast. The process has the median of the groups as its mean, so that a run unlike all others
    is forecast by the typical change (Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning"; each
    group of repeats weighs as much as one run).

    Attributes:
        fraction: how much of a run had been seen.
        runs: the finished runs that tell.
        weights: float64, shape (n,): one over the number of repeats of each run.
        centre, scale: float64, shape (3,): of the features.
        places: float64, shape (n, 3): the scaled features.
        mean: float64, shape (m,): the typical remaining change at each later fraction.
        precision: float64, shape (n, n): the inverse covariance.
        loads: float64, shape (n, m): how each run pulls a forecast.
        changes: float64, shape (n,): the recent change of each run.
        levels: float64, shape (n,): the level of each run.
    """

    fraction: float
    runs: FinishedRuns
    weights: Floats
    centre: Floats
    scale: Floats
    places: Floats
    mean: Floats
    precision: Floats
    loads: Floats
    changes: Floats
    levels: Floats

    @classmethod
    def of(cls, runs: FinishedRuns, fraction: float, later: Floats) -> ReferenceClass:
        """Return the reference class of usable runs for forecasts at later fractions, the last one the end."""
        width = fraction * _WINDOW
        levels, changes, features = features_of(runs.levels(fraction * _marks(), width))
        # Levels to come are read around their step, in windows that end with the run.
        beside = np.minimum(width / 2, 1 - later[:-1])
        becomes = np.column_stack([runs.levels(later[:-1] + beside, 2 * beside), runs.ends])
        shares = (levels[:, None] - becomes) / changes[:, None]
        weights = 1 / np.bincount(runs.groups)[runs.groups]
        centre = np.average(features, axis=0, weights=weights)
        spread = np.sqrt(np.average((features - centre) ** 2, axis=0, weights=weights))
        scale = np.where(spread > 1e-9 * (1 + np.abs(centre)), spread, 1.0)
        places = (features - centre) / scale
        mean = _weighted_medians(shares, weights)
        precision: Floats = np.asarray(np.linalg.inv(_likeness(places, places) + np.diag(_NOISE / weights)), np.float64)
        loads = precision @ (shares - mean)
        return cls(fraction, runs, weights, centre, scale, places, mean, precision, loads, changes, levels)

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.runs.groups))

    def outlooks(self, now: float, change: float, features: Floats) -> list[Outlook]:
        """Return where a run will be at each later fraction, from its level, recent change and features."""
        like = _likeness((features - self.centre) / self.scale, self.places)[0]
        shares = self.mean + like @ self.loads
        spread = float(np.sqrt(max(1 - like @ self.precision @ like, 0.0) + _NOISE))
        errors, spreads = self.held_back()
        return [
            Outlook.of(now - change * share, change * spread, np.abs(error) / spreads, self.weights)
            for share, error in zip(shares, errors.T, strict=True)
        ]

    def held_back(self) -> tuple[Floats, Floats]:
        """Return the errors of the shares of each run from all groups but its own, shape (n, m), and their spreads."""
        errors, variances = np.empty_like(self.loads), np.empty(len(self.loads))
        alone = self.weights == 1.0
        diagonal = np.diag(self.precision)[alone]
        errors[alone], variances[alone] = self.loads[alone] / diagonal[:, None], 1 / diagonal
        for group in np.unique(self.runs.groups[~alone]):
            members = np.flatnonzero(self.runs.groups == group)
            within = np.linalg.inv(self.precision[np.ix_(members, members)])
            errors[members] = within @ self.loads[members]
            # Within a group a run counts as a part of one; a run to come counts as one.
            variances[members] = np.diag(within) - _NOISE / self.weights[members] + _NOISE
        return errors, np.sqrt(variances)

    def errors(self) -> tuple[float, float, float]:
        """Return the mean absolute errors of forecasts of the end: this one's, the last value's, the best so far's."""
        at = int(self.fraction * _CELLS)
        ours = np.abs(self.held_back()[0][:, -1]) * self.changes
        last, best = np.abs(self.runs.last[:, at] - self.runs.ends), np.abs(self.runs.best[:, at] - self.runs.ends)
        return tuple(float(np.average(error, weights=self.weights)) for error in (ours, last, best))  # type: ignore[return-value]

    def outside(self, features: Floats) -> tuple[str, ...]:
        """Return in which features a run lies outside what the finished runs show."""
        low, high = self.places.min(axis=0), self.places.max(axis=0)
        place = ((features - self.centre) / self.scale)[0]
        return tuple(
            name
            for name, at, least, most in zip(_FEATURES, place, low, high, strict=True)
            if at < least - 1e-9 or at > most + 1e-9
        )


def seen_features(seen: Seen) -> tuple[float, float, Floats] | None:
    """Return level, recent change and features of a live curve, lower better; None where it does not improve."""
    steps, sign = seen.curve.steps / seen.horizon, 1.0 if seen.direction == "min" else -1.0
    fraction = seen.fraction
    levels = window_means(steps, sign * seen.curve.values, fraction * _marks(), fraction * _WINDOW)
    if levels[2] <= levels[0]:
        return None
    now, change, features = features_of(levels[None])
    return float(now[0]), float(change[0]), features


def _likeness(here: Floats, there: Floats) -> Floats:
    squares = ((here[:, None] - there[None]) ** 2).sum(axis=-1)
    return np.asarray(np.exp(-squares / (2 * _LENGTH**2)))


def _weighted_medians(columns: Floats, weights: Floats) -> Floats:
    order = np.argsort(columns, axis=0, kind="stable")
    reached = np.cumsum(weights[order], axis=0)
    middle = (reached < weights.sum() / 2 - 1e-12).sum(axis=0)
    return np.asarray(np.take_along_axis(columns, np.take_along_axis(order, middle[None], axis=0), axis=0)[0])
