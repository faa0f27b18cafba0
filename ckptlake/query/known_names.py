"""The names that queries may use: columns of views, and what the runs of a lake have logged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from ckptlake.errors import InvalidInputError
from ckptlake.query.kinds import kind_of_duckdb
from ckptlake.query.views import ALL_VIEWS, PARAM_KINDS

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

Ask = Callable[..., "DuckDBPyRelation"]


class KnownNames:
    """Looks names up by asking the lake, each list at most once; a query asks a new one.

    Args:
        ask: runs SQL on the lake's views.
        columns: the columns of views that were looked up before; views do not change.
    """

    def __init__(self, ask: Ask, columns: dict[str, Mapping[str, str]]) -> None:
        self._ask = ask
        self._columns = columns
        self.params = cache(self._params)
        self.tags = cache(self._tags)
        self.metrics = cache(self._metrics)

    def columns(self, view: str) -> Mapping[str, str]:
        """Return the columns of a view with their kinds."""
        if view not in ALL_VIEWS:
            raise InvalidInputError(f"there is no view {view!r:.40}; there are {', '.join(sorted(ALL_VIEWS))}")
        if view not in self._columns:
            found = self._ask(f"SELECT * FROM {view} LIMIT 0")
            kinds = (kind_of_duckdb(str(kind)) for kind in found.types)
            self._columns[view] = dict(zip(found.columns, kinds, strict=True))
        return self._columns[view]

    def _params(self) -> Mapping[str, str]:
        rows = self._ask("SELECT key, bool_or(number IS NOT NULL) FROM params GROUP BY key").fetchall()
        has_numbers = dict(rows)
        kinds = self._ask(PARAM_KINDS).fetchall()
        return {key: "mixed" if kind == "text" and has_numbers[key] else kind for key, kind in kinds}

    def _tags(self) -> tuple[str, ...]:
        return tuple(key for (key,) in self._ask("SELECT DISTINCT key FROM tags").fetchall())

    def _metrics(self) -> tuple[str, ...]:
        return tuple(name for (name,) in self._ask("SELECT DISTINCT metric FROM summaries").fetchall())
