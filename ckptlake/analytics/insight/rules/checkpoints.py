"""Checkpoints that are better than the last one."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from ckptlake.analytics import charts
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.insight.experiment import Experiment
from ckptlake.analytics.insight.finding import ALPHA, Finding, Insight, Silence, weight
from ckptlake.analytics.results import Check
from ckptlake.analytics.statistics.corrections import adjusted
from ckptlake.analytics.wording import listing, number, p_value, plural

_RULE = "a better checkpoint"
_FEWEST_POINTS = 20


def better_checkpoint(experiment: Experiment) -> Finding:
    """Tell of runs with an earlier checkpoint that is better than the last by more than noise.

    The best of many noisy values is always better than the last one, so the gap is set against the noise of the curve's
    second half, estimated by its second differences (Gasser, Sroka & Jennen-Steinmetz 1986), and against how many
    checkpoints there were to choose from, as in Dunnett's test with the last as control. A checkpoint's value is that
    of the last point at or before its step. p-values are corrected for the number of runs (Holm). If the last value is
    NaN or infinite, any finite checkpoint is better.
    """
    if experiment.checkpoints is None or experiment.curves is None:
        return Silence(_RULE, "cannot be told without curves and checkpoints")
    curves = {curve.label: curve for curve in experiment.curve_of_each_run()}
    saved = experiment.named(experiment.checkpoints.select("run_id", "step").drop_nulls())
    steps = saved.group_by("run", maintain_order=True).agg(pl.col("step").sort())
    rows = [
        row
        for run, at in steps.iter_rows()
        if run in curves and (row := _against_last(experiment, curves[run], np.array(at, np.float64)))
    ]
    if not rows:
        return Silence(
            _RULE,
            f"cannot be told: no run has 2 checkpoints and {_FEWEST_POINTS} points in the later half of its curve",
        )
    found = pl.DataFrame(rows).with_columns(p=pl.Series(adjusted([row["p"] for row in rows])))
    better = found.filter(pl.col("p") <= ALPHA).sort("p", maintain_order=True)
    if better.is_empty():
        return Silence(
            _RULE, f"in none of {plural(len(rows), 'run')} a checkpoint is better than the last beyond noise"
        )
    told = [
        f"{row['run']} at step {number(row['best_step'])} ({number(row['best'])} against {number(row['last'])} at "
        f"the last, {p_value(row['p'])})"
        for row in better.iter_rows(named=True)
    ]
    return Insight(
        n=len(rows),
        method="gap to the best checkpoint against noise from second differences, Dunnett's distribution, Holm",
        checks=(Check("noise of neighbouring points is independent", None, "not tested"),),
        rule=_RULE,
        text=f"{better.height:,} of {plural(len(rows), 'run')} had a better checkpoint than the last: {listing(told)}.",
        action="Use that checkpoint, and look for overfitting or a schedule that ends too high.",
        weight=weight(3, better.height / experiment.runs.height),
        evidence=better,
        drawing=charts.bar_chart(
            "Gap between the last checkpoint and the best",
            better.filter(pl.col("gap").is_finite()).to_dicts(),
            label="run",
            value=charts.Axis("gap", f"{experiment.metric}: last against best"),
        ),
    )


def _against_last(experiment: Experiment, curve: Curve, steps: Floats) -> dict[str, Any] | None:
    """Return the last and the best checkpoint of a run; None if there are too few points to set them apart."""
    at = np.searchsorted(curve.steps, steps, side="right") - 1
    steps, at = steps[at >= 0], at[at >= 0]
    at, first = np.unique(at, return_index=True)
    if len(at) < 2:
        return None
    steps, losses = steps[first], experiment.losses(curve.values[at])
    finite = np.isfinite(losses)
    late = experiment.losses(curve.finite().values)
    late = late[len(late) // 2 :]
    if not finite[:-1].any() or len(late) < _FEWEST_POINTS:
        return None
    best = int(np.where(finite, losses, np.inf).argmin())
    if not finite[-1]:
        gap, p = float("inf"), 0.0
    else:
        gap = float(losses[-1] - losses[best])
        noise, degrees = noise_of(late)
        p = chance_of_gap(gap, noise, int(finite.sum()), degrees)
    return {
        "run": curve.label,
        "checkpoints": len(at),
        "best_step": float(steps[best]),
        "best": float(curve.values[at[best]]),
        "last_step": float(steps[-1]),
        "last": float(curve.values[at[-1]]),
        "gap": gap,
        "p": p,
    }


def noise_of(values: Floats) -> tuple[float, float]:
    """Return the standard deviation of the noise of a curve, and how many degrees of freedom it is known with.

    By second differences (Gasser, Sroka & Jennen-Steinmetz 1986), which a straight trend leaves at zero.

    Args:
        values: float64, shape (n,), n at least 3, all finite, at steps about as far apart.

    Example:
        >>> noise, degrees = noise_of(np.arange(1000.0) + np.random.default_rng(0).normal(0, 0.1, 1000))
        >>> round(noise, 2), round(degrees)
        (0.1, 513)
    """
    second = np.diff(values, 2)
    return float(np.sqrt(np.mean(second**2) / 6)), 18 * len(second) / 35


def chance_of_gap(gap: float, noise: float, count: int, degrees: float) -> float:
    """Return how often the last of equally good values lies above the least of them by a gap or more.

    Args:
        gap: the last value less the least one, 0 or more.
        noise: the estimated standard deviation of each value.
        count: how many values there are, 2 or more.
        degrees: with how many degrees of freedom the noise is known.

    Example:
        >>> round(chance_of_gap(2.0, 1.0, 2, 1e9), 3), chance_of_gap(0.0, 1.0, 5, 30.0)
        (0.079, 1.0)
    """
    if gap <= 0:
        return 1.0
    if noise == 0:
        return 0.0
    nodes, weights = np.polynomial.legendre.leggauss(64)
    scales = np.sqrt(stats.chi2.ppf((nodes + 1) / 2, degrees) / degrees)
    place, mass = np.polynomial.hermite_e.hermegauss(64)
    none_below = stats.norm.sf(place[None] - gap / noise * scales[:, None]) ** (count - 1)
    return float(np.clip(1 - weights / 2 @ none_below @ mass / np.sqrt(2 * np.pi), 0.0, 1.0))
