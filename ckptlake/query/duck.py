"""The one door to DuckDB: connections with a lake's views, and SQL run on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from ckptlake.errors import DamagedTableError, QueryError
from ckptlake.query import views
from ckptlake.query.names import escape_glob, quote
from ckptlake.query.pruning import Needs, read_needs
from ckptlake.query.sources import Sources
from ckptlake.tables.schemas import METRICS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_SETTINGS = (
    "SET GLOBAL TimeZone = 'UTC'",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET disabled_optimizers = 'partitioned_execution'",
)
_PARSED_QUERIES = 256
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
        self._parse = lru_cache(maxsize=_PARSED_QUERIES)(self._parsed)

    def _cursor(self) -> DuckDBPyConnection:
        if self._connection is None:
            self._connection = new_connection()
        return self._connection.cursor()

    def needs(self, query: str, values: Mapping[str, object]) -> Needs | None:
        """Return which views `query` reads and which points, or None where only running it would tell.

        Raises:
            QueryError: it is no text that DuckDB could parse.
        """
        try:
            tree = self._parse(query)
            return None if tree.get("error") else read_needs(tree, values)
        except duckdb.Error as error:
            raise QueryError(_explained(error)) from error
        except RecursionError:
            return None

    def _parsed(self, query: str) -> dict[str, Any]:
        with self._cursor() as cursor:
            rows = cursor.execute("SELECT json_serialize_sql($1)", [query]).fetchall()
        tree: dict[str, Any] = json.loads(rows[0][0])
        return tree

    def run(
        self, query: str, values: Mapping[str, object], sources: Sources, wanted: Iterable[str]
    ) -> DuckDBPyRelation:
        """Run `query` on the named views of `sources` and return its result as a relation of its own.

        Raises:
            QueryError: DuckDB refused the query.
            DamagedTableError: a data file that it needs is missing or damaged.
        """
        with self._cursor() as cursor:
            install_views(cursor, sources, frozenset(wanted))
            table, kinds = _fetch(cursor, query, values, sources)
        relation = self._cursor().from_arrow(table)
        return _with_whole_numbers(relation, kinds) if "HUGEINT" in kinds else relation

    def points(self, sources: Sources) -> pa.Table:
        """Return the points of curves with repeated steps, the newest of each step."""
        with self._cursor() as cursor:
            install_views(cursor, sources, frozenset({"metrics"}))
            query = "SELECT * FROM metrics SEMI JOIN repeated_curves USING (run_id, metric)"
            return _fetch(cursor, query, {}, sources)[0]


def new_connection() -> DuckDBPyConnection:
    """Return an in-memory DuckDB with the settings and macros every question runs under."""
    connection = duckdb.connect()
    for statement in (*_SETTINGS, *views.MACROS):
        connection.execute(statement)
    return connection


def install_views(cursor: DuckDBPyConnection, sources: Sources, wanted: frozenset[str]) -> None:
    """Create the wanted views over `sources`, and those that they stand on.

    Raises:
        DamagedTableError: a data file is missing or damaged.
    """
    if wanted & {"experiments", "runs_wide"}:
        wanted |= {"runs"}
    if "runs_wide" in wanted:
        wanted |= {"params", "summaries", "definitions"}
    for name, rows in sources.rows.items():
        if name in wanted:
            cursor.register(f"{name}_rows", rows)
    try:
        if wanted & {"metrics", "metrics_raw"}:
            _install_points(cursor, sources, wanted)
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        raise _damaged(error) from error
    if "summaries" in wanted:
        _create(cursor, "summaries", "SELECT * EXCLUDE (steps_unique) FROM summaries_rows")
    for name, text in _SIMPLE_VIEWS.items():
        if name in wanted:
            _create(cursor, name, text())
    if "runs_wide" in wanted:
        _create(cursor, "runs_wide", views.runs_wide(_wide_columns(cursor)))


def _install_points(cursor: DuckDBPyConnection, sources: Sources, wanted: frozenset[str]) -> None:
    files, live, repeated = sources.files, sources.live_points, sources.repeated_curves
    if files:
        cursor.execute(f"SET VARIABLE {views.FILES_VARIABLE} = $1", [[escape_glob(path) for path in files]])
    if live is not None or not files:
        cursor.register("metrics_live", live if live is not None else METRICS.schema.empty_table())
    root_looks_partitioned = bool(files) and "=" in str(Path(files[0]).parent.parent)
    text = views.point_rows(
        has_files=bool(files), has_live=live is not None, root_looks_partitioned=root_looks_partitioned
    )
    if "metrics" in wanted and (repeated is None or repeated.num_rows == 0):
        _create(cursor, "metrics", text)
    elif "metrics" in wanted:
        cursor.register("repeated_curves", repeated)
        _create(cursor, "metrics_raw", text)
        _create(cursor, "metrics", views.newest_of_repeated())
    if "metrics_raw" in wanted:
        _create(cursor, "metrics_raw", text)


def _wide_columns(cursor: DuckDBPyConnection) -> views.WideColumns:
    kinds = cursor.execute(views.PARAM_KINDS).fetchall()
    metrics = cursor.execute("SELECT DISTINCT metric FROM summaries ORDER BY metric").fetchall()
    directed = cursor.execute(
        "SELECT DISTINCT metric FROM summaries JOIN definitions USING (experiment, metric) "
        "WHERE direction IS NOT NULL ORDER BY metric"
    ).fetchall()
    return views.WideColumns(kinds, [name for (name,) in metrics], [name for (name,) in directed])


def _create(cursor: DuckDBPyConnection, name: str, text: str) -> None:
    cursor.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {text}")


def _fetch(
    cursor: DuckDBPyConnection, query: str, values: Mapping[str, object], sources: Sources
) -> tuple[pa.Table, list[str]]:
    """Return a query's rows and DuckDB's types of its columns."""
    try:
        relation = cursor.sql(query, params=dict(values) or None)
        if relation is None:
            return pa.table({"Count": pa.array([], pa.int64())}), ["BIGINT"]
        return relation.to_arrow_table(), [str(kind) for kind in relation.types]
    except duckdb.IOException as error:
        if sources.files and str(Path(sources.files[0]).parent.parent) in str(error):
            raise _damaged(error) from error
        raise QueryError(_explained(error)) from error
    except duckdb.Error as error:
        raise QueryError(_explained(error)) from error
    except RuntimeError as error:
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise


def _with_whole_numbers(relation: DuckDBPyRelation, kinds: Sequence[str]) -> DuckDBPyRelation:
    """Return sums of integers as the integers they are; Arrow has them as decimals."""
    if len({name.lower() for name in relation.columns}) < len(relation.columns):
        return relation
    columns = zip(relation.columns, kinds, strict=True)
    return relation.project(
        ", ".join(
            f"{quote(name)}::HUGEINT AS {quote(name)}" if kind == "HUGEINT" else quote(name) for name, kind in columns
        )
    )


def _damaged(error: duckdb.Error) -> DamagedTableError:
    return DamagedTableError(f"a data file of the table 'metrics' cannot be read: {error}; restore it from a copy")


def _explained(error: duckdb.Error) -> str:
    message = str(error).strip()
    if "parameter" in message.lower():
        return f"{message}\nBind values by name: lake.sql('… where run_id = $run', run='…')"
    return message
