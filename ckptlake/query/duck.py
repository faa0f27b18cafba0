"""The one door to DuckDB: connections with a lake's views, and SQL run on them."""

from __future__ import annotations

import itertools
import json
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

import ckptlake
from ckptlake.errors import DamagedTableError, QueryError
from ckptlake.query import views
from ckptlake.query.answers import Answer, text_of
from ckptlake.query.desks import Desk, Desks
from ckptlake.query.folded import KEPT_VIEWS, SCHEMA, KeptTables, create_folded, lent_folds, lent_views
from ckptlake.query.history import Folding
from ckptlake.query.names import quote
from ckptlake.query.pruning import Needs, read_needs
from ckptlake.query.questions import Folds, Question, Shape, root_of
from ckptlake.query.row_files import RowFiles
from ckptlake.query.scans import POINTS, Scan
from ckptlake.query.sources import Sources
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
_ANY_VALUES = "any values"
_numbers = itertools.count(1)
_starting = threading.Lock()
_started: tuple[int, _Database] | None = None
_known_needs: dict[tuple[str, str | None], Needs | None] = {}


def versions() -> dict[str, str]:
    """Return what computes the answers, with versions."""
    return {"ckptlake": ckptlake.__version__, "duckdb": duckdb.__version__, "pyarrow": pa.__version__}


class _Database:
    """One DuckDB: a connection that is used to make others, and desks for questions of all that use it."""

    def __init__(self) -> None:
        self.connection = new_connection()
        self.desks = Desks()


class _Workplace:
    """Where one lake's questions are answered: a connection, tables of its own, and desks shared with others.

    Args:
        database: a DuckDB that others may use too.
    """

    def __init__(self, database: _Database) -> None:
        self.connection = connection = database.connection.cursor()
        self.schema = schema = f"{SCHEMA}_{next(_numbers)}"
        connection.execute(f"CREATE SCHEMA {schema}")
        weakref.finalize(self, _leave, database, connection, schema, os.getpid()).atexit = False
        self.settled = KeptTables(f"{schema}.settled", connection.cursor)
        self.recent = KeptTables(f"{schema}.recent", connection.cursor)
        self.views = {view: KeptTables(f"{schema}.{view}", connection.cursor) for view in KEPT_VIEWS}
        self.database = database


class Engine:
    """Answers the questions of one lake; each gets a desk: a cursor with the views it needs.

    Making views costs as much as a small answer, so desks of the common views are kept for the next question
    of the same shape, of whatever lake; it lays its own rows and files on them. To start a DuckDB takes longer still,
    so all lakes of a process share one, until somebody runs a statement that others might notice: that lake gets its
    own.

    Args:
        files: where rows of views are kept for lakes opened later; without it none are.
    """

    def __init__(self, files: RowFiles | None = None) -> None:
        self._files = files
        self._place: _Workplace | None = None
        self._own: _Database | None = None
        self._lock = threading.Lock()
        self._is_altered = False

    def connect(self) -> None:
        """Start DuckDB, which takes longer than a small answer, unless it has been."""
        self._workplace()

    def _workplace(self) -> _Workplace:
        with self._lock:
            if self._place is None:
                self._place = _Workplace(_database_of_process())
            return self._place

    def _own_database(self) -> _Database:
        """Return the DuckDB of this lake alone."""
        with self._lock:
            if self._own is None:
                self._own = _Database()
            return self._own

    def _move_out(self) -> None:
        """Answer from now on in a DuckDB of this lake alone."""
        own = self._own_database()
        with self._lock:
            self._is_altered = True
            self._place = _Workplace(own)

    def needs(self, query: str, values: Mapping[str, object]) -> Needs | None:
        """Return which views `query` reads and which rows of scanned tables, or None where only running it would tell.

        Raises:
            QueryError: it is no text that DuckDB could parse.
        """
        bound = text_of(values)
        for known in ((query, _ANY_VALUES), (query, bound)):
            if known in _known_needs:
                return _known_needs[known]
        try:
            tree = _parsed(query)
            needs = None if tree.get("error") else read_needs(tree, values)
            depends_on_values = needs is not None and any(needs.alternatives.values())
            told = bound if depends_on_values else _ANY_VALUES
            if told is not None:
                if len(_known_needs) >= _PARSED_QUERIES:
                    _known_needs.clear()
                _known_needs[query, told] = needs
            return needs
        except duckdb.Error as error:
            raise QueryError(_explanation(error)) from error
        except RecursionError:
            return None

    @property
    def is_altered(self) -> bool:
        """Whether a statement was run that may have changed what later ones mean, such as SET or CREATE MACRO."""
        return self._is_altered

    def is_repeatable(self, query: str) -> bool:
        """Return whether `query` has the same answer whenever it is asked of the same rows, as far as is known."""
        return not self._is_altered and _is_repeatable(query)

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
        if not reads_only and not self._is_altered and self._may_alter(query):
            self._move_out()
        place, files = self._workplace(), None if self._is_altered else self._files
        folding = sources.folding if "checkpoints" in wanted else None
        with (
            _explained(sources),
            lent_folds(place.settled, place.recent, folding) as folds,
            lent_views(place.views, files, sources, wanted) as kept,
        ):
            question = Question(sources, wanted, folds, kept)
            return _answered(place, query, values, question, reads_only=reads_only)

    def relation(self, answer: Answer) -> DuckDBPyRelation:
        """Return an answer as a relation in a DuckDB that no other lake uses."""
        relation = self._own_database().connection.cursor().from_arrow(answer.rows)
        return _with_whole_numbers(relation, answer.kinds) if "HUGEINT" in answer.kinds else relation

    def _may_alter(self, query: str) -> bool:
        with self._workplace().connection.cursor() as cursor:
            try:
                kinds = {statement.type for statement in cursor.extract_statements(query)}
            except duckdb.Error:
                return False
        return not kinds <= _HARMLESS or (duckdb.StatementType.EXPLAIN in kinds and "analyze" in query.lower())

    def points(self, scan: Scan) -> pa.Table:
        """Return the points of curves with repeated steps, the newest of each step."""
        question = Question(Sources({}, {POINTS.name: scan}), frozenset({"metrics"}))
        with _explained(question.sources), self._workplace().connection.cursor() as cursor:
            Desk(cursor, Shape.of(question), question)
            return _fetch(cursor, f"SELECT * FROM metrics SEMI JOIN {POINTS.repeated} USING (run_id, metric)", {}).rows


def _answered(
    place: _Workplace, query: str, values: Mapping[str, object], question: Question, *, reads_only: bool
) -> Answer:
    database, shape = place.database, Shape.of(question)
    may_be_kept = reads_only and "runs_wide" not in question.wanted
    desk = database.desks.take(shape) if may_be_kept else None
    if desk is None:
        desk = Desk(database.connection.cursor(), shape, question)
    else:
        desk.lay(question)
    try:
        found = _fetch(desk.cursor, query, values)
    except BaseException:
        desk.cursor.close()
        raise
    if may_be_kept:
        database.desks.give_back(desk, place.schema)
    else:
        desk.cursor.close()
    return found


@lru_cache(maxsize=_PARSED_QUERIES)
def _parsed(query: str) -> dict[str, Any]:
    """Return the tree of a query, which must not be changed."""
    with _database_of_process().connection.cursor() as cursor:
        rows = cursor.execute("SELECT json_serialize_sql($1)", [query]).fetchall()
    tree: dict[str, Any] = json.loads(rows[0][0])
    return tree


@lru_cache(maxsize=_PARSED_QUERIES)
def _is_repeatable(query: str) -> bool:
    try:
        return is_repeatable(_parsed(query))
    except RecursionError:
        return False


def _database_of_process() -> _Database:
    """Return the DuckDB that the lakes of this process share; threads do not survive a fork."""
    global _started
    with _starting:
        if _started is None or _started[0] != os.getpid():
            _started = (os.getpid(), _Database())
        return _started[1]


def _leave(database: _Database, connection: DuckDBPyConnection, schema: str, pid: int) -> None:
    """Let go of what a lake left that nobody has a handle of any more; a forked child has only a dead copy."""
    if os.getpid() == pid:
        with suppress(duckdb.Error):  # a question that was interrupted may hold them: they go with the process then
            database.desks.clear(schema)
            connection.execute(f"DROP SCHEMA {schema} CASCADE")
        connection.close()


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
