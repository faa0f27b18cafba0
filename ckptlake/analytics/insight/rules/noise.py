"""Whether the best configuration leads by more than its seeds differ."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from ckptlake.analytics.comparison.configurations import compare
from ckptlake.analytics.frames import label_of
from ckptlake.analytics.insight.experiment import Experiment
from ckptlake.analytics.insight.finding import ALPHA, Finding, Insight, Silence, weight
from ckptlake.analytics.wording import number, p_value, plural

_RULE = "within seed noise"
_FEWEST_SEEDS = 3
_ADDED = ("n", "mean", "std", "label")


def within_seed_noise(experiment: Experiment) -> Finding:
    """Tell when the difference of the best two configurations is no larger than their seeds make it.

    Runs whose params are the same but for the seed are one configuration; those with three finite results or more
    count. The best two by mean are compared by Welch's t-test. That they were picked as the best two makes their
    difference smaller than that of two at random, so a lead that the test tells is one. How many seeds would tell the
    two apart is by Lehr 1992: 16 squared standard deviations over the squared difference, for a power of 80 %.
    """
    renamed = {name: f"params.{name}" if name in _ADDED else name for name in experiment.settings}
    settings = list(renamed.values())
    if not settings:
        return Silence(_RULE, "there are no params besides seeds")
    metric = pl.col(experiment.metric).cast(pl.Float64)
    known = experiment.finished.rename(renamed)
    groups = (
        known.group_by(settings, maintain_order=True)
        .agg(n=pl.len(), mean=metric.mean(), std=metric.std())
        .filter(pl.col("n") >= _FEWEST_SEEDS)
        .sort("mean", descending=experiment.direction == "max", maintain_order=True)
    )
    if groups.height < 2:
        return Silence(
            _RULE,
            f"cannot be told: {plural(groups.height, 'configuration')} with {_FEWEST_SEEDS} seeds or more, it takes 2",
        )
    pair = known.join(groups.head(2), on=settings, how="semi", nulls_equal=True, maintain_order="left")
    found = compare(pair, experiment.metric, by=settings, direction=experiment.direction, test="welch")
    if found.p_value is None or found.difference is None:
        return Silence(_RULE, f"cannot be told: the seeds of the best two configurations do not vary, n = {found.n:,}")
    if found.p_value <= ALPHA:
        lead = f"the best configuration leads beyond its seeds' noise ({p_value(found.p_value)}, n = {found.n:,})"
        return Silence(_RULE, lead)
    table = groups.head(2).with_columns(
        label=pl.Series([label_of(settings, row) for row in groups.head(2).select(settings).iter_rows()])
    )
    first, second = table["label"].to_list()
    spread = math.sqrt(float(np.mean(table["std"].to_numpy() ** 2)))
    needed = _seeds_needed(abs(found.difference), spread)
    text = (
        f"{first} is best with a mean {experiment.metric} of {number(table['mean'][0])}, {second} next with "
        f"{number(table['mean'][1])}: over {found.n:,} runs their seeds differ as much ({p_value(found.p_value)})."
    )
    return Insight(
        n=found.n,
        method="Welch's t-test of the best two configurations",
        interval=found.interval,
        rule=_RULE,
        text=text,
        action=f"Take the cheaper of the two, or run {needed}.",
        weight=weight(4, found.n / experiment.runs.height),
        evidence=table,
        drawing=found.chart(),
        notes=found.notes,
    )


def _seeds_needed(difference: float, spread: float) -> str:
    if difference == 0.0:
        return "more seeds: so far the means are equal"
    needed = math.ceil(16 * (spread / difference) ** 2)
    return f"about {plural(max(needed, _FEWEST_SEEDS + 1), 'seed')} each to tell a difference of this size"
