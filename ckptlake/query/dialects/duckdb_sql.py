"""The SQL of DuckDB."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from ckptlake.query.dialects.standard import Dialect, Over, Text


class DuckDB(Dialect):
    """The SQL of DuckDB."""

    name = "duckdb"
    has_list_values = True
    functions: ClassVar[dict[str, str]] = {"arg_min": "arg_min_null", "arg_max": "arg_max_null"}
    types: ClassVar[dict[str, str]] = {
        "int": "BIGINT", "float": "DOUBLE", "text": "VARCHAR", "bool": "BOOLEAN", "time": "TIMESTAMPTZ",
    }  # fmt: skip

    def _in_subtree(self, value: Text, root: Text) -> str:
        return f"in_subtree({value.sql}, {root.sql})"

    def _matches(self, value: Text, pattern: Text) -> str:
        return f"regexp_matches({value.sql}, {pattern.sql})"

    def _floor(self, value: Text) -> str:
        return self._whole("floor", value)

    def _ceil(self, value: Text) -> str:
        return self._whole("ceil", value)

    def _whole(self, function: str, value: Text) -> str:
        """Return a number without its fraction; the function would make a float of an integer."""
        return value.sql if value.kind == "int" else f"{function}({value.sql})"

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

    def _seconds(self, value: Text) -> str:
        return f"CAST(epoch({value.sql}) AS DOUBLE)"

    def wide_integer(self, sql: str) -> str:
        return f"CAST({sql} AS HUGEINT)"

    def _agg_quantile(self, value: Text, fraction: float, *, over: Over) -> str:
        return self.of_numbers("quantile_cont", value, [self.as_float(value), repr(fraction)], over)

    def _agg_ema(self, value: Text, alpha: float, *, over: Over) -> str:
        x = self.as_float(value)
        values = self.chosen("list", [x], f"{x} IS NOT NULL", over)
        weights = f"[power({1 - alpha!r}, back) FOR back IN range(len({values}) - 1, -1, -1)]"
        return f"list_dot_product({values}, {weights}) / list_sum({weights})"

    def binary(self, value: bytes) -> str:
        return f"from_hex('{value.hex()}')"

    def time(self, moment: datetime) -> str:
        return f"TIMESTAMPTZ '{moment:%Y-%m-%d %H:%M:%S.%f}+00'"

    def interval(self, microseconds: int) -> str:
        return f"to_microseconds({microseconds:d})"
