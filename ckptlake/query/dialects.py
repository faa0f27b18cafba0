"""How functions of values are written in the SQL of each engine, so that all engines give the same results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ckptlake.query.names import quote

_OPERATORS = {
    "eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "add": "+", "sub": "-", "mul": "*",
}  # fmt: skip
_CASTS = {"float": "DOUBLE", "text": "VARCHAR", "bool": "BOOLEAN", "time": "TIMESTAMPTZ"}
Over = str
"""An OVER clause with a space before it, or nothing."""
_SMALLEST_WEIGHT = 1e-17


@dataclass(frozen=True, slots=True)
class Text:
    """A value as SQL, with its kind."""

    sql: str
    kind: str


class DuckDB:
    """The SQL of DuckDB."""

    name = "duckdb"
    has_list_values = True

    def quoted(self, name: str) -> str:
        """Return a name as SQL."""
        return quote(name)

    def call(self, function: str, args: Sequence[Text]) -> str:
        """Return a function of values in one row."""
        texts = [arg.sql for arg in args]
        if function in ("add", "sub", "mul") and all(arg.kind == "int" for arg in args):
            return f"(CAST({texts[0]} AS BIGINT) {_OPERATORS[function]} {texts[1]})"  # small ones are kept in 32 bits
        if function == "add" and "text" in (args[0].kind, args[1].kind):
            return f"({texts[0]} || {texts[1]})"
        if function in _OPERATORS:
            return f"({texts[0]} {_OPERATORS[function]} {texts[1]})"
        if function in ("and", "or"):
            return f"({f' {function.upper()} '.join(texts)})"
        write = getattr(self, f"_{function}", None)
        if write is not None:
            written: str = write(*args)
            return written
        return f"{function}({', '.join(texts)})"

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
        return f"in_subtree({value.sql}, {root.sql})"

    def _between(self, value: Text, low: Text, high: Text) -> str:
        return f"({value.sql} BETWEEN {low.sql} AND {high.sql})"

    def _like(self, value: Text, pattern: Text) -> str:
        return f"({value.sql} LIKE {pattern.sql})"

    def _ilike(self, value: Text, pattern: Text) -> str:
        return f"({value.sql} ILIKE {pattern.sql})"

    def _matches(self, value: Text, pattern: Text) -> str:
        return f"regexp_matches({value.sql}, {pattern.sql})"

    def _is_nan(self, value: Text) -> str:
        return f"isnan({self.as_float(value)})"

    def _is_finite(self, value: Text) -> str:
        return f"isfinite({self.as_float(value)})"

    def _div(self, left: Text, right: Text) -> str:
        return f"({self.as_float(left)} / {self.as_float(right)})"

    def _floordiv(self, left: Text, right: Text) -> str:
        rest, is_apart, right_sql = self._division(left, right)
        if "float" in (left.kind, right.kind):
            left_sql = self.as_float(left)
            whole = f"round(({left_sql} - {rest}) / {right_sql}) - CAST({is_apart} AS INTEGER)"
            return f"(CASE WHEN {right_sql} = 0 THEN {left_sql} / {right_sql} ELSE {whole} END)"
        return f"(({left.sql} // {right_sql}) - CAST({is_apart} AS BIGINT))"

    def _mod(self, left: Text, right: Text) -> str:
        rest, is_apart, right_sql = self._division(left, right)
        return f"({rest} + CASE WHEN {is_apart} THEN {right_sql} ELSE 0 END)"

    def _division(self, left: Text, right: Text) -> tuple[str, str, str]:
        """Return what SQL leaves of a division, whether its sign is not the divisor's, and the divisor."""
        if "float" in (left.kind, right.kind):
            left_sql, right_sql = self.as_float(left), self.as_float(right)
        else:  # an integer divided by 0 is null
            left_sql, right_sql = f"CAST({left.sql} AS BIGINT)", f"nullif({right.sql}, 0)"
        rest = f"({left_sql} % {right_sql})"
        return rest, f"(sign({rest}) * sign({right_sql}) < 0)", right_sql

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
        return f"CAST(epoch({value.sql}) AS DOUBLE)"

    def number(self, value: float) -> str:
        """Return a float that SQL has no digits for, or an integer."""
        return f"CAST('{value!r}' AS DOUBLE)"

    def as_float(self, value: Text) -> str:
        """Return a number as a float."""
        return value.sql if value.kind == "float" else f"CAST({value.sql} AS DOUBLE)"

    def cast(self, value: Text, kind: str) -> str:
        """Return a value as another type; floats lose their fraction on the way to integers."""
        if kind == "int":
            whole = f"trunc({value.sql})" if value.kind == "float" else value.sql
            return f"CAST({whole} AS BIGINT)"
        return f"CAST({value.sql} AS {_CASTS[kind]})"

    # -- aggregates

    def aggregate(self, function: str, args: Sequence[Text], settings: Sequence[Any], over: Over) -> str:
        """Return an aggregate, or one over a window."""
        write: Callable[..., str] | None = getattr(self, f"_agg_{function}", None)
        assert write is not None, function
        return write(*args, *settings, over=over)

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
        return (
            f"CASE WHEN count({x}){over} < 2 THEN NULL "
            f"WHEN count(*) FILTER (NOT isfinite({x})){over} > 0 THEN {self.number(math.nan)} "
            f"ELSE stddev_samp({x}) FILTER (isfinite({x})){over} END"
        )

    def _numbers_only(self, value: Text) -> str:
        return f" FILTER (NOT isnan({value.sql}))" if value.kind == "float" else ""

    def _agg_min(self, value: Text, *, over: Over) -> str:
        return f"min({value.sql}){self._numbers_only(value)}{over}"

    def _agg_max(self, value: Text, *, over: Over) -> str:
        return f"max({value.sql}){self._numbers_only(value)}{over}"

    def _agg_quantile(self, value: Text, fraction: float, *, over: Over) -> str:
        return f"quantile_cont({self.as_float(value)}, {fraction!r}){self._numbers_only(value)}{over}"

    def _agg_arg_min(self, value: Text, by: Text, *, over: Over) -> str:
        return f"arg_min_null({value.sql}, ROW({by.sql}, {value.sql})){self._known_only(by)}{over}"

    def _agg_arg_max(self, value: Text, by: Text, *, over: Over) -> str:
        backwards = {"int": f"-CAST({by.sql} AS HUGEINT)", "float": f"-{by.sql}", "time": f"-epoch_us({by.sql})"}.get(
            by.kind
        )
        if backwards is None:
            return f"arg_max_null({value.sql}, ROW({by.sql}, {value.sql})){self._known_only(by)}{over}"
        return f"arg_min_null({value.sql}, ROW({backwards}, {value.sql})){self._known_only(by)}{over}"

    def _known_only(self, by: Text) -> str:
        is_number = f" AND NOT isnan({by.sql})" if by.kind == "float" else ""
        return f" FILTER ({by.sql} IS NOT NULL{is_number})"

    def _agg_any(self, value: Text, *, over: Over) -> str:
        return f"bool_or({value.sql}){over}"

    def _agg_all(self, value: Text, *, over: Over) -> str:
        return f"bool_and({value.sql}){over}"

    def _agg_ema(self, value: Text, alpha: float, *, over: Over) -> str:
        x = self.as_float(value)
        values = f"list({x}) FILTER ({x} IS NOT NULL){over}"
        weights = f"[power({1 - alpha!r}, back) FOR back IN range(len({values}) - 1, -1, -1)]"
        return f"list_dot_product({values}, {weights}) / list_sum({weights})"


def ema_rows(alpha: float) -> int:
    """Return how many rows count in a moving average: all whose weight is at least 1e-17 of the newest one's.

    >>> ema_rows(1.0), ema_rows(0.5)
    (1, 58)
    """
    return 1 if alpha == 1 else math.ceil(math.log(_SMALLEST_WEIGHT) / math.log1p(-alpha)) + 1
