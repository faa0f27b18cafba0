"""The one door to DuckDB: connections with a lake's views, and SQL run on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from ckptlake.errors import QueryError
from ckptlake.query import views
from ckptlake.query.names import escape_glob, quote
from ckptlake.query.pruning import Needs, read_needs
from ckptlake.query.sources import Sources
from ckptlake.tables.schemas import METRICS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_SETTINGS = (
    "SET TimeZone = 'UTC'",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET disabled_optimizers = 'partitioned_execution'",
)
_SIMPLE_VIEWS = {
    "runs": views.runs,
    "params": views.params,
    "tags": views.tags,
    "definitions": views.definitions,
    "experiments": views.experiments,
}


class Engine:
    """An in-memory DuckDB of one lake; each question gets a cursor with views of its own."""

    def __init__(self) -> None:
        self._connection: DuckDBPyConnection | None = None

    def _cursor(self) -> DuckDBPyConnection:
        if self._connection is None:
            self._connection = new_connection()
        return self._connection.cursor()

    def needs(self, query: str, values: Mapping[str, object]) -> Needs | None:
        """Return which views `query` reads and which points, or None where only running it would tell."""
        with self._cursor() as cursor:
            row = cursor.execute("SELECT json_serialize_sql($1)", [query]).fetchone()
        tree = json.loads(row[0]) if row else {"error": True}
        return None if tree.get("error") else read_needs(tree, values)

    def run(
        self, query: str, values: Mapping[str, object], sources: Sources, wanted: Iterable[str]
    ) -> DuckDBPyRelation:
        """Run `query` on the named views of `sources` and return its result as a relation of its own.

        Raises:
            QueryError: DuckDB refused the query.
        """
        with self._cursor() as cursor:
            install_views(cursor, sources, frozenset(wanted))
            table = _fetch(cursor, query, values)
        return self._cursor().from_arrow(table)

    def points(self, sources: Sources) -> pa.Table:
        """Return the points of curves with repeated steps, the newest of each step."""
        with self._cursor() as cursor:
            install_views(cursor, sources, frozenset({"metrics"}))
            query = "SELECT * FROM metrics SEMI JOIN repeated_curves USING (run_id, metric)"
            return _fetch(cursor, query, {})


def new_connection() -> DuckDBPyConnection:
    """Return an in-memory DuckDB with the settings every question runs under."""
    connection = duckdb.connect()
    for setting in _SETTINGS:
        connection.execute(setting)
    return connection


def install_views(cursor: DuckDBPyConnection, sources: Sources, wanted: frozenset[str]) -> None:
    """Create the wanted views over `sources`, and those that they stand on."""
    for macro in views.MACROS:
        cursor.execute(macro)
    for name, rows in sources.rows.items():
        cursor.register(f"{name}_rows", rows)
    if wanted & {"experiments", "runs_wide"}:
        wanted |= {"runs"}
    if "runs_wide" in wanted:
        wanted |= {"params", "summaries", "definitions"}
    if wanted & {"metrics", "metrics_raw"}:
        _install_points(cursor, sources)
    if "metrics" in wanted:
        repeated = sources.repeated_curves
        if repeated is not None and repeated.num_rows:
            cursor.register("repeated_curves", repeated)
        _create(cursor, "metrics", views.metrics(has_repeats=repeated is not None and repeated.num_rows > 0))
    if "summaries" in wanted:
        _create(cursor, "summaries", "SELECT * EXCLUDE (steps_unique) FROM summaries_rows")
    for name, text in _SIMPLE_VIEWS.items():
        if name in wanted:
            _create(cursor, name, text())
    if "runs_wide" in wanted:
        _create(cursor, "runs_wide", views.runs_wide(_wide_columns(cursor)))


def _install_points(cursor: DuckDBPyConnection, sources: Sources) -> None:
    files, live = sources.files, sources.live_points
    if files:
        cursor.execute(f"SET VARIABLE {views.FILES_VARIABLE} = $1", [[escape_glob(path) for path in files]])
    cursor.register("metrics_live", live if live is not None else METRICS.schema.empty_table())
    root_looks_partitioned = bool(files) and "=" in str(Path(files[0]).parent.parent)
    text = views.point_rows(
        has_files=bool(files), has_live=live is not None, root_looks_partitioned=root_looks_partitioned
    )
    _create(cursor, "metrics_raw", text)


def _wide_columns(cursor: DuckDBPyConnection) -> views.WideColumns:
    kinds = cursor.execute(
        "SELECT key, CASE WHEN bool_and(kind = 'bool') THEN 'bool' WHEN bool_and(kind = 'int' AND abs(number) < 2**53) "
        "THEN 'int' WHEN bool_and(kind IN ('int', 'float', 'null')) THEN 'number' ELSE 'text' END "
        "FROM params GROUP BY key ORDER BY key"
    ).fetchall()
    metrics = cursor.execute("SELECT DISTINCT metric FROM summaries ORDER BY metric").fetchall()
    directed = cursor.execute(
        "SELECT DISTINCT metric FROM summaries JOIN definitions USING (experiment, metric) "
        "WHERE direction IS NOT NULL ORDER BY metric"
    ).fetchall()
    return views.WideColumns(kinds, [name for (name,) in metrics], [name for (name,) in directed])


def _create(cursor: DuckDBPyConnection, name: str, text: str) -> None:
    cursor.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {text}")


def _fetch(cursor: DuckDBPyConnection, query: str, values: Mapping[str, object]) -> pa.Table:
    try:
        relation = cursor.sql(query, params=dict(values) or None)
        return relation.to_arrow_table() if relation is not None else pa.table({})
    except duckdb.Error as error:
        raise QueryError(_explained(str(error))) from error


def _explained(message: str) -> str:
    if "expected to be" in message or "parameter" in message.lower():
        return f"{message.strip()}\nBind values by name: lake.sql('… where run_id = $run', run='…')"
    return message.strip()
