"""The results of runs as frames that are analysed: one row a run, or one row a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ckptlake.errors import InvalidInputError
from ckptlake.query.analysis.described import Described
from ckptlake.query.expressions import Expr
from ckptlake.query.nodes import View
from ckptlake.query.vocabulary import metric, param
from ckptlake.types import Direction

if TYPE_CHECKING:
    from polars import DataFrame

    from ckptlake.analytics.frames import Columns
    from ckptlake.analytics.statistics import Reading
    from ckptlake.query.builder import Query

ABOUT = ("run_id", "name", "experiment", "status", "started_at", "duration_s")
"""What is told of every run beside its params and results."""
ADDED = ("configuration", "curve", "steps_per_s")
"""What analyses add to that."""
SURROUNDINGS = ("git_commit", "git_branch", "git_dirty", "host", "command", "python", "packages")
"""Where a run was made, as far as it was recorded."""
_OF_POINTS = ("run_id", "step", "ts", "value")


class Frames:
    """The runs of a query, with their params and results.

    Args:
        query: any query with a column `run_id`.

    Raises:
        InvalidInputError: the query has no column `run_id`.
    """

    def __init__(self, query: Query) -> None:
        runs = query._with(View("runs"))
        is_all = query._table == View("runs")
        self.runs = runs if is_all else runs.join(query.select("run_id").distinct(), on="run_id", how="semi")
        self._session = query._session

    def values(self, metric_name: str, at: Reading | None = None) -> DataFrame:
        """Return one row a run: what it is, its params, and one value of a metric in a column of that name.

        A param whose name is taken by another column is called ``params.<name>``.

        Args:
            metric_name: the metric.
            at: which value: `Last()`, which it is by default, `Best("min")`, `AtStep(1000)`, `MeanOfLast(10)`.

        Returns:
            The runs in the order in which they were started; null where a run has no such value, NaN or infinite
            where it diverged.

        Raises:
            InvalidInputError: no run has the metric; the message has the nearest names. Or it has the name of a column
                that each run has, such as ``name``.
        """
        return self._one_row_a_run({metric_name: at}).rows

    def curves(self, metric_name: str, *columns: str) -> DataFrame:
        """Return the points of a metric, one row each: `run_id`, `step`, `ts`, `value`, and columns of the runs.

        A param that is called as one of those four is the column ``params.<name>``.

        Raises:
            InvalidInputError: no run has the metric, or there is no such column; the message has the nearest names.
        """
        from ckptlake.analytics.frames import check_columns

        points = self.runs.curves(metric_name).select(*_OF_POINTS).to_polars()
        asked = [name for name in dict.fromkeys(columns) if name not in _OF_POINTS]
        if not asked:
            return points
        runs = self._selected(ABOUT, {}, _OF_POINTS).rows
        check_columns(runs, asked)
        return points.join(runs.select("run_id", *asked), on="run_id", how="left", maintain_order="left")

    def described(self, columns: Sequence[str] = ABOUT) -> DataFrame:
        """Return one row a run without any result: what it is, and its params."""
        from ckptlake.analytics.frames import names

        return self._selected(names(columns), {}).rows

    def params(self, taken: Sequence[str] = ()) -> dict[str, str]:
        """Return the column of each param that these runs have: its name, after ``params.`` where that is taken."""
        from ckptlake.analytics.frames import names

        rows = self.runs._with(View("params")).join(self.runs.select("run_id"), on="run_id", how="semi")
        keys = [row["key"] for row in rows.select("key").distinct().order_by("key").to_dicts()]
        return {key: f"params.{key}" if key in {*ABOUT, *ADDED, *SURROUNDINGS, *names(taken)} else key for key in keys}

    def direction(self, metric_name: str, given: Direction | None) -> Direction:
        """Return the direction in which a metric is better: the one given, or else the one declared."""
        return self._session.direction(metric_name, given)

    def _grouped_values(self, metric_name: str, at: Reading | None, by: Columns | None) -> tuple[DataFrame, Columns]:
        """Return one value a run, and the columns that tell configurations apart; by default all params but seeds."""
        return self._one_row_a_run({metric_name: at}).grouped(by)

    def _one_row_a_run(self, wanted: Mapping[str, Reading | None], columns: Sequence[str] = ABOUT) -> Described:
        """Return columns of runs, params and results; only those that it takes points for are read off the points."""
        if clash := sorted({"run_id", *columns}.intersection(wanted)):
            raise InvalidInputError(
                f"the metric {clash[0]!r} has the name of a column that each run has: log it under another name, or "
                f"give curves({clash[0]!r}) to ckptlake.analytics.statistics.readings"
            )
        asked = {name: found for name, at in wanted.items() if (found := _asked(name, at)) is not None}
        runs = self._selected(columns, asked, tuple(wanted))
        frame = runs.rows
        for name, at in wanted.items():
            if name not in asked:
                read = _readings(self.curves(name), name, at)
                frame = frame.join(read, on="run_id", how="left", maintain_order="left")
            elif _is_best(at):
                frame = self._with_best_of_finite(frame, name, at)
        return Described(frame, runs.params)

    def _with_best_of_finite(self, frame: DataFrame, name: str, at: Reading | None) -> DataFrame:
        """Return a frame with the best finite values of runs with others too; their summaries do not tell those."""
        import polars as pl

        doubtful = frame.filter(pl.col(name).is_null() | pl.col(name).is_infinite())
        if doubtful.is_empty():
            return frame
        points = self.curves(name).join(doubtful, on="run_id", how="semi")
        read = _readings(points, name, at)
        told = frame.join(doubtful, on="run_id", how="anti", maintain_order="left")
        rest = doubtful.drop(name).join(read, on="run_id", how="left").select(frame.columns)
        return frame.select("run_id").join(pl.concat([told, rest]), on="run_id", maintain_order="left")

    def _selected(self, columns: Sequence[str], results: Mapping[str, Expr], taken: Sequence[str] = ()) -> Described:
        params = {column: param(key) for key, column in self.params([*results, *taken]).items()}
        ordered = dict.fromkeys(["run_id", "started_at", *columns])
        made = [value.alias(column) for column, value in {**params, **results}.items()]
        rows = self.runs.select(*ordered, *made).order_by("started_at", "run_id").to_polars()
        told = rows.select([*columns, *(name for name in rows.columns if name not in ordered)])
        return Described(told, tuple(params))


def _readings(points: DataFrame, metric_name: str, at: Reading | None) -> DataFrame:
    from ckptlake.analytics.statistics import readings

    return readings(points, at).select("run_id", "value").rename({"value": metric_name})


def _asked(metric_name: str, at: Reading | None) -> Expr | None:
    """Return the number of a curve that a reading stands for, or None where only its points tell."""
    from ckptlake.analytics.statistics import AtStep, Best, Last

    number = metric(metric_name)
    match at:
        case None | Last():
            return number.last()
        case Best(direction):
            return number.min() if direction == "min" else number.max()
        case AtStep(step, 0) if float(step).is_integer():
            return number.at(int(step))
    return None


def _is_best(at: Reading | None) -> bool:
    """Tell whether a reading is of finite values alone."""
    from ckptlake.analytics.statistics import Best

    return isinstance(at, Best)
