"""The SQL of Trino, to be read or run elsewhere; nothing here runs it.

There a float is never equal to NaN, and texts of floats have exponents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from ckptlake.errors import InvalidInputError
from ckptlake.query.dialects.standard import Dialect, Over, Text
from ckptlake.query.nodes import Const


class Trino(Dialect):
    """The SQL of Trino; it has no named parameters, so values are written into it."""

    name = "trino"
    types: ClassVar[dict[str, str]] = {
        "int": "BIGINT", "float": "DOUBLE", "text": "VARCHAR", "bool": "BOOLEAN",
        "time": "TIMESTAMP(6) WITH TIME ZONE",
    }  # fmt: skip
    functions: ClassVar[dict[str, str]] = {"arg_min": "min_by", "arg_max": "max_by"}

    def parameter(self, name: str, const: Const) -> str:  # noqa: ARG002
        """Refuse a parameter.

        Raises:
            InvalidInputError: always.
        """
        raise InvalidInputError(f"Trino has no named parameters for {const.value!r:.40}: take values='literals'")

    def sliced(self, length: int | None, offset: int) -> str:
        skipped = f" OFFSET {offset:d}" if offset else ""
        return skipped + ("" if length is None else f" LIMIT {length:d}")

    def shuffled(self, seed: int, values: Sequence[Text]) -> str:
        texts = ", ".join(f"coalesce({self.cast(value, 'text')}, '')" for value in values)
        return f"to_hex(md5(to_utf8(concat_ws('|', '{seed:d}', {texts}))))"

    def number(self, value: float) -> str:
        if math.isfinite(value):
            return super().number(value)
        return "nan()" if math.isnan(value) else "infinity()" if value > 0 else "-infinity()"

    # -- values in one row

    def _ilike(self, value: Text, pattern: Text) -> str:
        return f"(lower({value.sql}) LIKE lower({pattern.sql}))"

    def _matches(self, value: Text, pattern: Text) -> str:
        return f"regexp_like({value.sql}, {pattern.sql})"

    def _ends_with(self, value: Text, end: Text) -> str:
        return f"(substr({value.sql}, -length({end.sql})) = {end.sql})"

    def _contains(self, value: Text, part: Text) -> str:
        return f"(strpos({value.sql}, {part.sql}) > 0)"

    def _is_nan(self, value: Text) -> str:
        return f"is_nan({self.as_float(value)})"

    def _is_finite(self, value: Text) -> str:
        return f"is_finite({self.as_float(value)})"

    def whole(self, value: Text) -> str:
        return f"truncate({value.sql})"

    # -- aggregates

    def chosen(self, function: str, args: Sequence[str], condition: str = "", over: Over = "") -> str:
        """Return an aggregate of some rows; over windows Trino has no FILTER, but it passes null over."""
        if not over:
            return super().chosen(function, args, condition)
        name, last = self.functions.get(function, function), f"CASE WHEN {condition} THEN {args[-1]} END"
        return f"{name}({', '.join([*args[:-1], last])}){over}"

    def microseconds(self, time: str) -> str:
        return f"CAST(to_unixtime({time}) * 1e6 AS BIGINT)"

    def _agg_n_unique(self, value: Text, *, over: Over) -> str:
        if not over:
            return super()._agg_n_unique(value, over=over)
        return f"cardinality(array_distinct(filter(array_agg({value.sql}){over}, x -> x IS NOT NULL)))"

    def _agg_quantile(self, value: Text, fraction: float, *, over: Over) -> str:
        """Return a quantile between neighbours; Trino's own function is an estimate."""
        x = self.as_float(value)
        numbers = f"array_sort(filter(array_agg({x}){over}, x -> NOT is_nan(x)))"
        place = f"({self.number(fraction)} * (cardinality({numbers}) - 1) + 1)"
        low, high = (f"element_at({numbers}, CAST({end}({place}) AS BIGINT))" for end in ("floor", "ceil"))
        return f"CASE WHEN cardinality({numbers}) > 0 THEN {low} + ({high} - {low}) * ({place} - floor({place})) END"

    def _agg_ema(self, value: Text, alpha: float, *, over: Over) -> str:
        values, kept = f"array_agg({self.as_float(value)}){over}", self.number(1 - alpha)
        sums = "ROW(total DOUBLE, weight DOUBLE)"
        return (
            f"reduce({values}, CAST(ROW(0e0, 0e0) AS {sums}), (sums, x) -> if(x IS NULL, sums, CAST(ROW(sums.total * "
            f"{kept} + x, sums.weight * {kept} + 1e0) AS {sums})), sums -> sums.total / nullif(sums.weight, 0e0))"
        )
