"""Whole curves of runs: how they differ, where they lead, when they get somewhere."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckptlake.errors import InvalidInputError
from ckptlake.query.analysis.described import Described
from ckptlake.query.analysis.frames import ABOUT, Frames
from ckptlake.types import Direction

if TYPE_CHECKING:
    from polars import DataFrame

    from ckptlake.analytics.curve import Curve
    from ckptlake.analytics.curves import Areas, Band, FirstBetter, ThresholdComparison, TimeToThreshold
    from ckptlake.analytics.frames import Columns

logger = logging.getLogger(__name__)
_AXES = {"time": "seconds"}


class CurveQuestions(Frames):
    """What can be asked about the curves of runs.

    Curves are told by the names of their runs, or by run ids where two runs have one name. They lie over steps, over
    seconds since the first point (``x="time"``), or over another metric that never falls, such as ``x="tokens"``.
    """

    def curve_groups(
        self, metric: str, *, by: Columns | None = None, x: str = "step"
    ) -> Mapping[str, tuple[Curve, ...]]:
        """Return the curves of each configuration; ``by=()`` puts all runs into one.

        Args:
            metric: the metric.
            by: the columns that tell configurations apart; by default all params but seeds.
            x: what curves lie over: ``"step"``, ``"time"``, or a metric.

        Raises:
            InvalidInputError: there is no such column, or no run has the metric.
        """
        runs = self._named_runs()
        return by_configuration(self._curves(metric, x, runs), runs, by)

    def band(
        self, metric: str, *, by: Columns | None = None, x: str = "step", level: float = 0.95, unit: str = ""
    ) -> dict[str, Band]:
        """Return the mean curve of each configuration, with a band that holds it over its whole length at once."""
        from ckptlake.analytics.curves import band

        groups = self.curve_groups(metric, by=by, x=x)
        return {label: band(curves, level=level, x=_AXES.get(x, x), unit=unit) for label, curves in groups.items()}

    def areas(self, metric: str, *, x: str = "step", unit: str = "") -> Areas:
        """Return the area under each curve, over the stretch that all of them cover."""
        from ckptlake.analytics.curves import areas_under

        return areas_under(self._curves(metric, x, self._named_runs()), x=_AXES.get(x, x), unit=unit)

    def time_to(
        self,
        metric: str,
        threshold: float,
        *,
        x: str = "step",
        hold: int = 1,
        direction: Direction | None = None,
        unit: str = "",
    ) -> TimeToThreshold:
        """Return when runs reach a value, those that have not yet counted as what they are: not there so far.

        Args:
            metric: the metric.
            threshold: the value.
            x: what it is counted in: ``"step"``, ``"time"`` in seconds, or a metric.
            hold: how many points in a row must be there.
            direction: ``"min"`` or ``"max"``; by default what `run.define` has declared.
            unit: of the metric.
        """
        from ckptlake.analytics.curves import time_to_threshold

        better = self.direction(metric, direction)
        curves = self._curves(metric, x, self._named_runs())
        return time_to_threshold(curves, threshold, better, hold=hold, x=_AXES.get(x, x), unit=unit)

    def compare_times(
        self,
        metric: str,
        threshold: float,
        *,
        by: Columns | None = None,
        x: str = "step",
        hold: int = 1,
        direction: Direction | None = None,
        unit: str = "",
    ) -> ThresholdComparison:
        """Return which configurations reach a value sooner."""
        from ckptlake.analytics.curves import compare_times

        better, groups = self.direction(metric, direction), self.curve_groups(metric, by=by, x=x)
        return compare_times(groups, threshold, better, hold=hold, x=_AXES.get(x, x), unit=unit)

    def first_better(
        self,
        metric: str,
        first: str,
        second: str,
        *,
        by: Columns | None = None,
        x: str = "step",
        direction: Direction | None = None,
        unit: str = "",
    ) -> FirstBetter:
        """Return from where on one configuration is reliably better than another.

        Args:
            metric: the metric.
            first: the label of one configuration, such as ``"lr=0.1"``.
            second: that of the other.
            by: the columns that tell configurations apart; by default all params but seeds.
            x: what curves lie over.
            direction: ``"min"`` or ``"max"``; by default what `run.define` has declared.
            unit: of the metric.

        Raises:
            InvalidInputError: there is no configuration of such a label.
        """
        from ckptlake.analytics.curves import first_better

        groups = self.curve_groups(metric, by=by, x=x)
        for label in (first, second):
            if label not in groups:
                raise InvalidInputError(f"there is no configuration {label!r:.100}; there are {', '.join(groups)}")
        better = self.direction(metric, direction)
        return first_better(groups[first], groups[second], better, labels=(first, second), x=_AXES.get(x, x), unit=unit)

    def _curves(self, metric: str, x: str, runs: Described) -> tuple[Curve, ...]:
        """Return the curve of each run that has one, named as the run, in the order in which runs were started."""
        from ckptlake.analytics.curve import curves_of
        from ckptlake.analytics.curves import elapsed, rescale

        points = self._points(metric, runs)
        if x == "step":
            return curves_of(points, run="curve")
        if x == "time":
            return curves_of(elapsed(points, time="ts"), x="elapsed_s", run="curve")
        told = rescale(curves_of(points, run="curve"), curves_of(self._points(x, runs), run="curve"))
        for note in told.notes:
            logger.warning("%s over %s: %s", metric, x, note)
        return told.curves

    def _points(self, metric: str, runs: Described) -> DataFrame:
        names = runs.rows.select("run_id", "curve")
        return names.join(self.curves(metric), on="run_id", maintain_order="left_right")

    def _named_runs(self) -> Described:
        return self._selected(ABOUT, {}).named()


def by_configuration(curves: tuple[Curve, ...], runs: Described, by: Columns | None) -> dict[str, tuple[Curve, ...]]:
    """Return curves that are named as their runs, by configuration."""
    from ckptlake.analytics.frames import check_columns, label_of, names

    if by == ():
        return {"all runs": curves}
    rows, columns = runs.grouped(by)
    keys = names(columns)
    check_columns(rows, keys)
    labels = {row["curve"]: label_of(keys, [row[key] for key in keys]) for row in rows.to_dicts()}
    groups: defaultdict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        groups[labels[curve.label]].append(curve)
    return {label: tuple(found) for label, found in groups.items()}
