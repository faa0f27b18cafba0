"""Statistics and comparison of the results of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ckptlake.query.analysis.frames import ABOUT, SURROUNDINGS, Frames
from ckptlake.types import Direction

if TYPE_CHECKING:
    from ckptlake.analytics.comparison import Against, Comparison, Differences, Equivalence, ParetoFront, Test
    from ckptlake.analytics.frames import Columns
    from ckptlake.analytics.statistics import (
        Configurations,
        Correlations,
        IntervalMethod,
        OutlierRule,
        Outliers,
        Reading,
        SeedsNeeded,
        Summaries,
    )
    from ckptlake.analytics.statistics.corrections import Correction
    from ckptlake.analytics.statistics.correlation import Coefficient


class ResultQuestions(Frames):
    """What can be asked about one value a run."""

    def configurations(self, *excepted: str) -> Configurations:
        """Return which runs are repeats of one configuration: those that agree in all params but some.

        Args:
            excepted: the params in which repeats differ; by default those that are called seed.
        """
        return self._selected(ABOUT, {}).configurations(*excepted)

    def summarise(
        self,
        metric: str,
        *,
        by: Columns | None = None,
        at: Reading | None = None,
        interval: IntervalMethod | None = None,
        unit: str = "",
    ) -> Summaries:
        """Return mean, spread, quantiles and more of a metric, for each configuration.

        Args:
            metric: the metric.
            by: the columns that tell configurations apart; by default all params but seeds. ``()`` is all runs at once.
            at: which value of a run: `Last()`, which it is by default, `Best("min")`, `AtStep(1000)`, `MeanOfLast(10)`.
            interval: how that of the mean is found: `StudentT()`, which it is by default, `Percentile()`, `BCa()`.
            unit: of the metric.

        >>> import ckptlake, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> for lr, losses in ((0.1, [0.5, 0.75, 0.25]), (0.2, [0.75, 1.0, 0.5])):
        ...     for seed, loss in enumerate(losses):
        ...         with lake.run("doc", params={"lr": lr, "seed": seed}) as run:
        ...             run.log({"val/loss": loss}, step=10)
        >>> lake.analysis.summarise("val/loss").table.select("label", "n", "mean").rows()
        [('lr=0.1', 3, 0.5), ('lr=0.2', 3, 0.75)]
        """
        from ckptlake.analytics.statistics import summarise

        frame, columns = self._grouped_values(metric, at, by)
        return summarise(frame, metric, columns, interval=interval, unit=unit)

    def outliers(
        self, metric: str, *, by: Columns | None = None, at: Reading | None = None, rule: OutlierRule | None = None
    ) -> Outliers:
        """Return the runs that lie far from the others of their configuration."""
        from ckptlake.analytics.statistics import outliers

        frame, columns = self._one_row_a_run({metric: at}).named().grouped(by)
        return outliers(frame, metric, run=("curve", "run_id"), by=columns, rule=rule)

    def correlations(
        self, *metrics: str, coefficient: Coefficient = "spearman", correction: Correction = "holm"
    ) -> Correlations:
        """Return how the last values of metrics and the params that are numbers go along with each other."""
        from ckptlake.analytics.statistics import correlations

        runs = self._one_row_a_run(dict.fromkeys(metrics))
        numbers = [name for name in runs.params if runs.rows.schema[name].is_numeric()]
        return correlations(runs.rows, [*metrics, *numbers], coefficient=coefficient, correction=correction)

    def seeds_needed(
        self,
        metric: str,
        difference: float,
        *,
        by: Columns | None = None,
        at: Reading | None = None,
        power: float = 0.8,
        unit: str = "",
    ) -> SeedsNeeded:
        """Return how many seeds a configuration takes to see a difference of means, from the spread there is."""
        from ckptlake.analytics.statistics import seeds_needed

        frame, columns = self._grouped_values(metric, at, by)
        return seeds_needed(frame, metric, by=columns, difference=difference, power=power, unit=unit)

    def compare(
        self,
        metric: str,
        *,
        by: Columns | None = None,
        pair_by: str | None = None,
        direction: Direction | None = None,
        at: Reading | None = None,
        test: Test | None = None,
        correction: Correction = "holm",
        level: float = 0.95,
        unit: str = "",
    ) -> Comparison:
        """Return which configuration has the better mean, by how much, and how sure that is.

        Args:
            metric: the metric.
            by: the columns that tell configurations apart; by default all params but seeds.
            pair_by: the column of which runs with the same value belong together, such as ``"seed"``.
            direction: ``"min"`` or ``"max"``; by default what `run.define` has declared.
            at: which value of a run; by default the last.
            test: the test; by default one that the shape of the data calls for, and the result says why.
            correction: of p-values where there are more than two configurations.
            level: of the intervals.
            unit: of the metric.

        >>> import ckptlake, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> for lr, losses in ((0.1, [0.5, 0.6, 0.4, 0.5]), (0.2, [0.7, 0.9, 0.8, 0.8])):
        ...     for seed, loss in enumerate(losses):
        ...         with lake.run("doc", params={"lr": lr, "seed": seed}) as run:
        ...             run.log({"val/loss": loss}, step=10)
        >>> print(lake.analysis.compare("val/loss", direction="min"))  # doctest: +ELLIPSIS
        lr=0.1 has the lower val/loss: 0.5 against 0.8...
        """
        from ckptlake.analytics.comparison import compare

        frame, columns = self._grouped_values(metric, at, by)
        better = self.direction(metric, direction)
        return compare(
            frame, metric, by=columns, pair_by=pair_by, direction=better, test=test, correction=correction,
            level=level, unit=unit,
        )  # fmt: skip

    def against(
        self,
        metric: str,
        target: float,
        *,
        direction: Direction | None = None,
        at: Reading | None = None,
        level: float = 0.95,
        unit: str = "",
    ) -> Against:
        """Return whether the mean over these runs is better than a target, such as ``3.28`` at ``level=0.99``."""
        from ckptlake.analytics.comparison import against

        better = self.direction(metric, direction)
        return against(self.values(metric, at), target, value=metric, direction=better, level=level, unit=unit)

    def equivalent(
        self,
        metric: str,
        margin: float,
        *,
        by: Columns | None = None,
        pair_by: str | None = None,
        at: Reading | None = None,
        level: float = 0.95,
        unit: str = "",
    ) -> Equivalence:
        """Return whether two configurations have the same mean up to a margin."""
        from ckptlake.analytics.comparison import equivalent

        frame, columns = self._grouped_values(metric, at, by)
        return equivalent(frame, metric, by=columns, margin=margin, pair_by=pair_by, level=level, unit=unit)

    def differences(self, metric: str, *, direction: Direction | None = None, at: Reading | None = None) -> Differences:
        """Return in which params, environment and code these runs differ, by how much each goes along with a metric."""
        from ckptlake.analytics.comparison import differences

        runs = self._one_row_a_run({metric: at}, (*ABOUT, *SURROUNDINGS))
        columns = ["experiment", *SURROUNDINGS, *runs.params]
        return differences(runs.rows, metric, columns=columns, direction=self.direction(metric, direction))

    def pareto(self, objectives: Mapping[str, Direction] | Sequence[str], *, at: Reading | None = None) -> ParetoFront:
        """Return the runs that no other run beats in all objectives.

        Args:
            objectives: metrics, or columns of runs such as ``duration_s``, with the direction of each; of metrics
                alone, with the directions that `run.define` has declared.
            at: which value of a run; by default the last.
        """
        from ckptlake.analytics.comparison import pareto
        from ckptlake.analytics.frames import names

        given = dict(objectives) if isinstance(objectives, Mapping) else dict.fromkeys(names(objectives))
        wanted: dict[str, Direction] = {
            name: given[name] or "min" if name in ABOUT else self.direction(name, given[name]) for name in given
        }
        return pareto(self._one_row_a_run({name: at for name in wanted if name not in ABOUT}).rows, wanted)
