"""A question on its way: what it needs, the moment it is asked of, an answer kept or a new one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ckptlake.config import Settings
from ckptlake.query.answers import Answer, Key, key_of
from ckptlake.query.cache import ResultCache
from ckptlake.query.cache_files import CacheFiles
from ckptlake.query.duck import Engine, connection_with, versions
from ckptlake.query.moments import Moment
from ckptlake.query.row_files import RowFiles
from ckptlake.query.sources import SourceReader
from ckptlake.query.views import ALL_VIEWS, tables_of
from ckptlake.tables.store import check_as_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation


def open_cache(settings: Settings, directory: Path, rows: RowFiles) -> ResultCache:
    """Return a cache as `settings` want it, with its files below `directory`."""
    files = None
    if settings.result_cache_on_disk and settings.result_cache_disk_bytes:
        files = CacheFiles(directory / "results", settings.result_cache_disk_bytes)
    return ResultCache(settings.result_cache_bytes, files, rows)


class Asking:
    """Answers questions to one lake."""

    def __init__(self, engine: Engine, reader: SourceReader, cache: ResultCache, lake_id: str) -> None:
        self.cache = cache
        self._engine = engine
        self._reader = reader
        self._context = {"lake": lake_id, **versions()}

    def ask(self, query: str, values: Mapping[str, object], as_of: int | str | datetime | None) -> DuckDBPyRelation:
        """Return the answer to `query` as a relation of its own; see `lake.sql`."""
        return self._engine.relation(self.answer(query, values, as_of))

    def answer(self, query: str, values: Mapping[str, object], as_of: int | str | datetime | None) -> Answer:
        """Return the answer to `query`, one kept of the same question to the same rows if there is one."""
        time = check_as_of(as_of)
        needs = self._engine.needs(query, values)
        wanted = ALL_VIEWS if needs is None else needs.tables & ALL_VIEWS
        moment = self._reader.moment(tables_of(wanted), time)
        key = self._key(query, values, moment)
        answer = self.cache.find(key)
        if answer is None:
            sources = self._reader.read_at(moment, None if needs is None else needs.alternatives)
            answer = self._engine.answer(query, values, sources, wanted, reads_only=needs is not None)
            if key is not None and not self._engine.is_altered:
                self.cache.keep(key, answer)
        return answer

    def connect(self, as_of: int | str | datetime | None) -> DuckDBPyConnection:
        """Return a connection of its own with all views; see `lake.connect`."""
        return connection_with(self._reader.read(tables_of(ALL_VIEWS), None, check_as_of(as_of)), ALL_VIEWS)

    def _key(self, query: str, values: Mapping[str, object], moment: Moment) -> Key | None:
        if not self.cache.is_on or not self._engine.is_repeatable(query):
            return None
        return key_of(query, values, moment, self._context)
