"""What the params of runs do to their results, and what to try next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from ckptlake.errors import InvalidInputError
from ckptlake.query.analysis.frames import ABOUT, Frames
from ckptlake.query.nodes import View
from ckptlake.query.vocabulary import col
from ckptlake.types import Direction

if TYPE_CHECKING:
    from polars import DataFrame

    from ckptlake.analytics.insight import Importance, Insights, Interactions, Regions, Response, Suggestions
    from ckptlake.analytics.statistics import Reading

_SPEED = "steps_per_s"
ImportanceMethod = Literal["fanova", "ped-anova", "permutation"]


class ParamQuestions(Frames):
    """What can be asked about params; it takes the extra ``ckptlake[analysis]``."""

    def importance(
        self,
        metric: str,
        method: ImportanceMethod = "fanova",
        *,
        direction: Direction | None = None,
        at: Reading | None = None,
    ) -> Importance:
        """Return how much of a metric each param decides.

        Args:
            metric: the metric.
            method: ``"fanova"``, of all runs; ``"ped-anova"``, what makes the best runs; ``"permutation"``, what a
                forest loses without it.
            direction: ``"min"`` or ``"max"``; by default what `run.define` has declared. Only ``"ped-anova"`` needs it.
            at: which value of a run; by default the last.
        """
        from ckptlake.analytics import insight

        frame, params = self._with_params(metric, at)
        methods: dict[str, Callable[[], Importance]] = {
            "fanova": lambda: insight.fanova_importance(frame, metric, params),
            "permutation": lambda: insight.permutation_importance(frame, metric, params),
            "ped-anova": lambda: insight.ped_anova_importance(
                frame, metric, params, direction=self.direction(metric, direction)
            ),
        }
        if method not in methods:
            raise InvalidInputError(f"method={method!r:.40}: take one of {', '.join(map(repr, methods))}")
        return methods[method]()

    def interactions(self, metric: str, *, at: Reading | None = None) -> Interactions:
        """Return which params matter together in another way than each alone."""
        from ckptlake.analytics.insight import interactions

        frame, params = self._with_params(metric, at)
        return interactions(frame, metric, params)

    def response(self, metric: str, param: str, *, at: Reading | None = None) -> Response:
        """Return how a metric responds to one param, the others being as they are."""
        from ckptlake.analytics.insight import response

        frame, params = self._with_params(metric, at)
        return response(frame, metric, param, params)

    def suggest(
        self, metric: str, k: int = 5, *, direction: Direction | None = None, at: Reading | None = None
    ) -> Suggestions:
        """Return params to try next, with the improvement that is expected of each."""
        from ckptlake.analytics.insight import suggestions

        frame, params = self._with_params(metric, at)
        return suggestions(frame, metric, params, direction=self.direction(metric, direction), k=k)

    def unexplored(self, k: int = 5) -> Regions:
        """Return the regions of the search space where no run has been."""
        from ckptlake.analytics.insight import unexplored_regions

        runs = self._selected(ABOUT, {})
        return unexplored_regions(runs.rows, runs.params, k=k)

    def insights(self, metric: str, *, direction: Direction | None = None, at: Reading | None = None) -> Insights:
        """Return what matters in these runs: each insight with its evidence, its figures and what to do.

        Args:
            metric: the metric that tells how good a run is.
            direction: ``"min"`` or ``"max"``; by default what `run.define` has declared.
            at: which value of a run; by default the last.
        """
        from ckptlake.analytics.insight import Experiment, insights

        curves = self.curves(metric)
        described = self._one_row_a_run({metric: at}, (*ABOUT, "host")).named()
        params = described.params
        runs = described.rows.join(_speeds(curves), on="run_id", how="left", maintain_order="left")
        saved = self.runs._with(View("checkpoints")).where(col("status") == "good")
        return insights(
            Experiment(
                runs=runs,
                metric=metric,
                direction=self.direction(metric, direction),
                params=tuple(name for name in params if runs[name].n_unique() > 1),
                curves=curves,
                name="curve",
                checkpoints=saved.join(self.runs.select("run_id"), on="run_id", how="semi").to_polars(),
                speed=_SPEED,
                device="gpu" if "gpu" in params else "host",
            )
        )

    def _with_params(
        self, metric: str, at: Reading | None, columns: Sequence[str] = ABOUT
    ) -> tuple[DataFrame, tuple[str, ...]]:
        runs = self._one_row_a_run({metric: at}, columns)
        return runs.rows, runs.params


def _speeds(curves: DataFrame) -> DataFrame:
    """Return the steps a second of each run, from its first point to its last; null where all came at once."""
    import polars as pl

    span_s = (pl.col("ts").max() - pl.col("ts").min()).dt.total_microseconds() / 1e6
    steps = pl.col("step").max() - pl.col("step").min()
    return curves.group_by("run_id").agg(pl.when(span_s > 0).then(steps / span_s).alias(_SPEED))
