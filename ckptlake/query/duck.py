"""The one door to DuckDB: connections with a lake's views, and SQL run on them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

import ckptlake
from ckptlake.errors import DamagedTableError, QueryError
from ckptlake.query import checkpoint_views, views
from ckptlake.query.answers import Answer, text_of
from ckptlake.query.folded import KEPT_VIEWS, SCHEMA, KeptTables, create_folded, lent_folds, lent_views
from ckptlake.query.history import Folding
from ckptlake.query.names import escape_glob, quote
from ckptlake.query.pruning import Needs, read_needs
from ckptlake.query.questions import Folds, Question, Shape, root_of
from ckptlake.query.scans import POINTS, SCANNED, Scan
from ckptlake.query.sources import Sources
from ckptlake.query.views import ScanShape
from ckptlake.query.volatility import is_repeatable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_SETTINGS = (
    *views.SETTINGS,
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
)
_HARMLESS = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
_PARSED_QUERIES = 256
_KEPT_DESKS = 4
_ANY_VALUES = "any values"
_HELD_VIEWS = {**{name: name for name in views.OF_HELD_ROWS}, **views.OF_EVENTS}
"""The table whose rows in memory a view names as `<table>_rows`."""


class Engine:
    """An in-memory DuckDB of one lake; each question gets a desk: a cursor with the views it needs.

    Making views costs as much as a small answer, so desks of the common views are kept for the next question
    of the same shape; it lays its own rows and files on them.
    """

    def __init__(self) -> None:
        self._connection: DuckDBPyConnection | None = None
        self._lock = threading.Lock()
        self._parse = lru_cache(maxsize=_PARSED_QUERIES)(self._parsed)
        self._judge = lru_cache(maxsize=_PARSED_QUERIES)(self._judged)
        self._is_altered = False
        self._needs: dict[tuple[str, str | None], Needs | None] = {}
        self._desks: dict[Shape, list[Desk]] = {}
        self._settled, self._recent = (KeptTables(name, self._cursor) for name in ("settled", "recent"))
        self._views = {view: KeptTables(view, self._cursor) for view in KEPT_VIEWS}

    def connect(self) -> None:
        """Start DuckDB, which takes longer than a small answer, unless it has been."""
        with self._lock:
            if self._connection is None:
                self._connection = new_connection()

    def _cursor(self) -> DuckDBPyConnection:
        self.connect()
        assert self._connection is not None
        return self._connection.cursor()

    def needs(self, query: str, values: Mapping[str, object]) -> Needs | None:
        """Return which views `query` reads and which rows of scanned tables, or None where only running it would tell.

        Raises:
            QueryError: it is no text that DuckDB could parse.
        """
        bound = text_of(values)
        for known in ((query, _ANY_VALUES), (query, bound)):
            if known in self._needs:
                return self._needs[known]
        try:
            tree = self._parse(query)
            needs = None if tree.get("error") else read_needs(tree, values)
            depends_on_values = needs is not None and any(needs.alternatives.values())
            told = bound if depends_on_values else _ANY_VALUES
            if told is not None:
                if len(self._needs) >= _PARSED_QUERIES:
                    self._needs.clear()
                self._needs[query, told] = needs
            return needs
        except duckdb.Error as error:
            raise QueryError(_explanation(error)) from error
        except RecursionError:
            return None

    def _parsed(self, query: str) -> dict[str, Any]:
        with self._cursor() as cursor:
            rows = cursor.execute("SELECT json_serialize_sql($1)", [query]).fetchall()
        tree: dict[str, Any] = json.loads(rows[0][0])
        return tree

    def versions(self) -> dict[str, str]:
        """Return what computes the answers, with versions."""
        return {"ckptlake": ckptlake.__version__, "duckdb": duckdb.__version__, "pyarrow": pa.__version__}

    @property
    def is_altered(self) -> bool:
        """Whether a statement was run that may have changed what later ones mean, such as SET or CREATE MACRO."""
        return self._is_altered

    def is_repeatable(self, query: str) -> bool:
        """Return whether `query` has the same answer whenever it is asked of the same rows, as far as is known."""
        return not self._is_altered and self._judge(query)

    def _judged(self, query: str) -> bool:
        try:
            return is_repeatable(self._parse(query))
        except RecursionError:
            return False

    def answer(
        self, query: str, values: Mapping[str, object], sources: Sources, wanted: frozenset[str], *, reads_only: bool
    ) -> Answer:
        """Run `query` on the named views of `sources` and return its result.

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
        if not reads_only and not self._is_altered:
            self._is_altered = self._may_alter(query)
        folding = sources.folding if "checkpoints" in wanted else None
        with (
            _explained(sources),
            lent_folds(self._settled, self._recent, folding) as folds,
            lent_views(self._views, sources, wanted) as kept,
        ):
            question = Question(sources, wanted, folds, kept)
            return self._fetch(query, values, question, reads_only=reads_only)

    def relation(self, answer: Answer) -> DuckDBPyRelation:
        """Return an answer as a relation of its own."""
        relation = self._cursor().from_arrow(answer.rows)
        return _with_whole_numbers(relation, answer.kinds) if "HUGEINT" in answer.kinds else relation

    def _may_alter(self, query: str) -> bool:
        with self._cursor() as cursor:
            try:
                kinds = {statement.type for statement in cursor.extract_statements(query)}
            except duckdb.Error:
                return False
        return not kinds <= _HARMLESS or (duckdb.StatementType.EXPLAIN in kinds and "analyze" in query.lower())

    def _fetch(self, query: str, values: Mapping[str, object], question: Question, *, reads_only: bool) -> Answer:
        shape = Shape.of(question)
        may_be_kept = reads_only and "runs_wide" not in question.wanted
        desk = self._take(shape) if may_be_kept else None
        if desk is None:
            desk = Desk(self._cursor(), shape, question)
        else:
            desk.lay(question)
        try:
            found = _fetch(desk.cursor, query, values)
        except BaseException:
            desk.cursor.close()
            raise
        if may_be_kept and len(self._desks.setdefault(shape, [])) < _KEPT_DESKS:
            self._desks[shape].append(desk)
        else:
            desk.cursor.close()
        return found

    def _take(self, shape: Shape) -> Desk | None:
        try:
            return self._desks[shape].pop()
        except (KeyError, IndexError):
            return None

    def points(self, scan: Scan) -> pa.Table:
        """Return the points of curves with repeated steps, the newest of each step."""
        question = Question(Sources({}, {POINTS.name: scan}), frozenset({"metrics"}))
        with _explained(question.sources), self._cursor() as cursor:
            Desk(cursor, Shape.of(question), question)
            return _fetch(cursor, f"SELECT * FROM metrics SEMI JOIN {POINTS.repeated} USING (run_id, metric)", {}).rows


class Desk:
    """A cursor with the views of one shape, and the rows and files of one question on it."""

    def __init__(self, cursor: DuckDBPyConnection, shape: Shape, question: Question) -> None:
        self.cursor = cursor
        self._shape = shape
        self._files: dict[str, Sequence[str]] = {}
        self._folds = Folds()
        self._kept: dict[str, str] = {}
        self.lay(question)
        self._create_views()

    def lay(self, question: Question) -> None:
        """Put the rows and files of a question in the place of those before."""
        sources = question.sources
        for view in (self._shape.views & _HELD_VIEWS.keys()) - self._shape.kept:
            table = _HELD_VIEWS[view]
            self.cursor.register(f"{table}_rows", sources.rows[table])
        for name, shape in self._shape.scans:
            self._lay_scan(name, shape, sources.scans[name])
        for view, table in question.kept.items():
            if self._kept.get(view) != table:
                self._create(view, f"SELECT * FROM {table}")
                self._kept[view] = table
        if question.folds != self._folds:
            self._lay_folds(question.folds)
        if sources.folding is not None and self._shape.has_settled:
            self.cursor.register(checkpoint_views.RECENT_RUNS, sources.folding.recent_runs)

    def _lay_folds(self, folds: Folds) -> None:
        for name, table in ((checkpoint_views.SETTLED, folds.settled), (checkpoint_views.RECENT, folds.recent)):
            if table is not None:
                self._create(name, f"SELECT * FROM {table}")
        self._folds = folds

    def _lay_scan(self, name: str, shape: ScanShape, scan: Scan) -> None:
        table = SCANNED[name]
        if scan.files and scan.files != self._files.get(name):
            files = [escape_glob(path) for path in scan.files]
            self.cursor.execute(f"SET VARIABLE {table.files_variable} = $1", [files])
            self._files[name] = scan.files
        if shape.has_live or not shape.has_files:
            live = scan.live
            self.cursor.register(table.live, table.spec.schema.empty_table() if live is None else live)
        if shape.has_repeats:
            self.cursor.register(table.repeated, scan.repeated)

    def _create_views(self) -> None:
        wanted, scans = self._shape.views, dict(self._shape.scans)
        if "metrics_raw" in wanted:
            self._create("metrics_raw", views.scanned_rows(POINTS, scans[POINTS.name]))
        for name in wanted & scans.keys():
            self._create(name, views.newest_rows(SCANNED[name], scans[name]))
        if "checkpoints" in wanted:
            self._create("checkpoints", checkpoint_views.checkpoints(has_settled=self._shape.has_settled))
        for name in wanted & views.OF_EVENTS.keys():
            self._create(name, views.raw_rows(views.OF_EVENTS[name]))
        for name, text in views.OF_HELD_ROWS.items():
            if name in wanted and name not in self._shape.kept:
                self._create(name, text())
        if "runs_wide" in wanted:
            self._create("runs_wide", views.runs_wide(wide_columns(self.cursor)))

    def _create(self, name: str, text: str) -> None:
        self.cursor.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {text}")


def connection_with(sources: Sources, wanted: frozenset[str]) -> DuckDBPyConnection:
    """Return a connection of its own with the named views over `sources`.

    Raises:
        DamagedTableError: a data file is missing or damaged.
    """
    connection = new_connection()
    with _explained(sources):
        question = Question(sources, wanted, _folds_on(connection, sources.folding))
        Desk(connection, Shape.of(question), question)
    return connection


def stream(query: str, values: Mapping[str, object], sources: Sources, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query in batches of at most `rows`, computed as they are asked for.

    Raises:
        QueryError: DuckDB refused the query.
        DamagedTableError: a data file that it needs is missing or damaged.
    """
    wanted = frozenset(view for view, tables in views.DEPENDS.items() if sources.has(tables))
    connection = connection_with(sources, wanted - {"runs_wide"})
    try:
        with _explained(sources):
            yield from connection.sql(query, params=dict(values) or None).to_arrow_reader(rows)
    finally:
        connection.close()


def _folds_on(connection: DuckDBPyConnection, folding: Folding | None) -> Folds:
    if folding is None:
        return Folds()
    create_folded(connection, f"{SCHEMA}.recent", folding.recent)
    if folding.settled is None:
        return Folds(recent=f"{SCHEMA}.recent")
    create_folded(connection, f"{SCHEMA}.settled", folding.settled)
    return Folds(f"{SCHEMA}.settled", f"{SCHEMA}.recent")


def new_connection() -> DuckDBPyConnection:
    """Return an in-memory DuckDB with the settings and macros every question runs under."""
    connection = duckdb.connect()
    for statement in (*_SETTINGS, f"CREATE SCHEMA {SCHEMA}", *views.MACROS):
        connection.execute(statement)
    return connection


def wide_columns(cursor: DuckDBPyConnection) -> views.WideColumns:
    """Return which columns runs_wide has, by what its views show on a cursor."""
    kinds = [(key, kind) for key, kind, _ in cursor.execute(views.PARAM_KINDS).fetchall()]
    metrics = cursor.execute("SELECT DISTINCT metric FROM summaries ORDER BY metric").fetchall()
    directed = cursor.execute(
        "SELECT DISTINCT metric FROM summaries JOIN definitions USING (experiment, metric) "
        "WHERE direction IS NOT NULL ORDER BY metric"
    ).fetchall()
    return views.WideColumns(kinds, [name for (name,) in metrics], [name for (name,) in directed])


def _fetch(cursor: DuckDBPyConnection, query: str, values: Mapping[str, object]) -> Answer:
    relation = cursor.sql(query, params=dict(values) or None)
    if relation is None:
        return Answer(pa.table({"Count": pa.array([], pa.int64())}), ("BIGINT",))
    return Answer(relation.to_arrow_table(), tuple(str(kind) for kind in relation.types))


@contextmanager
def readable() -> Iterator[None]:
    """Raise what DuckDB raises of files that it cannot read as an error of this package.

    Raises:
        DamagedTableError: a data file is missing or damaged.
    """
    try:
        yield
    except duckdb.Error as error:
        raise DamagedTableError(f"a data file cannot be read: {error}; restore it from a copy") from error


@contextmanager
def _explained(sources: Sources) -> Iterator[None]:
    """Raise what DuckDB raises on `sources` as errors of this package.

    Raises:
        QueryError: DuckDB refused the query.
        DamagedTableError: a data file that it needs is missing or damaged.
    """
    try:
        yield
    except duckdb.Error as error:
        raise _damaged(error, sources) or QueryError(_explanation(error)) from error
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


def _damaged(error: duckdb.Error, sources: Sources) -> DamagedTableError | None:
    """Return what to raise where an error tells of a data file, or None where it tells of something else."""
    for name, scan in sources.scans.items():
        if scan.files and str(root_of(scan)) in str(error):
            return DamagedTableError(
                f"a data file of the table {name!r} cannot be read: {error}; restore it from a copy"
            )
    return None


def _explanation(error: duckdb.Error) -> str:
    message = str(error).strip()
    if isinstance(error, duckdb.CatalogException) and "Table with name" in message:
        first = message.splitlines()[0].partition(" Did you mean")[0]
        return f"{first}; the views are {', '.join(sorted(views.ALL_VIEWS))}"
    if "parameter" in message.lower():
        return f"{message}\nBind values by name: lake.sql('… where run_id = $run', run='…')"
    return message
