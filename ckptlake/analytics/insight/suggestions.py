"""What to try next: params that a sampler would pick after all finished runs, and what a forest expects of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from ckptlake.analytics import charts
from ckptlake.analytics.arguments import check_count, check_direction
from ckptlake.analytics.frames import Columns, Floats, check_columns, sample
from ckptlake.analytics.insight.design import Design, design_of, encoded
from ckptlake.analytics.insight.forest import (
    TREES,
    check_of_forest,
    check_seed,
    cross_validated,
    fit,
    moments,
)
from ckptlake.analytics.insight.space import Param, Space, written
from ckptlake.analytics.insight.studies import pick, silent_optuna, study_of, trials_of
from ckptlake.analytics.results import Result, doubt
from ckptlake.analytics.wording import listing, number, plural
from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction

_MOST_SUGGESTIONS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Suggestions(Result):
    """Params to try next.

    Attributes:
        result: the column with the results.
        direction: ``"min"`` or ``"max"``.
        best: the best result so far.
        table: one row a suggestion, the most promising first: a column a param (null where it does not exist),
            `expected` and `sd` (what the forest predicts, in the unit of the result) and `expected_improvement` (over
            the best result, in that unit).
        explained: R² of the forest for runs it has not seen.
    """

    result: str
    direction: Direction
    best: float
    table: pl.DataFrame
    explained: float

    def sentence(self) -> str:
        first = self.table.row(0, named=True)
        params = self.table.drop("expected", "sd", "expected_improvement").columns
        told = listing((f"{name} = {written(first[name])}" for name in params if first[name] is not None), 20)
        tried = (
            f"After {plural(self.n, 'run')} with a best {self.result} of {number(self.best)}, try {told}: a forest "
            f"expects {number(first['expected'])} ± {number(first['sd'], 2)}, an improvement by "
            f"{number(first['expected_improvement'], 2)} on average."
        )
        return f"{tried} But {denied}." if (denied := doubt(self.checks)) else tried

    def chart(self) -> charts.Chart:
        rows = self.table.select(
            "expected",
            suggestion=pl.lit("suggestion ") + (pl.int_range(pl.len()) + 1).cast(pl.String),
            low=pl.col("expected") - pl.col("sd"),
            high=pl.col("expected") + pl.col("sd"),
        )
        return charts.interval_chart(
            f"What a forest expects of suggestions, ± 1 standard deviation; dashed: the best {self.result} so far",
            rows.iter_rows(named=True),
            label="suggestion",
            value=charts.Axis("expected", f"expected {self.result}"),
            low="low",
            high="high",
            reference=self.best,
        )


def suggestions(
    runs: pl.DataFrame, result: str, params: Columns | None = None, *, direction: Direction, k: int = 5, seed: int = 0
) -> Suggestions:
    """Return params to try next, within the ranges that were tried.

    The sampler is optuna's TPE (Bergstra et al. 2011), told of every run; it takes each suggestion before for a bad
    result, so that suggestions differ, and draws at random while there are fewer than 10 runs. They are ordered by
    expected improvement (Jones, Schonlau & Welch 1998) under a normal distribution with the mean and variance of a
    random forest (Hutter et al. 2014). A run whose result is NaN or infinite has diverged: the sampler takes it for the
    worst of all, the forest for the worst finite one. A conditional param is suggested where its condition holds;
    without a known condition it is left out. An integer of a few values stays among those.

    Args:
        runs: one row a run; a missing result is left out and counted.
        result: the column with the results.
        params: the columns with params; by default all but ``run_id`` and `result`.
        direction: ``"min"`` if less is better, or ``"max"``.
        k: how many.
        seed: what all randomness starts from.

    Raises:
        NotEnoughDataError: fewer than 10 runs have a finite result.
        InvalidInputError: a column is missing, the results are all equal, or no param varies that can be suggested.
        MissingDependencyError: optuna or scikit-learn is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> runs = pl.DataFrame({"lr": 10 ** rng.uniform(-4, -1, 60), "width": rng.choice([64, 128, 256], 60)})
        >>> runs = runs.with_columns(loss=(pl.col("lr").log10() + 3) ** 2)
        >>> found = suggestions(runs, "loss", direction="min", k=2)
        >>> found.table.columns, set(found.table["width"]) <= {64, 128, 256}
        (['lr', 'width', 'expected', 'sd', 'expected_improvement'], True)
    """
    check_direction(direction)
    check_count(k, "k", most=_MOST_SUGGESTIONS)
    check_seed(seed)
    check_columns(runs, [])
    sign = 1.0 if direction == "min" else -1.0
    given = runs.filter(pl.col(result).is_not_null()) if result in runs.columns else runs
    observed = design_of(given, result, params)
    worst = sign * float((sign * observed.y).max())
    finite = pl.col(result).cast(pl.Float64).is_finite()
    design = design_of(given.with_columns(pl.when(finite).then(result).otherwise(worst).alias(result)), result, params)
    left_out = _unknown_conditions(design.space)
    space = Space(tuple(param for param in design.space.params if param not in left_out), (), design.n)
    if not space.params:
        raise InvalidInputError(f"nothing can be suggested: it is not known when {left_out[0].name!r:.100} exists")
    picked = _picked(design, space, _losses(given, result, sign), k, seed)
    known = _in_full(picked, design.space)
    model = fit(design.x, design.y, seed=seed)
    mean, sd = moments(model, encoded(design.space, known))
    best = sign * float((sign * observed.y).min())
    gain = expected_improvement(sign * mean, sd, sign * best)
    table = picked.with_columns(expected=mean, sd=sd, expected_improvement=gain)
    share = cross_validated(design, seed=seed)
    return Suggestions(
        n=design.n,
        method=f"TPE sampler of optuna, ordered by the expected improvement under a random forest of {TREES} trees",
        result=result,
        direction=direction,
        best=best,
        table=table.sort("expected_improvement", descending=True, maintain_order=True),
        explained=share,
        checks=(check_of_forest(share, design.n),),
        notes=(
            *_notes_of_results(runs, result),
            *design.notes,
            *(f"{param.name} is not suggested: no other param tells when it exists" for param in left_out),
            *_at_the_edge(design, sign),
        ),
    )


def expected_improvement(mean: Floats, sd: Floats, best: float) -> Floats:
    """Return by how much a normal result is expected to lie below the best one, counting what is above as nothing.

    Args:
        mean: float64, shape (n,).
        sd: float64, shape (n,); 0 where the result is certain.
        best: what is to be improved on.

    Example:
        >>> expected_improvement(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 2.0).round(4).tolist()
        [2.0085, 1.0]
    """
    gain = best - mean
    z = np.divide(gain, sd, out=np.zeros_like(gain), where=sd > 0)
    return np.where(sd > 0, gain * stats.norm.cdf(z) + sd * stats.norm.pdf(z), np.maximum(gain, 0.0))


def _losses(runs: pl.DataFrame, result: str, sign: float) -> Floats:
    """Return results of which less is better, infinite for runs that diverged."""
    values = sign * runs[result].cast(pl.Float64).to_numpy()
    return np.where(np.isfinite(values), values, np.inf)


def _unknown_conditions(space: Space) -> list[Param]:
    return [param for param in space.params if param.is_conditional and param.condition is None]


def _picked(design: Design, space: Space, losses: Floats, k: int, seed: int) -> pl.DataFrame:
    """Return what the sampler picks, one row a suggestion."""
    with silent_optuna("suggesting params") as optuna:
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        study = study_of(optuna, trials_of(optuna, space, design.runs, losses), "min", sampler)
        rows = [_pick(study.ask(), space) for _ in range(k)]
    return pl.DataFrame(rows, schema={param.name: _dtype(param) for param in space.params})


def _pick(trial: Any, space: Space) -> dict[str, Any]:
    picked: dict[str, Any] = {}
    for param in sorted(space.params, key=lambda param: param.is_conditional):
        if param.condition is not None and picked[param.condition.param] not in param.condition.values:
            picked[param.name] = None
        else:
            picked[param.name] = pick(trial, param)
    return picked


def _dtype(param: Param) -> Any:
    return {"float": pl.Float64, "int": pl.Int64, "bool": pl.Boolean, "categorical": pl.String}[param.kind]


def _in_full(picked: pl.DataFrame, space: Space) -> pl.DataFrame:
    absent = [
        pl.lit(None, _dtype(param)).alias(param.name) for param in space.params if param.name not in picked.columns
    ]
    return picked.with_columns(absent)


def _notes_of_results(runs: pl.DataFrame, result: str) -> tuple[str, ...]:
    found = sample(runs, result, result)
    told = (
        (found.n_missing, "has no {result} and is left out", "have no {result} and are left out"),
        (found.n_nonfinite, "diverged and counts as the worst", "diverged and count as the worst"),
    )
    return tuple(
        f"{plural(count, 'run')} {(one if count == 1 else many).format(result=result)}"
        for count, one, many in told
        if count
    )


def _at_the_edge(design: Design, sign: float) -> tuple[str, ...]:
    """Tell of numbers whose best run lies at an end of what was tried: the optimum may lie beyond."""
    row = design.runs.row(int(np.argmin(sign * design.y)), named=True)
    ends = ((param, row[param.name]) for param in design.space.params if param.is_numeric)
    return tuple(
        f"the best run has {param.name} = {number(value)}, the {'least' if value == param.low else 'greatest'} value "
        "tried: suggestions stay within the range, the optimum may lie beyond"
        for param, value in ends
        if value in (param.low, param.high)
    )
