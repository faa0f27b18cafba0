"""Numbers and names as they are written in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable

_MOST_DIGITS = 12


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with its significant digits.

    >>> number(3.27891234), number(1e-7), number(float("inf")), number(None)
    ('3.279', '1e-07', 'inf', 'none')
    """
    if value is None:
        return "none"
    if math.isfinite(value) and float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def digits_apart(one: float, other: float, least: int = 4) -> int:
    """Return how many significant digits show the difference of two numbers with two digits, 4 to 12 of them.

    >>> digits_apart(3.27821, 3.27868), digits_apart(1.0, 2.0)
    (6, 4)
    """
    apart, size = abs(one - other), max(abs(one), abs(other))
    if not 0 < apart < math.inf:
        return least
    return min(max(least, math.ceil(math.log10(size / apart)) + 2), _MOST_DIGITS)


def p_value(value: float) -> str:
    """Return a p-value as it is written.

    >>> p_value(0.0421), p_value(1e-9)
    ('p = 0.042', 'p < 0.001')
    """
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def percent(share: float) -> str:
    """Return a share as percent.

    >>> percent(0.873)
    '87.3 %'
    """
    return f"{100 * share:.3g} %"


def listing(words: Iterable[str], most: int = 5) -> str:
    """Return words as a list in a sentence, the first few where they are many.

    >>> listing(["a", "b", "c"]), listing("abcdefgh", most=2), listing(["lr 1, seed 0", "lr 1, seed 1", "live"])
    ('a, b and c', 'a, b and 6 more', 'lr 1, seed 0; lr 1, seed 1 and live')
    """
    found = list(words)
    if not found:
        return "none"
    # Names of runs may have commas of their own.
    mark = "; " if any("," in word for word in found) else ", "
    if len(found) > most:
        found = [*found[:most], f"{len(found) - most} more"]
    return f"{mark.join(found[:-1])} and {found[-1]}" if len(found) > 1 else found[0]


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "run"), plural(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
