"""How params, tags and numbers of curves are read off the views that hold them, one row a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ckptlake.query import nodes as n
from ckptlake.query.dialects import Dialect, Text
from ckptlake.query.kinds import kind_of_metric, kind_of_param

Members: TypeAlias = Sequence[tuple[str, n.Noun]]
"""Nouns of one view with the names of their columns."""
Bind = Callable[[n.Const], str]
"""Returns the parameter that stands for a value."""
_READINGS = {
    "min": ("min", "min"),
    "max": ("max", "max"),
    "first": ("arg_min", "first", "first_step"),
    "last": ("arg_max", "last", "last_step"),
    "count": ("sum", "n"),
    "nan_count": ("sum", "n_nan"),
    "arg_min": ("arg_min", "min_step", "min"),
    "arg_max": ("arg_max", "max_step", "max"),
    "last_step": ("max", "last_step"),
}
"""How the numbers of a curve are read off the rows of `summaries`: an aggregate of which columns."""


def views_in(table: n.Table) -> frozenset[str]:
    """Return the views that a bound query reads."""
    nodes = list(n.walk(table))
    asked = {home_of(noun) for node in nodes if isinstance(node, n.WithNouns) for _, noun in node.nouns}
    return frozenset(asked | {node.name for node in nodes if isinstance(node, n.View)})


def home_of(noun: n.Noun) -> str:
    """Return the view that tells of a noun."""
    if isinstance(noun, n.Metric):
        return "metrics" if noun.reading == "at" else "summaries"
    return "params" if isinstance(noun, n.Param) else "tags"


def rows_of(members: Members, bound: Bind) -> str:
    """Return the condition that keeps the rows the nouns are read from."""
    first = members[0][1]
    if isinstance(first, n.Metric):
        names = ", ".join(bound(n.Const.of(name)) for name in _metrics_of(members))
        steps = sorted({noun.step for _, noun in members if isinstance(noun, n.Metric) and noun.step is not None})
        at = f" AND step IN ({', '.join(map(str, steps))})" if steps else ""
        return f"metric IN ({names}){at}"
    keys = dict.fromkeys(noun.key for _, noun in members if not isinstance(noun, n.Metric))
    return f"key IN ({', '.join(bound(n.Const.of(key)) for key in keys)})"


def are_one(members: Members) -> bool:
    """Tell whether nouns are all read off the same rows: those of one param, one tag, or the summary of one curve."""
    if home_of(members[0][1]) == "metrics":
        return False
    return len({noun.name if isinstance(noun, n.Metric) else noun.key for _, noun in members}) == 1


def value_of(noun: n.Noun, bound: Bind, dialect: Dialect, *, is_alone: bool) -> Text:
    """Return the aggregate that reads a noun off the rows of one run; of all of them where it is alone.

    It is an aggregate even of one row: what is asked of its value, such as a cast, must not reach the rows of others,
    on which it may fail.
    """
    of, named = ("metric", noun.name) if isinstance(noun, n.Metric) else ("key", noun.key)
    mine = "" if is_alone else f"{of} = {bound(n.Const.of(named))}"
    match noun:
        case n.Param(_, kind):
            column = "value" if kind in ("text", "mixed") else "number"
            found = dialect.chosen("any_value", [column], mine)
            known = kind_of_param(str(kind))
            return Text(f"CAST({found} AS {dialect.types[known]})" if known in ("bool", "int") else found, known)
        case n.Tag():
            return Text(dialect.chosen("any_value", ["value"], mine), "text")
        case n.Metric(_, "at", step):
            return Text(dialect.chosen("any_value", ["value"], f"{mine} AND step = {step}"), "float")
        case n.Metric(_, reading):
            return _number_of_curve(reading, mine, dialect)


def _number_of_curve(reading: str, mine: str, dialect: Dialect) -> Text:
    if reading == "mean":
        total, points = (dialect.chosen("sum", [column], mine) for column in ("sum", "n - n_nan"))
        return Text(f"{total} / nullif({points}, 0)", "float")
    function, *columns = _READINGS[reading]
    read = dialect.chosen(function, columns, mine)
    if function == "sum":
        read = f"CAST({read} AS {dialect.types['int']})"
    return Text(read, kind_of_metric(reading))


def _metrics_of(members: Members) -> list[str]:
    return list(dict.fromkeys(noun.name for _, noun in members if isinstance(noun, n.Metric)))
