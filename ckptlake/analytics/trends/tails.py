"""How a curve ends: still improving, level, getting worse, or swinging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from ckptlake.analytics.frames import Floats
from ckptlake.analytics.trends.excursions import Course, Limits
from ckptlake.analytics.trends.slopes import Monotone, blocks, monotone
from ckptlake.analytics.trends.smoothing import median_of_neighbours

TailKind = Literal["improving", "plateau", "worsening", "undecided"]
FEWEST_POINTS = 10
"""How many finite points a verdict on the end of a curve takes."""
_TAIL_SHARE = 0.25
_TAIL_BLOCKS = 40
_MOST_TOLERANCES = 1_000
_FEWEST_FOR_SWINGS = 128
_FEWEST_SWINGS = 4
_SWING_SHARE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """The last quarter of a curve, with small values good.

    Attributes:
        kind: what it does.
        begin: the place of its first point.
        trend: its slope and the test of it.
        change: how much the value changes over the tail, after that slope; negative is better.
        low: the lower end of the interval of that change.
        high: the upper end.
        tolerance: the change that would count as none.
        confidence: one less the p-value behind the kind; None where undecided.
        needed: how many points it would take to decide, as noise falls with the root of their number.
    """

    kind: TailKind
    begin: int
    trend: Monotone
    change: float
    low: float
    high: float
    tolerance: float
    confidence: float | None
    needed: int | None


@dataclass(frozen=True, slots=True)
class Swing:
    """A regular oscillation in the last half of a curve.

    Attributes:
        begin: the place where that half begins.
        period: its length in points.
        amplitude: half the distance from crest to trough.
        share: the share of the variance about the trend that it makes up.
        p: the p-value of Fisher's test that the half is a trend and white noise.
    """

    begin: int
    period: float
    amplitude: float
    share: float
    p: float


def tail_of(steps: Floats, course: Course, limits: Limits) -> Tail:
    """Return what the last quarter of a curve does.

    It is a plateau where all its values, or after two one-sided tests its change, lie within what counts as nothing.
    It improves or worsens where either of two tests, corrected for being two, finds a trend: Mann-Kendall's, strong
    where points are many and noisy, and that of the signs of its increments, strong where they are few and smooth.
    Else it is undecided.

    Source: `monotone` for slope, interval and the first test; Cox, D. and Stuart, A. (1955), Biometrika 42, for sign
    tests of trend; Schuirmann, D. (1987), J. Pharmacokinetics and Biopharmaceutics 15, for two one-sided tests.

    Args:
        steps: float64, shape (n,), rising; ten or more.
        course: of the same curve.
        limits: what counts as how much.
    """
    n = len(steps)
    begin = min(int(np.searchsorted(steps, steps[-1] - _TAIL_SHARE * (steps[-1] - steps[0]))), n - FEWEST_POINTS)
    values = course.values[begin:]
    # Means tell more than medians here, and the slope bears blocks that a spike spoils.
    x, y = blocks(steps[begin:], values, _TAIL_BLOCKS, np.mean)
    trend = monotone(x, y, limits.level)
    width = float(steps[-1] - steps[begin])
    change, low, high = trend.slope * width, trend.low * width, trend.high * width
    material = limits.plateau_share * course.gain
    noise = float(1.4826 * np.median(np.abs(values - trend.intercept - trend.slope * steps[begin:])))
    tolerance = max(material, noise)
    equivalence = _equivalence(trend, width, tolerance, limits.level)
    p = min(1.0, 2 * min(trend.p, _increments(y)))
    kind: TailKind
    confidence: float | None
    if np.ptp(y) <= material:
        kind, confidence = "plateau", 1.0
    elif p < 1 - limits.level and not (-material <= low and high <= material):
        kind, confidence = "improving" if trend.tau < 0 else "worsening", 1 - p / 2
    elif equivalence >= limits.level:
        kind, confidence = "plateau", equivalence
    else:
        kind, confidence = "undecided", None
    needed = None
    if kind == "undecided" and high - low < _MOST_TOLERANCES * tolerance:
        needed = int(np.ceil(n * max(((high - low) / (2 * tolerance)) ** 2, 1.1)))
    return Tail(kind, begin, trend, change, low, high, tolerance, confidence, needed)


def plateau_begin(course: Course, tail: Tail) -> int:
    """Return the place from which the curve stays as near to its last level as counts as none."""
    values = course.values
    size = max(1, len(values) // 100)
    smooth = median_of_neighbours(values, 2 * size + 1)
    last = float(np.median(values[tail.begin :]))
    # A median of 2k+1 points wanders by about 1.25 sigma / sqrt(2k+1); 4.5 of those happen nowhere on a level curve.
    reach = max(tail.tolerance, 4.5 * 1.25 * course.noise / np.sqrt(2 * size + 1))
    outside = np.flatnonzero(np.abs(smooth[: tail.begin] - last) > reach)
    return int(outside[-1]) + 1 if len(outside) else 0


def swing_of(values: Floats) -> Swing | None:
    """Return the regular oscillation that rules the last half of a curve, or None.

    It rules where one frequency, of four cycles or more, makes up half of the variance about a parabola, where slower
    ones make up less than a quarter of that, and where Fisher's test says that noise does not.

    Source: Fisher, R. (1929), "Tests of significance in harmonic analysis", Proc. Royal Society A 125. Points count
    as evenly spaced.

    Args:
        values: float64, shape (n,), finite.

    Example:
        >>> found = swing_of(np.sin(np.arange(400.0)))
        >>> found is not None and round(found.period, 1)
        6.3
    """
    if len(values) < _FEWEST_FOR_SWINGS:
        return None
    half = values[len(values) // 2 :]
    place = np.linspace(-1, 1, len(half))
    bend = place**2 - np.mean(place**2)
    centred = half - half.mean()
    rest = centred - place * (place @ centred) / (place @ place) - bend * (bend @ centred) / (bend @ bend)
    variance = float(rest.var())
    if variance <= 1e-24 * max(float(np.square(half).max()), np.finfo(float).tiny):
        return None
    power = np.abs(np.fft.rfft(rest)[1:]) ** 2
    total = float(power.sum())
    peak = int(np.argmax(power))
    around = slice(max(peak - 1, 0), peak + 2)
    share, slower = float(power[around].sum()) / total, float(power[: max(peak - 1, 0)].sum()) / total
    p = float(min(1.0, len(power) * np.exp((len(power) - 1) * np.log1p(-min(power[peak] / total, 1 - 1e-12)))))
    if peak + 1 < _FEWEST_SWINGS or share < _SWING_SHARE or slower > share / 4 or p > 0.001:
        return None
    period = len(half) * float(power[around].sum()) / float(power[around] @ (np.arange(len(power))[around] + 1))
    return Swing(len(values) // 2, period, float(np.sqrt(2 * share * variance)), share, p)


def _increments(values: Floats) -> float:
    """Return the p-value of as many rises or falls, were both as likely.

    Noise about a level turns back more often than that, and a random walk just as often: the test holds for either.
    """
    rises, falls = int((np.diff(values) > 0).sum()), int((np.diff(values) < 0).sum())
    if not rises + falls:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(rises, falls), rises + falls, 0.5)))


def _equivalence(trend: Monotone, width: float, tolerance: float, level: float) -> float:
    """Return the confidence that the change is within the tolerance, from the interval's width."""
    freedom = max(trend.n_effective - 2, 1.0)
    error = (trend.high - trend.low) * width / 2 / float(special.stdtrit(freedom, (1 + level) / 2))
    if error == 0:
        return 1.0
    return float(special.stdtr(freedom, (tolerance - abs(trend.slope) * width) / error))
