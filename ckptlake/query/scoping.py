"""Which runs a query reads points or tensors of, found out first where that is cheap: files of no others are opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ckptlake.query import nodes as n
from ckptlake.query.binding import Bound
from ckptlake.query.compiler import Compiled, compile_query
from ckptlake.query.dialects import DuckDB

MOST_RUNS = 2000
_SCANNED = frozenset({"metrics", "metrics_raw", "tensors"})
RowsOf = Callable[[Compiled], Sequence[tuple[Any, ...]]]


def scope(bound: Bound, rows_of: RowsOf) -> Bound:
    """Return a query whose joins of points with runs say which runs those are, where they are not too many.

    Where there are none, it is the query itself.

    Args:
        bound: the query.
        rows_of: runs a query of runs.
    """
    scoped = _scoped(bound.table, rows_of)
    return bound if scoped is bound.table else replace(bound, table=scoped)


def _scoped(table: n.Table, rows_of: RowsOf) -> n.Table:
    changed: n.Table = n.rebuilt(table, lambda child: _scoped(child, rows_of) if isinstance(child, n.Table) else child)
    match changed:
        case n.Join(left, right, on, "inner" | "semi") if (
            "run_id" in on and _reads_much(left) and not _reads_much(right)
        ):
            found = n.Slice(n.Distinct(n.Project(right, (("run_id", n.Column("run_id")),))), MOST_RUNS + 1)
            runs = rows_of(compile_query(Bound(found, {"run_id": "text"}), DuckDB()))
            if len(runs) <= MOST_RUNS:
                ids = n.Const(tuple(sorted(run for (run,) in runs if run is not None)), "tuple")
                narrowed = _narrowed(left, ids)
                return narrowed if (on, changed.how) == (("run_id",), "semi") else replace(changed, left=narrowed)
    return changed


def _reads_much(table: n.Table) -> bool:
    return any(isinstance(node, n.View) and node.name in _SCANNED for node in n.walk(table))


def _narrowed(table: n.Table, ids: n.Const) -> n.Table:
    """Return a table of the rows of some runs alone, chosen as near to the files as can be."""
    match table:
        case n.Filter(source) | n.Sort(source):
            return replace(table, source=_narrowed(source, ids))
        case n.Project(source, columns) if ("run_id", n.Column("run_id")) in columns and _windows_are_of_runs(table):
            return replace(table, source=_narrowed(source, ids))
    return n.Filter(table, n.Call("is_in", (n.Column("run_id"), ids)))


def _windows_are_of_runs(table: n.Table) -> bool:
    """Tell whether no window looks from one run at the rows of another."""
    windows = [node for child in n.children(table) if isinstance(child, n.Value) for node in n.walk(child)]
    return all(n.Column("run_id") in window.partition for window in windows if isinstance(window, n.Window))
