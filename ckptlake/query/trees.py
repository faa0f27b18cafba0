"""Queries as JSON and back: the tree of what is asked, never SQL. What is read is checked node by node."""

from __future__ import annotations

import base64
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import date, datetime, time, timedelta
from typing import Any

from ckptlake.errors import InvalidInputError
from ckptlake.query import nodes as n

_DEEPEST = 200
_NOT_SAVED = (n.Node, n.Value, n.Table, n.WithNouns, n.Given)
_NODES: Mapping[str, type[n.Node]] = {
    kind.__name__: kind
    for kind in vars(n).values()
    if isinstance(kind, type) and issubclass(kind, n.Node) and kind not in _NOT_SAVED
}
_TYPES: Mapping[str, Mapping[str, Any]] = {
    name: {field.name: typing.get_type_hints(kind)[field.name] for field in fields(kind)}
    for name, kind in _NODES.items()
}
_WRITERS: Mapping[str, Callable[[Any], object]] = {
    "NoneType": lambda _: None,
    "bool": bool,
    "int": str,
    "float": float.hex,
    "str": str,
    "bytes": lambda value: base64.b64encode(value).decode(),
    "datetime": lambda value: value.isoformat(),
    "date": lambda value: value.isoformat(),
    "time": lambda value: value.isoformat(),
    "timedelta": lambda value: [value.days, value.seconds, value.microseconds],
}
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "NoneType": lambda _: None,
    "bool": lambda told: _exactly(told, bool),
    "int": lambda told: int(_exactly(told, str)),
    "float": lambda told: float.fromhex(_exactly(told, str)),
    "str": lambda told: _exactly(told, str),
    "bytes": lambda told: base64.b64decode(_exactly(told, str), validate=True),
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda told: timedelta(*(_exactly(part, int) for part in told)),
}


def write_tree(table: n.Table) -> str:
    """Return a query as JSON text.

    Raises:
        InvalidInputError: it is about rows that were given with it, such as those that a search has found.
    """
    if any(isinstance(node, n.Given) for node in n.walk(table)):
        raise InvalidInputError("a search cannot be saved, as what it finds changes: save the conditions as a query")
    return json.dumps(_written(table), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def read_tree(text: str | bytes) -> n.Table:
    """Return the query that JSON text tells.

    Raises:
        InvalidInputError: it tells none.

    >>> read_tree(write_tree(n.Slice(n.View("runs"), 3)))
    Slice(source=View(name='runs', columns=()), length=3, offset=0)
    """
    try:
        found = _read(json.loads(text), n.Table, 0)
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        raise InvalidInputError(f"this is no saved query: {error!s:.200}") from error
    assert isinstance(found, n.Table)
    return found


def _written(value: object) -> object:
    if isinstance(value, n.Const):
        return {"const": value.kind, "value": _WRITERS[value.kind](value.value)}
    if isinstance(value, n.Node):
        told = {field.name: _written(getattr(value, field.name)) for field in fields(value)}
        return {"node": type(value).__name__, **told}
    if isinstance(value, tuple):
        return [_written(item) for item in value]
    return value


def _read(told: Any, wanted: Any, depth: int) -> Any:
    """Return what JSON tells where a value of a type is wanted; raises as plain readers do where it is another."""
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    origin = typing.get_origin(wanted)
    if origin in (types.UnionType, typing.Union):
        return _read_one_of(told, typing.get_args(wanted), depth)
    if origin is tuple:
        items = typing.get_args(wanted)
        _exactly(told, list)
        kinds = [items[0]] * len(told) if len(items) == 2 and items[1] is Ellipsis else items
        return tuple(_read(each, kind, depth + 1) for each, kind in zip(told, kinds, strict=True))
    if origin is typing.Literal:
        if told not in typing.get_args(wanted):
            raise ValueError(f"{told!r:.40} is none of {typing.get_args(wanted)}")
        return told
    if isinstance(wanted, type) and issubclass(wanted, n.Node):
        return _read_node(told, wanted, depth)
    if wanted in (str, int, bool):
        return _exactly(told, wanted)
    if wanted is type(None) and told is None:
        return None
    return _exactly(told, float)  # what aggregates are set to


def _read_one_of(told: Any, choices: tuple[Any, ...], depth: int) -> Any:
    if told is None and type(None) in choices:
        return None
    (rest,) = [choice for choice in choices if choice is not type(None)]
    return _read(told, rest, depth)


def _read_node(told: Any, wanted: type[n.Node], depth: int) -> n.Node:
    _exactly(told, dict)
    if "const" in told:
        found: n.Node = n.Const(_READERS[told["const"]](told["value"]), told["const"])
    else:
        kind = _NODES[told.get("node")]
        types_of = _TYPES[kind.__name__]
        if told.keys() - {"node"} != types_of.keys():
            raise ValueError(f"a {kind.__name__} of {', '.join(sorted(told))}")
        found = kind(**{name: _read(told[name], types_of[name], depth + 1) for name in types_of})
    if not isinstance(found, wanted):
        raise TypeError(f"a {type(found).__name__} where a {wanted.__name__.lower()} should be")
    return found


def _exactly(told: Any, kind: type) -> Any:
    if type(told) is not kind:
        raise TypeError(f"{told!r:.40} where a {kind.__name__} should be")
    return told
