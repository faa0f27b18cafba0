"""The SQL of DuckDB."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from ckptlake.query.dialects.standard import Dialect, Over, Text


class DuckDB(Dialect):
    """The SQL of DuckDB."""

    name = "duckdb"
    has_list_values = True
    types: ClassVar[dict[str, str]] = {
        "int": "BIGINT", "float": "DOUBLE", "text": "VARCHAR", "bool": "BOOLEAN", "time": "TIMESTAMPTZ",
    }  # fmt: skip

    def _in_subtree(self, value: Text, root: Text) -> str:
        return f"in_subtree({value.sql}, {root.sql})"

    def _matches(self, value: Text, pattern: Text) -> str:
        return f"regexp_matches({value.sql}, {pattern.sql})"

    def whole_quotient(self, left: str, right: str) -> str:
        return f"({left} // {self.divisor(right)})"

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
