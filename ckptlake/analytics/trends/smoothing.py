"""Smoothing that keeps steps, bears irregular ones, and leaves NaN and infinity where they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from ckptlake.analytics.arguments import check_count, check_not_huge, check_number
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.libraries import need
from ckptlake.analytics.wording import plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError

_WINDOWS_AT_ONCE = 20_000
_MOST_WINDOW, _MOST_ROBUST = 99_999, 100


def ema(curve: Curve, half_life: float) -> Curve:
    """Return the exponential moving average, corrected for its start.

    Each value is the mean of all values so far, weighted by ``2 ** (-distance / half_life)``. As the weights are
    divided by their sum there is no pull towards zero at the start, and uneven steps weigh by their distance.

    Source: Kingma, D. and Ba, J. (2015), "Adam", section 3, for the bias correction.

    Args:
        curve: the curve.
        half_life: the distance over which a weight halves, in the unit of the steps.

    Raises:
        InvalidInputError: the half-life is not a finite number above 0.

    Example:
        >>> ema(Curve.of("a", np.arange(3.0), np.array([4.0, 1.0, 1.0])), half_life=1.0).values.round(3).tolist()
        [4.0, 2.0, 1.429]
    """
    check_number(half_life, "half_life", above=0.0)

    def smooth(steps: Floats, values: Floats) -> Floats:
        with np.errstate(over="ignore"):  # a half-life far below the distance of points lets nothing of the past count
            decays = np.exp2(-np.diff(steps, prepend=steps[:1]) / half_life)
        total = weight = 0.0
        means = []
        for decay, value in zip(decays.tolist(), values.tolist(), strict=True):
            total, weight = decay * total + value, decay * weight + 1.0
            means.append(total / weight)
        return np.array(means)

    return _where_finite(curve, smooth)


def rolling_median(curve: Curve, window: int) -> Curve:
    """Return the median of the `window` points around each; beyond the ends the curve is mirrored.

    Source: Tukey, J. (1977), "Exploratory Data Analysis". It ignores spikes narrower than half the window.

    Args:
        curve: the curve.
        window: how many points, an odd number.

    Raises:
        InvalidInputError: the window is even or not positive.

    Example:
        >>> rolling_median(Curve.of("a", np.arange(5.0), np.array([1.0, 1.0, 9.0, 1.0, 1.0])), 3).values.tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    _check_window(window)
    return _where_finite(curve, lambda _, values: median_of_neighbours(values, window))


def savitzky_golay(curve: Curve, window: int, degree: int = 2) -> Curve:
    """Return the value of a polynomial fitted to the `window` points nearest in order, at each point.

    On even steps this is `scipy.signal.savgol_filter` with ``mode="interp"``; on uneven ones the polynomial is fitted
    over the steps themselves. It keeps the height of peaks better than a mean, and follows noise more.

    Source: Savitzky, A. and Golay, M. (1964), Analytical Chemistry 36; Gorry, P. (1991), Analytical Chemistry 63, for
    uneven steps.

    Args:
        curve: the curve.
        window: how many points, an odd number above `degree`.
        degree: of the polynomial.

    Raises:
        InvalidInputError: the window is even or too narrow for the degree, the degree is negative, or a value is huge.
        NotEnoughDataError: the curve has fewer finite points than the window.

    Example:
        >>> line = Curve.of("a", np.array([0.0, 1.0, 4.0, 5.0, 9.0]), np.array([1.0, 2.0, 5.0, 6.0, 10.0]))
        >>> savitzky_golay(line, 3, 1).values.round(6).tolist()
        [1.0, 2.0, 5.0, 6.0, 10.0]
    """
    _check_window(window)
    check_count(degree, "degree", least=0, most=window - 1)
    _check_enough(curve, window)
    check_not_huge(curve.finite().values, f"the curve {curve.label!r:.100}")

    def smooth(steps: Floats, values: Floats) -> Floats:
        first = np.clip(np.arange(len(steps)) - window // 2, 0, len(steps) - window)
        found = np.empty(len(steps))
        for begin in range(0, len(steps), _WINDOWS_AT_ONCE):
            part = slice(begin, begin + _WINDOWS_AT_ONCE)
            near = sliding_window_view(steps, window)[first[part]] - steps[part, None]
            widths = np.abs(near).max(axis=1) if window > 1 else np.ones(len(near))
            powers = (near / widths[:, None])[:, :, None] ** np.arange(degree + 1)
            # The value at the point itself, where the distance is 0, is the first coefficient.
            q, r = np.linalg.qr(powers)
            heights = (q * sliding_window_view(values, window)[first[part]][:, :, None]).sum(axis=1)
            found[part] = np.linalg.solve(r, heights[:, :, None])[:, 0, 0]
        return found

    return _where_finite(curve, smooth)


def lowess(curve: Curve, share: float = 0.1, *, n_robust: int = 3) -> Curve:
    """Return the locally weighted line through the nearest `share` of points (`statsmodels`).

    Beyond 1,000 points, fits closer together than a thousandth of the range of steps are interpolated between.

    Source: Cleveland, W. (1979), "Robust locally weighted regression and smoothing scatterplots", J. American
    Statistical Association 74.

    Args:
        curve: the curve.
        share: the share of points in each fit, above 0 and at most 1.
        n_robust: how many times points far off are given less weight.

    Raises:
        InvalidInputError: the share is not in that range, `n_robust` is none of 0 to 100, or a value is huge.
        NotEnoughDataError: the share holds fewer than three finite points.

    Example:
        >>> line = Curve.of("a", np.arange(20.0), np.arange(20.0))
        >>> bool(np.allclose(lowess(line, 0.5).values, line.values))
        True
    """
    check_number(share, "share", above=0.0, most=1.0)
    check_count(n_robust, "n_robust", least=0, most=_MOST_ROBUST)
    _check_enough(curve, math.ceil(3 / max(share, 1e-12)))
    check_not_huge(curve.finite().values, f"the curve {curve.label!r:.100}")
    smoothers = need("statsmodels.nonparametric.smoothers_lowess", "LOWESS")

    def smooth(steps: Floats, values: Floats) -> Floats:
        delta = 0.0 if len(steps) <= 1000 else (steps[-1] - steps[0]) / 1000
        found: Floats = smoothers.lowess(
            values, steps, frac=share, it=n_robust, delta=delta, is_sorted=True, return_sorted=False
        )
        return found

    return _where_finite(curve, smooth)


def median_of_neighbours(values: Floats, window: int) -> Floats:
    """Return the median of the `window` finite values around each; beyond the ends the values are mirrored."""
    found: Floats = ndimage.median_filter(values, window, mode="reflect")
    return found


def _where_finite(curve: Curve, smooth: Callable[[Floats, Floats], Floats]) -> Curve:
    keep = curve.is_finite
    if not keep.any():
        return curve
    values = curve.values.copy()
    values[keep] = smooth(curve.steps[keep], curve.values[keep])
    return replace(curve, values=values)


def _check_window(window: int) -> None:
    check_count(window, "window", most=_MOST_WINDOW)
    if window % 2 == 0:
        raise InvalidInputError(f"window={window}: an odd number of points is needed, as many on either side")


def _check_enough(curve: Curve, fewest: int) -> None:
    if (n := int(curve.is_finite.sum())) < fewest:
        raise NotEnoughDataError(
            f"the curve {curve.label!r:.100} has {plural(n, 'finite point')}: this smoothing takes {fewest} or more"
        )
