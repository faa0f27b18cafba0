"""The SQL of every view, made in one place; `<table>_rows` stands for the rows a snapshot holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ckptlake.query.names import literal, quote
from ckptlake.query.scans import ScannedTable

_PLACE = "attempt::HUGEINT * 18446744073709551616::HUGEINT + epoch_us(ts)"

SETTINGS = ("SET GLOBAL TimeZone = 'UTC'", "SET disabled_optimizers = 'partitioned_execution'")
"""The settings on which answers depend."""

MACROS = (
    "CREATE OR REPLACE MACRO in_subtree(experiment, root) AS "
    "(experiment = root OR starts_with(experiment, root || '/'))",
)

DEPENDS = {
    "runs": ("runs",),
    "params": ("params",),
    "tags": ("tags",),
    "definitions": ("definitions",),
    "experiments": ("experiments", "runs"),
    "metrics": ("metrics", "summaries"),
    "metrics_raw": ("metrics",),
    "summaries": ("summaries", "metrics"),
    "checkpoints": ("checkpoints", "verifications"),
    "checkpoint_events": ("checkpoints",),
    "verifications": ("verifications",),
    "tensors": ("tensors", "checkpoints"),
    "runs_wide": ("runs", "params", "summaries", "metrics", "definitions"),
}
"""For every view the tables it reads."""

_LATEST_RUN_COLUMNS = (
    "name",
    "experiment",
    "parent_run_id",
    "forked_from_run_id",
    "forked_from_step",
    "git_commit",
    "git_branch",
    "git_dirty",
    "git_diff_bytes",
    "host",
    "pid",
    "command",
    "python",
    "packages",
)


@dataclass(frozen=True, slots=True)
class ScanShape:
    """What of a scanned table a question reads: files, live rows, rows that may be there again."""

    has_files: bool
    has_live: bool
    has_repeats: bool
    root_looks_partitioned: bool


def scanned_rows(table: ScannedTable, shape: ScanShape, files: str | None = None) -> str:
    """Return a query for all rows of a scanned table, in files and live.

    The files are those in the table's variable, or in the SQL list `files`.

    DuckDB reads `name=value` in any part of a path as a partition. Where the lake's own path has such a part,
    it could shadow a column, so there the experiment is taken from the file's name instead.
    """
    files = files or f"getvariable({literal(table.files_variable)})"
    source = f"read_parquet({files}, hive_types_autocast=false, hive_partitioning="
    parts = []
    if shape.has_files and not shape.root_looks_partitioned:
        parts.append(f"SELECT {_columns(table)} FROM {source}true)")
    elif shape.has_files:
        experiment = "url_decode(regexp_extract(filename, '/experiment=([^/]*)/[^/]*$', 1)) AS experiment"
        columns = ", ".join(experiment if name == "experiment" else quote(name) for name in table.columns)
        parts.append(f"SELECT {columns} FROM {source}false, filename=true)")
    if shape.has_live or not shape.has_files:
        parts.append(f"SELECT {_columns(table)} FROM {table.live}")
    return " UNION ALL ".join(parts)


def newest_rows(table: ScannedTable, shape: ScanShape, files: str | None = None) -> str:
    """Return a query for the rows of a scanned table, of those that are there again the newest.

    Only what is named as repeated is searched for that; all other rows are known to be there once.
    """
    rows = scanned_rows(table, shape, files)
    if not shape.has_repeats:
        return rows
    keys, identity = ", ".join(table.repeated_by), ", ".join(table.identity)
    return f"""
        SELECT {_columns(table)} FROM ({rows}) ANTI JOIN {table.repeated} USING ({keys})
        UNION ALL
        SELECT {_columns(table)} FROM ({rows}) SEMI JOIN {table.repeated} USING ({keys})
        QUALIFY row_number() OVER (PARTITION BY {identity} ORDER BY {table.newest_first}) = 1"""


def _columns(table: ScannedTable) -> str:
    return ", ".join(map(quote, table.columns))


def summaries() -> str:
    """Return a query for one row a curve."""
    return "SELECT * EXCLUDE (steps_unique) FROM summaries_rows"


def runs() -> str:
    """Return a query for one row a run from its events; the newest value of each column counts."""
    latest = ", ".join(f"arg_max({name}, place) AS {name}" for name in _LATEST_RUN_COLUMNS)
    columns = ", ".join(_LATEST_RUN_COLUMNS[2:])
    return f"""
        WITH events AS (SELECT *, {_PLACE} AS place FROM runs_rows),
        latest AS (
            SELECT run_id, {latest}, max(attempt) AS attempt, min(ts) AS started_at, max(ts) AS updated_at,
                string_agg(note, chr(10) ORDER BY place) FILTER (note IS NOT NULL) AS notes
            FROM events GROUP BY run_id
        ),
        participants AS (
            SELECT run_id, attempt, writer, arg_max(status, place) AS status,
                max(ts) FILTER (status <> 'running') AS ended_at
            FROM events WHERE status IS NOT NULL GROUP BY run_id, attempt, writer
        ),
        attempts AS (
            SELECT run_id, attempt, max(ended_at) AS ended_at,
                CASE WHEN bool_or(status = 'running') THEN 'running' WHEN bool_or(status = 'failed') THEN 'failed'
                    WHEN bool_or(status = 'killed') THEN 'killed' ELSE 'finished' END AS status
            FROM participants GROUP BY run_id, attempt
        )
        SELECT run_id, name, experiment, coalesce(status, 'running') AS status, attempt, started_at,
            CASE WHEN status <> 'running' THEN ended_at END AS ended_at, updated_at,
            CASE WHEN status <> 'running' THEN epoch_us(ended_at) - epoch_us(started_at) END / 1e6 AS duration_s,
            {columns}, notes
        FROM latest LEFT JOIN attempts USING (run_id, attempt)"""


def params() -> str:
    """Return a query for the newest value of each param; `value` is it as text."""
    return _typed("params_rows")


def tags() -> str:
    """Return a query for the tags that are set; `value` is each as text."""
    return _typed("tags_rows", "WHERE NOT coalesce(removed, false)")


def _typed(source: str, condition: str = "") -> str:
    columns = ", ".join(f"arg_max_null({name}, place) AS {name}" for name in ("kind", "number", "text", "json"))
    removed = ", arg_max_null(removed, place) AS removed" if condition else ""
    return f"""
        WITH placed AS (SELECT *, {_PLACE} AS place FROM {source}),
        latest AS (SELECT run_id, key, max(ts) AS ts, {columns}{removed} FROM placed GROUP BY run_id, key)
        SELECT run_id, key, kind, number, text, json, coalesce(text, json, number::VARCHAR) AS value, ts
        FROM latest {condition}"""


def definitions() -> str:
    """Return a query for what is declared of each metric of an experiment; the newest counts."""
    return """
        SELECT experiment, metric, arg_max(direction, epoch_us(ts)) AS direction,
            arg_max(step_metric, epoch_us(ts)) AS step_metric
        FROM definitions_rows GROUP BY experiment, metric"""


def experiments() -> str:
    """Return a query for every experiment and every level above one."""
    return """
        WITH RECURSIVE names(experiment) AS (
            SELECT DISTINCT experiment FROM runs UNION SELECT DISTINCT experiment FROM experiments_rows
            UNION SELECT regexp_replace(experiment, '/[^/]*$', '') FROM names WHERE contains(experiment, '/')
        ),
        described AS (
            SELECT experiment, arg_max(description, epoch_us(ts)) AS description,
                arg_max(requirement, epoch_us(ts)) AS requirement
            FROM experiments_rows GROUP BY experiment
        ),
        own AS (
            SELECT experiment, count(*) AS runs, count(*) FILTER (status = 'running') AS running,
                min(started_at) AS first_started_at, max(started_at) AS last_started_at
            FROM runs GROUP BY experiment
        ),
        shares AS (
            SELECT names.experiment, sum(own.runs) AS runs_in_subtree
            FROM names JOIN own ON in_subtree(own.experiment, names.experiment) GROUP BY names.experiment
        )
        SELECT experiment,
            CASE WHEN contains(experiment, '/') THEN regexp_replace(experiment, '/[^/]*$', '') END AS parent,
            len(string_split(experiment, '/')) AS depth, coalesce(runs, 0) AS runs,
            coalesce(runs_in_subtree, 0)::BIGINT AS runs_in_subtree, coalesce(running, 0) AS running,
            first_started_at, last_started_at, description, requirement
        FROM names LEFT JOIN own USING (experiment) LEFT JOIN shares USING (experiment)
            LEFT JOIN described USING (experiment)"""


_EXACT = "kind = 'int' AND coalesce(abs(number) < 2**53, false)"
PARAM_KINDS = f"""
    SELECT key, CASE
        WHEN bool_and(kind = 'bool') THEN 'bool'
        WHEN bool_and({_EXACT}) THEN 'int'
        WHEN bool_and(kind IN ('float', 'null') OR ({_EXACT})) THEN 'number'
        ELSE 'text' END, bool_or(number IS NOT NULL)
    FROM params GROUP BY key ORDER BY key"""
"""The type that holds every value of a param exactly, and whether any is a number: integers beyond 2**53 stay text."""


@dataclass(frozen=True, slots=True)
class WideColumns:
    """What runs_wide has beside the columns of runs: params with their kinds, metrics, metrics with a direction."""

    params: Sequence[tuple[str, str]]
    metrics: Sequence[str]
    directed: Sequence[str]


def runs_wide(columns: WideColumns) -> str:
    """Return a query for one row a run with columns ``params.<key>``, ``last.<metric>``, ``best.<metric>``.

    A param's column is a number or bool where all its values are, else text. `best` exists for metrics
    with a declared direction. Names that differ only in case get a numbered suffix, as DuckDB's do not
    differ by case.
    """
    taken: set[str] = set()
    param_columns = [_param(key, kind, taken) for key, kind in columns.params]
    metric_columns = [
        f"arg_max(last, last_step) FILTER (metric = {literal(name)}) AS {quote(_free(f'last.{name}', taken))}"
        for name in columns.metrics
    ]
    metric_columns += [
        f"any_value(CASE direction WHEN 'min' THEN s.min WHEN 'max' THEN s.max END) FILTER (metric = {literal(name)}) "
        f"AS {quote(_free(f'best.{name}', taken))}"
        for name in columns.directed
    ]
    return f"""
        SELECT * FROM runs
        LEFT JOIN (SELECT {", ".join(["run_id", *param_columns])} FROM params GROUP BY run_id) USING (run_id)
        LEFT JOIN (
            SELECT {", ".join(["run_id", *metric_columns])}
            FROM summaries s LEFT JOIN definitions USING (experiment, metric) GROUP BY run_id
        ) USING (run_id)"""


def _param(key: str, kind: str, taken: set[str]) -> str:
    column = "value" if kind == "text" else "number"
    cast = {"bool": "::BOOLEAN", "int": "::BIGINT"}.get(kind, "")
    return f"(any_value({column}) FILTER (key = {literal(key)})){cast} AS {quote(_free(f'params.{key}', taken))}"


def _free(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate.lower() in taken:
        count += 1
        candidate = f"{name}~{count}"
    taken.add(candidate.lower())
    return candidate


def tables_of(views: Iterable[str]) -> frozenset[str]:
    """Return the tables that the named views read; a name that is no view reads nothing."""
    return frozenset(table for view in views for table in DEPENDS.get(view, ()))


ALL_VIEWS = frozenset(DEPENDS)

OF_HELD_ROWS = {
    "runs": runs,
    "params": params,
    "tags": tags,
    "definitions": definitions,
    "experiments": experiments,
    "summaries": summaries,
}
"""Views made of `<table>_rows` and of each other, in an order in which they can be made."""

OF_EVENTS = {"checkpoint_events": "checkpoints", "verifications": "verifications"}
"""Views that show a table's rows as they are."""


def raw_rows(table: str) -> str:
    """Return a query for the rows of a table as they are."""
    return f"SELECT * FROM {table}_rows"
