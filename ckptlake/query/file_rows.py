"""The rows behind the views, as SQL over the files of snapshots.

A question has them from memory, where they were decoded and merged before; a script can only read files.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from ckptlake.query.names import escape_glob, literal, quote
from ckptlake.tables.schemas import TableSpec

FILE_SUMMARIES, MERGED_SUMMARIES = "summaries_files", "summaries_merged"
"""The names of the summaries as the files have them, and of those with one row a curve."""


def file_list(paths: Sequence[str]) -> str:
    """Return the SQL list of files."""
    return f"[{', '.join(literal(escape_glob(path)) for path in paths)}]"


def rows_in_files(spec: TableSpec, paths: Sequence[str]) -> str:
    """Return a query for all rows in files of a table that is not partitioned; without files for none."""
    if not paths:
        return no_rows(spec)
    columns = ", ".join(map(quote, spec.schema.names))
    return f"SELECT {columns} FROM read_parquet({file_list(paths)}, hive_partitioning=false)"


def no_rows(spec: TableSpec) -> str:
    """Return a query for no rows with the columns of a table."""
    columns = ", ".join(f"NULL::{_type(field.type)} AS {quote(field.name)}" for field in spec.schema)
    return f"SELECT {columns} WHERE false"


def merged_summaries() -> str:
    """Return a query for one row a curve from the rows that commits have added; see `merge_summaries`."""
    return f"""
        WITH parts AS (
            SELECT *, coalesce(first_step > max(last_step) OVER (
                PARTITION BY run_id, metric ORDER BY first_step ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ), true) AS is_apart
            FROM {FILE_SUMMARIES}
        )
        SELECT any_value(experiment) AS experiment, run_id, metric, sum(n)::BIGINT AS n, sum(n_nan)::BIGINT AS n_nan,
            sum(n_inf)::BIGINT AS n_inf, min(first_step) AS first_step, arg_min(first, first_step) AS first,
            max(last_step) AS last_step, arg_max(last, last_step) AS last, min(min) AS min,
            arg_min(min_step, (min, min_step)) FILTER (min IS NOT NULL) AS min_step, max(max) AS max,
            arg_min(max_step, (-max, max_step)) FILTER (max IS NOT NULL) AS max_step,
            sum(sum ORDER BY first_step) AS sum, sum(sum_sq ORDER BY first_step) AS sum_sq,
            min(first_ts) AS first_ts, max(last_ts) AS last_ts, bool_and(steps_unique AND is_apart) AS steps_unique
        FROM parts GROUP BY run_id, metric"""


def repeated_curves() -> str:
    """Return a query for the curves in which a step may occur twice."""
    return f"SELECT run_id, metric FROM {MERGED_SUMMARIES} WHERE NOT steps_unique"


def exact_summaries(repeated: str) -> str:
    """Return a query for the merged rows, those of repeated curves counted anew from the view of points."""
    return f"""
        SELECT * FROM {MERGED_SUMMARIES} WHERE steps_unique
        UNION ALL
        SELECT any_value(experiment), run_id, metric, count(*), count(*) FILTER (isnan(value)),
            count(*) FILTER (isinf(value)), min(step), arg_min(value, step), max(step), arg_max(value, step),
            min(value) FILTER (NOT isnan(value)), arg_min(step, (value, step)) FILTER (NOT isnan(value)),
            max(value) FILTER (NOT isnan(value)), arg_min(step, (-value, step)) FILTER (NOT isnan(value)),
            coalesce(sum(value ORDER BY step) FILTER (NOT isnan(value)), 0),
            coalesce(sum(value * value ORDER BY step) FILTER (NOT isnan(value)), 0), min(ts), max(ts), true
        FROM metrics SEMI JOIN {repeated} USING (run_id, metric) GROUP BY run_id, metric"""


def recorded_again(events: str) -> str:
    """Return a query for the checkpoints of which a tensor may have several rows; see `tensors.recorded_again`."""
    return f"""
        SELECT checkpoint_id FROM {events} GROUP BY checkpoint_id
        HAVING bool_or(event IN ('compacted', 'trimmed'))
            OR count(*) FILTER (event = 'sealed' OR (event = 'saved' AND digest IS NOT NULL)) > 1"""


def _type(kind: pa.DataType) -> str:
    """Return what DuckDB calls a type of Arrow."""
    if pa.types.is_list(kind):
        return f"{_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({_type(kind.key_type)}, {_type(kind.item_type)})"
    return _TYPES[kind]


_TYPES = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us", "UTC"): "TIMESTAMP WITH TIME ZONE",
}
