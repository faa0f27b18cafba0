"""Fits by variable projection: linear parameters solved inside, the shape found on a grid and refined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import leastsq

from ckptlake.analytics.forecasts.families import Family
from ckptlake.analytics.frames import Floats

_HUBER = 1.345
_FLAT = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """What is fitted.

    Attributes:
        place: float64, shape (n,), above 0: steps in units of the last one seen.
        values: float64, shape (n,).
        counts: float64, shape (n,): how many points each value is the mean of.
        linear: float64, shape (n, q): terms that enter the curve linearly besides the offset, such as a schedule's.
    """

    place: Floats
    values: Floats
    counts: Floats
    linear: Floats

    def first(self, count: int) -> Points:
        return Points(self.place[:count], self.values[:count], self.counts[:count], self.linear[:count])


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """One family fitted to points.

    Attributes:
        family: the family.
        parameters: float64, shape (p,): of its shape, by logarithm.
        coefficients: float64, shape (1 + q,) or (2 + q,): of the shape, the offset if it has one, the linear terms.
        points: what it was fitted to.
        weights: float64, shape (n,): how much each point counts after outliers were weighed down.
    """

    family: Family
    parameters: Floats
    coefficients: Floats
    points: Points
    weights: Floats

    def at(self, place: Floats, linear: Floats) -> Floats:
        """Return the fitted curve at places, shape (n,), with linear terms, shape (n, q)."""
        shape = self.family.at(place, self.parameters[None])[0]
        return np.asarray(np.column_stack([shape, _others(self.family, linear)]) @ self.coefficients)

    @property
    def residuals(self) -> Floats:
        """float64, shape (n,): how far each value is from the curve, as if each were one point."""
        points = self.points
        return (points.values - self.at(points.place, points.linear)) * np.sqrt(points.counts)


def _others(family: Family, linear: Floats) -> Floats:
    """Return the linear terms besides the shape: the offset first, if the family has one."""
    return np.column_stack([np.ones(len(linear)), linear]) if family.has_offset else linear


@dataclass(frozen=True, slots=True, eq=False)
class _Projection:
    """Weighted values of a family with all linear terms but the shape's projected out."""

    family: Family
    place: Floats
    weights: Floats
    frame: Floats
    values: Floats
    least: float

    @classmethod
    def of(cls, family: Family, points: Points, weights: Floats) -> _Projection:
        frame = np.linalg.qr(_others(family, points.linear) * weights[:, None])[0]
        values = points.values * weights
        least = _FLAT * float(weights @ weights)
        return cls(family, points.place, weights, frame, values - frame @ (frame.T @ values), least)

    def left(self, parameters: Floats) -> Floats:
        """Return what is left of the values for each row of parameters of the shape, (k, n)."""
        shapes = self.family.at(self.place, parameters) * self.weights
        shapes = shapes - (shapes @ self.frame) @ self.frame.T
        size = np.einsum("kn,kn->k", shapes, shapes)
        slope = np.where(size > self.least, (shapes @ self.values) / np.maximum(size, self.least), 0.0)
        return np.asarray(self.values - slope[:, None] * shapes)

    def chosen(self) -> Floats:
        """Return the parameters of the grid that leave least."""
        left = self.left(self.family.grid)
        return np.asarray(self.family.grid[np.argmin(np.einsum("kn,kn->k", left, left))])

    def refined(self) -> Floats:
        """Return better parameters than those of the grid, or these if the search leaves it."""
        start, grid = self.chosen(), self.family.grid
        low, high = grid.min(axis=0) - 1, grid.max(axis=0) + 1
        if len(self.place) < len(start) + 3:
            return start

        def left(parameters: Floats) -> Floats:
            return np.asarray(self.left(np.clip(parameters, low, high)[None])[0])

        # The flag tells why the search ended; wherever it did, the place found leaves no more than its start.
        found, *_ = leastsq(left, start, xtol=1e-10, ftol=1e-10, maxfev=80, full_output=True)
        return np.asarray(found) if np.all((found > low) & (found < high)) else start


def fit(family: Family, points: Points) -> Fit:
    """Return the least-squares fit of one family, with outliers weighed down.

    The linear parameters are projected out (Golub and Pereyra 1973, "The differentiation of pseudo-inverses and
    nonlinear least squares problems whose variables separate"), so that only the shape is searched: on the whole grid
    at once, then by Levenberg-Marquardt from its best place. Outliers get Huber's weights (Huber 1964).
    """
    off = np.abs(fit_on_grid(family, points).residuals)
    limit = _HUBER * 1.4826 * float(np.median(off))
    weights = np.sqrt(points.counts)
    if limit > 1e-12 * (1 + float(np.abs(points.values).max())):
        weights = weights * np.sqrt(limit / np.maximum(off, limit))
    return _solved(family, _Projection.of(family, points, weights).refined(), points, weights)


def fit_on_grid(family: Family, points: Points) -> Fit:
    """Return the least-squares fit of one family among the shapes of its grid."""
    weights = np.sqrt(points.counts)
    return _solved(family, _Projection.of(family, points, weights).chosen(), points, weights)


def _solved(family: Family, parameters: Floats, points: Points, weights: Floats) -> Fit:
    shape = family.at(points.place, parameters[None])[0]
    terms = np.column_stack([shape, _others(family, points.linear)])
    size = np.linalg.norm(terms * weights[:, None], axis=0)
    size = np.where(size > 0, size, 1.0)
    solved = np.linalg.lstsq(terms * weights[:, None] / size, points.values * weights, rcond=1e-12)[0]
    return Fit(family, parameters, solved / size, points, weights)


def bootstrap(
    fitted: Fit, place: Floats, linear: Floats, *, count: int, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return redrawn curves at places, shape (count, m), and a redrawn residual of one point each, shape (count,).

    Residuals are redrawn in blocks, as neighbours resemble each other (Künsch 1989, "The jackknife and the bootstrap
    for general stationary observations"), and widened by what the fit took from them; each redrawn curve is fitted
    again over the whole grid of shapes.
    """
    family, points = fitted.family, fitted.points
    n, n_parameters = len(points.place), len(fitted.coefficients) + len(fitted.parameters)
    residuals = fitted.residuals - fitted.residuals.mean()
    residuals = residuals * np.sqrt(n / max(n - n_parameters, 1))
    block = max(1, round(n ** (1 / 3)))
    starts = random.integers(0, n, (count, -(-n // block)))
    drawn = residuals[(starts[:, :, None] + np.arange(block)).reshape(count, -1)[:, :n] % n]
    weights = np.sqrt(points.counts)
    values = fitted.at(points.place, points.linear) * weights + drawn
    others = _others(family, points.linear) * weights[:, None]
    frame, corner = np.linalg.qr(others)
    parameters = np.vstack([family.grid, fitted.parameters])
    raw = family.at(points.place, parameters) * weights
    shapes = raw - (raw @ frame) @ frame.T
    size = np.sqrt((shapes**2).sum(axis=1))
    told = size > np.sqrt(_FLAT) * np.sqrt(float((weights**2).sum()))
    unit = np.where(told[:, None], shapes / np.where(told, size, 1.0)[:, None], 0.0)
    pull = values @ unit.T
    best: NDArray[np.intp] = np.argmax(np.abs(pull), axis=1)
    slope = np.where(told[best], pull[np.arange(count), best] / np.where(told, size, 1.0)[best], 0.0)
    curves = slope[:, None] * family.at(place, parameters[best])
    if others.shape[1]:
        rest = np.linalg.solve(corner, frame.T @ (values - slope[:, None] * raw[best]).T)
        curves = curves + (_others(family, linear) @ rest).T
    return curves, drawn[:, -1]
