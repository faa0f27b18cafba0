"""Where no run has been: the widest gaps of a search space, and whether they are wider than chance leaves them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats
from scipy.spatial import cKDTree

from ckptlake.analytics import charts
from ckptlake.analytics.arguments import check_count
from ckptlake.analytics.frames import Columns, Floats, check_columns
from ckptlake.analytics.insight.design import columns_of, encoded
from ckptlake.analytics.insight.forest import check_draws, check_seed
from ckptlake.analytics.insight.space import Param, Space, space_of, written
from ckptlake.analytics.progress import track
from ckptlake.analytics.results import Result
from ckptlake.analytics.wording import listing, number, p_value, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError

_PROBES_LOG2 = 11
_FEWEST_RUNS = 2
_ALPHA = 0.05
_FEWEST_DRAWS = 19


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regions(Result):
    """The widest gaps of a search space.

    Attributes:
        table: one row a gap, the widest first: a column a param with the middle of the gap, `radius` (how far the
            nearest run is, where 1 is from one end of a single param to the other), `nearest` (that run's id, or its
            row) and `p` (how often as many runs strewn at random leave a gap as wide). Empty where runs fill a grid.
    """

    table: pl.DataFrame

    def sentence(self) -> str:
        if self.table.is_empty():
            return f"There is no gap: {plural(self.n, 'run')} have been at every point looked at."
        widest = self.table.row(0, named=True)
        params = self.table.drop("radius", "nearest", "p").columns
        told = listing((f"{name} = {written(widest[name])}" for name in params if widest[name] is not None), 20)
        verdict = "wider than chance leaves it" if widest["p"] <= _ALPHA else "no wider than chance leaves it"
        return (
            f"The widest gap between {plural(self.n, 'run')} is at {told}, {number(widest['radius'], 2)} from the "
            f"nearest run: {verdict} ({p_value(widest['p'])})."
        )

    def chart(self) -> charts.Chart:
        params = self.table.drop("radius", "nearest", "p").columns
        rows = self.table.with_columns(
            gap=pl.Series([listing((f"{name} {written(row[name])}" for name in params if row[name] is not None), 4)
                           for row in self.table.iter_rows(named=True)])
        )  # fmt: skip
        return charts.bar_chart(
            "The widest gaps between runs",
            rows.select("gap", "radius").iter_rows(named=True),
            label="gap",
            value=charts.Axis("radius", "distance to the nearest run, in ranges of a param"),
        )


def unexplored_regions(
    runs: pl.DataFrame, params: Columns | None = None, *, k: int = 5, draws: int = 99, seed: int = 0
) -> Regions:
    """Return where in the search space no run has been: the points farthest from all runs.

    Points are taken in turn, each the farthest from all runs and from the points before (maximin distance; Johnson,
    Moore & Ylvisaker 1990), among 2,048 points that fill the space evenly (Sobol', scrambled). Distance is Euclidean
    with each param from 0 to 1 on its own scale, and 1 between different texts or booleans. p compares the widest gap
    with those of as many runs strewn at random over the same space: a gap that chance leaves is no oversight. The space
    is the range that was tried, so what lies beyond is not seen.

    Args:
        runs: one row a run, with whatever result: a run that failed has been there too.
        params: the columns with params; by default all but ``run_id``. Results must not be among them.
        k: how many gaps.
        draws: how often runs are strewn at random, 19 or more.
        seed: what all randomness starts from.

    Raises:
        NotEnoughDataError: fewer than 2 runs.
        InvalidInputError: a column is missing, or no param varies.

    Example:
        >>> runs = pl.DataFrame({"a": [i / 10 for i in range(11)] * 2, "b": [0.1] * 11 + [0.9] * 11})
        >>> found = unexplored_regions(runs, k=1)
        >>> round(found.table["b"][0], 1), round(found.table["radius"][0], 1)
        (0.5, 0.5)
    """
    check_count(k, "k", most=2**_PROBES_LOG2)
    check_draws(draws, least=_FEWEST_DRAWS)
    check_seed(seed)
    check_columns(runs, [])
    if runs.height < _FEWEST_RUNS:
        raise NotEnoughDataError(f"{plural(runs.height, 'run')}: it takes {_FEWEST_RUNS} to see a gap between them")
    space = space_of(runs, params)
    if not space.params:
        raise InvalidInputError(f"no param varies: {listing(map(str, space.left_out), 20)}")
    probes = _strewn(space, 2**_PROBES_LOG2, seed)
    scale = _scale(space)
    points, taken = encoded(space, probes) * scale, encoded(space, runs) * scale
    distance, nearest = cKDTree(taken).query(points)
    rng = np.random.default_rng(seed)
    by_chance = np.array([
        cKDTree(encoded(space, _at_random(space, runs.height, rng)) * scale).query(points)[0].max()
        for _ in track(range(draws), "strewing runs")
    ])  # fmt: skip
    chosen = _farthest(points, distance, k)
    ids = runs["run_id"].to_list() if "run_id" in runs.columns else list(range(runs.height))
    radius = distance[np.array(chosen, np.int64)]
    table = probes[chosen].with_columns(
        radius=radius,
        nearest=pl.Series([ids[place] for place in nearest[np.array(chosen, np.int64)]]),
        p=pl.Series([(1 + int((by_chance >= width).sum())) / (1 + draws) for width in radius], dtype=pl.Float64),
    )
    return Regions(
        n=runs.height,
        method=f"maximin distance among {2**_PROBES_LOG2:,} Sobol' points, against {draws} random designs",
        table=table.sort("radius", descending=True, maintain_order=True),
        notes=space.notes,
    )


def _farthest(points: Floats, distance: Floats, k: int) -> list[int]:
    """Return the places of points that are far from what is taken and from each other."""
    chosen: list[int] = []
    left = distance.copy()
    while len(chosen) < k and left.max() > 0:
        place = int(left.argmax())
        chosen.append(place)
        left = np.minimum(left, np.linalg.norm(points - points[place], axis=1))
    return chosen


def _scale(space: Space) -> Floats:
    """Return what to multiply columns with, so that different choices are 1 apart."""
    scale = np.ones(columns_of(space)[-1].stop)
    for param, columns in zip(space.params, columns_of(space), strict=True):
        if not param.is_numeric:
            scale[columns] = np.sqrt(0.5)
    return scale


def _strewn(space: Space, n: int, seed: int) -> pl.DataFrame:
    return _params_at(space, stats.qmc.Sobol(2 * len(space.params), rng=seed).random(n))


def _at_random(space: Space, n: int, rng: np.random.Generator) -> pl.DataFrame:
    return _params_at(space, rng.random((n, 2 * len(space.params))))


def _params_at(space: Space, unit: Floats) -> pl.DataFrame:
    """Return params at points of the unit cube: a column of it for the value of each, another for whether it exists."""
    frame = pl.DataFrame({param.name: _values(param, unit[:, place]) for place, param in enumerate(space.params)})
    for place, param in enumerate(space.params, start=len(space.params)):
        if param.condition is not None:
            exists = frame[param.condition.param].is_in(list(param.condition.values))
        elif param.is_conditional:
            exists = pl.Series(unit[:, place] >= param.share_missing)
        else:
            continue
        frame = frame.with_columns(pl.when(exists).then(param.name).alias(param.name))
    return frame


def _values(param: Param, unit: Floats) -> pl.Series:
    if not param.is_numeric or param.grid:
        values = param.grid or param.choices
        places = np.minimum((unit * len(values)).astype(int), len(values) - 1)
        return pl.Series([values[place] for place in places])
    found = param.value_at(unit)
    return pl.Series(np.rint(found).astype(np.int64)) if param.kind == "int" else pl.Series(found)
