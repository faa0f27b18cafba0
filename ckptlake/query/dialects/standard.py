"""What the SQL of every engine has in common, and what each must say for itself so that all give the same results."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ckptlake.query.dialects.literals import Literals
from ckptlake.query.names import quote
from ckptlake.query.nodes import Const

_OPERATORS = {
    "eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "add": "+", "sub": "-", "mul": "*",
}  # fmt: skip
Over = str
"""An OVER clause with a space before it, or nothing."""
_SMALLEST_WEIGHT = 1e-17


@dataclass(frozen=True, slots=True)
class Text:
    """A value as SQL, with its kind."""

    sql: str
    kind: str


class Dialect(Literals):
    """The SQL of one engine; a method `_<function>` writes a function of values, `_agg_<function>` an aggregate."""

    name: ClassVar[str]
    has_list_values: ClassVar[bool] = False
    """Whether a parameter may be a list; where not, its members are bound one by one."""
    places_without_order: ClassVar[str] = ""
    """What a window says where places are asked for in no order."""
    types: ClassVar[dict[str, str]]
    """The engine's type for each kind that values are cast to."""
    functions: ClassVar[dict[str, str]] = {}
    """The engine's names of functions, where they differ."""
    epoch: ClassVar[str] = "TIMESTAMP '1970-01-01 00:00:00Z'"
    """The moment from which times are counted."""
    parameters: ClassVar[re.Pattern[str]] = re.compile(r"\$(p[0-9]+)")
    quoted_names: ClassVar[re.Pattern[str]] = re.compile(r'"(?:[^"]|"")*"')

    # -- names, parameters, clauses

    def quoted(self, name: str) -> str:
        """Return a name as SQL."""
        return quote(name)

    def parameter(self, name: str, const: Const) -> str:  # noqa: ARG002
        """Return what stands for a value that is bound."""
        return f"${name}"

    def bound(self, const: Const) -> object:
        """Return what is bound for a value."""
        return list(const.value) if isinstance(const.value, tuple) else const.value

    def parameters_in(self, text: str) -> set[str]:
        """Return the names of the parameters that SQL mentions."""
        return set(self.parameters.findall(self.quoted_names.sub("", text)))

    def is_constant(self, sql: str) -> bool:
        """Tell whether a value is the same in every row, which nothing can be ordered or grouped by."""
        return sql in ("NULL", "TRUE", "FALSE") or self.parameters.fullmatch(sql) is not None

    def is_column(self, sql: str) -> bool:
        """Tell whether a value is a column of a table as it is, so that it is null where a join adds a row."""
        alias, dot, name = sql.partition(".")
        return bool(dot) and alias.isalnum() and self.quoted_names.fullmatch(name) is not None

    def direction(self, *, descending: bool) -> str:
        """Return how rows are ordered by a value: those without one last."""
        return "DESC NULLS LAST" if descending else "NULLS LAST"

    def sliced(self, length: int | None, offset: int) -> str:
        """Return the clause, with a space before it, that keeps some rows after skipping others."""
        kept = "" if length is None else f" LIMIT {length:d}"
        return kept + (f" OFFSET {offset:d}" if offset else "")

    def shuffled(self, seed: int, values: Sequence[Text]) -> str:
        """Return what to order by so that rows come in an order of chance that only the seed and the values decide."""
        texts = ", ".join(f"coalesce({self.cast(value, 'text')}, '')" for value in values)
        return f"md5(concat_ws('|', '{seed:d}', {texts}))"

    # -- values in one row

    def call(self, function: str, args: Sequence[Text]) -> str:
        """Return a function of values in one row."""
        texts = [arg.sql for arg in args]
        if function in ("add", "sub", "mul") and all(arg.kind == "int" for arg in args):  # small ones have 32 bits
            return f"(CAST({texts[0]} AS {self.types['int']}) {_OPERATORS[function]} {texts[1]})"
        if function == "add" and "text" in {arg.kind for arg in args}:
            return f"({texts[0]} || {texts[1]})"
        if function in _OPERATORS:
            return f"({texts[0]} {_OPERATORS[function]} {texts[1]})"
        if function in ("and", "or"):
            return f"({f' {function.upper()} '.join(texts)})"
        write = getattr(self, f"_{function}", None)
        if write is not None:
            written: str = write(*args)
            return written
        return f"{self.functions.get(function, function)}({', '.join(texts)})"

    def _not(self, value: Text) -> str:
        return f"(NOT {value.sql})"

    def _neg(self, value: Text) -> str:
        return f"(-{value.sql})"

    def _is_null(self, value: Text) -> str:
        return f"({value.sql} IS NULL)"

    def _is_in(self, value: Text, *members: Text) -> str:
        if len(members) == 1 and members[0].kind == "list":
            return f"({value.sql} IN {members[0].sql})"
        return f"({value.sql} IN ({', '.join(member.sql for member in members)}))" if members else "FALSE"

    def _in_subtree(self, value: Text, root: Text) -> str:
        below = self.call("starts_with", [value, Text(f"({root.sql} || '/')", "text")])
        return f"({value.sql} = {root.sql} OR {below})"

    def _between(self, value: Text, low: Text, high: Text) -> str:
        return f"({value.sql} BETWEEN {low.sql} AND {high.sql})"

    def _like(self, value: Text, pattern: Text) -> str:
        return f"({value.sql} LIKE {pattern.sql})"

    def _ilike(self, value: Text, pattern: Text) -> str:
        return f"({value.sql} ILIKE {pattern.sql})"

    def _is_nan(self, value: Text) -> str:
        return f"isnan({self.as_float(value)})"

    def _is_finite(self, value: Text) -> str:
        return f"isfinite({self.as_float(value)})"

    def _div(self, left: Text, right: Text) -> str:
        return f"({self.as_float(left)} / {self.as_float(right)})"

    def _floordiv(self, left: Text, right: Text) -> str:
        if "float" in (left.kind, right.kind):
            return self.call("floor", [Text(self._div(left, right), "float")])
        return self.whole_quotient(f"({left.sql} - {self._mod(left, right)})", right.sql)

    def _mod(self, left: Text, right: Text) -> str:
        if "float" in (left.kind, right.kind):
            return f"({left.sql} - {right.sql} * {self._floordiv(left, right)})"
        divisor = self.divisor(right.sql)
        return f"((({left.sql} % {divisor}) + {right.sql}) % {divisor})"

    def whole_quotient(self, left: str, right: str) -> str:
        """Return the quotient of two integers, one of which the other goes into without a rest; null of 0."""
        return f"({left} / {self.divisor(right)})"

    def divisor(self, sql: str) -> str:
        """Return an integer to divide by, null in the place of 0."""
        return f"nullif({sql}, 0)"

    def _pow(self, left: Text, right: Text) -> str:
        return f"power({self.as_float(left)}, {self.as_float(right)})"

    def _log(self, value: Text) -> str:
        return self._logarithm("ln", value)

    def _log10(self, value: Text) -> str:
        return self._logarithm("log10", value)

    def _logarithm(self, function: str, value: Text) -> str:
        x = self.as_float(value)
        return (
            f"CASE WHEN {x} > 0 THEN {function}({x}) WHEN {x} = 0 THEN {self.number(-math.inf)} "
            f"WHEN {x} < 0 THEN {self.number(math.nan)} END"
        )

    def _sqrt(self, value: Text) -> str:
        x = self.as_float(value)
        return f"CASE WHEN {x} >= 0 THEN sqrt({x}) WHEN {x} < 0 THEN {self.number(math.nan)} END"

    def _exp(self, value: Text) -> str:
        return f"exp({self.as_float(value)})"

    def _seconds(self, value: Text) -> str:
        since = value.sql if value.kind == "time" else f"({self.epoch} + {value.sql})"
        return f"({self.as_float(Text(self.microseconds(since), 'int'))} / {self.number(1e6)})"

    def as_float(self, value: Text) -> str:
        """Return a number as a float."""
        return value.sql if value.kind == "float" else f"CAST({value.sql} AS {self.types['float']})"

    def cast(self, value: Text, kind: str) -> str:
        """Return a value as another type; numbers and texts of numbers lose their fraction on the way to integers."""
        whole = value.sql
        if kind == "int" and value.kind == "float":
            whole = self.whole(value)
        elif kind == "int" and value.kind == "text":
            whole = self.whole(Text(f"CAST({value.sql} AS DECIMAL(38, 18))", "float"))  # which holds any 64-bit integer
        return f"CAST({whole} AS {self.types[kind]})"

    def whole(self, value: Text) -> str:
        """Return a float without its fraction."""
        return f"trunc({value.sql})"

    # -- aggregates

    def aggregate(self, function: str, args: Sequence[Text], settings: Sequence[Any], over: Over) -> str:
        """Return an aggregate, or one over a window."""
        write: Callable[..., str] | None = getattr(self, f"_agg_{function}", None)
        assert write is not None, function
        return write(*args, *settings, over=over)

    def chosen(self, function: str, args: Sequence[str], condition: str = "", over: Over = "") -> str:
        """Return an aggregate of the rows that a condition is true for, or of all."""
        name = self.functions.get(function, function)
        chosen = f" FILTER (WHERE {condition})" if condition else ""
        return f"{name}({', '.join(args)}){chosen}{over}"

    def place(self, function: str, args: Sequence[str], over: Over) -> str:
        """Return a function of where a row stands among others."""
        return f"{function}({', '.join(args)}){over}"

    def _agg_count_rows(self, *, over: Over) -> str:
        return f"count(*){over}"

    def _agg_count(self, value: Text, *, over: Over) -> str:
        return f"count({value.sql}){over}"

    def _agg_n_unique(self, value: Text, *, over: Over) -> str:
        return f"count(DISTINCT {value.sql}){over}"

    def _agg_sum(self, value: Text, *, over: Over) -> str:
        return f"CAST(sum({value.sql}){over} AS BIGINT)" if value.kind == "int" else f"sum({value.sql}){over}"

    def _agg_mean(self, value: Text, *, over: Over) -> str:
        return f"avg({self.as_float(value)}){over}"

    def _agg_std(self, value: Text, *, over: Over) -> str:
        x = self.as_float(value)
        if value.kind != "float":
            return f"stddev_samp({x}){over}"
        finite = self._is_finite(value)
        return (
            f"CASE WHEN count({x}){over} < 2 THEN NULL "
            f"WHEN {self.chosen('count', [x], f'NOT {finite}', over)} > 0 THEN {self.number(math.nan)} "
            f"ELSE {self.chosen('stddev_samp', [x], finite, over)} END"
        )

    def of_numbers(self, function: str, value: Text, args: Sequence[str], over: Over) -> str:
        """Return an aggregate that passes NaN over."""
        if value.kind != "float":
            return f"{self.functions.get(function, function)}({', '.join(args)}){over}"
        return self.chosen(function, args, f"NOT {self._is_nan(value)}", over)

    def _agg_min(self, value: Text, *, over: Over) -> str:
        return self.of_numbers("min", value, [value.sql], over)

    def _agg_max(self, value: Text, *, over: Over) -> str:
        return self.of_numbers("max", value, [value.sql], over)

    def _agg_arg_min(self, value: Text, by: Text, *, over: Over) -> str:
        return self._first_of("arg_min", value, by, by.sql, over)

    def _agg_arg_max(self, value: Text, by: Text, *, over: Over) -> str:
        if by.kind in ("int", "float", "time"):
            whole = {"time": self.microseconds, "int": self.wide_integer}.get(by.kind, str)(by.sql)
            return self._first_of("arg_min", value, by, f"-{whole}", over)
        return self._first_of("arg_max", value, by, by.sql, over)

    def _first_of(self, function: str, value: Text, by: Text, key: str, over: Over) -> str:
        is_number = f" AND NOT {self._is_nan(by)}" if by.kind == "float" else ""
        known = f"{by.sql} IS NOT NULL{is_number}"
        return self.chosen(function, [value.sql, self.row(key, value.sql)], known, over)

    def wide_integer(self, sql: str) -> str:
        """Return an integer as one that has a negative of its own whatever it is."""
        return f"CAST({sql} AS DECIMAL(20, 0))"

    def row(self, *values: str) -> str:
        """Return several values as one that is ordered by the first of them, then by the next."""
        return f"ROW({', '.join(values)})"

    def microseconds(self, time: str) -> str:
        """Return a time as an integer."""
        return f"epoch_us({time})"

    def _agg_any(self, value: Text, *, over: Over) -> str:
        return f"bool_or({value.sql}){over}"

    def _agg_all(self, value: Text, *, over: Over) -> str:
        return f"bool_and({value.sql}){over}"


def ema_rows(alpha: float) -> int:
    """Return how many rows count in a moving average: all whose weight is at least 1e-17 of the newest one's.

    >>> ema_rows(1.0), ema_rows(0.5)
    (1, 58)
    """
    return 1 if alpha == 1 else math.ceil(math.log(_SMALLEST_WEIGHT) / math.log1p(-alpha)) + 1
