"""Runs that are slower than others that do the same on the same GPU."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import stats

from ckptlake.analytics import charts
from ckptlake.analytics.arguments import LARGEST
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.insight.experiment import Experiment
from ckptlake.analytics.insight.finding import ALPHA, Finding, Insight, Silence, weight
from ckptlake.analytics.wording import listing, number, p_value, plural

_RULE = "slow runs"
_FEWEST_TWINS = 3
_LEAST_RATIO = 1.25
_FEWEST_DEGREES = 3


def slow_runs(experiment: Experiment) -> Finding:
    """Tell of runs that are slower than their twins: runs with the same params but the seed, on the same GPU.

    Each run's log speed is set against the mean of its twins by its externally studentized residual, the spread being
    that of all groups of three runs or more without the run itself; p-values are corrected for the number of runs
    (Bonferroni). A run counts if it is slower by a quarter at least.
    """
    speed, device = experiment.speed, experiment.device
    missing = [name for name in (speed, device) if name not in experiment.runs.columns]
    if missing:
        return Silence(_RULE, f"cannot be told: the runs have no column {listing(map(repr, missing))}")
    keys = [*experiment.settings, device]
    is_speed = pl.col(speed).cast(pl.Float64).is_between(1 / LARGEST, LARGEST)
    known = experiment.runs.filter(is_speed & pl.col(device).is_not_null())
    groups = known.with_columns(group=pl.int_range(pl.len()).first().over(keys), twins=pl.len().over(keys))
    groups = groups.filter(pl.col("twins") >= _FEWEST_TWINS)
    n, n_groups = groups.height, groups["group"].n_unique()
    if n - n_groups - 1 < _FEWEST_DEGREES:
        few = f"{plural(n, 'run')} in {plural(n_groups, 'group')}"
        return Silence(_RULE, f"cannot be told: {few} with {_FEWEST_TWINS - 1} twins or more each")
    log_speed = np.log(groups[speed].cast(pl.Float64).to_numpy())
    t, gap = studentized(log_speed, np.unique(groups["group"].to_numpy(), return_inverse=True)[1])
    p = np.minimum(stats.t.cdf(t, n - n_groups - 1) * n, 1.0)
    found = experiment.named(groups).select(
        "run", device, speed, "twins", times_slower=pl.Series(np.exp(-gap)), p=pl.Series(p)
    ).sort("times_slower", descending=True, maintain_order=True)  # fmt: skip
    slow = found.filter((pl.col("p") <= ALPHA) & (pl.col("times_slower") >= _LEAST_RATIO))
    if slow.is_empty():
        return Silence(_RULE, f"no run of {n:,} is visibly slower than its twins")
    told = [
        f"{run} is {number(times, 2)}x slower than its {twins - 1} twins on {gpu} ({p_value(chance)})"
        for run, gpu, _, twins, times, chance in slow.iter_rows()
    ]
    return Insight(
        n=n,
        method="externally studentized residuals of log speed within groups of twins, Bonferroni",
        rule=_RULE,
        text=f"{listing(told)}.",
        action="Look at its machine: the data loader, other jobs on the GPU, its temperature and clock.",
        weight=weight(2, slow.height / experiment.runs.height),
        evidence=slow,
        drawing=charts.bar_chart(
            "Runs slower than their twins",
            slow.to_dicts(),
            label="run",
            value=charts.Axis("times_slower", "times slower than the twins' mean"),
        ),
        notes=(f"left out {plural(experiment.runs.height - n, 'run')} without twins or speed",)
        * (n < experiment.runs.height),
    )


def studentized(values: Floats, groups: np.ndarray) -> tuple[Floats, Floats]:
    """Return externally studentized residuals of a one-way layout, and each value less the mean of its group's others.

    Args:
        values: float64, shape (n,).
        groups: int64, shape (n,), numbers from 0; each group has two values or more.

    Returns:
        Two arrays of shape (n,). A residual has a t distribution with n - groups - 1 degrees of freedom if values are
        normal around their group's mean; it is 0 where value and others do not vary at all, infinite where only the
        value does.

    Example:
        >>> t, gap = studentized(np.array([1.0, 1.2, 0.8, 3.0]), np.zeros(4, int))
        >>> t.round(2).tolist(), gap.round(2).tolist()
        ([-0.49, -0.28, -0.73, 8.66], [-0.67, -0.4, -0.93, 2.0])
    """
    size = np.bincount(groups)[groups]
    residual = values - (np.bincount(groups, weights=values) / np.bincount(groups))[groups]
    share = size / (size - 1)
    degrees = len(values) - groups.max() - 2
    without = np.maximum((residual**2).sum() - residual**2 * share, 0.0) / degrees
    error = np.sqrt(without / share)
    tiny = 1e-12 * max(float(np.abs(values).max()), 1.0)
    known = error > tiny
    certain = np.where(np.abs(residual) > tiny, np.copysign(np.inf, residual), 0.0)
    t = np.divide(residual, error, out=certain, where=known)
    return t, residual * share
