"""The variance of a tree's prediction over a search space, taken apart by params: functional ANOVA on boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ckptlake.analytics.frames import Floats
from ckptlake.analytics.insight.space import Param


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """The shares of variance of a forest's prediction.

    Attributes:
        single: float64, shape (params,): what each param explains by itself.
        pairs: float64, shape (params, params): what two explain only together, symmetric, zero on the diagonal.
    """

    single: Floats
    pairs: Floats


def shares_of(model: Any, params: Sequence[Param], columns: Sequence[slice], *, pairs: bool = True) -> Shares:
    """Return functional ANOVA of a forest (Hutter, Hoos & Leyton-Brown 2014), the mean over its trees.

    A tree is constant on boxes, so its mean over all other params is a sum over leaves, and exact. All values of a
    param weigh the same on its own scale: on a logarithmic one each decade, of text each choice. A conditional param
    is missing as often as it was in the runs.

    Args:
        model: a forest fitted to the columns of a `Design`.
        params: the params of its space.
        columns: the columns of each.
        pairs: whether to work out pairs; they cost most of the time.

    Returns:
        Shares between 0 and 1; zeros where every tree is constant.
    """
    found = [tree_shares(tree.tree_, params, columns, pairs=pairs) for tree in model.estimators_]
    told = [share for share in found if share is not None]
    if not told:
        empty = np.zeros((len(params), len(params)))
        return Shares(empty[0], empty)
    return Shares(np.mean([share.single for share in told], 0), np.mean([share.pairs for share in told], 0))


def tree_shares(tree: Any, params: Sequence[Param], columns: Sequence[slice], *, pairs: bool = True) -> Shares | None:
    """Return functional ANOVA of one scikit-learn tree; None if it is constant."""
    low, high, value = _leaves(tree)
    parts = [_cells(param, low[:, at], high[:, at]) for param, at in zip(params, columns, strict=True)]
    inside = [_inside(points, low[:, at], high[:, at]) for (points, _), at in zip(parts, columns, strict=True)]
    weights = [weight for _, weight in parts]
    sizes = np.column_stack([leaf @ weight for leaf, weight in zip(inside, weights, strict=True)])
    volume = sizes.prod(1)
    value = np.asarray(value - volume @ value)
    total = volume @ value**2
    if total <= 0:
        return None
    single = np.array([
        weights[one] @ (inside[one].T @ (value * _without(sizes, one))) ** 2 for one in range(len(params))
    ])  # fmt: skip
    joint = np.zeros((len(params), len(params)))
    for one, two in combinations(range(len(params)), 2) if pairs else ():
        rest = value * _without(sizes, one, two)
        marginal = (inside[one] * rest[:, None]).T @ inside[two]
        joint[one, two] = joint[two, one] = weights[one] @ marginal**2 @ weights[two] - single[one] - single[two]
    return Shares(single / total, np.maximum(joint, 0.0) / total)


def _without(sizes: Floats, *params: int) -> Floats:
    return np.asarray(np.delete(sizes, params, axis=1).prod(axis=1, dtype=np.float64))


def _leaves(tree: Any) -> tuple[Floats, Floats, Floats]:
    """Return the boxes of the leaves, two arrays of shape (leaves, columns), and the values there.

    A point is in a box if it is above `low` and not above `high`.
    """
    left, right = tree.children_left, tree.children_right
    low = np.full((tree.node_count, tree.n_features), -np.inf)
    high = np.full((tree.node_count, tree.n_features), np.inf)
    for node in np.flatnonzero(left >= 0):  # parents come before their children
        feature, threshold = tree.feature[node], tree.threshold[node]
        for child in (left[node], right[node]):
            low[child], high[child] = low[node], high[node]
        high[left[node], feature] = low[right[node], feature] = threshold
    leaf = left < 0
    return low[leaf], high[leaf], tree.value[leaf, 0, 0]


def _cells(param: Param, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return the cells on which a tree is constant along a param: a point in each, and its share of the space."""
    if param.is_numeric:
        cuts = np.unique(np.concatenate([low[:, 0], high[:, 0]]))
        edges = np.concatenate([[0.0], cuts[(cuts > 0) & (cuts < 1)], [1.0]])
        points, weights = (edges[1:] + edges[:-1])[:, None] / 2, np.diff(edges)
        if not param.is_conditional:
            return points, weights
        points = np.hstack([points, np.ones_like(points)])
        absent = np.array([[0.5, 0.0]])
    else:
        points = np.eye(len(param.choices))
        weights = np.full(len(points), 1 / len(points))
        absent = np.zeros((1, len(points)))
    if not param.is_conditional:
        return points, weights
    missing = param.share_missing
    return np.vstack([points, absent]), np.append(weights * (1 - missing), missing)


def _inside(points: Floats, low: Floats, high: Floats) -> Floats:
    """Return 1.0 where a point lies in a box, shape (boxes, points)."""
    lies = (points[None] > low[:, None]) & (points[None] <= high[:, None])
    return np.asarray(lies.all(axis=2), np.float64)
