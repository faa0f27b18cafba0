"""Which params move the result, and which have no visible effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import polars as pl
from scipy import optimize, stats

from ckptlake.analytics import charts
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.insight.experiment import Experiment
from ckptlake.analytics.insight.finding import ALPHA, Finding, Insight, Silence, weight
from ckptlake.analytics.insight.space import Param, finite_or_null, space_of, written
from ckptlake.analytics.statistics.corrections import adjusted
from ckptlake.analytics.wording import listing, p_value, percent, plural

_MOST_LEVELS = 6
_BINS = 4
_FEWEST_IN_A_LEVEL = 3
_FEWEST_CONFIGURATIONS = 12
_LARGE = 0.14  # of the variance: Cohen 1988 calls it a large effect


@dataclass(frozen=True, slots=True, eq=False)
class Effect:
    """What one param explains of the results, by rank."""

    param: str
    n: int
    share: float
    most: float
    p: float
    best: str
    at_edge: bool


def visible_effects(experiment: Experiment) -> Finding:
    """Tell which params move the result.

    Results of runs that differ by the seed alone are averaged, so that a configuration counts once. Numbers of more
    than six values are cut into quarters. Ranks are compared over the values of each param by an analysis of variance
    (Conover & Iman 1981), p-values corrected for the number of params (Holm).
    """
    rule = "effects of params"
    effects, n = _effects(experiment)
    if not effects:
        return _too_few(rule, n)
    found = sorted((effect for effect in effects if effect.p <= ALPHA), key=lambda effect: -effect.share)
    if not found:
        least = p_value(min(effect.p for effect in effects))
        return Silence(rule, f"none of {plural(len(effects), 'param')} moves the result visibly ({least}, n = {n:,})")
    told = [f"{effect.param} ({percent(effect.share)} of the ranks' variance, best {effect.best})" for effect in found]
    edges = [f"{effect.param} beyond {effect.best}" for effect in found if effect.at_edge]
    action = f"Search around these values{f', and try {listing(edges)}' if edges else ''}."
    verb = "moves" if len(found) == 1 else "move"
    text = f"{listing(told)} {verb} {experiment.metric}, over {plural(n, 'configuration')}."
    return _insight(rule, text, action, 2, found, n, experiment)


def no_visible_effect(experiment: Experiment) -> Finding:
    """Tell which params cannot have a large effect, however the others are.

    As for `visible_effects`; a param is named if the upper bound of what it explains, from the noncentral F
    distribution (Steiger 2004), is less than 14 % of the variance of ranks, which Cohen 1988 calls a large effect. The
    bounds of all params hold together with 95 % confidence. That no effect was found is not enough.
    """
    rule = "no visible effect"
    effects, n = _effects(experiment)
    if not effects:
        return _too_few(rule, n)
    found = sorted(
        (effect for effect in effects if effect.p > ALPHA and effect.most < _LARGE), key=lambda effect: effect.most
    )
    if not found:
        return Silence(rule, f"of no param a large effect can be ruled out with {plural(n, 'configuration')}")
    told = [f"{effect.param} ({percent(effect.most)} of the ranks' variance at most)" for effect in found]
    text = f"No visible effect on {experiment.metric}: {listing(told)}, over {plural(n, 'configuration')}."
    return _insight(
        rule, text, "Fix what has none at its cheapest value, and spend runs on the rest.", 1, found, n, experiment
    )


def _too_few(rule: str, n: int) -> Silence:
    return Silence(
        rule,
        f"cannot be told: {plural(n, 'configuration')} with a finite result, it takes {_FEWEST_CONFIGURATIONS} "
        "and a param that varies",
    )


def _insight(
    rule: str, text: str, action: str, importance: int, found: Sequence[Effect], n: int, experiment: Experiment
) -> Insight:
    evidence = pl.DataFrame(
        {
            "param": [effect.param for effect in found],
            "n": [effect.n for effect in found],
            "share": [effect.share for effect in found],
            "at_most": [effect.most for effect in found],
            "p": [effect.p for effect in found],
            "best": [effect.best for effect in found],
        }
    )
    out = experiment.runs.height - experiment.finished.height
    return Insight(
        n=n,
        method="analysis of variance of ranks, one value a configuration",
        rule=rule,
        text=text,
        action=action,
        weight=weight(importance, max(effect.share for effect in found)),
        evidence=evidence,
        drawing=charts.interval_chart(
            "Share of the ranks' variance that params explain, and the most that they can",
            evidence.to_dicts(),
            label="param",
            value=charts.Axis("share", "share of variance", zero=True),
            low="share",
            high="at_most",
        ),
        notes=(f"left out {plural(out, 'run')} without a finite {experiment.metric}",) * bool(out),
    )


def _effects(experiment: Experiment) -> tuple[list[Effect], int]:
    """Return the effects of params and how many configurations there are."""
    settings = list(experiment.settings)
    if not settings:
        return [], 0
    known = experiment.finished.group_by(settings, maintain_order=True).agg(
        pl.col(experiment.metric).cast(pl.Float64).mean()
    )
    if known.height < _FEWEST_CONFIGURATIONS:
        return [], known.height
    losses = experiment.losses(known[experiment.metric].to_numpy())
    params = space_of(known, settings).params
    parts = [(param, *_levels(param, known[param.name])) for param in params]
    usable = [(param, codes, names) for param, codes, names in parts if len(names) > 1]
    found = [_effect(param, codes, names, losses, level=1 - ALPHA / len(usable)) for param, codes, names in usable]
    corrected = adjusted([effect.p for effect in found]).tolist() if found else []
    return [replace(effect, p=p) for effect, p in zip(found, corrected, strict=True)], known.height


def _effect(param: Param, codes: np.ndarray, names: list[str], losses: Floats, *, level: float) -> Effect:
    member = codes >= 0
    codes, ranks = codes[member], stats.rankdata(losses[member])
    share, p, most = explained_by(ranks, codes, level=level)
    best = int(np.argmin(np.bincount(codes, weights=ranks) / np.bincount(codes)))
    at_edge = param.is_numeric and best in (0, len(names) - 1)
    return Effect(param.name, len(ranks), share, most, p, names[best], at_edge)


def explained_by(values: Floats, groups: np.ndarray, *, level: float) -> tuple[float, float, float]:
    """Return the share of variance that groups explain, its p-value, and the most it can be.

    Args:
        values: float64, shape (n,).
        groups: int64, shape (n,), numbers from 0, two or more, fewer than n.
        level: the confidence of the upper bound.

    Returns:
        eta squared; p of the F test; the upper bound of the share in the population, from the noncentral F
        distribution. Of values that do not vary nothing is explained: 0, 1 and 1.

    Example:
        >>> values = np.array([1.0, 2.0, 3.0, 1.0, 2.0, 3.1])
        >>> share, p, most = explained_by(values, np.array([0, 0, 0, 1, 1, 1]), level=0.95)
        >>> round(share, 3), round(p, 2), round(most, 1)
        (0.0, 0.97, 0.0)
    """
    counts = np.bincount(groups)
    means = np.bincount(groups, weights=values) / counts
    total = float(((values - values.mean()) ** 2).sum())
    between = float((counts * (means - values.mean()) ** 2).sum())
    n, of_groups, of_rest = len(values), len(counts) - 1, len(values) - len(counts)
    if total <= 0:
        return 0.0, 1.0, 1.0
    within = total - between
    if within <= 1e-12 * total:
        return 1.0, 0.0, 1.0
    f = (between / of_groups) / (within / of_rest)

    def excess(noncentrality: float) -> float:
        return float(stats.ncf.cdf(f, of_groups, of_rest, noncentrality)) - (1 - level)

    p = float(stats.f.sf(f, of_groups, of_rest))
    if stats.f.cdf(f, of_groups, of_rest) <= 1 - level:
        return between / total, p, 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    noncentrality = float(optimize.brentq(excess, 1e-9, high))
    return between / total, p, noncentrality / (noncentrality + n)


def _levels(param: Param, values: pl.Series) -> tuple[np.ndarray, list[str]]:
    """Return the level of each configuration, -1 where it has none or a rare one, and the names of levels."""
    values = finite_or_null(values)
    if param.is_numeric and values.n_unique() - bool(values.null_count()) > _MOST_LEVELS:
        found = values.cast(pl.Float64).to_numpy()
        cuts = np.nanquantile(found, np.arange(1, _BINS) / _BINS)
        edges = [param.low, *cuts.tolist(), param.high]
        names = [f"{written(low)} to {written(high)}" for low, high in pairwise(edges)]
        codes = np.where(np.isfinite(found), np.searchsorted(cuts, found, side="left"), -1)
    else:
        distinct = values.drop_nulls().unique().sort().to_list()
        place = {value: code for code, value in enumerate(distinct)}
        names = [written(value) for value in distinct]
        codes = np.array([place.get(value, -1) for value in values])
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    kept = np.flatnonzero(counts >= _FEWEST_IN_A_LEVEL)
    again = np.full(len(names) + 1, -1)
    again[kept] = np.arange(len(kept))
    return again[codes], [names[code] for code in kept]
