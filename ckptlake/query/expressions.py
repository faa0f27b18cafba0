"""Values as they are written in a query: ``param("lr") < 1e-3``, ``metric("val/loss").min()``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from ckptlake._internal.names import check_name
from ckptlake.errors import InvalidInputError
from ckptlake.query.constants import Unfinished, constant, setting
from ckptlake.query.nodes import Aggregate, Call, Cast, Column, Const, Order, Value, Window
from ckptlake.query.showing import shown

_KINDS = {int: "int", float: "float", str: "text", bool: "bool", datetime: "time"}
_PLACES = frozenset({"row_number", "rank", "lag", "lead"})


@dataclass(frozen=True, slots=True, eq=False)
class Expr:
    """A value for each row, or one for each group; combined by operators and methods.

    >>> (column("step") * 2 + 1).alias("odd")
    Expr((step * 2) + 1)
    """

    node: Value
    name: str | None = None

    def __repr__(self) -> str:
        return f"Expr({shown(self.node)})"

    def __bool__(self) -> NoReturn:
        raise InvalidInputError(
            f"{shown(self.node)} is a question to the lake, neither true nor false here: combine conditions with & | ~ "
            "instead of and, or, not, and mind the parentheses"
        )

    def __iter__(self) -> NoReturn:
        raise InvalidInputError(f"{shown(self.node)} is one value and cannot be iterated; use is_in for membership")

    def __hash__(self) -> int:
        return hash((self.node, self.name))

    def alias(self, name: str) -> Expr:
        """Give it a name, that of its column."""
        return Expr(self.node, check_name("the name of a column", name))

    # -- comparing

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return self.is_null() if other is None else self._call("eq", other)

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return self.is_not_null() if other is None else self._call("ne", other)

    def __lt__(self, other: object) -> Expr:
        return self._call("lt", other)

    def __le__(self, other: object) -> Expr:
        return self._call("le", other)

    def __gt__(self, other: object) -> Expr:
        return self._call("gt", other)

    def __ge__(self, other: object) -> Expr:
        return self._call("ge", other)

    def is_in(self, values: Iterable[object]) -> Expr:
        """Tell whether it is one of some values."""
        if isinstance(values, str | bytes):
            raise InvalidInputError(f"is_in takes several values, got the text {values!r:.60}: put it into a list")
        return self._call("is_in", *values)

    def between(self, low: object, high: object) -> Expr:
        """Tell whether it is at least `low` and at most `high`."""
        return self._call("between", low, high)

    def is_null(self) -> Expr:
        """Tell whether there is no value."""
        return self._call("is_null")

    def is_not_null(self) -> Expr:
        return ~self.is_null()

    def is_nan(self) -> Expr:
        """Tell whether it is not a number; null where there is no value."""
        return self._call("is_nan")

    def is_finite(self) -> Expr:
        """Tell whether it is neither NaN nor infinite."""
        return self._call("is_finite")

    def like(self, pattern: str) -> Expr:
        """Match all of a text: ``%`` stands for any characters, ``_`` for one."""
        return self._call("like", pattern)

    def ilike(self, pattern: str) -> Expr:
        """Match as `like`, whatever the case."""
        return self._call("ilike", pattern)

    def matches(self, pattern: str) -> Expr:
        """Find a regular expression anywhere in a text."""
        return self._call("matches", pattern)

    def starts_with(self, text: str) -> Expr:
        return self._call("starts_with", text)

    def ends_with(self, text: str) -> Expr:
        return self._call("ends_with", text)

    def contains(self, text: str) -> Expr:
        return self._call("contains", text)

    # -- logic

    def __and__(self, other: object) -> Expr:
        return self._call("and", other)

    def __rand__(self, other: object) -> Expr:
        return as_expr(other) & self

    def __or__(self, other: object) -> Expr:
        return self._call("or", other)

    def __ror__(self, other: object) -> Expr:
        return as_expr(other) | self

    def __invert__(self) -> Expr:
        return self._call("not")

    # -- arithmetic

    def __add__(self, other: object) -> Expr:
        return self._call("add", other)

    def __radd__(self, other: object) -> Expr:
        return as_expr(other) + self

    def __sub__(self, other: object) -> Expr:
        return self._call("sub", other)

    def __rsub__(self, other: object) -> Expr:
        return as_expr(other) - self

    def __mul__(self, other: object) -> Expr:
        return self._call("mul", other)

    def __rmul__(self, other: object) -> Expr:
        return as_expr(other) * self

    def __truediv__(self, other: object) -> Expr:
        return self._call("div", other)

    def __rtruediv__(self, other: object) -> Expr:
        return as_expr(other) / self

    def __floordiv__(self, other: object) -> Expr:
        return self._call("floordiv", other)

    def __mod__(self, other: object) -> Expr:
        return self._call("mod", other)

    def __pow__(self, other: object) -> Expr:
        return self._call("pow", other)

    def __neg__(self) -> Expr:
        return self._call("neg")

    def abs(self) -> Expr:
        return self._call("abs")

    def log(self) -> Expr:
        """Return the natural logarithm: minus infinity of 0, NaN of less."""
        return self._call("log")

    def log10(self) -> Expr:
        return self._call("log10")

    def exp(self) -> Expr:
        return self._call("exp")

    def sqrt(self) -> Expr:
        """Return the square root; NaN of less than 0."""
        return self._call("sqrt")

    def round(self, digits: int = 0) -> Expr:
        """Round to some decimals, halves away from zero."""
        return self._call("round", setting("round", digits))

    def floor(self) -> Expr:
        return self._call("floor")

    def ceil(self) -> Expr:
        return self._call("ceil")

    def coalesce(self, *others: object) -> Expr:
        """Return the first that is there of this and others."""
        return self._call("coalesce", *others)

    def lower(self) -> Expr:
        return self._call("lower")

    def upper(self) -> Expr:
        return self._call("upper")

    def length(self) -> Expr:
        """Return how many characters a text has."""
        return self._call("length")

    def seconds(self) -> Expr:
        """Return how long a duration is, or how far a time lies behind 1970, in seconds."""
        return self._call("seconds")

    def cast(self, kind: type) -> Expr:
        """Return it as int, float, str, bool or datetime; what cannot be read so raises when the query runs."""
        if kind not in _KINDS:
            names = ", ".join(known.__name__ for known in _KINDS)
            raise InvalidInputError(f"cast takes one of {names}, got {kind!r:.60}")
        return Expr(Cast(self.node, _KINDS[kind]), self.name)

    # -- aggregates

    def count(self) -> Expr:
        """Return how many rows have a value."""
        return self._aggregate("count")

    def n_unique(self) -> Expr:
        """Return how many different values there are."""
        return self._aggregate("n_unique")

    def sum(self) -> Expr:
        return self._aggregate("sum")

    def mean(self) -> Expr:
        return self._aggregate("mean")

    def std(self) -> Expr:
        """Return the standard deviation of a sample (divided by n - 1); null for fewer than two."""
        return self._aggregate("std")

    def min(self) -> Expr:
        """Return the smallest value that is a number; NaN never is it."""
        return self._aggregate("min")

    def max(self) -> Expr:
        """Return the largest value that is a number; NaN never is it."""
        return self._aggregate("max")

    def median(self) -> Expr:
        return self.quantile(0.5)

    def quantile(self, fraction: float) -> Expr:
        """Return the value below which a fraction lies, between neighbours where it falls there; NaN is passed over."""
        if not 0 <= fraction <= 1:
            raise InvalidInputError(f"a quantile is between 0 and 1, got {fraction!r:.40}")
        name = self._named("median" if fraction == 0.5 else f"q{fraction * 100:g}")
        return Expr(Aggregate("quantile", (self.node,), (float(fraction),)), name)

    def first(self, by: object) -> Expr:
        """Return the value of the row with the smallest `by`."""
        return self._aggregate("arg_min", by)

    def last(self, by: object) -> Expr:
        """Return the value of the row with the largest `by`."""
        return self._aggregate("arg_max", by)

    def arg_min(self, by: object) -> Expr:
        """Return the value of the row where `by` is smallest; of several such rows the smallest value."""
        return self._aggregate("arg_min", by)

    def arg_max(self, by: object) -> Expr:
        """Return the value of the row where `by` is largest; of several such rows the smallest value."""
        return self._aggregate("arg_max", by)

    def any(self) -> Expr:
        """Tell whether it is true in a row."""
        return self._aggregate("any")

    def all(self) -> Expr:
        """Tell whether it is true in every row that has a value."""
        return self._aggregate("all")

    # -- windows

    def over(self, *partition: object, order_by: object = ()) -> Expr:
        """Compute an aggregate beside each row, over the rows with the same values of `partition`.

        With `order_by` it is over those up to this one; for `rolling_mean` and the like over as many as they say.
        """
        node = self.node if isinstance(self.node, Window) else Window(self.node)
        if not isinstance(node.over, Aggregate) and not _is_place(node.over):
            raise InvalidInputError(f"only aggregates have an over: {shown(self.node)} is a value of one row")
        orders = order_by if isinstance(order_by, list | tuple) else [order_by]
        keys = tuple(as_column(key).node for key in partition)
        return Expr(Window(node.over, keys, tuple(map(as_order, orders)), node.rows), self.name)

    def lag(self, rows: int = 1) -> Expr:
        """Return the value some rows before; needs `over(..., order_by=...)`."""
        return Expr(Window(Call("lag", (self.node, Const.of(setting("lag", rows))))), self.name)

    def lead(self, rows: int = 1) -> Expr:
        """Return the value some rows later; needs `over(..., order_by=...)`."""
        return Expr(Window(Call("lead", (self.node, Const.of(setting("lead", rows))))), self.name)

    def rolling_mean(self, rows: int) -> Expr:
        """Return the mean of this row and those before, `rows` in all; needs `over(..., order_by=...)`."""
        return self._rolling("mean", rows)

    def rolling_min(self, rows: int) -> Expr:
        return self._rolling("min", rows)

    def rolling_max(self, rows: int) -> Expr:
        return self._rolling("max", rows)

    def rolling_sum(self, rows: int) -> Expr:
        return self._rolling("sum", rows)

    def rolling_std(self, rows: int) -> Expr:
        return self._rolling("std", rows)

    def ema(self, alpha: float) -> Expr:
        """Return the exponential moving average with bias correction, as Adam's; needs `over(..., order_by=...)`.

        Weights fall by ``1 - alpha`` a row; where they are below 1e-17 of the first they no longer count.
        """
        if not 0 < alpha <= 1:
            raise InvalidInputError(f"alpha is above 0 and at most 1, got {alpha!r:.40}")
        return Expr(Window(Aggregate("ema", (self.node,), (float(alpha),))), self._named("ema"))

    def _rolling(self, function: str, rows: int) -> Expr:
        if type(rows) is not int or rows < 1:
            raise InvalidInputError(f"a rolling window has at least 1 row, got {rows!r:.40}")
        return Expr(Window(Aggregate(function, (self.node,)), rows=rows), self._named(f"rolling_{function}"))

    # -- order

    def desc(self) -> Order:
        """Order by it, the largest first."""
        return Order(self.node, descending=True)

    def asc(self) -> Order:
        """Order by it, the smallest first."""
        return Order(self.node)

    def _call(self, function: str, *others: object) -> Expr:
        name = self.name if function not in _NAMELESS else None
        return Expr(Call(function, (self.node, *(as_expr(other).node for other in others))), name)

    def _aggregate(self, function: str, *others: object) -> Expr:
        args = (self.node, *(as_column(other).node for other in others))
        return Expr(Aggregate(function, args), self._named(function))

    def _named(self, function: str) -> str | None:
        return None if self.name is None else f"{self.name}_{function}"


_NAMELESS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "is_null", "is_in", "between"})


def as_expr(value: object) -> Expr:
    """Return a value as an expression: what is none yet stands for itself.

    Raises:
        InvalidInputError: it is no value that a query can hold.
    """
    if isinstance(value, Expr):
        return value
    if isinstance(value, Unfinished):
        finished: Expr = value.finished()
        return finished
    if isinstance(value, Order):
        raise InvalidInputError(f"{shown(value.value)} with a direction is no value; it belongs into order_by")
    return Expr(constant(value))


def as_order(value: object) -> Order:
    """Return what to order by: an expression, the name of a column, or one with a direction already."""
    return value if isinstance(value, Order) else Order(as_column(value).node)


def column(name: str) -> Expr:
    """Return a column by its name."""
    return Expr(Column(check_name("the name of a column", name)), name)


def as_column(value: object) -> Expr:
    """Return an expression, a text being the name of a column."""
    return column(value) if isinstance(value, str) else as_expr(value)


def _is_place(node: Value) -> bool:
    return isinstance(node, Call) and node.function in _PLACES
