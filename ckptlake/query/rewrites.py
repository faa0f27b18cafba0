"""Bound queries made cheaper without changing what they answer.

Conditions move down to the views they speak of, so that files can be left out; what `summaries` knows of whole curves
is not added up from their points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckptlake.query import nodes as n
from ckptlake.query.binding import Bound

_CURVE = frozenset({"experiment", "run_id", "metric"})
_SUMMARISED = {
    ("count_rows",): ("sum", "n"),
    ("count", "value"): ("sum", "n"),
    ("min", "value"): ("min", "min"),
    ("max", "value"): ("max", "max"),
    ("min", "step"): ("min", "first_step"),
    ("max", "step"): ("max", "last_step"),
}
"""Aggregates of points that follow from the rows of `summaries`: what to take of which column."""


def rewrite(bound: Bound) -> tuple[Bound, list[str]]:
    """Return a cheaper query with the same rows, and what was done, in words."""
    told: list[str] = []
    table = _pushed(bound.table, told)
    table = _summarised(table, told)
    return replace(bound, table=table), list(dict.fromkeys(told))


# -- conditions


def _pushed(table: n.Table, told: list[str]) -> n.Table:
    changed: n.Table = n.rebuilt(table, lambda child: _pushed(child, told) if isinstance(child, n.Table) else child)
    while isinstance(changed, n.Filter):
        lower = _below(changed, told)
        if lower is None:
            return changed
        changed = lower
    return changed


def _below(table: n.Filter, told: list[str]) -> n.Table | None:
    """Return a filter moved under what it filters, or None where it is as low as it can be."""
    source = table.source
    match source:
        case n.Project(inner, columns):
            values = dict(columns)
            used = [values[name] for name in _columns_in(table.condition)]
            if all(isinstance(value, n.Column) for value in used) and _spares_windows(used, columns):
                told.append("conditions go below renamed and chosen columns")
                moved = n.Filter(inner, _renamed(table.condition, values))
                return n.Project(_pushed(moved, told), columns)
        case n.WithNouns(inner, nouns):
            if not _columns_in(table.condition) & {name for name, _ in nouns}:
                told.append("conditions on rows go below what is asked of their runs")
                return n.WithNouns(_pushed(n.Filter(inner, table.condition), told), nouns)
        case n.Sort(inner, keys):
            told.append("conditions go below sorting")
            return n.Sort(_pushed(n.Filter(inner, table.condition), told), keys)
        case n.Union(first, second):
            told.append("conditions go into both sides of a union")
            both = [_pushed(n.Filter(side, table.condition), told) for side in (first, second)]
            return n.Union(both[0], both[1])
        case n.Join(left, how="inner" | "left" | "semi" | "anti"):
            if _columns_in(table.condition) <= _visible_names(left):
                told.append("conditions go below joins")
                return replace(source, left=_pushed(n.Filter(left, table.condition), told))
        case n.Group(inner, keys, _):
            values = dict(keys)
            if keys and _columns_in(table.condition) <= values.keys():
                told.append("conditions on groups go below grouping")
                moved = n.Filter(inner, _renamed(table.condition, values))
                return replace(source, source=_pushed(moved, told))
    return None


def _spares_windows(used: list[n.Value], columns: tuple[n.Named, ...]) -> bool:
    """Tell whether a condition on these columns leaves out whole partitions of every window alone."""
    windows = [node for _, value in columns for node in n.walk(value) if isinstance(node, n.Window)]
    return all(set(used) <= set(window.partition) for window in windows)


def _columns_in(value: n.Node) -> set[str]:
    return {node.name for node in n.walk(value) if isinstance(node, n.Column)}


def _renamed(value: n.Value, values: dict[str, n.Value]) -> n.Value:
    if isinstance(value, n.Column):
        return values[value.name]
    changed: n.Value = n.rebuilt(value, lambda child: _renamed(child, values) if isinstance(child, n.Value) else child)
    return changed


def _visible_names(table: n.Table) -> set[str]:
    """Return the names of a bound table's columns, as far as they are plain to see."""
    match table:
        case n.View(_, columns):
            return {name for name, _ in columns}
        case n.Project(_, columns):
            return {name for name, _ in columns}
        case n.Group(_, keys, columns):
            return {name for name, _ in (*keys, *columns)}
        case n.Filter(source) | n.Sort(source) | n.Slice(source) | n.Sample(source) | n.Distinct(source):
            return _visible_names(source)
        case n.WithNouns(source, nouns):
            return _visible_names(source) | {name for name, _ in nouns}
    return set()


# -- summaries


def _summarised(table: n.Table, told: list[str]) -> n.Table:
    changed: n.Table = n.rebuilt(table, lambda child: _summarised(child, told) if isinstance(child, n.Table) else child)
    if not isinstance(changed, n.Group):
        return changed
    found = _of_whole_curves(changed)
    if found is None:
        return changed
    told.append("aggregates of whole curves come from summaries, not from points")
    return found


def _of_whole_curves(group: n.Group) -> n.Table | None:
    """Return a group of points as one of summaries, or None where that would not be the same."""
    names = {value.name for _, value in group.keys if isinstance(value, n.Column)}
    if len(names) < len(group.keys) or not {"run_id", "metric"} <= names <= _CURVE:
        return None
    source = _on_summaries(group.source)
    if source is None:
        return None
    columns = []
    for name, value in group.columns:
        if not isinstance(value, n.Aggregate) or not all(isinstance(arg, n.Column) for arg in value.args):
            return None
        key = (value.function, *_argument_names(value))
        if key not in _SUMMARISED:
            return None
        function, column = _SUMMARISED[key]
        columns.append((name, n.Aggregate(function, (n.Column(column),))))
    return n.Group(source, group.keys, tuple(columns))


def _argument_names(value: n.Aggregate) -> Iterator[str]:
    return (arg.name for arg in value.args if isinstance(arg, n.Column))


def _on_summaries(table: n.Table) -> n.Table | None:
    """Return points, chosen by whole curves, as the summaries of the same curves."""
    match table:
        case n.View("metrics"):
            return n.View("summaries", _SUMMARY_COLUMNS)
        case n.Filter(source, condition) if _columns_in(condition) <= _CURVE:
            inner = _on_summaries(source)
            return None if inner is None else n.Filter(inner, condition)
        case n.Join(left, _, on, "semi" | "anti") if set(on) <= _CURVE:
            inner = _on_summaries(left)
            return None if inner is None else replace(table, left=inner)
    return None


_SUMMARY_COLUMNS = (
    ("experiment", "text"),
    ("run_id", "text"),
    ("metric", "text"),
    ("n", "int"),
    ("first_step", "int"),
    ("last_step", "int"),
    ("min", "float"),
    ("max", "float"),
)
