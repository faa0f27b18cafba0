"""What curves do and where they will end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptlake.errors import InvalidInputError
from ckptlake.query.analysis.curves import CurveQuestions, by_configuration
from ckptlake.query.analysis.described import Described
from ckptlake.types import Direction

if TYPE_CHECKING:
    from ckptlake.analytics.curve import Curve
    from ckptlake.analytics.forecasts import Forecast, StopAdvice
    from ckptlake.analytics.frames import Columns
    from ckptlake.analytics.trends import Overfitting, Slope, Stalls, Verdicts


class TrendQuestions(CurveQuestions):
    """What can be asked about where the curves of runs go.

    A run is named by its name or its id. Forecasts learn from the finished runs of the same query, the live one and the
    repeats of its configuration left out of what tells how sure they are.
    """

    def verdicts(self, metric: str, *, direction: Direction | None = None, unit: str = "") -> Verdicts:
        """Return what each curve does at its end and since when: improving, on a plateau, diverged and more."""
        from ckptlake.analytics.trends import verdicts

        return verdicts(
            self._points(metric, self._named_runs()), self.direction(metric, direction), run="curve", unit=unit
        )

    def slope(self, metric: str, run: str, *, unit: str = "") -> Slope:
        """Return how fast a curve rises or falls in the middle, with an interval that knows of autocorrelation."""
        from ckptlake.analytics.trends import slope

        return slope(self._curve(metric, run, self._named_runs()), unit=unit)

    def overfitting(
        self, train: str, validation: str, run: str, *, direction: Direction | None = None, unit: str = ""
    ) -> Overfitting:
        """Return whether a run overfits, since when its gap grows, and the best step to stop at.

        Args:
            train: the metric in training, such as ``"train/loss"``.
            validation: the same in validation, such as ``"val/loss"``.
            run: the name or id of the run.
            direction: ``"min"`` or ``"max"``; by default what `run.define` has declared of `validation`.
            unit: of both.
        """
        from ckptlake.analytics.trends import overfitting

        better, runs = self.direction(validation, direction), self._named_runs()
        return overfitting(self._curve(train, run, runs), self._curve(validation, run, runs), better, unit=unit)

    def stalls(self, metric: str, run: str) -> Stalls:
        """Return when a run stood still or went slower, by the times at which it logged a metric."""
        from ckptlake.analytics.curve import curves_of
        from ckptlake.analytics.curves import elapsed
        from ckptlake.analytics.trends import stalls

        runs = self._named_runs()
        points = elapsed(self._points(metric, runs), time="ts")
        return stalls(_named(curves_of(points, value="elapsed_s", run="curve"), _name_of(run, runs)))

    def forecast(
        self,
        metric: str,
        run: str,
        horizon: float | None = None,
        *,
        by: Columns | None = None,
        direction: Direction | None = None,
        level: float = 0.9,
        unit: str = "",
    ) -> Forecast:
        """Return where a live run will end.

        Args:
            metric: the metric.
            run: the name or id of the run.
            horizon: the step it is to be at; by default that at which the finished runs ended, if it is the same.
            by: the columns that tell which runs are repeats of each other; by default all params but seeds.
            direction: ``"min"`` or ``"max"``; by default what `run.define` has declared.
            level: of the interval.
            unit: of the metric.

        Raises:
            InvalidInputError: there is no such run, it diverged, or no horizon is given and finished runs ended apart.
            NotEnoughDataError: it has too few points.
        """
        from ckptlake.analytics.forecasts import forecast_beside

        better = self.direction(metric, direction)
        live, finished, groups = self._live_and_finished(metric, run, by)
        return forecast_beside(
            live, finished, horizon, groups=groups, direction=better, level=level, unit=unit
        )  # fmt: skip

    def should_stop(
        self,
        metric: str,
        run: str,
        target: float | None = None,
        *,
        horizon: float | None = None,
        by: Columns | None = None,
        direction: Direction | None = None,
        unit: str = "",
    ) -> StopAdvice:
        """Return how likely a live run ends better than a target, by default the best end of the others."""
        from ckptlake.analytics.forecasts import should_stop

        better = self.direction(metric, direction)
        live, finished, groups = self._live_and_finished(metric, run, by)
        return should_stop(
            live, finished, target=target, direction=better, horizon=horizon, groups=groups, unit=unit
        )  # fmt: skip

    def _curve(self, metric: str, run: str, runs: Described) -> Curve:
        return _named(self._curves(metric, "step", runs), _name_of(run, runs))

    def _live_and_finished(self, metric: str, run: str, by: Columns | None) -> tuple[Curve, list[Curve], list[str]]:
        """Return the curve of a run, those of the finished runs but it, and the configuration of each of them."""
        runs = self._named_runs()
        curves = self._curves(metric, "step", runs)
        live = _named(curves, _name_of(run, runs))
        done = set(runs.rows.filter(runs.rows["status"] == "finished")["curve"]) - {live.label}
        groups = by_configuration(curves, runs, by)
        found = [(curve, label) for label, group in groups.items() for curve in group if curve.label in done]
        return live, [curve for curve, _ in found], [label for _, label in found]


def _name_of(run: str, runs: Described) -> str:
    """Return the name of the curve of a run.

    Raises:
        InvalidInputError: there is no such run among these.
    """
    named = (row["curve"] for row in runs.rows.iter_rows(named=True) if run in (row["run_id"], row["curve"]))
    found = next(named, None)
    if found is None:
        raise InvalidInputError(f"there is no run {run!r:.100} among these: give its id, or a name that is its alone")
    return str(found)


def _named(curves: tuple[Curve, ...], name: str) -> Curve:
    found = [curve for curve in curves if curve.label == name]
    if not found:
        raise InvalidInputError(f"the run {name!r:.100} has no point of this metric")
    return found[0]
