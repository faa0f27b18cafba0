"""The one door to DuckDB: connections with a lake's views, and SQL run on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
_KEPT_DESKS = 4
_SIMPLE_VIEWS = {
    "runs": views.runs,
    "params": views.params,
    "tags": views.tags,
    "definitions": views.definitions,
    "experiments": views.experiments,
}


class Engine:
    """An in-memory DuckDB of one lake; each question gets a desk: a cursor with the views it needs.

    Making views costs as much as a small answer, so desks of the common views are kept for the next question
    of the same shape; it lays its own rows and files on them.
    """

    def __init__(self) -> None:
        self._connection: DuckDBPyConnection | None = None
        self._parse = lru_cache(maxsize=_PARSED_QUERIES)(self._parsed)
        self._needs: dict[tuple[str, frozenset[tuple[str, str]]], Needs | None] = {}
        self._desks: dict[Shape, list[Desk]] = {}

    def _cursor(self) -> DuckDBPyConnection:
        if self._connection is None:
            self._connection = new_connection()
        return self._connection.cursor()

    def needs(self, query: str, values: Mapping[str, object]) -> Needs | None:
        """Return which views `query` reads and which points, or None where only running it would tell.

        Raises:
            QueryError: it is no text that DuckDB could parse.
        """
        texts = frozenset((name, value) for name, value in values.items() if isinstance(value, str))
        key = (query, texts)
        if key in self._needs and len(texts) == len(values):
            return self._needs[key]
        try:
            tree = self._parse(query)
            needs = None if tree.get("error") else read_needs(tree, values)
            if len(texts) == len(values):
                if len(self._needs) >= _PARSED_QUERIES:
                    self._needs.clear()
                self._needs[key] = needs
            return needs
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
        self, query: str, values: Mapping[str, object], sources: Sources, wanted: frozenset[str], *, reads_only: bool
    ) -> DuckDBPyRelation:
        """Run `query` on the named views of `sources` and return its result as a relation of its own.

        Args:
            query: the SQL.
            values: what is bound to its parameters.
            sources: the rows and files behind the views.
            wanted: the views it reads.
            reads_only: whether it is known to leave nothing behind, such as a table of its own.

        Raises:
            QueryError: DuckDB refused the query.
            DamagedTableError: a data file that it needs is missing or damaged.
        """
        shape = Shape.of(sources, wanted)
        desk = self._take(shape) if reads_only and "runs_wide" not in wanted else None
        if desk is None:
            desk = Desk(self._cursor(), shape, sources)
        else:
            desk.lay(sources)
        try:
            table, kinds = _fetch(desk.cursor, query, values, sources)
        except BaseException:
            desk.cursor.close()
            raise
        if reads_only and "runs_wide" not in wanted and len(self._desks.setdefault(shape, [])) < _KEPT_DESKS:
            self._desks[shape].append(desk)
        else:
            desk.cursor.close()
        relation = self._cursor().from_arrow(table)
        return _with_whole_numbers(relation, kinds) if "HUGEINT" in kinds else relation

    def _take(self, shape: Shape) -> Desk | None:
        try:
            return self._desks[shape].pop()
        except (KeyError, IndexError):
            return None

    def points(self, sources: Sources) -> pa.Table:
        """Return the points of curves with repeated steps, the newest of each step."""
        with self._cursor() as cursor:
            Desk(cursor, Shape.of(sources, frozenset({"metrics"})), sources)
            query = "SELECT * FROM metrics SEMI JOIN repeated_curves USING (run_id, metric)"
            return _fetch(cursor, query, {}, sources)[0]


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides the text of the views: two questions of one shape differ in rows and files alone."""

    views: frozenset[str]
    has_files: bool
    has_live: bool
    has_repeats: bool
    root_looks_partitioned: bool

    @classmethod
    def of(cls, sources: Sources, wanted: frozenset[str]) -> Shape:
        if wanted & {"experiments", "runs_wide"}:
            wanted |= {"runs"}
        if "runs_wide" in wanted:
            wanted |= {"params", "summaries", "definitions"}
        return cls(
            wanted,
            bool(sources.files),
            sources.live_points is not None,
            sources.repeated_curves is not None and sources.repeated_curves.num_rows > 0,
            bool(sources.files) and "=" in str(Path(sources.files[0]).parent.parent),
        )


class Desk:
    """A cursor with the views of one shape, and the rows and files of one question on it.

    Raises:
        DamagedTableError: a data file is missing or damaged.
    """

    def __init__(self, cursor: DuckDBPyConnection, shape: Shape, sources: Sources) -> None:
        self.cursor = cursor
        self._shape = shape
        self._files: Sequence[str] = ()
        self.lay(sources)
        try:
            self._create_views()
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            raise _damaged(error) from error

    def lay(self, sources: Sources) -> None:
        """Put the rows and files of a question in the place of those before."""
        for name, rows in sources.rows.items():
            if name in self._shape.views:
                self.cursor.register(f"{name}_rows", rows)
        if not self._shape.views & {"metrics", "metrics_raw"}:
            return
        if sources.files and sources.files != self._files:
            files = [escape_glob(path) for path in sources.files]
            self.cursor.execute(f"SET VARIABLE {views.FILES_VARIABLE} = $1", [files])
            self._files = sources.files
        if self._shape.has_live or not self._shape.has_files:
            live = sources.live_points
            self.cursor.register("metrics_live", live if live is not None else METRICS.schema.empty_table())
        if self._shape.has_repeats:
            self.cursor.register("repeated_curves", sources.repeated_curves)

    def _create_views(self) -> None:
        wanted = self._shape.views
        points = views.point_rows(
            has_files=self._shape.has_files,
            has_live=self._shape.has_live,
            root_looks_partitioned=self._shape.root_looks_partitioned,
        )
        if "metrics_raw" in wanted or ("metrics" in wanted and self._shape.has_repeats):
            self._create("metrics_raw", points)
        if "metrics" in wanted:
            self._create("metrics", views.newest_of_repeated() if self._shape.has_repeats else points)
        if "summaries" in wanted:
            self._create("summaries", "SELECT * EXCLUDE (steps_unique) FROM summaries_rows")
        for name, text in _SIMPLE_VIEWS.items():
            if name in wanted:
                self._create(name, text())
        if "runs_wide" in wanted:
            self._create("runs_wide", views.runs_wide(_wide_columns(self.cursor)))

    def _create(self, name: str, text: str) -> None:
        self.cursor.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {text}")


def connection_with(sources: Sources, wanted: frozenset[str]) -> DuckDBPyConnection:
    """Return a connection of its own with the named views over `sources`."""
    connection = new_connection()
    Desk(connection, Shape.of(sources, wanted), sources)
    return connection


def new_connection() -> DuckDBPyConnection:
    """Return an in-memory DuckDB with the settings and macros every question runs under."""
    connection = duckdb.connect()
    for statement in (*_SETTINGS, *views.MACROS):
        connection.execute(statement)
    return connection


def _wide_columns(cursor: DuckDBPyConnection) -> views.WideColumns:
    kinds = cursor.execute(views.PARAM_KINDS).fetchall()
    metrics = cursor.execute("SELECT DISTINCT metric FROM summaries ORDER BY metric").fetchall()
    directed = cursor.execute(
        "SELECT DISTINCT metric FROM summaries JOIN definitions USING (experiment, metric) "
        "WHERE direction IS NOT NULL ORDER BY metric"
    ).fetchall()
    return views.WideColumns(kinds, [name for (name,) in metrics], [name for (name,) in directed])


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
    if isinstance(error, duckdb.CatalogException) and "Table with name" in message:
        first = message.splitlines()[0].partition(" Did you mean")[0]
        return f"{first}; the views are {', '.join(sorted(views.ALL_VIEWS))}"
    if "parameter" in message.lower():
        return f"{message}\nBind values by name: lake.sql('… where run_id = $run', run='…')"
    return message
