"""Which params mattered: by functional ANOVA, by what the best runs have in common, and by permutation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics import charts
from ckptlake.analytics.arguments import check_count, check_direction, check_probability
from ckptlake.analytics.frames import Columns, Floats
from ckptlake.analytics.insight.decomposition import shares_of
from ckptlake.analytics.insight.design import Design, design_of
from ckptlake.analytics.insight.forest import (
    TREES,
    TREES_OF_A_DRAW,
    TREES_OF_A_FOLD,
    check_draws,
    check_of_forest,
    check_seed,
    explained,
    fit,
    forests_of_folds,
)
from ckptlake.analytics.insight.studies import silent_optuna, study_of, trials_of
from ckptlake.analytics.progress import track
from ckptlake.analytics.results import Check, Result, doubt
from ckptlake.analytics.wording import listing, number, percent, plural
from ckptlake.types import Direction

LEVEL = 0.95
_FEWEST_BEST = 5
_MOST_REPEATS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Importance(Result):
    """How much each param mattered for a result.

    Attributes:
        result: the column with the results.
        table: one row a param, the most important first: `param`, `importance`, `low` and `high` (the middle 95 % over
            draws of the runs), `n` (the runs that have it).
        measure: what an importance is a share of.
        explained: R² of the forest for runs it has not seen; None for a method without a forest.
    """

    result: str
    table: pl.DataFrame
    measure: str
    explained: float | None = None

    def sentence(self) -> str:
        if denied := doubt(self.checks):
            return f"No order of the params can be told for {self.result}: {denied}."
        ranked = [
            f"{row['param']} {number(row['importance'], 3)} ({number(row['low'], 3)} to {number(row['high'], 3)})"
            for row in self.table.head(3).iter_rows(named=True)
        ]
        return (
            f"What mattered most for {self.result} over {plural(self.n, 'run')}: {listing(ranked)}, as {self.measure}."
        )

    def chart(self) -> charts.Chart:
        return charts.bar_chart(
            f"Importance of params for {self.result}",
            self.table.iter_rows(named=True),
            label="param",
            value=charts.Axis("importance", self.measure),
            low="low",
            high="high",
        )


def fanova_importance(
    runs: pl.DataFrame, result: str, params: Columns | None = None, *, draws: int = 40, seed: int = 0
) -> Importance:
    """Return the share of a forest's variance over the search space that each param explains by itself.

    Functional ANOVA over a random forest (Hutter, Hoos & Leyton-Brown 2014, "An efficient approach for assessing
    hyperparameter importance"): the answer is about the whole space, each param on its own scale, good regions and bad.
    The range of each importance is the middle 95 % over forests fitted to runs drawn again with replacement, moved to
    lie around the estimate, since runs drawn twice make params look plainer than they are. It tells how firm the answer
    is, and is no test against zero: an importance is never negative.

    Args:
        runs: one row a run; runs whose result is missing, NaN or infinite are left out and counted.
        result: the column with the results.
        params: the columns with params; by default all but ``run_id`` and `result`.
        draws: how often runs are drawn again.
        seed: what all randomness starts from.

    Raises:
        NotEnoughDataError: fewer than 10 runs have a finite result.
        InvalidInputError: a column is missing, the results are all equal, or no param varies.
        MissingDependencyError: scikit-learn is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> runs = pl.DataFrame({"lr": 10 ** rng.uniform(-4, -1, 60), "width": rng.integers(16, 512, 60)})
        >>> runs = runs.with_columns(loss=3 * pl.col("lr").log10() + 0.1 * pl.col("width").sqrt())
        >>> found = fanova_importance(runs, "loss", draws=5)
        >>> found.table["param"].to_list(), found.table["importance"][0] > 0.8
        (['lr', 'width'], True)
    """
    check_draws(draws)
    check_seed(seed)
    design = design_of(runs, result, params)

    def shares(at: np.ndarray, draw: int, trees: int) -> Floats:
        model = fit(design.x[at], design.y[at], seed=seed + draw, trees=trees)
        return shares_of(model, design.space.params, design.columns, pairs=False).single

    rng = np.random.default_rng(seed)
    estimate = shares(np.arange(design.n), 0, TREES)
    drawn = [
        shares(rng.integers(0, design.n, design.n), draw, TREES_OF_A_DRAW)
        for draw in track(range(1, draws + 1), "drawing runs again")
    ]
    share = explained(design, forests_of_folds(design, seed=seed))
    return Importance(
        n=design.n,
        method=f"functional ANOVA over a random forest of {TREES} trees, {draws} draws of the runs",
        result=result,
        table=_table(design, estimate, _centred(np.stack(drawn), estimate)),
        measure="share of the variance over the search space",
        explained=share,
        checks=(check_of_forest(share, design.n),),
        notes=design.notes,
    )


def permutation_importance(
    runs: pl.DataFrame,
    result: str,
    params: Columns | None = None,
    *,
    repeats: int = 10,
    draws: int = 1000,
    seed: int = 0,
) -> Importance:
    """Return how much worse a forest predicts runs it has not seen once a param's values are exchanged.

    Permutation importance (Breiman 2001; Fisher, Rudin & Dominici 2019) in cross-validation: 1 is an increase of the
    squared error by the variance of the results. The range is a percentile bootstrap over configurations of their mean
    increase, for the forests as fitted; a range that reaches 0 tells of no visible importance. Of params that go along
    with each other each seems to matter less than it does.

    Args:
        runs: one row a run; runs whose result is missing, NaN or infinite are left out and counted.
        result: the column with the results.
        params: the columns with params; by default all but ``run_id`` and `result`.
        repeats: how often each param is permuted.
        draws: how often configurations are drawn again.
        seed: what all randomness starts from.

    Raises:
        NotEnoughDataError: fewer than 10 runs have a finite result.
        InvalidInputError: a column is missing, the results are all equal, or no param varies.
        MissingDependencyError: scikit-learn is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> runs = pl.DataFrame({"lr": 10 ** rng.uniform(-4, -1, 60), "width": rng.integers(16, 512, 60)})
        >>> found = permutation_importance(runs.with_columns(loss=pl.col("lr").log10()), "loss")
        >>> found.table["param"][0], found.table["low"][0] > 0.5
        ('lr', True)
    """
    check_count(repeats, "repeats", most=_MOST_REPEATS)
    check_draws(draws)
    check_seed(seed)
    design = design_of(runs, result, params)
    rng = np.random.default_rng(seed)
    forests = forests_of_folds(design, seed=seed)
    increase = np.zeros((design.n, len(design.columns)))
    for model, unseen in track(forests, "permuting params"):
        x, y = design.x[unseen], design.y[unseen]
        error = (y - model.predict(x)) ** 2
        for place, columns in enumerate(design.columns):
            donors = np.concatenate([rng.permutation(design.n)[: len(y)] for _ in range(repeats)])
            exchanged = np.tile(x, (repeats, 1))
            exchanged[:, columns] = design.x[donors, columns]
            predicted = model.predict(exchanged).reshape(repeats, -1)
            increase[unseen, place] = ((y - predicted) ** 2).mean(0) - error
    increase /= np.var(design.y)
    share = explained(design, forests)
    return Importance(
        n=design.n,
        method=f"permutation of each param in cross-validation of a random forest of {TREES_OF_A_FOLD} trees",
        result=result,
        table=_table(design, increase.mean(0), _means_of_draws(increase, design.configurations, draws, rng)),
        measure="squared error gained, in variances of the result",
        explained=share,
        checks=(check_of_forest(share, design.n),),
        notes=design.notes,
    )


def ped_anova_importance(
    runs: pl.DataFrame,
    result: str,
    params: Columns | None = None,
    *,
    direction: Direction,
    best: float = 0.1,
    draws: int = 40,
    seed: int = 0,
) -> Importance:
    """Return which params set the best runs apart from all others, as shares that sum to 1.

    PED-ANOVA (Watanabe, Bansal & Hutter 2023), by optuna's evaluator: it compares where the best runs lie along each
    param with where all runs lie. It fits no forest, sees no interactions, and answers what it took to be among the
    best rather than what moves the result. The range of each share is the middle 95 % over runs drawn again with
    replacement, moved to lie around the estimate. Shares of noise alone are not zero: compare the ranges.

    Args:
        runs: one row a run; runs whose result is missing, NaN or infinite are left out and counted.
        result: the column with the results.
        params: the columns with params; by default all but ``run_id`` and `result`.
        direction: ``"min"`` if less is better, or ``"max"``.
        best: which share of the runs counts as the best, between 0 and 1.
        draws: how often runs are drawn again.
        seed: what the draws start from.

    Raises:
        NotEnoughDataError: fewer than 10 runs have a finite result.
        InvalidInputError: a column is missing, the results are all equal, or no param varies.
        MissingDependencyError: optuna is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> runs = pl.DataFrame({"lr": 10 ** rng.uniform(-4, -1, 60), "width": rng.integers(16, 512, 60)})
        >>> runs = runs.with_columns(loss=(pl.col("lr").log10() + 2) ** 2)
        >>> ped_anova_importance(runs, "loss", direction="min", draws=5).table["param"].to_list()
        ['lr', 'width']
    """
    check_direction(direction)
    check_draws(draws)
    check_seed(seed)
    check_probability(best, "best", 0.1)
    design = design_of(runs, result, params)
    rng = np.random.default_rng(seed)
    with silent_optuna("PED-ANOVA") as optuna:
        trials = trials_of(optuna, design.space, design.runs, design.y)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)

        def shares(at: np.ndarray) -> Floats:
            found = evaluator.evaluate(study_of(optuna, [trials[place] for place in at], direction))
            values = np.array([found.get(name, 0.0) for name in design.space.names])
            return np.asarray(values / values.sum() if values.sum() > 0 else values)

        estimate = shares(np.arange(design.n))
        drawn = [shares(rng.integers(0, design.n, design.n)) for _ in track(range(draws), "drawing runs again")]
    return Importance(
        n=design.n,
        method=f"PED-ANOVA of the best {percent(best)} of the runs, {draws} draws of the runs",
        result=result,
        table=_table(design, estimate, _centred(np.stack(drawn), estimate)),
        measure="share of what sets the best runs apart",
        checks=_checks_of_best(design.y if direction == "min" else -design.y, best),
        notes=design.notes,
    )


def _checks_of_best(losses: Floats, best: float) -> tuple[Check, ...]:
    limit = np.sort(losses)[int(np.ceil(best * len(losses))) - 1]
    n_best = int((losses <= limit).sum())
    evidence = f"{n_best:,} of {plural(len(losses), 'run')}"
    return (
        Check(f"at least {_FEWEST_BEST} runs are the best", n_best >= _FEWEST_BEST, evidence),
        Check("the best runs are fewer than half", n_best < len(losses) / 2, evidence),
    )


def _table(design: Design, estimate: Floats, drawn: Floats) -> pl.DataFrame:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return pl.DataFrame({
        "param": design.space.names,
        "importance": estimate,
        "low": low,
        "high": high,
        "n": [param.n for param in design.space.params],
    }).sort("importance", descending=True, maintain_order=True)  # fmt: skip


def _centred(drawn: Floats, estimate: Floats) -> Floats:
    """Return shares with their odds scaled so that their median is the estimate, where both lie within 0 and 1."""
    middle = np.median(drawn, axis=0)
    movable = (middle > 0) & (middle < 1) & (estimate > 0) & (estimate < 1)
    known, place = np.where(movable, estimate, 0.5), np.where(movable, middle, 0.5)
    factor = known / (1 - known) * (1 - place) / place
    return np.asarray(np.where(movable, drawn * factor / (1 - drawn + drawn * factor), drawn))


def _means_of_draws(values: Floats, clusters: np.ndarray, draws: int, rng: np.random.Generator) -> Floats:
    """Return means over runs of clusters that are drawn again, shape (draws, columns)."""
    sizes = np.bincount(clusters)
    sums = np.stack([np.bincount(clusters, weights=column) for column in values.T], axis=1)
    times = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=draws)
    return np.asarray((times @ sums) / (times @ sizes)[:, None])
