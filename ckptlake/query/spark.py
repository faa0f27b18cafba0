"""The one door to Spark: a query on the snapshot of a lake that DuckDB would read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ckptlake.errors import MissingDependencyError, QueryError
from ckptlake.query import dialects
from ckptlake.query.compiler import Compiled, compile_query
from ckptlake.query.dialects import DuckDB
from ckptlake.query.noun_rows import views_in
from ckptlake.query.questions import root_of
from ckptlake.query.scans import SCANNED, Scan, ScannedTable
from ckptlake.query.session import Session

if TYPE_CHECKING:
    from polars import DataFrame as PolarsFrame
    from pyspark.sql import DataFrame, SparkSession

    from ckptlake.query.nodes import Table

_SETTINGS = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "true",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.groupByOrdinal": "false",
    "spark.sql.orderByOrdinal": "false",
    "spark.sql.parquet.enableVectorizedReader": "false",  # it cannot read BYTE_STREAM_SPLIT
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
}
_TYPES = {
    pa.string(): "STRING", pa.int32(): "INT", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN",
    pa.timestamp("us", "UTC"): "TIMESTAMP", pa.list_(pa.int64()): "ARRAY<BIGINT>",
}  # fmt: skip
_SCANNED_VIEWS = {view: table for table in SCANNED.values() for view in table.views}
_GLOB, _escaped = re.compile(r"[{}\[\]*?\\]"), r"\\\g<0>"
_quoted = dialects.Spark().quoted


class Spark:
    """Spark as the engine of a query: ``query.run_on(Spark(session))``.

    Points and tensors are read by Spark from the lake's Parquet files, those alone that the question needs; its
    workers must see them under the same paths, and where those are not ASCII, Java needs a locale such as
    ``LC_ALL=C.UTF-8``. The rows of all other views are small: they are computed here by
    DuckDB and sent to Spark. Each answer has a Spark session of its own beside the one given, in ANSI mode, in UTC and
    with the vectorised Parquet reader off, so the given one keeps its settings and its names.

    Args:
        session: a session of Spark 4; without one the session that is active, or a new one.

    Raises:
        MissingDependencyError: pyspark or Java is missing.
    """

    def __init__(self, session: SparkSession | None = None) -> None:
        self._given = _active_session() if session is None else session

    def __repr__(self) -> str:
        return f"Spark({self._given!r})"

    def answer(self, session: Session, table: Table) -> SparkAnswer:
        """Return the answer to a query; Spark begins when it is taken in some form.

        Raises:
            QueryError: Spark refused it.
        """
        bound, _ = session.scoped(table)
        read = compile_query(bound, DuckDB())
        sources = session.look(read.text, read.values, session.as_of)
        with _explained():
            own = _session_beside(self._given)
            for view in sorted(views_in(bound.table)):
                if view in _SCANNED_VIEWS:
                    _create_scanned(own, view, sources.scans[_SCANNED_VIEWS[view].name])
                else:
                    _create(own, view, session.rows_of_view(view, sources))
            compiled = compile_query(bound, dialects.Spark())
            frame = own.sql(compiled.text, args=dict(compiled.values))
            _activate(self._given)
        return SparkAnswer(frame, compiled)


@dataclass(frozen=True, slots=True)
class SparkAnswer:
    """The answer of Spark to a query; every form computes it anew.

    Attributes:
        compiled: the SQL that Spark was asked, with its values.
    """

    _frame: DataFrame
    compiled: Compiled

    def dataframe(self) -> DataFrame:
        """Return the rows as a frame of Spark, to go on with there."""
        return self._frame

    def to_arrow(self) -> pa.Table:
        """Return the rows as an Arrow table.

        Raises:
            QueryError: Spark failed.
        """
        with _explained():
            return self._frame.toArrow()

    def to_pandas(self) -> Any:
        """Return the rows as a pandas frame."""
        return _through_duckdb(self.to_arrow()).df()

    def to_polars(self) -> PolarsFrame:
        """Return the rows as a Polars frame."""
        frame: PolarsFrame = _through_duckdb(self.to_arrow()).pl()
        return frame

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dicts."""
        rows: list[dict[str, Any]] = self.to_arrow().to_pylist()
        return rows


def _through_duckdb(table: pa.Table) -> Any:
    """Return rows as DuckDB's own answers are, so that frames of both have the same types."""
    from ckptlake.query.duck import new_connection

    return new_connection().from_arrow(table)


def _active_session() -> SparkSession:
    try:
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingDependencyError("Spark needs pyspark: pip install 'ckptlake[spark]'") from error
    try:
        return SparkSession.builder.getOrCreate()
    except PySparkRuntimeError as error:
        if "JAVA_GATEWAY" not in str(error):
            raise
        raise MissingDependencyError(
            "Spark needs Java 17 or later, and it did not start: install it, and set JAVA_HOME to where it is"
        ) from error


def _session_beside(given: SparkSession) -> SparkSession:
    """Return a session with the settings of another and those that make Spark mean what the dialect says."""
    own = given.newSession()
    told: Mapping[str, str] = given.conf.getAll
    for key, value in told.items():
        if key.startswith("spark.sql.") and own.conf.isModifiable(key):
            own.conf.set(key, value)
    for key, value in _SETTINGS.items():
        own.conf.set(key, value)
    return own


def _activate(session: SparkSession) -> None:
    """Make a session the active one again, which making frames from rows here has changed."""
    session.createDataFrame([], "nothing INT")


def _create(own: SparkSession, name: str, rows: pa.Table) -> None:
    own.createDataFrame(_in_batches(rows)).createOrReplaceTempView(_quoted(name))


def _in_batches(rows: pa.Table) -> pa.Table:
    """Return rows in at least one batch; of none Spark does not take lists."""
    return rows if rows.num_rows else pa.Table.from_batches([pa.RecordBatch.from_pylist([], schema=rows.schema)])


def _create_scanned(own: SparkSession, view: str, scan: Scan) -> None:
    """Make a view of a scanned table as DuckDB's: files and live rows, of what is repeated the newest."""
    table = _SCANNED_VIEWS[view]
    rows = _scanned_rows(own, table, scan)
    if view not in SCANNED or scan.repeated is None or not scan.repeated.num_rows:
        rows.createOrReplaceTempView(_quoted(view))
        return
    rows.createOrReplaceTempView(f"{table.name}_scanned")
    _create(own, table.repeated, scan.repeated)
    own.sql(_newest_rows(table)).createOrReplaceTempView(_quoted(view))


def _scanned_rows(own: SparkSession, table: ScannedTable, scan: Scan) -> DataFrame:
    schema = table.spec.schema
    columns = ", ".join(f"{_quoted(field.name)} {_TYPES[field.type]}" for field in schema)
    frame = None
    if scan.files:
        reader = own.read.schema(columns).option("basePath", f"file://{root_of(scan)}")
        files = (f"file://{_GLOB.sub(_escaped, path)}" for path in scan.files)
        frame = reader.parquet(*files).select(*map(_quoted, table.columns))
    if scan.live is not None:
        live = own.createDataFrame(_in_batches(scan.live.select(table.columns).cast(schema)))
        frame = live if frame is None else frame.unionByName(live)
    return own.createDataFrame([], columns) if frame is None else frame


def _newest_rows(table: ScannedTable) -> str:
    columns, keys = ", ".join(map(_quoted, table.columns)), ", ".join(table.repeated_by)
    rows, identity = f"{table.name}_scanned", ", ".join(table.identity)
    place = f"row_number() OVER (PARTITION BY {identity} ORDER BY {table.newest_first})"
    return f"""
        SELECT {columns} FROM {rows} LEFT ANTI JOIN {table.repeated} USING ({keys})
        UNION ALL
        SELECT {columns} FROM (
            SELECT {columns}, {place} AS place FROM {rows} LEFT SEMI JOIN {table.repeated} USING ({keys})
        ) WHERE place = 1"""


@contextmanager
def _explained() -> Iterator[None]:
    """Raise what Spark raises as an error of this package.

    Raises:
        QueryError: Spark refused or failed.
    """
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        raise QueryError(f"Spark refused the query: {error}") from error
