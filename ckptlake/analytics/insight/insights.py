"""Looking over an experiment: what matters in it, most important first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import polars as pl

from ckptlake.analytics import charts
from ckptlake.analytics.insight.experiment import Experiment
from ckptlake.analytics.insight.finding import Finding, Insight, Silence
from ckptlake.analytics.insight.rules.budget import stopped_early
from ckptlake.analytics.insight.rules.checkpoints import better_checkpoint
from ckptlake.analytics.insight.rules.divergence import diverged_runs
from ckptlake.analytics.insight.rules.effects import no_visible_effect, visible_effects
from ckptlake.analytics.insight.rules.noise import within_seed_noise
from ckptlake.analytics.insight.rules.speed import slow_runs
from ckptlake.analytics.progress import track
from ckptlake.analytics.results import Result
from ckptlake.analytics.wording import plural

Rule: TypeAlias = Callable[[Experiment], Finding]
RULES: tuple[Rule, ...] = (
    diverged_runs,
    within_seed_noise,
    better_checkpoint,
    stopped_early,
    visible_effects,
    slow_runs,
    no_visible_effect,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Insights(Result):
    """What matters in an experiment.

    Attributes:
        found: the insights, the weightiest first.
        silences: the rules that found nothing, and why.
    """

    found: tuple[Insight, ...]
    silences: tuple[Silence, ...]

    @property
    def table(self) -> pl.DataFrame:
        """One row an insight: `rule`, `weight`, `n`, `text`, `action`."""
        rows = [(one.rule, one.weight, one.n, one.text, one.action) for one in self.found]
        kinds = {"rule": pl.String, "weight": pl.Float64, "n": pl.Int64, "text": pl.String, "action": pl.String}
        return pl.DataFrame(rows, schema=kinds, orient="row")

    def sentence(self) -> str:
        if not self.found:
            return f"Nothing stands out in {plural(self.n, 'run')}; {plural(len(self.silences), 'rule')} looked."
        return "\n".join(f"{place}. {insight}" for place, insight in enumerate(self.found, start=1))

    def chart(self) -> charts.Chart:
        return charts.bar_chart(
            "What matters, by weight",
            self.table.select("rule", "weight").to_dicts(),
            label="rule",
            value=charts.Axis("weight", "weight, 1 (good to know) to 5 (results are lost)"),
        )


def insights(experiment: Experiment, rules: tuple[Rule, ...] = RULES) -> Insights:
    """Return what matters in an experiment, most important first.

    Each rule looks for one thing, states how many runs it rests on, and stays silent without enough of them. A rule
    that claims an effect does so at a level of 5 %, corrected for all runs, params and splits that it looks at; several
    rules together err more often.

    Args:
        experiment: the runs, with curves and checkpoints where at hand.
        rules: which rules look; a rule is a function of an experiment that returns an `Insight` or a `Silence`.

    Example:
        >>> runs = pl.DataFrame({
        ...     "run_id": [f"r{i}" for i in range(20)],
        ...     "lr": [0.001, 0.003, 0.01, 0.1] * 5,
        ...     "loss": [1.0, 0.9, 0.8, float("nan")] * 5,
        ... })
        >>> found = insights(Experiment(runs=runs, metric="loss", direction="min", params=("lr",)))
        >>> found.found[0].text
        '5 of 5 runs with lr above 0.01 diverged, 0 of 15 others (p = 0.001).'
    """
    findings = [rule(experiment) for rule in track(rules, "looking the experiment over")]
    found = [finding for finding in findings if isinstance(finding, Insight)]
    return Insights(
        n=experiment.runs.height,
        method=f"{plural(len(rules), 'rule')}, each at 5 %",
        found=tuple(sorted(found, key=lambda insight: -insight.weight)),
        silences=tuple(finding for finding in findings if isinstance(finding, Silence)),
    )
