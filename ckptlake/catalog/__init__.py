"""The checkpoints of a lake, as `lake.checkpoints` offers them. It puts the packages together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ckptlake.catalog.care import Care
from ckptlake.catalog.exchange import Exchange
from ckptlake.catalog.space import Space
from ckptlake.checkpoints.session import Rows
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.query import checkpoint_facts as facts

if TYPE_CHECKING:
    from ckptlake.query.builder import Query

VERBS = frozenset(
    {"where", "select", "with_columns", "rename", "drop", "group_by", "agg", "pivot", "join", "order_by", "limit"}
    | {"offset", "sample", "distinct", "union", "subtree", "as_of", "count", "exists", "columns", "sql"}
    | {"to_polars", "to_pandas", "to_arrow", "to_duckdb", "to_dicts", "lazy", "batches", "save"}
)
"""What `lake.checkpoints` does as the query it also is."""


class Checkpoints(Space, Care, Exchange):
    """All checkpoints of a lake: find, load, name, compare, verify, repair, export, prune and compress them.

    It is also a query, one row a checkpoint: ``lake.checkpoints.where(col("step") > 1000).to_polars()``.

    Args:
        store: their bytes.
        ask: runs SQL on the lake's views.
        rows: returns where rows go; asked only when something is written.
        query: returns the query of all checkpoints.
    """

    def __init__(
        self, store: CheckpointStore, ask: facts.Ask, rows: Callable[[], Rows], query: Callable[[], Query]
    ) -> None:
        super().__init__(store, ask, rows)
        self._query = query

    def __repr__(self) -> str:
        return f"Checkpoints({str(self._store.layout.root)!r})"

    def __getattr__(self, name: str) -> Any:
        if name not in VERBS:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return getattr(self._query(), name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *VERBS})
