"""Runs as the numbers a forest learns from: a matrix of params, each on its own scale, and their results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_magnitude
from ckptlake.analytics.frames import Columns, Floats, sample
from ckptlake.analytics.insight.space import Param, Space, finite_or_null, space_of
from ckptlake.analytics.wording import listing, number, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError

FEWEST_RUNS = 10
_ABSENT = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """Runs with a finite result, ready for a model.

    Attributes:
        space: the search space of these runs.
        runs: the runs, one row each.
        x: float64, shape (n, columns). A number is one column between 0 and 1 on its own scale, and a second one, 1 or
            0, if it is conditional: whether it exists. Text and booleans are one column a choice, all 0 if missing.
        y: float64, shape (n,): the results.
        columns: which columns of `x` belong to each param, in the order of the space.
        configurations: int64, shape (n,): equal for runs whose params are equal.
        notes: what was left out.
    """

    space: Space
    runs: pl.DataFrame
    x: Floats
    y: Floats
    columns: tuple[slice, ...]
    configurations: np.ndarray
    notes: tuple[str, ...]

    @property
    def n(self) -> int:
        return len(self.y)


def design_of(runs: pl.DataFrame, result: str, params: Columns | None = None) -> Design:
    """Return the runs that have a finite result, with their params as numbers.

    Args:
        runs: one row a run.
        result: the column with the results.
        params: the columns with params; by default all but ``run_id`` and `result`.

    Raises:
        NotEnoughDataError: fewer than 10 runs have a finite result.
        InvalidInputError: a column is missing, the results are all equal, huge or tiny, or no param varies.

    Example:
        >>> runs = pl.DataFrame({"lr": [1e-4, 1e-2] * 5 + [1e-3], "loss": [*range(10), None]})
        >>> design_of(runs, "loss").notes
        ('left out 1 of 11 runs: its loss is missing, NaN or infinite',)
    """
    results = sample(runs, result, result)
    usable = runs.filter(pl.col(result).cast(pl.Float64).is_finite().fill_null(False))
    if results.n < FEWEST_RUNS:
        raise NotEnoughDataError(
            f"{plural(results.n, 'run')} of {runs.height:,} with a finite {result!r:.100}: it takes {FEWEST_RUNS} to "
            "tell params apart"
        )
    check_magnitude(results.values, f"the column {result!r:.100}")
    if np.ptp(results.values) == 0:
        raise InvalidInputError(
            f"all {results.n:,} runs have the {result!r:.100} {number(results.values[0])}: no param mattered"
        )
    space = space_of(usable, params, but=() if params is not None else (result,))
    if not space.params:
        raise InvalidInputError(
            f"no param varies over {plural(results.n, 'run')}: {listing(map(str, space.left_out), 20)}"
        )
    n_out = runs.height - results.n
    whose = "its" if n_out == 1 else "their"
    lost = (f"left out {n_out:,} of {runs.height:,} runs: {whose} {result} is missing, NaN or infinite",) * bool(n_out)
    x = encoded(space, usable)
    _, configurations = np.unique(x, axis=0, return_inverse=True)
    return Design(space, usable, x, results.values, columns_of(space), configurations, (*lost, *space.notes))


def width_of(param: Param) -> int:
    """Return how many columns a param takes."""
    return 1 + param.is_conditional if param.is_numeric else len(param.choices)


def columns_of(space: Space) -> tuple[slice, ...]:
    """Return which columns each param takes, in the order of the space."""
    ends = np.cumsum([width_of(param) for param in space.params]).tolist()
    return tuple(slice(end - width_of(param), end) for param, end in zip(space.params, ends, strict=True))


def encoded(space: Space, runs: pl.DataFrame) -> Floats:
    """Return the params of runs as a matrix, float64 of shape (runs, columns)."""
    return np.hstack([_columns(param, finite_or_null(runs[param.name])) for param in space.params])


def _columns(param: Param, values: pl.Series) -> Floats:
    if not param.is_numeric:
        text = values if param.kind == "bool" else values.cast(pl.String)
        return np.column_stack([(text == choice).fill_null(False).to_numpy() for choice in param.choices]).astype(float)
    unit = param.unit_of(values.cast(pl.Float64).fill_null(float("nan")).to_numpy())
    exists = np.isfinite(unit)
    unit = np.where(exists, unit, _ABSENT)
    return np.column_stack([unit, exists.astype(float)]) if param.is_conditional else unit[:, None]
