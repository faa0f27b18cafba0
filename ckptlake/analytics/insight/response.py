"""How the result answers to one param, whatever the others are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ckptlake.analytics import charts
from ckptlake.analytics.arguments import check_count
from ckptlake.analytics.frames import Columns, Floats
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
from ckptlake.analytics.insight.importance import LEVEL
from ckptlake.analytics.insight.space import Param, written
from ckptlake.analytics.progress import track
from ckptlake.analytics.results import Result, doubt
from ckptlake.analytics.wording import number, plural

_MOST_POINTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Response(Result):
    """The mean result at values of one param.

    Attributes:
        result: the column with the results.
        param: the param, with its kind and scale.
        table: one row a value: `value` (a number, or text), `mean` (in the unit of the result), `low` and `high` (the
            middle 95 % over draws of the runs).
        explained: R² of the forest for runs it has not seen.
    """

    result: str
    param: Param
    table: pl.DataFrame
    explained: float

    def sentence(self) -> str:
        least, most = (self.table.sort("mean", maintain_order=True)[place] for place in (0, -1))
        told = [
            f"{word} at {self.param.name} = {written(row['value'][0])} ({number(row['mean'][0])}, "
            f"{number(row['low'][0])} to {number(row['high'][0])})"
            for word, row in (("least", least), ("greatest", most))
        ]
        told_over = f"Over {plural(self.n, 'run')} the mean {self.result} is {told[0]} and {told[1]}."
        return f"{told_over} But {denied}." if (denied := doubt(self.checks)) else told_over

    def chart(self) -> charts.Chart:
        title = f"{self.result} by {self.param.name}, the other params as they were"
        rows = self.table.iter_rows(named=True)
        value = charts.Axis("mean", f"mean {self.result}")
        if not self.param.is_numeric:
            return charts.interval_chart(title, rows, label="value", value=value, low="low", high="high")
        x = charts.Axis("value", self.param.name, log=self.param.log)
        return charts.line_chart(title, rows, x=x, y=value, low="low", high="high")


def response(
    runs: pl.DataFrame,
    result: str,
    param: str,
    params: Columns | None = None,
    *,
    points: int = 25,
    draws: int = 40,
    seed: int = 0,
) -> Response:
    """Return the mean result at values of a param, the other params as they were in the runs.

    Partial dependence (Friedman 2001, "Greedy function approximation") of a random forest. The band is the middle 95 %
    over forests fitted to runs drawn again with replacement: it shows how firm the curve is, and leaves out what the
    forest smooths away. Numbers are looked at on their own scale over the range that was tried. For a conditional param
    only the runs that have it count.

    Args:
        runs: one row a run; runs whose result is missing, NaN or infinite are left out and counted.
        result: the column with the results.
        param: the param to look at.
        params: the columns with params; by default all but ``run_id`` and `result`.
        points: at how many values of a number; text, booleans and integers of a few values are looked at in full.
        draws: how often runs are drawn again.
        seed: what all randomness starts from.

    Raises:
        NotEnoughDataError: fewer than 10 runs have a finite result.
        InvalidInputError: a column is missing, the results are all equal, or the param does not vary.
        MissingDependencyError: scikit-learn is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> runs = pl.DataFrame({"lr": 10 ** rng.uniform(-4, -1, 80), "opt": ["sgd", "adam"] * 40})
        >>> runs = runs.with_columns(loss=(pl.col("lr").log10() + 3) ** 2)
        >>> table = response(runs, "loss", "lr", points=7, draws=5).table
        >>> round(float(table.sort("mean")["value"][0]), 4)
        0.001
    """
    check_draws(draws)
    check_seed(seed)
    check_count(points, "points", least=2, most=_MOST_POINTS)
    design = design_of(runs, result, params)
    looked_at = design.space.get(param)
    columns = design.columns[design.space.names.index(param)]
    values, places = _places(looked_at, points)

    def means(at: np.ndarray, draw: int, trees: int) -> Floats:
        model = fit(design.x[at], design.y[at], seed=seed + draw, trees=trees)
        return partial_dependence(model, _with_param(design, looked_at, columns), columns, places)

    rng = np.random.default_rng(seed)
    mean = means(np.arange(design.n), 0, TREES)
    drawn = np.stack([
        means(rng.integers(0, design.n, design.n), draw, TREES_OF_A_DRAW)
        for draw in track(range(1, draws + 1), "drawing runs again")
    ])  # fmt: skip
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    share = cross_validated(design, seed=seed)
    condition = (f"{looked_at}: only the {plural(looked_at.n, 'run')} that have it count",) * looked_at.is_conditional
    return Response(
        n=looked_at.n,
        method=f"partial dependence of a random forest of {TREES} trees, {draws} draws of the runs",
        result=result,
        param=looked_at,
        table=pl.DataFrame(
            {"value": values, "mean": mean, "low": np.minimum(low, mean), "high": np.maximum(high, mean)}
        ),
        explained=share,
        checks=(check_of_forest(share, design.n),),
        notes=(*design.notes, *condition),
    )


def partial_dependence(model: Any, x: Floats, columns: slice, places: Floats) -> Floats:
    """Return the mean prediction over rows with some columns set to each of several places.

    Args:
        model: what predicts, such as a forest.
        x: float64, shape (n, columns).
        columns: which columns are set.
        places: float64, shape (places, set columns).

    Returns:
        float64, shape (places,), in the unit of the results.
    """
    rows = np.tile(x, (len(places), 1))
    rows[:, columns] = np.repeat(places, len(x), axis=0)
    return np.asarray(model.predict(rows).reshape(len(places), len(x)).mean(1))


def _places(param: Param, points: int) -> tuple[list[Any], Floats]:
    """Return values of a param, and the columns that stand for each."""
    if not param.is_numeric:
        return [str(choice) for choice in param.choices], np.eye(len(param.choices))
    values = np.array(param.grid, np.float64) if param.grid else param.value_at(np.linspace(0, 1, points))
    unit = param.unit_of(values)[:, None]
    return values.tolist(), np.hstack([unit, np.ones_like(unit)]) if param.is_conditional else unit


def _with_param(design: Design, param: Param, columns: slice) -> Floats:
    """Return the rows of runs that have a param."""
    if not param.is_conditional:
        return design.x
    held = design.x[:, columns]
    return design.x[held[:, -1] == 1.0 if param.is_numeric else held.any(axis=1)]
