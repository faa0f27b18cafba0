"""Which params matter only together: pairwise interactions, and whether noise alone would show as much."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from ckptlake.analytics import charts
from ckptlake.analytics.frames import Columns, Floats
from ckptlake.analytics.insight.decomposition import Shares, shares_of
from ckptlake.analytics.insight.design import Design, design_of
from ckptlake.analytics.insight.forest import (
    TREES,
    TREES_OF_A_DRAW,
    check_draws,
    check_of_forest,
    check_seed,
    cross_validated,
    fit,
)
from ckptlake.analytics.libraries import need
from ckptlake.analytics.progress import track
from ckptlake.analytics.results import Result
from ckptlake.analytics.wording import listing, number, p_value, plural
from ckptlake.errors import InvalidInputError

_ALPHA = 0.05
_FEWEST_DRAWS = 19
"""Fewer cannot give a p below 0.05."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Interactions(Result):
    """How much each pair of params explains only together.

    Attributes:
        result: the column with the results.
        table: one row a pair, the strongest first: `one`, `two`, `interaction` (share of the variance over the space
            that neither explains alone), `h_squared` (that share of what the two explain in all), `by_chance` (the
            strongest of all pairs to expect where there is none) and `p` (corrected for the number of pairs).
        explained: R² of the forest for runs it has not seen.
    """

    result: str
    table: pl.DataFrame
    explained: float

    def sentence(self) -> str:
        told = [
            f"{row['one']} with {row['two']} ({number(row['interaction'], 3)} of the variance, {p_value(row['p'])})"
            for row in self.table.filter(pl.col("p") <= _ALPHA).iter_rows(named=True)
        ]
        if not told:
            return (
                f"No two params visibly depend on each other for {self.result}: {plural(self.table.height, 'pair')} "
                f"over {plural(self.n, 'run')}, the strongest {p_value(self.table['p'][0])}."
            )
        return f"For {self.result} over {plural(self.n, 'run')}, these depend on each other: {listing(told)}."

    def chart(self) -> charts.Chart:
        rows = self.table.select("interaction", pair=pl.concat_str("one", pl.lit(" × "), "two"), zero=pl.lit(0.0))
        return charts.interval_chart(
            f"Interactions of params for {self.result}; dashed: the strongest that chance shows",
            rows.iter_rows(named=True),
            label="pair",
            value=charts.Axis("interaction", "share of the variance that only the pair explains", zero=True),
            low="zero",
            high="interaction",
            reference=float(self.table["by_chance"][0]),
        )


def interactions(
    runs: pl.DataFrame, result: str, params: Columns | None = None, *, draws: int = 39, seed: int = 0
) -> Interactions:
    """Return the share of a forest's variance that each pair of params explains only together.

    Pairwise functional ANOVA over a random forest (Hutter, Hoos & Leyton-Brown 2014); `h_squared` is the H² of Friedman
    & Popescu 2008 ("Predictive learning via rule ensembles"), with all values of the space weighing the same instead
    of the runs. A forest shows some interaction in any noise, so its own measure is no evidence. As Friedman & Popescu
    propose, results are made up of a model without interactions (boosted trees of one split) and its residuals in
    random order, and forests are fitted to those: p is how often the strongest pair of these is as strong. A forest
    understates a pair of params that have no effect of their own, since trees seldom split there first.

    Args:
        runs: one row a run; runs whose result is missing, NaN or infinite are left out and counted.
        result: the column with the results.
        params: the columns with params; by default all but ``run_id`` and `result`.
        draws: how many results without interactions are made up, 19 or more.
        seed: what all randomness starts from.

    Raises:
        NotEnoughDataError: fewer than 10 runs have a finite result.
        InvalidInputError: a column is missing, the results are all equal, or fewer than two params vary.
        MissingDependencyError: scikit-learn is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> runs = pl.DataFrame({"a": rng.random(80), "b": rng.random(80), "c": rng.random(80)})
        >>> runs = runs.with_columns(loss=(pl.col("a") - 0.5) * (pl.col("b") - 0.5) + 0.1 * pl.col("c"))
        >>> found = interactions(runs, "loss", draws=19)
        >>> found.table.select("one", "two", pl.col("p").round(2)).row(0)
        ('a', 'b', 0.05)
    """
    check_draws(draws, least=_FEWEST_DRAWS)
    check_seed(seed)
    design = design_of(runs, result, params)
    names = design.space.names
    if len(names) < 2:
        raise InvalidInputError(f"{names[0]!r:.100} alone varies: an interaction takes two params")
    pairs = list(combinations(range(len(names)), 2))
    observed = _shares(design, design.y, seed=seed, trees=TREES)
    strength = np.array([observed.pairs[pair] for pair in pairs])
    strongest = np.array([
        _shares(design, made_up, seed=seed + 1, trees=TREES_OF_A_DRAW).pairs.max()
        for made_up in track(_without_interactions(design, draws, seed), "looking at noise")
    ])  # fmt: skip
    share = cross_validated(design, seed=seed)
    whole = strength + np.array([observed.single[[one, two]].sum() for one, two in pairs])
    table = pl.DataFrame({
        "one": [names[one] for one, _ in pairs],
        "two": [names[two] for _, two in pairs],
        "interaction": strength,
        "h_squared": np.divide(strength, whole, out=np.zeros_like(whole), where=whole > 0),
        "by_chance": np.full(len(pairs), np.quantile(strongest, 1 - _ALPHA)),
        "p": [(1 + int((strongest >= value).sum())) / (1 + draws) for value in strength],
    }).sort("interaction", descending=True, maintain_order=True)  # fmt: skip
    return Interactions(
        n=design.n,
        method=f"pairwise functional ANOVA over a random forest of {TREES} trees, against {draws} draws without pairs",
        result=result,
        table=table,
        explained=share,
        checks=(check_of_forest(share, design.n),),
        notes=design.notes,
    )


def _shares(design: Design, y: Floats, *, seed: int, trees: int) -> Shares:
    return shares_of(fit(design.x, y, seed=seed, trees=trees), design.space.params, design.columns)


def _without_interactions(design: Design, draws: int, seed: int) -> list[Floats]:
    ensemble = need("sklearn.ensemble", "a model without interactions")
    additive = ensemble.GradientBoostingRegressor(max_depth=1, random_state=seed).fit(design.x, design.y)
    fitted = additive.predict(design.x)
    rng = np.random.default_rng(seed)
    return [fitted + rng.permutation(design.y - fitted) for _ in range(draws)]
