"""The part of a lake that answers questions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    from ckptlake.query.builder import Query
    from ckptlake.query.duck import Engine
    from ckptlake.query.session import Session
    from ckptlake.query.sources import SourceReader, Sources
    from ckptlake.tables.layout import Layout
    from ckptlake.tables.store import TableStore


class Asking:
    """Questions in SQL and as queries. Reading needs no permission to write and starts no thread."""

    id: str
    _layout: Layout

    def _all_stores(self) -> dict[str, TableStore]:
        raise NotImplementedError

    @property
    def runs(self) -> Query:
        """All runs, one row each, to ask of: ``lake.runs.where(param("lr") < 1e-3).best("val/loss")``."""
        return self._query("runs")

    @property
    def metrics(self) -> Query:
        """All points, one row each; of a repeated step the newest."""
        return self._query("metrics")

    @property
    def tensors(self) -> Query:
        """The tensors of all checkpoints, one row each, with their statistics."""
        return self._query("tensors")

    @property
    def experiments(self) -> Query:
        """All experiments and levels above them, one row each."""
        return self._query("experiments")

    def _query(self, view: str) -> Query:
        from ckptlake.query.builder import Query as Asked
        from ckptlake.query.nodes import View

        return Asked(View(view), self._session)

    def sql(self, query: str, /, *, as_of: int | str | datetime | None = None, **params: object) -> DuckDBPyRelation:
        """Run SQL on the lake's views and return the result as a DuckDB relation.

        The views are `runs`, `params`, `tags`, `metrics` (the newest of each repeated step), `metrics_raw`,
        `summaries` (one row a run and metric), `experiments`, `definitions`, `runs_wide` (one row a run with its
        params, last and best metrics), `checkpoints`, `checkpoint_events`, `tensors` (one row a tensor of a checkpoint,
        with its statistics) and `verifications`. Rows logged by running processes are there within a second or two.
        Conditions on run_id, metric, experiment and step, of tensors on checkpoint_id and path, decide which files
        are opened.

        Args:
            query: any DuckDB SQL; write ``$name`` for a value.
            as_of: read the past: a moment, ISO text, or a version of `metrics`. Only committed rows count.
            params: the values, bound by name.

        Returns:
            A relation: `.pl()`, `.df()`, `.fetchall()`, `.show()` and more; it can be read any number of times.

        Raises:
            QueryError: DuckDB refused the query.
            VersionNotFoundError: the past asked for is no longer there.

        >>> import ckptlake, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> lake.sql("select $a + 1 as b", a=41).fetchall()
        [(42,)]
        """
        from ckptlake.query.views import ALL_VIEWS, tables_of
        from ckptlake.tables.store import check_as_of

        moment = check_as_of(as_of)
        needs = self._engine.needs(query, params)
        wanted = ALL_VIEWS if needs is None else needs.tables & ALL_VIEWS
        alternatives = None if needs is None else needs.alternatives
        sources = self._reader.read(tables_of(wanted), alternatives, moment)
        return self._engine.run(query, params, sources, wanted, reads_only=needs is not None)

    def connect(self, *, as_of: int | str | datetime | None = None) -> DuckDBPyConnection:
        """Return a DuckDB connection with all views, on the lake as it is now or `as_of` the past.

        The connection keeps to that moment; connect again to see more. `sql` opens fewer files.
        """
        from ckptlake.query.duck import connection_with
        from ckptlake.query.views import ALL_VIEWS, tables_of
        from ckptlake.tables.store import check_as_of

        return connection_with(self._reader.read(tables_of(ALL_VIEWS), None, check_as_of(as_of)), ALL_VIEWS)

    def _look(self, query: str, params: Mapping[str, object], as_of: int | str | datetime | None) -> Sources:
        """Return the rows and files that a question would read."""
        from ckptlake.query.views import ALL_VIEWS, tables_of
        from ckptlake.tables.store import check_as_of

        needs = self._engine.needs(query, params)
        wanted = ALL_VIEWS if needs is None else needs.tables & ALL_VIEWS
        return self._reader.read(tables_of(wanted), None if needs is None else needs.alternatives, check_as_of(as_of))

    def _rows_of_view(self, view: str, sources: Sources) -> pa.Table:
        """Return all rows of a view on the rows and files of one question."""
        return self._engine.run(f'FROM "{view}"', {}, sources, frozenset({view}), reads_only=True).to_arrow_table()

    @cached_property
    def _session(self) -> Session:
        from ckptlake.query.session import Session as Made

        return Made(self.sql, self._look, {}, None, self._rows_of_view)

    @cached_property
    def _engine(self) -> Engine:
        from ckptlake.query.duck import Engine

        return Engine()

    @cached_property
    def _reader(self) -> SourceReader:
        from ckptlake.query.sources import SourceReader
        from ckptlake.runs.live import LiveReader

        return SourceReader(self._all_stores(), LiveReader(self._layout.wal, self.id).read, self._engine.points)
