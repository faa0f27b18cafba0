"""The tests of one comparison: of all configurations at once, and of every pair of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ckptlake.analytics.comparison.chooser import Choice, Test
from ckptlake.analytics.comparison.comparison import Contrast
from ckptlake.analytics.comparison.effects import Effect, hedges_g, paired_hedges_g, vargha_delaney
from ckptlake.analytics.comparison.omnibus import anova, block_anova, friedman, kruskal, welch_anova
from ckptlake.analytics.comparison.outcome import Outcome
from ckptlake.analytics.comparison.permutation import block_permutation, permutation_anova, permutation_test, sign_flip
from ckptlake.analytics.comparison.posterior import independent_posterior, paired_posterior
from ckptlake.analytics.comparison.posthoc import CriticalDifference, Pairs, dunn, games_howell, nemenyi, tukey_hsd
from ckptlake.analytics.comparison.runs import Runs
from ckptlake.analytics.comparison.two_samples import (
    kolmogorov_smirnov,
    mann_whitney,
    pair_differences,
    paired_t,
    variance,
    welch_t,
    wilcoxon,
)  # fmt: skip
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.progress import track
from ckptlake.analytics.statistics.corrections import Correction, adjusted
from ckptlake.analytics.wording import plural
from ckptlake.types import Direction

RANKED: frozenset[Test] = frozenset({"mann-whitney", "kolmogorov-smirnov", "kruskal", "wilcoxon", "friedman"})
_TWO: Mapping[Test, Callable[[Floats, Floats, float, int], Outcome]] = {
    "permutation": lambda a, b, level, seed: permutation_test(a, b, level=level, seed=seed),
    "welch": lambda a, b, level, _: welch_t(a, b, level=level),
    "mann-whitney": lambda a, b, *_: mann_whitney(a, b),
    "kolmogorov-smirnov": lambda a, b, *_: kolmogorov_smirnov(a, b),
    "sign-flip": lambda a, b, level, seed: sign_flip(pair_differences(a, b), level=level, seed=seed),
    "paired-t": lambda a, b, level, _: paired_t(a, b, level=level),
    "wilcoxon": lambda a, b, *_: wilcoxon(a, b),
}
_ALL: Mapping[Test, Callable[[list[Floats], int], Outcome]] = {
    "permutation": lambda samples, seed: permutation_anova(samples, seed=seed),
    "welch": lambda samples, _: welch_anova(samples),
    "anova": lambda samples, _: anova(samples),
    "kruskal": lambda samples, _: kruskal(samples),
    "sign-flip": lambda samples, seed: block_permutation(np.column_stack(samples), seed=seed),
    "paired-t": lambda samples, _: block_anova(np.column_stack(samples)),
    "friedman": lambda samples, _: friedman(np.column_stack(samples)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What is asked of runs.

    Attributes:
        runs: of each configuration.
        direction: whether lower or higher is better.
        choice: which tests are taken.
        correction: of p-values of pairs, where they are not joint already.
        level: the confidence of intervals, joint where there are several pairs.
        seed: of arrangements that are drawn.
    """

    runs: Runs
    direction: Direction
    choice: Choice
    correction: Correction
    level: float
    seed: int

    @property
    def is_ranked(self) -> bool:
        return self.choice.test in RANKED

    @property
    def values(self) -> tuple[Floats, ...]:
        """The values that are tested: finite ones, or for ranks all, with diverged runs behind the worst."""
        if self.is_ranked:
            return self.runs.ranked_last(self.direction)
        return tuple(sample.values for sample in self.runs.samples)

    @property
    def testable(self) -> tuple[int, ...]:
        """The places of configurations with values enough for the test."""
        by_two = not self.is_ranked or self.choice.test == "friedman"
        return tuple(place for place, values in enumerate(self.values) if len(values) >= 1 + by_two)


def of_all(asked: Question) -> Outcome:
    """Return what a test of all configurations at once says."""
    if len(asked.testable) < 2:
        return Outcome("no test", None, None, notes=("fewer than two configurations have runs enough for a test",))
    values = asked.values
    return _ALL[asked.choice.test]([values[place] for place in asked.testable], asked.seed)


@dataclass(frozen=True, slots=True, eq=False)
class Contrasts:
    """Every pair, with the name of what corrects their p-values, and the critical difference where there is one."""

    pairs: tuple[Contrast, ...]
    correction: str
    critical: CriticalDifference | None = None


def of_pairs(asked: Question) -> Contrasts:
    """Return what the tests of every pair say, with p-values corrected for their number."""
    samples = asked.runs.samples
    outcomes, correction, critical = _outcomes(asked)
    known = [pair for pair, outcome in outcomes.items() if outcome.p_value is not None]
    raw = [p for pair in known if (p := outcomes[pair].p_value) is not None]
    corrected = adjusted(raw, asked.correction) if correction == asked.correction else raw
    p_adjusted = dict(zip(known, map(float, corrected), strict=True))

    def contrast(i: int, j: int) -> Contrast:
        outcome = outcomes.get((i, j)) or _untold(asked, i, j)
        one, other = samples[i].values, samples[j].values
        if outcome.estimate is None and len(one) and len(other):
            outcome = replace(outcome, estimate=float(one.mean() - other.mean()))
        chance = None if asked.is_ranked or not _is_spread(asked, i, j) else _chance_of_better(asked, i, j)
        return Contrast(
            samples[i].label, samples[j].label, outcome, p_adjusted.get((i, j)), _effect(asked, i, j), chance
        )

    pairs = list(combinations(range(len(samples)), 2))
    return Contrasts(tuple(contrast(i, j) for i, j in track(pairs, "comparing pairs")), correction, critical)


def _outcomes(asked: Question) -> tuple[Pairs, str, CriticalDifference | None]:
    """Return the outcome of each pair that can be tested, what corrects their p-values, and the critical difference."""
    values, places, test = asked.values, asked.testable, asked.choice.for_pairs
    if len(values) == 2:
        pairs = [(0, 1)] if len(places) == 2 else []
        return {pair: _TWO[test](*values, asked.level, asked.seed) for pair in pairs}, "", None
    if len(places) < 2:
        return {}, asked.correction, None
    tested = [values[place] for place in places]
    joint: Pairs
    correction, critical = str(asked.correction), None
    if test == "anova":
        joint, correction = tukey_hsd(tested, level=asked.level), "Tukey HSD"
    elif test == "welch" and asked.choice.test == "welch":
        joint, correction = games_howell(tested, level=asked.level), "Games-Howell"
    elif test == "kruskal":
        joint = dunn(tested)
    elif test == "friedman":
        joint, critical = nemenyi(np.column_stack(tested), level=asked.level)
        correction = "Nemenyi"
    else:
        each = 1 - (1 - asked.level) / math.comb(len(tested), 2)
        pairs = list(combinations(range(len(tested)), 2))
        joint = {(i, j): _TWO[test](tested[i], tested[j], each, asked.seed) for i, j in track(pairs, "testing pairs")}
        joint = {pair: _named_joint(outcome, asked.level) for pair, outcome in joint.items()}
    return {(places[i], places[j]): outcome for (i, j), outcome in joint.items()}, correction, critical


def _named_joint(outcome: Outcome, level: float) -> Outcome:
    """Return an outcome whose interval states the confidence that all pairs have together."""
    if outcome.interval is None:
        return outcome
    interval = replace(outcome.interval, level=level, method=f"{outcome.interval.method}, joint by Bonferroni")
    return replace(outcome, interval=interval)


def _untold(asked: Question, i: int, j: int) -> Outcome:
    few = next(place for place in (i, j) if place not in asked.testable)
    sample, n = asked.runs.samples[few], len(asked.values[few])
    has = f"{sample.label} has {plural(n, 'finite value')}"
    note = f"{has}, too few to tell a difference from chance: repeat it with other seeds"
    return Outcome("no test", None, None, notes=(note,))


def _is_spread(asked: Question, i: int, j: int) -> bool:
    """Return whether there is a standard deviation to measure a difference of means by."""
    one, other = asked.runs.samples[i].values, asked.runs.samples[j].values
    if min(len(one), len(other)) < 2:
        return False
    if asked.runs.is_paired:
        return variance(pair_differences(one, other)) > 0.0
    return variance(one) + variance(other) > 0.0


def _effect(asked: Question, i: int, j: int) -> Effect | None:
    values, one, other = asked.values, asked.runs.samples[i].values, asked.runs.samples[j].values
    if not asked.is_ranked and _is_spread(asked, i, j):
        return (paired_hedges_g if asked.runs.is_paired else hedges_g)(one, other, level=asked.level)
    if not (len(values[i]) and len(values[j])):
        return None
    return vargha_delaney(values[i], values[j], level=asked.level)


def _chance_of_better(asked: Question, i: int, j: int) -> float:
    one, other = asked.runs.samples[i].values, asked.runs.samples[j].values
    below = (paired_posterior if asked.runs.is_paired else independent_posterior)(one, other).below(0.0)
    return below if asked.direction == "min" else 1 - below
