"""The SQL of Spark 4 under its ANSI mode, and of Databricks, which is the same.

Where Spark's functions mean something else than DuckDB's they are written so that the answers agree: a division by 0
is infinite, NaN of nothing is null, `floor` of a float is a float. What stays different: regular expressions are
Java's (RE2 has no look-around and no back-references, and its ``$`` does not match before a last line break), `lower`
and `upper` are Java's, texts of floats may have one digit more where Java's own are not the shortest, and a text with a
fraction cannot be cast to an integer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import ClassVar

from ckptlake.query.dialects.literals import as_utc
from ckptlake.query.dialects.standard import Dialect, Over, Text
from ckptlake.query.nodes import Const

_EPOCH = datetime(1970, 1, 1)
_INFINITY = "CAST('Infinity' AS DOUBLE)"
_WHOLE_FROM = f"{2**52:d}D"
"""Floats from here on have no fraction."""


class Spark(Dialect):
    """The SQL of Spark 4."""

    name = "spark"
    places_without_order = " ORDER BY NULL"
    types: ClassVar[dict[str, str]] = {
        "int": "BIGINT", "float": "DOUBLE", "text": "STRING", "bool": "BOOLEAN", "time": "TIMESTAMP",
    }  # fmt: skip
    functions: ClassVar[dict[str, str]] = {
        "starts_with": "startswith", "ends_with": "endswith", "arg_min": "min_by", "arg_max": "max_by",
    }  # fmt: skip
    parameters = re.compile(r":(p[0-9]+)")
    quoted_names = re.compile(r"`(?:[^`]|``)*`")

    # -- names and values

    def quoted(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def parameter(self, name: str, const: Const) -> str:
        match const.kind:
            case "int":
                return f"CAST(:{name} AS BIGINT)"
            case "datetime":
                return f"timestamp_micros(CAST(:{name} AS BIGINT))"
            case "date":
                return f"CAST(:{name} AS DATE)"
        return f":{name}"

    def bound(self, const: Const) -> object:
        value = const.value
        if isinstance(value, datetime):
            return (as_utc(value).replace(tzinfo=None) - _EPOCH) // timedelta(microseconds=1)
        return value.isoformat() if isinstance(value, date) else value

    def integer(self, value: int) -> str:
        return f"{value:d}L" if value > -(2**63) else f"CAST('{value:d}' AS BIGINT)"

    def number(self, value: float) -> str:
        return f"{value!r}D" if math.isfinite(value) else super().number(value)

    def text(self, value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def time(self, moment: datetime) -> str:
        return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}Z'"

    # -- values in one row

    def _like(self, value: Text, pattern: Text) -> str:
        return f"({value.sql} LIKE {_without_escapes(pattern.sql)})"

    def _ilike(self, value: Text, pattern: Text) -> str:
        return f"({value.sql} ILIKE {_without_escapes(pattern.sql)})"

    def _matches(self, value: Text, pattern: Text) -> str:
        return f"({value.sql} RLIKE concat('(?d)', {pattern.sql}))"  # only \n ends a line, as for RE2

    def _is_nan(self, value: Text) -> str:
        return f"({self.as_float(value)} = CAST('NaN' AS DOUBLE))"  # isnan(null) would be false

    def _is_finite(self, value: Text) -> str:
        return f"(abs({self.as_float(value)}) < {_INFINITY})"  # NaN is above infinity

    def _div(self, left: Text, right: Text) -> str:
        x, y = self.as_float(left), self.as_float(right)
        infinity = f"if(CAST({y} AS STRING) = '-0.0', -{_INFINITY}, {_INFINITY})"
        return f"(CASE WHEN {y} = 0 THEN {x} * {infinity} ELSE try_divide({x}, {y}) END)"

    def _floordiv(self, left: Text, right: Text) -> str:
        if "float" not in (left.kind, right.kind):
            return super()._floordiv(left, right)
        x, y = self.as_float(left), self.as_float(right)
        rest = f"({x} % {y})"
        whole = f"round(try_divide({x} - {rest}, {y})) - if(sign({rest}) * sign({y}) < 0, 1D, 0D)"
        return f"(CASE WHEN {y} = 0 THEN {self._div(left, right)} ELSE {whole} END)"

    def whole_quotient(self, left: str, right: str) -> str:
        return f"({left} div {self.divisor(right)})"

    def _floor(self, value: Text) -> str:
        return self._rounded("floor", value)

    def _ceil(self, value: Text) -> str:
        return self._rounded("ceil", value)

    def _rounded(self, function: str, value: Text) -> str:
        x = value.sql
        if value.kind != "float":
            return f"{function}({x})"
        return f"(CASE WHEN abs({x}) < {_WHOLE_FROM} THEN CAST({function}({x}) AS DOUBLE) ELSE {x} END)"

    def _round(self, value: Text, digits: Text) -> str:
        """Round as DuckDB does: after moving the point, so that 1.005, which lies below itself, goes down."""
        x, places = value.sql, int(digits.sql)
        if value.kind != "float":
            return f"round({x}, {places})"
        by = self.number(10.0 ** abs(places))
        there, back = ("*", "/") if places >= 0 else ("/", "*")
        return f"(CASE WHEN abs({x} {there} {by}) < {_INFINITY} THEN round({x} {there} {by}) {back} {by} ELSE {x} END)"

    def _length(self, value: Text) -> str:
        return f"CAST(length({value.sql}) AS BIGINT)"

    def cast(self, value: Text, kind: str) -> str:
        if kind == "text" and value.kind == "float":
            return _as_text(value.sql)
        if kind == "text" and value.kind == "time":
            return f"(CAST({value.sql} AS STRING) || '+00')"
        return super().cast(value, kind)

    def whole(self, value: Text) -> str:
        return value.sql  # a cast leaves the fraction out

    # -- aggregates

    def chosen(self, function: str, args: Sequence[str], condition: str = "", over: Over = "") -> str:
        passing_null_over = [*args, "true"] if function == "any_value" else args
        return super().chosen(function, passing_null_over, condition, over)

    def place(self, function: str, args: Sequence[str], over: Over) -> str:
        written = super().place(function, args, over)
        return f"CAST({written} AS BIGINT)" if function in ("row_number", "rank") else written

    def row(self, *values: str) -> str:
        return f"struct({', '.join(values)})"

    def microseconds(self, time: str) -> str:
        return f"unix_micros({time})"

    def _agg_n_unique(self, value: Text, *, over: Over) -> str:
        if not over:
            return super()._agg_n_unique(value, over=over)
        same_zeros = f"({value.sql} + 0D)" if value.kind == "float" else value.sql
        return f"CAST(size(collect_set({same_zeros}){over}) AS BIGINT)"

    def _agg_quantile(self, value: Text, fraction: float, *, over: Over) -> str:
        return self.of_numbers("percentile", value, [self.as_float(value), self.number(fraction)], over)

    def _agg_ema(self, value: Text, alpha: float, *, over: Over) -> str:
        values, kept = f"collect_list({self.as_float(value)}){over}", self.number(1 - alpha)
        none = "named_struct('total', 0D, 'weight', 0D)"
        more = f"named_struct('total', sums.total * {kept} + x, 'weight', sums.weight * {kept} + 1D)"
        return f"aggregate({values}, {none}, (sums, x) -> {more}, sums -> try_divide(sums.total, sums.weight))"


class Databricks(Spark):
    """The SQL of Databricks."""

    name = "databricks"


def _without_escapes(pattern: str) -> str:
    r"""Return a pattern of LIKE in which ``\`` stands for itself, as it does without an ESCAPE in standard SQL."""
    return f"replace({pattern}, chr(92), concat(chr(92), chr(92)))"


def _as_text(x: str) -> str:
    """Return a float as the text that DuckDB makes of it."""
    short = f"replace(CAST({x} AS STRING), '.0E', 'E')"
    plain = f"regexp_replace(CAST(CAST({x} AS DECIMAL(38, 21)) AS STRING), '([.][0-9]+?)0+$', '$1')"
    small = f"replace(regexp_replace({short}, 'E-([0-9])$', 'e-0$1'), 'E', 'e')"
    return (
        f"(CASE WHEN {x} = CAST('NaN' AS DOUBLE) THEN 'nan' WHEN {x} = {_INFINITY} THEN 'inf' "
        f"WHEN {x} = -{_INFINITY} THEN '-inf' WHEN abs({x}) >= 1E16D THEN replace({short}, 'E', 'e+') "
        f"WHEN {x} = 0 THEN CAST({x} AS STRING) WHEN abs({x}) >= 1E-4D THEN {plain} ELSE {small} END)"
    )
