"""The runs that no other run beats in every metric at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from ckptlake.analytics.arguments import check_direction, numbers
from ckptlake.analytics.charts import Axis, Chart, point_chart
from ckptlake.analytics.frames import Floats, check_columns, floats
from ckptlake.analytics.results import Result
from ckptlake.analytics.wording import listing, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError
from ckptlake.types import Direction

_MOST_DRAWN = 2_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParetoFront(Result):
    """The runs that no other run beats.

    Attributes:
        objectives: each metric with its direction.
        table: the rows of the front, all their columns, sorted by the first metric, the best first.
        rest: the rows that some other run beats, in their order.
    """

    objectives: Mapping[str, Direction]
    table: pl.DataFrame
    rest: pl.DataFrame

    def sentence(self) -> str:
        aims = listing(f"{'lower' if way == 'min' else 'higher'} {name}" for name, way in self.objectives.items())
        found = f"{self.table.height:,} of {plural(self.n, 'run')} are on the Pareto front of {aims}"
        return " ".join([*self.notes, f"{found}: no run is as good as one of these in all and better in one."])

    def chart(self) -> Chart:
        """Return the first two metrics of the front; and of the other runs, where there are at most 2,000."""
        first, *others = self.objectives
        second = others[0] if others else first
        drawn = [(self.table, "front")]
        if self.rest.height <= _MOST_DRAWN:
            drawn.append((self.rest, "beaten"))
        rows = [
            {"x": x, "y": y, "runs": part}
            for table, part in drawn
            for x, y in table.select(pl.col(first).alias("x"), pl.col(second).alias("y")).iter_rows()
        ]
        title = f"Pareto front of {listing(self.objectives)}{'' if len(drawn) == 2 else ' (beaten runs are not drawn)'}"
        return point_chart(title, rows, x=Axis("x", first), y=Axis("y", second), color="runs")


def pareto(frame: pl.DataFrame, objectives: Mapping[str, Direction]) -> ParetoFront:
    """Return the Pareto front of runs over several metrics.

    A run is on the front if no other is at least as good in every metric and better in one (Pareto 1896). Runs with
    equal values are all kept. A run with NaN, an infinity or no value in a metric cannot be on it; how many is told.

    Args:
        frame: one row a run.
        objectives: each metric with ``"min"`` or ``"max"``.

    Raises:
        InvalidInputError: there is no objective, a column is missing or holds no numbers, or a direction is neither.
        NotEnoughDataError: no run has all metrics.

    Example:
        >>> frame = pl.DataFrame({"run": ["a", "b", "c"], "loss": [0.1, 0.2, 0.3], "time": [9, 5, 7]})
        >>> pareto(frame, {"loss": "min", "time": "min"}).table["run"].to_list()
        ['a', 'b']
    """
    if not isinstance(objectives, Mapping) or not objectives:
        raise InvalidInputError(
            f'objectives={objectives!r:.100}: name each metric with its direction, such as {{"val/loss": "min"}}'
        )
    check_columns(frame, objectives)
    for direction in objectives.values():
        check_direction(direction)
    columns = [floats(frame, name) * (1.0 if way == "min" else -1.0) for name, way in objectives.items()]
    table = np.column_stack(columns)
    whole = np.asarray(np.isfinite(table).all(axis=1), np.bool_)
    if not whole.any():
        raise NotEnoughDataError(f"no run has a finite value in each of {listing(objectives)}: there is no front")
    known = frame.filter(whole)
    on_front = front_of(table[whole])
    front, best_first = known.filter(on_front), np.argsort(table[whole][on_front][:, 0], kind="stable")
    return ParetoFront(
        n=known.height, method="non-dominated sorting", notes=_notes(frame, columns, objectives, whole),
        objectives=dict(objectives), table=front[best_first.tolist()], rest=known.filter(~on_front),
    )  # fmt: skip


def front_of(costs: Floats) -> NDArray[np.bool_]:
    """Return which rows no other row beats, lower being better.

    In two dimensions by one sweep over the sorted rows, O(n log n) (Kung, Luccio & Preparata 1975); in more, the rows
    that the best remaining one beats are struck out until none is left, O(n m) for m rows on the front: quick where
    the front is small, slow where most of many rows are on it.

    Args:
        costs: float64, shape (n, k), all finite.

    Returns:
        bool, shape (n,).

    Example:
        >>> front_of(np.array([[1.0, 4.0], [2.0, 2.0], [3.0, 3.0], [2.0, 2.0]])).tolist()
        [True, True, False, True]
    """
    costs = numbers(costs, "the table of costs", dimensions=2)
    if not costs.shape[1] or not np.isfinite(costs).all():
        raise InvalidInputError(f"costs of shape {costs.shape}: finite values in one column or more are needed")
    rows, place = np.unique(costs, axis=0, return_inverse=True)
    kept = _swept(rows) if costs.shape[1] == 2 else _struck(rows)
    return kept[place.ravel()]


def _swept(rows: Floats) -> NDArray[np.bool_]:
    """Return the front of different rows of two columns that are sorted by the first."""
    kept = np.ones(len(rows), np.bool_)
    kept[1:] = rows[1:, 1] < np.minimum.accumulate(rows[:, 1])[:-1]
    return kept


def _struck(rows: Floats) -> NDArray[np.bool_]:
    """Return the front of different rows: the row with the least sum of ranks is beaten by none."""
    kept = np.zeros(len(rows), np.bool_)
    if not len(rows):
        return kept
    left = np.argsort(stats.rankdata(rows, method="dense", axis=0).sum(axis=1))
    others = rows[left]
    while len(left):
        kept[left[0]] = True
        unbeaten = (others < others[0]).any(axis=1)
        left, others = left[unbeaten], others[unbeaten]
    return kept


def _notes(
    frame: pl.DataFrame, columns: list[Floats], objectives: Mapping[str, Direction], whole: NDArray[np.bool_]
) -> tuple[str, ...]:
    if whole.all():
        return ()
    told = []
    for name, values in zip(objectives, columns, strict=True):
        n_missing = frame[name].null_count()
        n_diverged = int((~np.isfinite(values)).sum()) - n_missing
        told += [f"{n_diverged} NaN or infinite in {name}"] * (n_diverged > 0)
        told += [f"{n_missing} without {name}"] * (n_missing > 0)
    left_out = int((~whole).sum())
    return (f"{left_out} of {plural(len(whole), 'run')} cannot be on the front: {listing(told)}.",)
