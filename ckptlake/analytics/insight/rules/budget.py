"""Runs that were stopped while they still improved."""

from __future__ import annotations

import polars as pl

from ckptlake.analytics import charts
from ckptlake.analytics.insight.experiment import Experiment
from ckptlake.analytics.insight.finding import ALPHA, Finding, Insight, Silence, weight
from ckptlake.analytics.results import Check
from ckptlake.analytics.statistics.corrections import adjusted
from ckptlake.analytics.trends.tails import FEWEST_POINTS
from ckptlake.analytics.wording import listing, p_value, plural

_RULE = "stopped too early"


def stopped_early(experiment: Experiment) -> Finding:
    """Tell of runs whose curve still improved over its last quarter.

    By `verdict` on each curve; its p-values are corrected for the number of curves (Holm), so that among many level
    curves one that seems to fall by chance is no insight.
    """
    found = [verdict for verdict in experiment.verdicts() if verdict.tail is not None]
    if not found:
        return Silence(_RULE, f"cannot be told: no curve with {FEWEST_POINTS} points or more that did not diverge")
    p = [
        1.0 - verdict.confidence if verdict.kind == "improving" and verdict.confidence is not None else 1.0
        for verdict in found
    ]
    corrected = adjusted(p).tolist()
    rows = [
        {"run": verdict.label, "points": verdict.n, "p": chance, "seen": verdict.sentence()}
        for verdict, chance in zip(found, corrected, strict=True)
        if chance <= ALPHA
    ]
    if not rows:
        return Silence(_RULE, f"none of {plural(len(found), 'curve')} visibly improved over its last quarter")
    evidence = pl.DataFrame(rows).sort("p", maintain_order=True)
    runs = listing(evidence["run"].to_list())
    text = (
        f"{len(rows):,} of {plural(len(found), 'run')} still improved over the last quarter before the end: {runs} "
        f"({p_value(max(evidence['p']))} or less each, corrected for {plural(len(found), 'curve')})."
    )
    ending = {verdict.label: verdict.tail for verdict in found}
    tails = pl.Series("ending", list(ending.values())).value_counts(sort=True)
    return Insight(
        n=len(found),
        method="Mann-Kendall test of the last quarter of each curve, Holm",
        checks=(Check("independent points", None, "neighbours of a curve seldom are: p-values are lower bounds"),),
        rule=_RULE,
        text=text,
        action="Train these longer before comparing them, or let the learning rate decay to its end.",
        weight=weight(3, len(rows) / experiment.runs.height),
        evidence=evidence,
        drawing=charts.bar_chart(
            "How curves end", tails.to_dicts(), label="ending", value=charts.Axis("count", "curves")
        ),
    )
