"""Values shown as they would be written, for messages."""

from __future__ import annotations

from ckptlake.query.nodes import Aggregate, Call, Cast, Column, Const, Metric, Param, Placeholder, Tag, Value, Window

_SIGNS = {
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&", "or": "|",
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%", "pow": "**",
}  # fmt: skip


def shown(node: Value) -> str:
    """Return a value as it would be written."""
    match node:
        case Column(name):
            return name
        case Const(value):
            return repr(value)
        case Param(key):
            return f"param({key!r})"
        case Tag(key):
            return f"tag({key!r})"
        case Metric(name, reading, step):
            return f"metric({name!r}).{reading}({'' if step is None else step})"
        case Call(function, (left, right)) if function in _SIGNS:
            return f"{_inner(left)} {_SIGNS[function]} {_inner(right)}"
        case Call("not", (inner,)):
            return f"~{_inner(inner)}"
        case Call(function, args) | Aggregate(function, args):
            if not args:
                return f"{'count' if function == 'count_rows' else function}()"
            first, *rest = args
            return f"{_inner(first)}.{function}({', '.join(map(shown, rest))})"
        case Cast(value, kind):
            return f"{_inner(value)}.cast({kind})"
        case Window(over):
            return f"{_inner(over)}.over(...)"
        case Placeholder(name):
            return f"placeholder({name!r})"
        case _:
            return type(node).__name__.lower()


def _inner(node: Value) -> str:
    is_compound = isinstance(node, Call) and node.function in _SIGNS
    return f"({shown(node)})" if is_compound else shown(node)
