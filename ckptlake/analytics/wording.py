"""Numbers and names as they are written in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable


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

    >>> listing(["a", "b", "c"]), listing("abcdefgh", most=2)
    ('a, b and c', 'a, b and 6 more')
    """
    found = list(words)
    if len(found) > most:
        found = [*found[:most], f"{len(found) - most} more"]
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}" if found else "none"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "run"), plural(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
