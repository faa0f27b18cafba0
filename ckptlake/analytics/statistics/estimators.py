"""Location, spread and shape of values, along the last axis of an array."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckptlake.analytics.frames import Floats


def mean(values: Floats) -> Any:
    """Return the arithmetic mean along the last axis."""
    return values.mean(axis=-1)


def median(values: Floats) -> Any:
    """Return the median along the last axis."""
    return np.median(values, axis=-1)


def trimmed_mean(values: Floats, share: float = 0.1) -> Any:
    """Return the mean along the last axis without the `share` smallest and the `share` largest values.

    The number cut at each end is ``int(share * n)``, as ``scipy.stats.trim_mean`` has it.

    Args:
        values: float64, shape (..., n), n >= 1.
        share: what is cut at each end, at least 0 and below 0.5.

    Example:
        >>> float(trimmed_mean(np.array([1.0, 2.0, 3.0, 4.0, 100.0]), 0.2))
        3.0
    """
    n = values.shape[-1]
    cut = int(share * n)
    if cut == 0:
        return values.mean(axis=-1)
    return np.partition(values, (cut, n - cut - 1), axis=-1)[..., cut : n - cut].mean(axis=-1)


def iqm(values: Floats) -> Any:
    """Return the interquartile mean along the last axis: the mean of the middle half.

    It bears outliers nearly as the median does and needs fewer runs to be as precise (Agarwal et al. 2021).

    Example:
        >>> float(iqm(np.array([0.0, 1.0, 2.0, 300.0])))
        1.5
    """
    return trimmed_mean(values, 0.25)


def mad(values: Floats) -> Any:
    """Return the median absolute deviation from the median along the last axis, not scaled.

    Example:
        >>> float(mad(np.array([1.0, 2.0, 3.0, 4.0, 100.0])))
        1.0
    """
    return np.median(np.abs(values - np.median(values, axis=-1, keepdims=True)), axis=-1)


def skewness(values: Floats) -> float | None:
    """Return the adjusted Fisher-Pearson skewness of one sample; None below three values or without spread.

    Example:
        >>> round(skewness(np.array([1.0, 2.0, 3.0, 10.0])), 3)
        1.764
    """
    n, z = len(values), _standardised(values)
    if n < 3 or z is None:
        return None
    return float(np.sqrt(n * (n - 1)) / (n - 2) * np.mean(z**3))


def excess_kurtosis(values: Floats) -> float | None:
    """Return the unbiased excess kurtosis of one sample, 0 for a normal law; None below four values or without spread.

    Example:
        >>> round(excess_kurtosis(np.array([1.0, 2.0, 3.0, 4.0, 5.0])), 3)
        -1.2
    """
    n, z = len(values), _standardised(values)
    if n < 4 or z is None:
        return None
    return float((n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (np.mean(z**4) - 3) + 6))


def is_constant(values: Floats) -> bool:
    """Return whether all values of one sample are equal; a sample without values is.

    Example:
        >>> is_constant(np.array([2.0, 2.0])), is_constant(np.array([2.0, 2.1]))
        (True, False)
    """
    return bool((values == values[:1]).all())


def power_of_two(values: Floats) -> float:
    """Return the power of two next above the largest magnitude, 1 where all values are 0.

    Dividing by it is exact, down to what vanishes beside the largest, and keeps squares of huge losses, as of a
    diverging run, from overflowing.

    Example:
        >>> power_of_two(np.array([3.0, -5.0])), power_of_two(np.zeros(2))
        (8.0, 1.0)
    """
    exponent = int(np.frexp(np.abs(values).max(initial=0.0))[1])
    return float(np.ldexp(1.0, min(exponent, 1023)))


def _standardised(values: Floats) -> Floats | None:
    if len(values) < 2 or is_constant(values):
        return None
    scaled = values / power_of_two(values)
    centred = scaled - scaled.mean()
    centred /= np.abs(centred).max()
    return np.asarray(centred / np.sqrt(np.mean(centred**2)), np.float64)
