"""Frames as they come: columns found by name, values told apart from what is missing or not finite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ckptlake.analytics.arguments import numbers
from ckptlake.analytics.wording import plural
from ckptlake.errors import InvalidInputError

Floats: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = str | Sequence[str]
CONFIGURATION = "configuration"
"""The column in which `group_by_all_except` names the configuration of each run."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The values of one configuration.

    Attributes:
        label: its name, made of the columns that it was grouped by.
        values: float64, shape (n,), all finite, in the order of the frame.
        n_missing: how many values were null.
        n_nonfinite: how many were NaN or infinite; runs that diverged are among these.

    Raises:
        InvalidInputError: the values are no numbers, have not one dimension, or are not all finite.
    """

    label: str
    values: Floats
    n_missing: int = 0
    n_nonfinite: int = 0

    def __post_init__(self) -> None:
        if not np.isfinite(numbers(self.values, f"the sample {self.label!r:.100}")).all():
            raise InvalidInputError(
                f"the sample {self.label!r:.100} has values that are NaN or infinite: count them as n_nonfinite"
            )

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, in words; empty if nothing was."""
        told = ((self.n_missing, "missing"), (self.n_nonfinite, "NaN or infinite"))
        found = " and ".join(f"{count:,} {what}" for count, what in told if count)
        if not found:
            return ()
        total = self.n + self.n_missing + self.n_nonfinite
        return (f"{self.label or 'all rows'}: left out {found} of {plural(total, 'value')}",)


def names(columns: Columns) -> tuple[str, ...]:
    """Return one or several column names as a tuple.

    Raises:
        InvalidInputError: they are neither a text nor texts.

    >>> names("lr"), names(["lr", "seed"])
    (('lr',), ('lr', 'seed'))
    """
    found = (columns,) if isinstance(columns, str) or not isinstance(columns, Iterable) else tuple(columns)
    if not all(isinstance(name, str) for name in found):
        raise InvalidInputError(f"{columns!r:.100} names no column: give its name, or a list of names")
    return found


def grouping(by: Columns) -> tuple[str, ...]:
    """Return the columns that tell configurations apart.

    Raises:
        InvalidInputError: there are none.

    >>> grouping("lr")
    ('lr',)
    """
    keys = names(by)
    if not keys:
        raise InvalidInputError(f"by={by!r} names no column: name those that tell configurations apart")
    return keys


def check_columns(frame: pl.DataFrame, columns: Iterable[str]) -> None:
    """Raise where a frame lacks a column, with the nearest names.

    Raises:
        InvalidInputError: it is no Polars frame, or lacks a column.
    """
    if not isinstance(frame, pl.DataFrame):
        raise InvalidInputError(
            f"a Polars DataFrame is needed, got {type(frame).__name__}: convert with pl.from_arrow, "
            "pl.from_pandas or query.to_polars()"
        )
    for name in names(tuple(columns)):
        if name not in frame.columns:
            near = get_close_matches(name, frame.columns, n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; it has {', '.join(frame.columns)}"
            raise InvalidInputError(f"the frame has no column {name!r:.100}{hint}")


def parts_of(frame: pl.DataFrame, keys: Sequence[str]) -> dict[tuple[object, ...], pl.DataFrame]:
    """Return the rows of each value of some columns, in the order in which the values first appear.

    Raises:
        InvalidInputError: a column is missing, or holds lists, structs or objects, which are not told apart.

    >>> list(parts_of(pl.DataFrame({"lr": [0.2, 0.1, 0.2]}), ["lr"]))
    [(0.2,), (0.1,)]
    """
    check_columns(frame, keys)
    for name in keys:
        kind = frame.schema[name]
        if kind.is_nested() or kind == pl.Object:
            raise InvalidInputError(
                f"the column {name!r:.100} holds {kind}, by which rows cannot be grouped: cast it first"
            )
    if frame.is_empty():
        return {}
    return frame.partition_by(keys, maintain_order=True, as_dict=True)


def floats(frame: pl.DataFrame, column: str) -> Floats:
    """Return a numeric or boolean column as float64, nulls as NaN.

    Raises:
        InvalidInputError: the column is missing or holds no numbers.
    """
    check_columns(frame, [column])
    kind = frame.schema[column]
    if not (kind.is_numeric() or kind in (pl.Boolean, pl.Null)):
        raise InvalidInputError(f"the column {column!r:.100} holds {kind}, not numbers: cast it first")
    return frame[column].cast(pl.Float64).fill_null(float("nan")).to_numpy().astype(np.float64, copy=False)


def sample(frame: pl.DataFrame, value: str, label: str) -> Sample:
    """Return the values of a column as one sample.

    Raises:
        InvalidInputError: the column is missing or holds no numbers.
    """
    found = floats(frame, value)
    n_missing = frame[value].null_count()
    finite = found[np.isfinite(found)]
    return Sample(label, finite, n_missing, len(found) - len(finite) - n_missing)


def samples(frame: pl.DataFrame, value: str, by: Columns) -> tuple[Sample, ...]:
    """Return the values of each configuration, in the order in which configurations first appear.

    Args:
        frame: one row a run.
        value: the column with the values.
        by: the columns that tell configurations apart.

    Raises:
        InvalidInputError: `by` is empty, a column is missing, or holds no numbers where numbers are needed.

    Example:
        >>> frame = pl.DataFrame({"lr": [0.1, 0.1, 0.2], "loss": [1.0, 2.0, float("nan")]})
        >>> [(found.label, found.n, found.n_nonfinite) for found in samples(frame, "loss", by="lr")]
        [('lr=0.1', 2, 0), ('lr=0.2', 0, 1)]
    """
    keys = grouping(by)
    check_columns(frame, [*keys, value])
    return tuple(sample(part, value, label_of(keys, key)) for key, part in parts_of(frame, keys).items())


def label_of(keys: Sequence[str], values: Sequence[object]) -> str:
    """Return the name of a configuration; a column `configuration` holds such names already.

    >>> label_of(["lr", "opt"], [0.1, "adam"]), label_of(["configuration"], ["lr=0.1"])
    ('lr=0.1, opt=adam', 'lr=0.1')
    """
    if tuple(keys) == (CONFIGURATION,):
        return str(values[0])
    return ", ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
