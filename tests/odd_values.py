"""Values that measurements are not supposed to be, and that users pass all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from ckptlake.analytics.curve import Curve
from ckptlake.analytics.frames import Sample

MOST, LEAST = 1.7e308, 5e-324


def _cycled(*values: Any) -> Callable[[int], list[Any]]:
    return lambda n: [values[place % len(values)] for place in range(n)]


ROWS: dict[str, Callable[[int], Any]] = {
    "constant": _cycled(2.0),
    "all zero": _cycled(0.0, -0.0),
    "all NaN": _cycled(float("nan")),
    "all inf": _cycled(float("inf")),
    "all -inf": _cycled(float("-inf")),
    "NaN and infinities": _cycled(float("nan"), float("inf"), float("-inf")),
    "finite among NaN and inf": _cycled(1.0, float("nan"), 2.5, float("inf"), 0.5),
    "one finite": lambda n: [1.0] * min(n, 1) + [float("nan")] * (n - 1),
    "both ends of float64": _cycled(MOST, -MOST, 1.0),
    "the upper end of float64": _cycled(MOST, 0.9 * MOST, 0.95 * MOST),
    "constant at the upper end": _cycled(MOST),
    "squares overflow": _cycled(1e200, -3e200, 2e199),
    "squares vanish": _cycled(1e-200, -3e-200, 2e-199),
    "subnormal": _cycled(LEAST, 0.0, 3 * LEAST),
    "constant subnormal": _cycled(LEAST),
    "all sizes": _cycled(MOST, LEAST, 1.0, -1e-300, 1e300),
    "rounding noise alone": _cycled(1e15, 1e15 + 0.125, 1e15 + 0.25),
    "integers": lambda n: np.arange(n) % 5,
    "unsigned": lambda n: np.arange(n, dtype=np.uint8),
    "float32": lambda n: np.linspace(0, 1, n, dtype=np.float32),
    "booleans": lambda n: [place % 2 == 0 for place in range(n)],
    "falling": lambda n: np.linspace(3.0, 1.0, n),
}
"""Columns of numbers of a given length."""

SHORT: dict[str, Any] = {
    "empty": [],
    "one": [1.5],
    "two": [1.5, 2.5],
    "two equal": [1.5, 1.5],
    "three": [1.0, 2.0, 4.0],
}

NO_ROW: dict[str, Any] = {
    "two dimensions": np.ones((4, 2)),
    "no dimension": 3.0,
    "texts": ["1.0", "2.0", "3.0"],
    "objects": [None, 1.0, 2.0],
    "lists of several lengths": [[1.0], [1.0, 2.0]],
    "integers beyond float64": [10**400, 1, 2],
    "complex": [1 + 2j, 3.0, 4.0],
    "nothing": None,
}

ARGUMENTS: tuple[Any, ...] = (2.5, True, "10", None, -1, 0, 1, float("nan"), float("inf"), 10**30, 1.7e308, 5e-324)
"""What is passed for a count, a level, a direction, a share, a choice or the name of a column."""


def rows(n: int) -> Iterator[tuple[str, Any]]:
    """Yield everything odd that can stand for n numbers."""
    yield from ((name, make(n)) for name, make in ROWS.items())
    yield from SHORT.items()
    yield from NO_ROW.items()


def samples(n: int) -> Iterator[tuple[str, Any]]:
    """Yield odd samples; what a sample itself refuses is none."""
    for name, values in rows(n):
        if name not in NO_ROW:
            found = np.asarray(values, np.float64)
            yield name, Sample("odd", found[np.isfinite(found)], 1, int((~np.isfinite(found)).sum()))


def curves(n: int, label: str = "odd") -> Iterator[tuple[str, Curve]]:
    """Yield odd curves of about n points."""
    steps = np.arange(1.0, n + 1)
    for name, values in rows(n):
        if name not in NO_ROW:
            found = np.asarray(values, np.float64)
            yield name, Curve.of(label, np.arange(1.0, len(found) + 1), found)
    falling = 1.0 + 1 / np.sqrt(steps)
    for name, at in odd_steps(n):
        yield name, Curve.of(label, at, falling)


def odd_steps(n: int) -> Iterator[tuple[str, Any]]:
    """Yield n steps that are finite, and odd in another way."""
    steps = np.arange(1.0, n + 1)
    yield "unsorted steps", steps[::-1]
    yield "every step twice", np.floor((steps + 1) / 2)
    yield "one step alone", np.ones(n)
    yield "negative steps", -steps[::-1]
    yield "steps with a gulf", np.where(steps > n / 2, steps + 1e15, steps)
    yield "vast steps", steps * 1e70
    yield "tiny steps", steps * 1e-70


def frames(ordinary: pl.DataFrame) -> Iterator[tuple[str, Any]]:
    """Yield frames in which one column is odd, and others that are odd as a whole."""
    yield "no rows", ordinary.clear()
    yield "one row", ordinary.head(1)
    yield "two rows", ordinary.head(2)
    yield "every row twice", pl.concat([ordinary, ordinary])
    yield "no columns", pl.DataFrame()
    yield "a list", [1.0, 2.0]
    yield "nothing", None
    for column, kind in ordinary.schema.items():
        yield f"no {column}", ordinary.drop(column)
        yield f"{column} of nulls", ordinary.with_columns(pl.lit(None).alias(column))
        yield f"{column} of lists", ordinary.with_columns(pl.lit([1.0]).alias(column))
        if kind.is_numeric():
            yield (
                f"{column} with nulls",
                ordinary.with_columns(pl.when(pl.int_range(pl.len()) % 3 == 0).then(column).alias(column)),
            )
            yield f"{column} of texts", ordinary.with_columns(pl.col(column).cast(pl.String))
            for name, make in ROWS.items():
                yield f"{column}: {name}", ordinary.with_columns(pl.Series(column, make(ordinary.height)))


def in_turn(ordinary: Sequence[Any], odd: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield sequences that are empty, of one, of something odd alone or repeated, or in which the first is odd."""
    yield "none", []
    yield "one", list(ordinary[:1])
    for name, value in odd:
        yield f"{name}, alone", [value]
        yield f"{name}, first", [value, *ordinary[1:]]
        if not isinstance(value, Curve):
            yield f"{name}, repeated", [value] * len(ordinary)
