"""What the points leave open of a family's shape: its posterior distribution, by quadrature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ckptlake.analytics.forecasts.projection import Projection, others
from ckptlake.analytics.frames import Floats

_REACH = 4.0
_CELLS = {1: 25, 2: 13}
_ROUNDS = 2
_NUDGE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """Shapes of one family and how plausible each is.

    Attributes:
        projection: the family and the points.
        share: how much of one independent point each point tells.
        parameters: float64, shape (k, p): of each shape, by logarithm.
        weights: float64, shape (k,): the probability of each.
        best: float64, shape (p,): the parameters that leave least.
        least: the sum of squares they leave.
    """

    projection: Projection
    share: float
    parameters: Floats
    weights: Floats
    best: Floats
    least: float

    @property
    def n_parameters(self) -> int:
        """How many numbers a curve of the family takes."""
        return len(self.best) + 1 + len(self.projection.corner)

    def at_ranks(self, ranks: Floats) -> Floats:
        """Return the parameters at ranks between 0 and 1 among all shapes, ordered as the lattice is, (d, p)."""
        reached = np.cumsum(self.weights)
        return np.asarray(self.parameters[np.searchsorted(reached, ranks * reached[-1])])

    def curves(self, parameters: Floats, place: Floats, linear: Floats, errors: Floats) -> tuple[Floats, Floats]:
        """Return two curves at places for each of some shapes, (d, m): the closest to the points, and one in error.

        Args:
            parameters: float64, shape (d, p): of the shapes.
            place: float64, shape (m,).
            linear: float64, shape (m, q): terms besides the shape and the offset.
            errors: float64, shape (d, r), r at least the number of linear coefficients: independent errors of one
                point, which the linear coefficients of the second curve take on.
        """
        projection = self.projection
        shapes, terms = projection.family.at(place, parameters), others(projection.family, linear)
        within, rest = projection.split(parameters)
        slope, size = projection.slopes(rest)

        def curve(slope: Floats, pulled: Floats) -> Floats:
            coefficients = np.linalg.solve(projection.corner, (pulled - slope[:, None] * within).T)
            return np.asarray(slope[:, None] * shapes + np.einsum("mq,qd->dm", terms, coefficients))

        wrong = projection.pulled + errors[:, 1 : 1 + len(projection.corner)]
        return curve(slope, projection.pulled), curve(slope + errors[:, 0] / np.sqrt(size), wrong)


def explore(projection: Projection, start: Floats, floor: float, share: float) -> Posterior:
    """Return the posterior distribution of a family's shape.

    The linear coefficients and the variance of normal noise are integrated out. The shape has Jeffreys' prior within
    the family's bounds, with which intervals hold most nearly as often as they say (Welch and Peers 1963, "On formulae
    for confidence points based on integrals of weighted likelihoods"). It lies on a lattice along the principal axes
    of its posterior, first those of the curvature, then those of its own moments (adaptive quadrature: Naylor and
    Smith 1982, "Applications of a method for the efficient computation of posterior distributions").

    Args:
        projection: the family and the points.
        start: float64, shape (p,): parameters to search from.
        floor: a sum of squares too small to tell from none.
        share: how much of one independent point each point tells.
    """
    low, high = projection.family.bounds
    width = high - low
    best, curvature = projection.refined(start)
    n, freedom = len(projection.values), projection.freedom
    if curvature is None:
        centre, covariance = (low + high) / 2, np.diag(width**2 / 12)
    else:
        whole = np.einsum("n,n->", projection.values, projection.values)
        part = (_measured(projection, best[None])[0][0] + floor) / (whole + floor)
        centre, covariance = best, _within(curvature * part / (n * share), width)
    for _ in range(_ROUNDS):
        parameters = _lattice(centre, covariance)
        parameters = parameters[np.all((parameters >= low) & (parameters <= high), axis=1)]
        squares, prior = _measured(projection, parameters)
        weights = prior * ((squares.min() + floor) / (squares + floor)) ** (share * freedom / 2)
        if not weights.any():  # no shape is told apart from a level, as where the curve is constant
            weights = np.ones(len(parameters))
        weights = weights / weights.sum()
        centre = np.einsum("k,kp->p", weights, parameters)
        around = parameters - centre
        covariance = _within(np.einsum("k,ki,kj->ij", weights, around, around), width)
    least = _measured(projection, best[None])[0][0]
    if squares.min() < least:
        best, least = parameters[np.argmin(squares)], squares.min()
    return Posterior(projection, share, parameters, weights, best, float(least))


def _measured(projection: Projection, parameters: Floats) -> tuple[Floats, Floats]:
    """Return the sum of squares each shape leaves, (k,), and Jeffreys' prior density of it up to a constant, (k,).

    The density is how far the curve moves where the shape changes.
    """
    count, among = parameters.shape[1], len(parameters)
    moved = np.concatenate([parameters, *(parameters + _NUDGE * axis for axis in np.eye(count))])
    rest = projection.split(moved)[1]
    slope, size = projection.slopes(rest)
    told = np.isfinite(size)
    size = np.sqrt(np.where(told, size, 1.0))
    pull = slope[:among] * size[:among]
    unit = (rest * (told / size)[:, None]).reshape(1 + count, among, -1)
    turned = (unit[1:] - unit[0]) / _NUDGE
    information = np.linalg.det(np.einsum("akn,bkn->kab", turned, turned))
    prior = np.abs(pull) ** count * np.sqrt(np.maximum(information, 0.0))
    values = projection.values
    return np.maximum(np.einsum("n,n->", values, values) - pull**2, 0.0), prior


def _within(covariance: Floats, width: Floats) -> Floats:
    """Return a covariance no wider than one even within the bounds, and not too narrow for numbers to tell."""
    scales, axes = np.linalg.eigh(covariance / np.outer(width, width))
    scales = np.clip(scales, 1e-18, 1 / 12)
    return np.asarray(np.einsum("ik,k,jk->ij", axes, scales, axes) * np.outer(width, width))


def _lattice(centre: Floats, covariance: Floats) -> Floats:
    """Return points evenly spread along the principal axes of a covariance about a centre, shape (k, p)."""
    line = np.linspace(-_REACH, _REACH, _CELLS[len(centre)])
    steps = np.stack(np.meshgrid(*[line] * len(centre), indexing="ij"), axis=-1).reshape(-1, len(centre))
    scales, axes = np.linalg.eigh(covariance)
    lengths = np.sqrt(np.maximum(scales, 0.0))  # rounding may leave the shortest axis less than none
    return np.asarray(centre + np.einsum("kp,ip->ki", steps, axes * lengths))
