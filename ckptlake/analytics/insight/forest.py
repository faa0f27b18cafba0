"""A random forest over the params of runs: what it has learned, and how sure it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckptlake.analytics.arguments import check_count
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.insight.design import Design
from ckptlake.analytics.libraries import need
from ckptlake.analytics.results import Check
from ckptlake.analytics.wording import number

TREES = 64
TREES_OF_A_DRAW = 16
TREES_OF_A_FOLD = 32
MOST_SEED = 2**31 - 1
"""Beyond, forests of the draws that follow could have no seed of their own: the library takes 32 bits."""
MOST_DRAWS = 100_000
_LEAF = 3
_FOLDS = 5


def check_seed(seed: int) -> None:
    """Raise unless forests can start from a seed.

    Raises:
        InvalidInputError: it is no whole number of 0 to 2,147,483,647.
    """
    check_count(seed, "seed", least=0, most=MOST_SEED)


def check_draws(draws: int, least: int = 2) -> None:
    """Raise unless runs are drawn often enough for a range, and not so often that it never ends.

    Raises:
        InvalidInputError: they are not.
    """
    check_count(draws, "draws", least=least, most=MOST_DRAWS)


def fit(x: Floats, y: Floats, *, seed: int, trees: int = TREES) -> Any:
    """Return a forest (Breiman 2001) fitted to results, a scikit-learn ``RandomForestRegressor``.

    Args:
        x: float64, shape (n, columns).
        y: float64, shape (n,).
        seed: what its randomness starts from.
        trees: how many trees it has.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    ensemble = need("sklearn.ensemble", "a forest over params")
    return ensemble.RandomForestRegressor(trees, min_samples_leaf=_LEAF, random_state=seed).fit(x, y)


def folds(configurations: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the fold of each run, int64 of shape (n,): at most 5, runs with equal params in the same one.

    A run whose twin with another seed helped to fit a forest is nothing new to it.
    """
    distinct = int(configurations.max()) + 1
    fold_of = np.random.default_rng(seed).permutation(distinct) % min(_FOLDS, distinct)
    return np.asarray(fold_of[configurations])


def forests_of_folds(design: Design, *, seed: int) -> list[tuple[Any, np.ndarray]]:
    """Return forests, each with the runs (a boolean mask) that it has not seen."""
    held = folds(design.configurations, seed=seed)
    return [
        (fit(design.x[held != fold], design.y[held != fold], seed=seed, trees=TREES_OF_A_FOLD), held == fold)
        for fold in np.unique(held)
    ]


def explained(design: Design, forests: list[tuple[Any, np.ndarray]]) -> float:
    """Return R², the share of the variance of results that forests predict for runs they have not seen."""
    predicted = np.empty(design.n)
    for model, unseen in forests:
        predicted[unseen] = model.predict(design.x[unseen])
    return float(1 - np.mean((design.y - predicted) ** 2) / np.var(design.y))


def cross_validated(design: Design, *, seed: int) -> float:
    """Return the share of the variance of results that forests predict for configurations they have not seen."""
    return explained(design, forests_of_folds(design, seed=seed))


def check_of_forest(share: float, n: int) -> Check:
    """Return whether a forest has learned anything that holds for runs it has not seen."""
    evidence = f"R² = {number(share, 3)} over {n:,} runs, in cross-validation by configuration"
    return Check("the params explain results of runs the forest has not seen", share > 0, evidence)


def moments(model: Any, x: Floats) -> tuple[Floats, Floats]:
    """Return the mean and the standard deviation of what a forest predicts at points.

    The variance is that between the trees' means plus the mean of that within their leaves, the law of total variance
    (Hutter, Xu, Hoos & Leyton-Brown 2014, "Algorithm runtime prediction", section 4.3.2).

    Args:
        model: a fitted forest.
        x: float64, shape (points, columns).

    Returns:
        Two arrays, float64 of shape (points,), in the unit of the results.
    """
    points = np.asarray(x, np.float32)
    leaves = [(tree.tree_, tree.tree_.apply(points)) for tree in model.estimators_]
    means = np.stack([tree.value[at, 0, 0] for tree, at in leaves])
    within = np.stack([tree.impurity[at] for tree, at in leaves])
    return means.mean(0), np.sqrt(means.var(0) + within.mean(0))
