"""The part of a lake that answers questions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    from ckptlake.config import Settings
    from ckptlake.query.analysis import Analysis
    from ckptlake.query.asking import Asking
    from ckptlake.query.builder import Query
    from ckptlake.query.cache import ResultCache
    from ckptlake.query.duck import Engine
    from ckptlake.query.named import NamedQuery
    from ckptlake.query.row_files import RowFiles
    from ckptlake.query.saved import SavedQueries
    from ckptlake.query.search import Searcher
    from ckptlake.query.session import Session
    from ckptlake.query.sources import SourceReader, Sources
    from ckptlake.tables.layout import Layout
    from ckptlake.tables.store import TableStore


class Reading:
    """Questions in SQL and as queries. Reading needs no permission to write and starts no thread."""

    id: str
    settings: Settings
    _layout: Layout

    def _all_stores(self) -> dict[str, TableStore]:
        raise NotImplementedError

    @property
    def runs(self) -> Query:
        """All runs, one row each, to ask of: ``lake.runs.where(param("lr") < 1e-3).best("val/loss")``."""
        return self._query("runs")

    @property
    def analysis(self) -> Analysis:
        """What can be asked about the results of all runs: ``lake.analysis.compare("val/loss", by="lr")``."""
        return self.runs.analyze()

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

    def search(self, text: str) -> Query:
        """Return the runs that a text finds, the best matches first, as a query that goes on.

        Words, ``prefix*``, ``"phrases"`` and ``-without`` look into names, notes, tags, params, experiments, commands
        and git branches; ``lr:<1e-3``, ``tag:baseline``, ``status:finished``, ``experiment:pose`` and
        ``best.val/loss:<0.1`` are conditions. Results with words have their `score` (BM25).

        Raises:
            InvalidInputError: the text cannot be read, or names a param, tag or metric that no run has.

        >>> import ckptlake, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> with lake.run("pose", name="vit small", params={"lr": 0.01}) as run: pass
        >>> lake.search('vit lr:<0.1 status:finished').select("name").to_dicts()
        [{'name': 'vit small'}]
        """
        from ckptlake.query.found import query_of

        search, ranks = self._searcher.ranks(text)
        return query_of(self._session, search, ranks)

    @cached_property
    def _searcher(self) -> Searcher:
        from ckptlake.query.search import Searcher

        return Searcher(self._reader, self._layout.cache / "search.sqlite")

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
        return self._asking.ask(query, params, as_of)

    @property
    def cache(self) -> ResultCache:
        """Answers kept for when the same is asked again: `lake.cache.info()`, `lake.cache.clear()`."""
        return self._asking.cache

    def connect(self, *, as_of: int | str | datetime | None = None) -> DuckDBPyConnection:
        """Return a DuckDB connection with all views, on the lake as it is now or `as_of` the past.

        The connection keeps to that moment; connect again to see more. `sql` opens fewer files.
        """
        return self._asking.connect(as_of)

    def query(self, name: str, /, **values: object) -> DuckDBPyRelation:
        """Run a query by its name: one that was saved in the lake, or one of those that ckptlake brings.

        Raises:
            QueryNotFoundError: there is none of this name; the message has the nearest ones.
            InvalidInputError: a parameter is unknown, missing or of another type.

        >>> import ckptlake, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> lake.query("leaderboard", metric="val/loss").fetchall()
        []
        """
        from ckptlake.query.library import get_query

        saved = self._session.store.find(name)
        if saved is not None:
            return self._session.relation(self._session.answer(saved.filled(values)))
        query = get_query(name, self._session.store.names())
        return self.sql(query.text, **query.bind(**values))

    def queries(self) -> list[NamedQuery]:
        """Return the named queries that ckptlake brings, with their titles, parameters and columns."""
        from ckptlake.query.library import list_queries

        return list_queries()

    def saved_query(self, name: str, /, **values: object) -> Query:
        """Return a query that was saved in the lake, to go on with.

        Raises:
            QueryNotFoundError: there is none of this name; the message has the nearest ones.
            InvalidInputError: a value is unknown or missing.
        """
        from ckptlake.query.builder import Query as Asked

        return Asked(self._session.store.get(name).filled(values), self._session)

    def saved_queries(self) -> SavedQueries:
        """Return what queries are saved in the lake, to list them or forget one."""
        return self._session.store

    def setup_script(self) -> str:
        """Return a script after which any DuckDB has the views on what is committed now, with nothing of ckptlake.

        Raises:
            DamagedTableError: a data file is missing or damaged.
        """
        from ckptlake.query.script import setup_script

        return setup_script(self._layout.root, self._reader.picture())

    def _look(self, query: str, params: Mapping[str, object], as_of: int | str | datetime | None) -> Sources:
        """Return the rows and files that a question would read."""
        from ckptlake.query.views import ALL_VIEWS, tables_of
        from ckptlake.tables.store import check_as_of

        needs = self._engine.needs(query, params)
        wanted = ALL_VIEWS if needs is None else needs.tables & ALL_VIEWS
        return self._reader.read(tables_of(wanted), None if needs is None else needs.alternatives, check_as_of(as_of))

    def _rows_of(self, table: str, as_of: int | str | datetime | None) -> pa.Table:
        """Return the rows of a small table, in every version that they were written in."""
        from ckptlake.query.views import tables_of
        from ckptlake.tables.store import check_as_of

        return self._reader.read(tables_of([table]), None, check_as_of(as_of)).rows[table]

    def _rows_of_view(self, view: str, sources: Sources) -> pa.Table:
        """Return all rows of a view on the rows and files of one question."""
        rows: pa.Table = self._engine.answer(f'FROM "{view}"', {}, sources, frozenset({view}), reads_only=True).rows
        return rows

    @cached_property
    def _session(self) -> Session:
        from ckptlake.query.known_names import NameBook
        from ckptlake.query.plans import Plans
        from ckptlake.query.saved import SavedQueries
        from ckptlake.query.session import Session as Made

        saved, position = SavedQueries(self._layout.queries), self._reader.position
        ask, relation = self._asking.answer, self._engine.relation
        return Made(ask, relation, self._rows_of, self._look, position, NameBook(), Plans(), saved, self._rows_of_view)

    @cached_property
    def _engine(self) -> Engine:
        from ckptlake.query.duck import Engine

        return Engine(self._row_files)

    @cached_property
    def _row_files(self) -> RowFiles:
        from ckptlake.query.duck import versions
        from ckptlake.query.row_files import RowFiles

        return RowFiles(self._layout.kept, versions())

    @cached_property
    def _asking(self) -> Asking:
        from ckptlake.query.asking import Asking, open_cache

        cache = open_cache(self.settings, self._layout.cache, self._row_files)
        return Asking(self._engine, self._reader, cache, self.id)

    @cached_property
    def _reader(self) -> SourceReader:
        from ckptlake.query.sources import SourceReader
        from ckptlake.runs.live import LiveReader

        engine, live = self._engine, LiveReader(self._layout.wal, self.id)
        return SourceReader(self._all_stores(), live.read, engine.points, engine.connect, self._row_files)
