"""The same question on other engines: run there, or as text to take along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptlake.query.nodes import Table
from ckptlake.query.session import EngineName, Session, Values

if TYPE_CHECKING:
    from ckptlake.query.spark import Spark, SparkAnswer


class Elsewhere:
    """What a query can do beside answering by DuckDB."""

    __slots__ = ()
    _table: Table
    _session: Session

    def run_on(self, engine: Spark) -> SparkAnswer:
        """Ask another engine, on the same snapshot of the lake: ``query.run_on(Spark(session)).to_pandas()``.

        The SQL is made for that engine from what is asked, so the rows are those that `to_arrow` returns.

        Raises:
            MissingDependencyError: the engine is not installed.
        """
        return engine.answer(self._session, self._table)

    def to_sql(self, dialect: EngineName = "duckdb", *, values: Values = "literals") -> str:
        """Return the SQL of an engine for this query; tables in it are called as the lake's views are.

        Args:
            dialect: ``duckdb``, ``spark``, ``trino`` or ``databricks``.
            values: ``literals`` writes them into the text; ``parameters`` leaves ``$p0`` or ``:p0``, Trino has none.

        Raises:
            InvalidInputError: there is no such dialect, or it cannot write a value.

        >>> import ckptlake, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> print(lake.runs.where(ckptlake.col("name") == "a").select("run_id").to_sql("spark"))
        SELECT t0.`run_id` AS `run_id`
        FROM `runs` AS t0
        WHERE (t0.`name` = 'a')
        """
        return self._session.written(self._table, dialect, values)
