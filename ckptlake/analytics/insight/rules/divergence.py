"""Runs that diverged, and which param tells them from the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics import charts
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.insight.experiment import Experiment
from ckptlake.analytics.insight.finding import ALPHA, Finding, Insight, Silence, weight
from ckptlake.analytics.insight.space import Space, finite_or_null, space_of, written
from ckptlake.analytics.results import Check
from ckptlake.analytics.trends.judgements import ALARMS
from ckptlake.analytics.wording import listing, p_value, plural

_RULE = "diverged runs"
_FEWEST_ON_A_SIDE = 2
_FEWEST_RUNS = 8
_LOOK = "Look at the curves for the step where they left their best level."
_DRAWS = 999
_MOST_VALUES = 50
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Two groups of runs by one param: those of which `where` is true, and the others."""

    where: str
    otherwise: str
    members: np.ndarray


def diverged_runs(experiment: Experiment) -> Finding:
    """Tell which runs diverged, and of which param's values that is the fault.

    A run has diverged if its result is NaN or infinite, or by the `verdict` on its curve. Every split of the runs
    by a threshold of a number, by a choice, or by whether a conditional param exists is looked at. The one that
    parts diverged runs most sharply (by its standardized hypergeometric count) is named if a permutation test of
    the sharpest of all splits allows it, so that many params do not make a finding likelier. A number of more than
    50 values is split at 49 quantiles. The test takes runs for independent; a check tells where they are seeds of few
    configurations, which tend to diverge together.
    """
    diverged = _lost(experiment)
    total, n = int(diverged.sum()), len(diverged)
    if total == 0:
        return Silence(_RULE, f"none of {plural(n, 'run')} diverged")
    lost = listing(experiment.names.filter(pl.Series(diverged)))
    counted = f"{total:,} of {plural(n, 'run')} diverged in {experiment.metric}: {lost}"
    splits = _splits(space_of(experiment.runs, experiment.settings), experiment.runs)
    if total == n or n < _FEWEST_RUNS or not splits:
        few = f"which param is at fault cannot be told from {plural(n, 'run')} of which {total:,} diverged"
        return _insight(experiment, diverged, f"{counted}; {few}.", _LOOK)
    split, p = _sharpest(splits, diverged)
    if p > ALPHA:
        text = f"{counted}; no param tells which ({p_value(p)} for the best split, {split.where})."
        return _insight(experiment, diverged, text, _LOOK)
    rates = [(name, int(diverged[members].sum()), int(members.sum())) for name, members in _sides(split)]
    (bad, n_bad, of_bad), (_, n_good, of_good) = sorted(rates, key=lambda rate: rate[1] / rate[2], reverse=True)
    text = f"{n_bad:,} of {plural(of_bad, 'run')} with {bad} diverged, {n_good:,} of {of_good:,} others ({p_value(p)})."
    return _insight(
        experiment, diverged, text, f"Avoid {bad}, or warm up, clip gradients or raise the precision there.", rates
    )


def _insight(
    experiment: Experiment,
    diverged: np.ndarray,
    text: str,
    action: str,
    rates: list[tuple[str, int, int]] | None = None,
) -> Insight:
    total, n = int(diverged.sum()), len(diverged)
    groups = rates or [("all runs", total, n)]
    evidence = pl.DataFrame(
        [{"runs": name, "n": of, "diverged": count, "share": count / of} for name, count, of in groups]
    )
    return Insight(
        n=n,
        method=f"sharpest split by one param, {_DRAWS} permutations",
        checks=_independence(experiment),
        rule=_RULE,
        text=text,
        action=action,
        weight=weight(5, total / n),
        evidence=evidence,
        drawing=charts.bar_chart(
            "Runs that diverged", evidence.to_dicts(), label="runs", value=charts.Axis("share", "share that diverged")
        ),
    )


def _lost(experiment: Experiment) -> np.ndarray:
    """Return which runs have diverged, bool of shape (runs,)."""
    alarms = [found.label for found in experiment.verdicts() if found.kind in ALARMS]
    by_curve = experiment.names.is_in(alarms).to_numpy()
    return np.asarray(experiment.diverged | by_curve)


def _sides(split: Split) -> tuple[tuple[str, np.ndarray], tuple[str, np.ndarray]]:
    return (split.where, split.members), (split.otherwise, ~split.members)


def _splits(space: Space, runs: pl.DataFrame) -> list[Split]:
    found: list[Split] = []
    for param in space.params:
        values = finite_or_null(runs[param.name])
        if param.is_conditional:
            found.append(Split(f"{param.name} set", f"{param.name} not set", values.is_not_null().to_numpy()))
        if not param.is_numeric:
            text = values.cast(pl.String)
            found += [
                Split(
                    f"{param.name} = {choice}",
                    f"{param.name} other than {choice}",
                    (text == str(choice).lower() if param.kind == "bool" else text == choice)
                    .fill_null(False)
                    .to_numpy(),
                )
                for choice in param.choices
            ]
            continue
        for limit in _limits(values):
            above = (values > limit).fill_null(False).to_numpy()
            at = written(limit)
            found.append(Split(f"{param.name} above {at}", f"{param.name} at most {at}", above))
    return [split for split in found if _FEWEST_ON_A_SIDE <= split.members.sum() <= runs.height - _FEWEST_ON_A_SIDE]


def _limits(values: pl.Series) -> list[float]:
    """Return the values of a number at which runs are split."""
    distinct = values.drop_nulls().unique().sort()
    if len(distinct) <= _MOST_VALUES:
        return distinct.to_list()[:-1]
    places = np.linspace(0, len(distinct), _MOST_VALUES + 1, dtype=np.int64)[1:-1] - 1
    return distinct.gather(places).to_list()


def _independence(experiment: Experiment) -> tuple[Check, ...]:
    settings, n = experiment.settings, experiment.runs.height
    if not settings:
        return ()
    n_configurations = experiment.runs.select(settings).n_unique()
    evidence = f"{plural(n, 'run')} of {plural(n_configurations, 'configuration')}"
    return (Check("runs diverge independently of each other", None if n_configurations == n else False, evidence),)


def _sharpest(splits: list[Split], diverged: np.ndarray) -> tuple[Split, float]:
    """Return the split that parts diverged runs from others most sharply, and how often chance does so."""
    members = np.stack([split.members for split in splits]).astype(np.float64)
    flags = diverged.astype(np.float64)
    observed = _sharpness(members, flags[:, None])[:, 0]
    rng = np.random.default_rng(_SEED)
    shuffled = rng.permuted(np.tile(flags, (_DRAWS, 1)), axis=1).T
    by_chance = _sharpness(members, shuffled).max(0)
    best = int(observed.argmax())
    tolerance = 1e-9
    return splits[best], (1 + int((by_chance >= observed[best] - tolerance).sum())) / (1 + _DRAWS)


def _sharpness(members: Floats, flags: Floats) -> Floats:
    """Return |z| of how many flagged runs each split has, shape (splits, draws); hypergeometric mean and variance."""
    n, total = len(flags), flags.sum(0)
    size = members.sum(1)[:, None]
    mean = size * total / n
    variance = mean * (1 - total / n) * (n - size) / (n - 1)
    return np.asarray(np.abs(members @ flags - mean) / np.sqrt(variance))
