"""Corrections of p-values for how many were looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from ckptlake.analytics.arguments import numbers
from ckptlake.analytics.frames import Floats
from ckptlake.errors import InvalidInputError

Correction: TypeAlias = Literal["holm", "bonferroni", "benjamini-hochberg"]


def check_correction(method: Correction) -> None:
    """Raise where there is no such correction.

    Raises:
        InvalidInputError: there is none; the message names those that there are.
    """
    if method not in get_args(Correction):
        raise InvalidInputError(f"there is no correction {method!r:.100}: take {', '.join(get_args(Correction))}")


def adjusted(p_values: Sequence[float] | Floats, method: Correction = "holm") -> Floats:
    """Return p-values corrected for their number, to be compared with the same alpha.

    Args:
        p_values: shape (m,), each between 0 and 1. Tests that could not be made do not belong here.
        method: ``"holm"`` (Holm 1979) bounds the chance of any false finding and is never worse than ``"bonferroni"``;
            ``"benjamini-hochberg"`` (1995) bounds the expected share of false findings, for tests that are independent
            or positively dependent.

    Returns:
        float64, shape (m,), in the given order, at most 1.

    Raises:
        InvalidInputError: a p-value is NaN or not between 0 and 1, or there is no such method.

    Example:
        >>> adjusted([0.01, 0.04, 0.03], "holm").tolist()
        [0.03, 0.06, 0.06]
        >>> adjusted([0.01, 0.04, 0.03], "benjamini-hochberg").tolist()
        [0.03, 0.04, 0.04]
    """
    p = numbers(p_values, "the list of p-values")
    check_correction(method)
    if not ((p >= 0) & (p <= 1)).all():
        raise InvalidInputError(f"p-values {p_values!r:.200}: a list of numbers between 0 and 1 is needed, without NaN")
    m, order = len(p), np.argsort(p, kind="stable")
    if method == "bonferroni":
        return np.minimum(p * m, 1.0)
    rank = np.arange(1, m + 1)
    if method == "holm":
        stepped = np.maximum.accumulate(p[order] * (m + 1 - rank))
    else:
        stepped = np.minimum.accumulate((p[order] * m / rank)[::-1])[::-1]
    found = np.empty(m)
    found[order] = np.minimum(stepped, 1.0)
    return found
