"""From what was seen in a curve to the verdict on it: one function a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Check, Interval
from ckptlake.analytics.trends.excursions import FEWEST_AWAY, Course, Excursion, Limits
from ckptlake.analytics.trends.judgements import Evidence, Kind, Verdict
from ckptlake.analytics.trends.tails import FEWEST_POINTS, Swing, Tail, plateau_begin, swing_of, tail_of
from ckptlake.analytics.wording import plural

_COMPARED = 100
"""How many points on either side of a step are compared at the most."""
_DEPARTURE = "departure from the best level; Mann-Whitney test of the points before and after"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A curve before the judge.

    Attributes:
        curve: as it was logged.
        finite: its finite points.
        sign: 1 where small values are good, else -1.
        limits: what counts as how much.
        unit: the unit of the values.
        notes: what a reader must know whatever the verdict.
    """

    curve: Curve
    finite: Curve
    sign: float
    limits: Limits
    unit: str
    notes: tuple[str, ...]

    def noted(self, note: str) -> Case:
        return replace(self, notes=(*self.notes, note))

    def step(self, place: int) -> float:
        return float(self.finite.steps[place])

    def verdict(
        self, kind: Kind, evidence: Iterable[Evidence], *, step: float | None = None, tail: Tail | None = None,
        confidence: float | None = None, method: str = "as seen", checks: tuple[Check, ...] = (),
    ) -> Verdict:  # fmt: skip
        interval = None
        if tail is not None:
            ends = sorted((self.sign * tail.low, self.sign * tail.high))
            interval = Interval(ends[0], ends[1], self.limits.level, "Sen, of the change over the last quarter")
        return Verdict(
            n=self.finite.n, method=method, unit=self.unit, checks=checks, interval=interval, notes=self.notes,
            label=self.curve.label, kind=kind, step=step, tail=None if tail is None else tail.kind,
            confidence=confidence, evidence=tuple(evidence), curve=self.curve,
        )  # fmt: skip


def not_finite_from(curve: Curve) -> int | None:
    """Return the place from which a curve is NaN or infinite to its end, or None.

    Where a metric has no value at most steps, a row of NaN at the end no longer than one before it is the same habit.

    >>> not_finite_from(Curve.of("a", np.arange(5.0), np.array([1, np.nan, 1, np.nan, np.nan])))
    3
    >>> not_finite_from(Curve.of("a", np.arange(4.0), np.array([1, np.nan, 1, np.nan])))
    """
    bad = ~curve.is_finite
    if not curve.n or not bad[-1]:
        return None
    edges = np.flatnonzero(np.diff(bad, prepend=False, append=False))
    rows = [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]
    missing = [end - first if np.isnan(curve.values[first:end]).all() else 0 for first, end in rows]
    is_habit = len(rows) > 1 and 0 < missing[-1] <= max(missing[:-1])
    return None if is_habit else rows[-1][0]


def not_finite(case: Case, place: int, went: Course | None) -> Verdict:
    """Return the verdict on a curve that is NaN or infinite from a place on."""
    onset = float(case.curve.steps[place])
    seen = [Evidence("values NaN or infinite to the end:", onset, float(case.curve.n - place))]
    if went is not None and went.is_away:
        left = went.excursions[-1]
        seen.append(Evidence("had left its best level before, by", case.step(left.first), left.height))
    return case.verdict("not finite", seen, step=onset, confidence=1.0)


def diverged(case: Case, went: Course) -> Verdict:
    """Return the verdict on a curve that ended away from its best level, or swings ever farther."""
    if went.has_diverged:
        left = went.excursions[-1]
        away = float(went.level[-1] - went.best[-1])
        seen = Evidence("it ended away from its best level by", case.step(len(went.values) - 1), away)
        if away < left.height / 2:
            case = case.noted("it has come more than half of the way back since its farthest point")
    else:
        left = went.excursions[0]
        far = max(went.excursions[-2:], key=lambda one: one.height)
        seen = Evidence("it swings ever farther, at last by", case.step(far.peak), far.height)
    gained = Evidence("after it had gained", None, went.gain)
    return case.verdict(
        "diverged", [seen, gained, *best(case, went)], step=case.step(left.first),
        confidence=_confidence(went.values, left), method=_DEPARTURE, checks=(_INDEPENDENT,),
    )  # fmt: skip


def too_short(case: Case, went: Course) -> Verdict:
    """Return the verdict on a curve with too few points for its end to be judged."""
    told = case.noted(f"{plural(case.finite.n, 'finite point')}: a verdict on the end takes {FEWEST_POINTS}")
    return told.verdict("undecided", best(case, went))


def ended(case: Case, went: Course) -> Verdict:
    """Return the verdict on a curve that is not lost: what it does at its end, and what it came through."""
    tail = tail_of(case.finite.steps, went, case.limits)
    last = went.excursions[-1] if went.excursions else None
    n = len(went.values)
    if last is not None and last.last == n - 1 and not went.is_away:
        case = case.noted(
            f"the last {plural(n - last.first, 'point')} left the best level: {FEWEST_AWAY} would be a divergence"
        )
    seen = [
        Evidence("over the last quarter it changed by", case.step(tail.begin), case.sign * tail.change),
        Evidence("where this much counts as none:", None, tail.tolerance),
        *best(case, went),
    ]
    swing = swing_of(went.values)
    if swing is not None and swing.amplitude > tail.tolerance / 2:
        return _oscillating(case, tail, swing, seen)
    if last is not None and went.is_away:
        gone = Evidence("left its best level, and not come back, by", case.step(last.first), last.height)
        return case.verdict(
            "worsening", [gone, *seen], step=gone.step, tail=tail, confidence=_confidence(went.values, last),
            method=_DEPARTURE, checks=(_INDEPENDENT,),
        )  # fmt: skip
    spikes = [one for one in went.excursions if one.last < n - 1]
    recovered = [one for one in spikes if one.last > one.first]
    if len(spikes) > len(recovered):
        seen.append(Evidence("single points far off:", None, float(len(spikes) - len(recovered))))
    if recovered:
        return _recovered(case, tail, went.values, recovered, seen)
    return _at_its_tail(case, tail, went, seen)


def best(case: Case, went: Course) -> list[Evidence]:
    """Return where the best level was."""
    place = int(np.argmin(went.level))
    return [Evidence("its best level was", case.step(place), case.sign * float(went.level[place]))]


def _oscillating(case: Case, tail: Tail, swing: Swing, seen: list[Evidence]) -> Verdict:
    gap = float(np.median(np.diff(case.finite.steps)))
    swings = [
        Evidence("amplitude", case.step(swing.begin), swing.amplitude),
        Evidence("period in steps", None, swing.period * gap),
        Evidence("share of the variance", None, swing.share),
    ]
    even = Check("even steps", bool(np.ptp(np.diff(case.finite.steps)) <= 1e-6 * gap), "distances between steps")
    return case.verdict(
        "oscillating", [*swings, *seen], step=case.step(swing.begin), tail=tail, confidence=1 - swing.p,
        method="Fisher's test of the periodogram of the last half", checks=(even,),
    )  # fmt: skip


def _recovered(case: Case, tail: Tail, values: Floats, spikes: list[Excursion], seen: list[Evidence]) -> Verdict:
    highest = max(spikes, key=lambda one: one.height)
    told = [
        Evidence("left its best level by", case.step(highest.peak), highest.height),
        Evidence("and was back at", case.step(highest.last + 1), case.sign * float(values[highest.last + 1])),
        Evidence("spikes in all:", None, float(len(spikes))),
    ]
    inside = values[highest.first : highest.last + 1][-_COMPARED:]
    after = values[highest.last + 1 :][:_COMPARED]
    return case.verdict(
        "recovered", [*told, *seen], step=case.step(highest.peak), tail=tail, confidence=_greater(inside, after),
        method="departure from the best level and return; Mann-Whitney test of the points during and after",
        checks=(_INDEPENDENT,),
    )  # fmt: skip


def _at_its_tail(case: Case, tail: Tail, went: Course, seen: list[Evidence]) -> Verdict:
    method = "Theil-Sen slope and Mann-Kendall test of the last quarter"
    if tail.kind == "plateau":
        begin = case.step(plateau_begin(went, tail))
        method += "; two one-sided tests of its change"
        return case.verdict("plateau", seen, step=begin, tail=tail, confidence=tail.confidence, method=method)
    if tail.needed is not None:
        case = case.noted(f"noise hides the trend: about {plural(tail.needed, 'point')} like these would decide")
    elif tail.kind == "undecided":
        case = case.noted(f"{plural(case.finite.n, 'point')} with noise like this set no bound on the trend")
    return case.verdict(tail.kind, seen, tail=tail, confidence=tail.confidence, method=method)


_INDEPENDENT = Check("independent points", None, "neighbours of a curve seldom are; the confidence is an upper bound")


def _confidence(values: Floats, left: Excursion) -> float | None:
    """Return the confidence that values are greater from a departure on than before it."""
    before = values[max(left.first - _COMPARED, 0) : left.first]
    return _greater(values[left.first :][:_COMPARED], before)


def _greater(high: Floats, low: Floats) -> float | None:
    """Return one less the p-value that `high` is no greater than `low`, or None where there is nothing to compare."""
    if not len(high) or not len(low):
        return None
    return 1 - float(stats.mannwhitneyu(high, low, alternative="greater").pvalue)
