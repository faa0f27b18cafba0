"""Columns that queries carry along unseen: what was asked of the run of each row, until the rows are of other runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ckptlake.errors import InvalidInputError
from ckptlake.query import nodes as n

HIDDEN: Final = "~"
"""What the names of hidden columns begin with."""
WINDOW: Final = "~window"
"""What the names of hidden columns begin with that serve one value above them."""

Schema = Mapping[str, str]
"""The kinds of a table's columns by name, in order."""


def hidden_name(noun: n.Noun) -> str:
    """Return the name of the column that holds a noun."""
    match noun:
        case n.Param(key, kind):
            return f"{HIDDEN}param.{key}.{kind}"
        case n.Tag(key):
            return f"{HIDDEN}tag.{key}"
        case n.Metric(name, reading, step):
            return f"{HIDDEN}metric.{name}.{reading}" + ("" if step is None else f"({step})")


def visible(schema: Schema) -> Schema:
    """Return the columns that are not hidden."""
    return {name: kind for name, kind in schema.items() if not name.startswith(HIDDEN)}


def without_hidden(source: n.Table, schema: Schema) -> n.Table:
    """Return a table of its visible columns alone."""
    seen = visible(schema)
    if len(seen) == len(schema):
        return source
    return n.Project(source, tuple((name, n.Column(name)) for name in seen))


def without_windows(table: n.Table, schema: Schema) -> tuple[n.Table, Schema]:
    """Return a table, with its columns, that has no more windows beside it than it was asked for."""
    kept = {name: kind for name, kind in schema.items() if not name.startswith(WINDOW)}
    if len(kept) == len(schema):
        return table, schema
    return n.Project(table, tuple((name, n.Column(name)) for name in kept)), kept


def still_true(schema: Schema, columns: Sequence[n.Named]) -> Schema:
    """Return the hidden columns that still tell of the row's run once the visible ones are these."""
    if any(name == "run_id" and value != n.Column("run_id") for name, value in columns):
        return {}
    return {name: kind for name, kind in schema.items() if name.startswith(HIDDEN) and not name.startswith(WINDOW)}


def check_visible(name: str) -> None:
    """Raise InvalidInputError for a name that only a hidden column may have."""
    if name.startswith(HIDDEN):
        raise InvalidInputError(f"the name {name!r} begins with {HIDDEN}, which hidden columns do: take another")
