"""Windows put where SQL takes them: none stands in a condition, in a group, or in another window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ckptlake.query import nodes as n
from ckptlake.query.hidden import WINDOW, Schema

KindOf = Callable[[n.Value, Schema], str]


def lift(
    source: n.Table, schema: Schema, values: Sequence[n.Value], kind_of: KindOf, *, lifts_all: bool
) -> tuple[n.Table, Schema, list[n.Value]]:
    """Return bound values that read windows from hidden columns of their source, which it now has.

    Args:
        source: the table that the values are computed on.
        schema: its columns.
        values: bound values.
        kind_of: tells the kind of a value.
        lifts_all: whether every window is read so, or those alone that stand in another.
    """
    found: dict[n.Window, str] = {}
    first = sum(name.startswith(WINDOW) for name in schema)

    def lifted(node: n.Node, *, is_lifted: bool) -> n.Node:
        if isinstance(node, n.Window):
            if is_lifted:
                return n.Column(found.setdefault(node, f"{WINDOW}{first + len(found)}"))
            is_lifted = True
        changed: n.Node = n.rebuilt(node, lambda child: lifted(child, is_lifted=is_lifted))
        return changed

    changed = [lifted(value, is_lifted=lifts_all) for value in values]
    assert all(isinstance(value, n.Value) for value in changed)
    if not found:
        return source, schema, list(values)
    source, schema, windows = lift(source, schema, list(found), kind_of, lifts_all=False)
    made = dict(zip(found.values(), windows, strict=True))
    beside = tuple((name, n.Column(name)) for name in schema)
    kinds = {**schema, **{name: kind_of(window, schema) for name, window in made.items()}}
    return n.Project(source, (*beside, *made.items())), kinds, changed  # type: ignore[return-value]
