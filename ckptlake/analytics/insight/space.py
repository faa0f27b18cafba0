"""The search space of an experiment, read off its runs: what varies, over which range, and what is left out and why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import LARGEST
from ckptlake.analytics.frames import Columns, Floats, check_columns, names
from ckptlake.analytics.wording import listing, number, plural
from ckptlake.errors import InvalidInputError

Kind: TypeAlias = Literal["float", "int", "bool", "categorical"]
_SEED = re.compile(r"(?:^|[._/-])(?:seed|random_state)$", re.IGNORECASE)
_LEAST_RATIO = 4.0
_MOST_GRID = 12


@dataclass(frozen=True, slots=True)
class Condition:
    """When a conditional param exists: where another param has one of these values."""

    param: str
    values: tuple[str | bool, ...]

    def __str__(self) -> str:
        return f"where {self.param} is {' or '.join(map(str, self.values))}"


@dataclass(frozen=True, slots=True)
class Param:
    """One param that varies.

    Attributes:
        name: its column.
        kind: ``"float"``, ``"int"``, ``"bool"`` or ``"categorical"``.
        n: runs that have it.
        n_missing: runs that do not; a param with any is conditional.
        low: the least value of a number that was tried, in its own unit.
        high: the greatest one.
        log: whether its values lie evenly on a logarithmic scale rather than a linear one.
        grid: all values of an integer that was tried at few values only; else empty.
        choices: all values of text or booleans, sorted; else empty.
        condition: when it exists, if another param decides that in every run.
        n_nonfinite: NaN and infinite values, taken as missing.
    """

    name: str
    kind: Kind
    n: int
    n_missing: int = 0
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    grid: tuple[int, ...] = ()
    choices: tuple[str | bool, ...] = ()
    condition: Condition | None = None
    n_nonfinite: int = 0

    @property
    def is_numeric(self) -> bool:
        return self.kind in {"float", "int"}

    @property
    def is_conditional(self) -> bool:
        return self.n_missing > 0

    @property
    def share_missing(self) -> float:
        return self.n_missing / (self.n + self.n_missing)

    def unit_of(self, values: Floats) -> Floats:
        """Return numbers as positions between 0 and 1 on the param's scale; NaN stays NaN."""
        if self.log:
            return np.asarray(np.log(values / self.low) / np.log(self.high / self.low), np.float64)
        return np.asarray((values - self.low) / (self.high - self.low), np.float64)

    def value_at(self, unit: Floats) -> Floats:
        """Return the numbers at positions between 0 and 1; integers are not rounded."""
        if self.log:
            return np.asarray(self.low * (self.high / self.low) ** unit, np.float64)
        return np.asarray(self.low + unit * (self.high - self.low), np.float64)

    def __str__(self) -> str:
        if self.is_numeric:
            scale = "on a logarithmic scale" if self.log else "on a linear scale"
            told = f"{self.name}: {self.kind} from {number(self.low)} to {number(self.high)} {scale}"
        else:
            told = f"{self.name}: {self.kind}, {listing(map(str, self.choices))}"
        if self.is_conditional:
            told += f", conditional: {self.condition or 'missing in ' + plural(self.n_missing, 'run')}"
        return told


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A column that is no part of the space, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} is left out: {self.reason}"


@dataclass(frozen=True, slots=True)
class Space:
    """What was varied over an experiment.

    Attributes:
        params: the params that vary, in the order of the columns.
        left_out: the columns that are not used, each with its reason.
        n: how many runs the space was read from.
    """

    params: tuple[Param, ...]
    left_out: tuple[LeftOut, ...]
    n: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(param.name for param in self.params)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of any result over this space must know."""
        odd = (
            f"{param.name}: {plural(param.n_nonfinite, 'value')} NaN or infinite, taken as missing"
            for param in self.params
            if param.n_nonfinite
        )
        return (*map(str, self.left_out), *odd)

    def get(self, name: str) -> Param:
        """Return a param by name.

        Raises:
            InvalidInputError: it is no part of the space; the message tells why.
        """
        for param in self.params:
            if param.name == name:
                return param
        reasons = {left.name: left.reason for left in self.left_out}
        told = f"it is left out: {reasons[name]}" if name in reasons else f"the space has {listing(self.names, 20)}"
        raise InvalidInputError(f"the param {name!r:.100} cannot be looked at: {told}")

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.params, *self.left_out)))


def is_seed(name: str) -> bool:
    """Return whether a param only seeds a random generator, which its name tells.

    >>> [is_seed(name) for name in ("seed", "data.seed", "torch_seed", "seeds_per_tray")]
    [True, True, True, False]
    """
    return _SEED.search(name.replace("_seed", ".seed")) is not None


def written(value: object) -> str:
    """Return the value of a param as it stands in a sentence.

    >>> written(0.00031234), written(True), written("adam")
    ('0.000312', 'True', 'adam')
    """
    return number(value, 3) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def space_of(runs: pl.DataFrame, params: Columns | None = None, *, but: Iterable[str] = ()) -> Space:
    """Return the search space that runs were taken from.

    A number is on a logarithmic scale if it is positive, its greatest value is four times the least or more, and
    its values lie more evenly there than on a linear scale (by their greatest distance from even ones,
    Kolmogorov's). A column of floats that are all whole numbers holds integers. A param that some runs lack is
    conditional; another param is its condition if the values of that one alone decide in every run whether it
    exists.

    Args:
        runs: one row a run.
        params: the columns with params; by default all but ``run_id`` and those in `but`.
        but: columns that are no params, such as results.

    Raises:
        InvalidInputError: a column is missing.

    Example:
        >>> runs = pl.DataFrame({"lr": [1e-4, 1e-3, 1e-2] * 2, "opt": ["sgd", "adam"] * 3,
        ...                      "momentum": [0.9, None, 0.9, None, 0.5, None], "seed": range(6), "host": ["a"] * 6})
        >>> print(space_of(runs))
        lr: float from 0.0001 to 0.01 on a logarithmic scale
        opt: categorical, adam and sgd
        momentum: float from 0.5 to 0.9 on a linear scale, conditional: where opt is sgd
        seed is left out: it seeds a random generator
        host is left out: it has the same value in every run
    """
    if params is None:
        check_columns(runs, but)
        wanted = tuple(name for name in runs.columns if name not in {"run_id", *but})
    else:
        wanted = names(params)
        check_columns(runs, wanted)
    found: list[Param] = []
    left_out: list[LeftOut] = []
    for name in wanted:
        reason = _reason_to_leave_out(runs[name]) or _twin(runs, name, [param.name for param in found])
        if reason:
            left_out.append(LeftOut(name, reason))
        else:
            found.append(_param(runs[name]))
    return Space(tuple(_with_condition(param, found, runs) for param in found), tuple(left_out), runs.height)


def finite_or_null(values: pl.Series) -> pl.Series:
    """Return a column with null for NaN and infinities."""
    if not values.dtype.is_float():
        return values
    return values.to_frame().select(pl.when(pl.first().is_finite()).then(pl.first())).to_series()


def _reason_to_leave_out(values: pl.Series) -> str:
    kind = values.dtype
    if is_seed(values.name):
        return "it seeds a random generator"
    if not (kind.is_numeric() or kind in (pl.Boolean, pl.String, pl.Categorical, pl.Enum, pl.Null)):
        return f"it holds {kind}, not numbers, text or booleans"
    present = finite_or_null(values).drop_nulls()
    if kind.is_numeric() and (far := _beyond_scales(present.cast(pl.Float64).to_numpy())):
        return far
    n_distinct = present.n_unique()
    if n_distinct == 0:
        return "no run has a value"
    if n_distinct == 1:
        everywhere = "in every run" if len(present) == len(values) else "in every run that has it"
        return f"it has the same value {everywhere}"
    if not (kind.is_numeric() or kind == pl.Boolean) and n_distinct > max(2, len(present) // 2):
        return f"it is text with {n_distinct:,} values in {plural(len(present), 'run')}"
    return ""


def _beyond_scales(values: Floats) -> str:
    """Tell of numbers that are too far from each other, or too near, for a place between them to be told in float64."""
    if (most := float(np.abs(values).max(initial=0.0))) > LARGEST:
        return f"it has values up to {most:.3g}, too far for a scale"
    apart = float(np.ptp(values)) if len(values) else 0.0
    return f"its values are {apart:.3g} apart, too near for a scale" if 0 < apart < 1 / LARGEST else ""


def _twin(runs: pl.DataFrame, name: str, others: Iterable[str]) -> str:
    """Tell of an earlier param that this one goes along with in every run: nothing can tell the two apart."""
    ranks = _ranks(runs[name])
    n_values = len(np.unique(ranks))
    for other in others:
        known = _ranks(runs[other])
        n_together = len(np.unique(np.stack([ranks, known]), axis=1).T)
        if not n_values == len(np.unique(known)) == n_together:
            continue
        falling = np.where(known > 0, known.max() + 1 - known, 0)
        if n_values <= len(ranks) / 2 or np.array_equal(ranks, known) or np.array_equal(ranks, falling):
            return f"it changes together with {other} in every run, so the two cannot be told apart"
    return ""


def _ranks(values: pl.Series) -> np.ndarray:
    """Return the rank of each value, from 1, equal for equal values; 0 where it is missing."""
    return finite_or_null(values).rank("dense").fill_null(0).to_numpy().astype(np.int64)


def _param(values: pl.Series) -> Param:
    usable = finite_or_null(values)
    present = usable.drop_nulls()
    n, n_missing = len(present), usable.null_count()
    if values.dtype == pl.Boolean:
        return Param(values.name, "bool", n, n_missing, choices=(False, True))
    if not values.dtype.is_numeric():
        choices = sorted(str(value) for value in present.unique())
        return Param(values.name, "categorical", n, n_missing, choices=tuple(choices))
    found = present.cast(pl.Float64).to_numpy()
    is_int = bool((found == np.round(found)).all())
    distinct = np.unique(found)
    return Param(
        values.name,
        "int" if is_int else "float",
        n,
        n_missing,
        low=float(distinct[0]),
        high=float(distinct[-1]),
        log=_is_log(found),
        grid=tuple(map(int, distinct)) if is_int and len(distinct) <= min(_MOST_GRID, len(found) / 2) else (),
        n_nonfinite=n_missing - values.null_count(),
    )


def _is_log(values: Floats) -> bool:
    low, high = values.min(), values.max()
    if low <= 0 or high / low < _LEAST_RATIO:
        return False
    distinct = np.unique(values)
    even = (np.arange(len(distinct)) + 0.5) / len(distinct)
    linear = (distinct - low) / (high - low)
    log = np.log(distinct / low) / np.log(high / low)
    return bool(np.abs(log - even).max() < np.abs(linear - even).max())


def _with_condition(param: Param, params: Iterable[Param], runs: pl.DataFrame) -> Param:
    if not param.is_conditional:
        return param
    exists = finite_or_null(runs[param.name]).is_not_null()
    for parent in params:
        if parent.is_numeric or parent.is_conditional or parent.name == param.name:
            continue
        deciding = runs[parent.name]
        where, elsewhere = set(deciding.filter(exists)), set(deciding.filter(~exists))
        if where.isdisjoint(elsewhere):
            values = tuple(choice for choice in parent.choices if choice in {_plain(value) for value in where})
            return replace(param, condition=Condition(parent.name, values))
    return param


def _plain(value: object) -> str | bool:
    return value if isinstance(value, bool) else str(value)
