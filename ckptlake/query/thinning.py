"""Curves with fewer points, none of whose spikes is hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptlake.query.arguments import positive
from ckptlake.query.expressions import Expr
from ckptlake.query.vocabulary import col, row_number

if TYPE_CHECKING:
    from ckptlake.query.builder import Query


def bucket_of(every: int | None, points: int | None) -> Expr:
    """Return the number of the bucket a point falls into: so many steps wide, or so many points a curve in all."""
    if every is not None:
        return col("step") // positive("every", every)
    buckets = max(1, positive("points", points) // 2)
    low, high = col("step").min().over("run_id", "metric"), col("step").max().over("run_id", "metric")
    return ((col("step") - low) * buckets) // (high - low + 1)


def thinned(rows: Query) -> Query:
    """Keep of each `_bucket` of a curve the lowest point, the highest, and the first that is NaN."""
    curve = ("run_id", "metric", "_bucket")
    value = col("value")
    numbers = value.is_nan()
    placed = rows.with_columns(
        _low=row_number().over(*curve, order_by=[numbers, value, "step"]),
        _high=row_number().over(*curve, order_by=[numbers, value.desc(), "step"]),
        _nan=row_number().over(*curve, order_by=[numbers.desc(), "step"]),
    )
    kept = placed.where((col("_low") == 1) | (col("_high") == 1) | ((col("_nan") == 1) & numbers))
    return kept.drop("_bucket", "_low", "_high", "_nan").order_by("run_id", "metric", "step")
