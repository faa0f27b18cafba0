"""What a question is made of: frozen, hashable nodes of values and of tables, which say what is asked and not how.

Values are computed for each row, or for each group by an `Aggregate`. Tables come from tables: each verb of a query is
one node around the one before. Nothing here knows SQL, and no name has been looked up yet.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

Scalar: TypeAlias = Hashable
"""None, bool, int, float, str, bytes, or a date, time, datetime or timedelta."""

How = Literal["inner", "left", "full", "semi", "anti"]


@dataclass(frozen=True, slots=True)
class Node:
    """Any node."""


# -- values


@dataclass(frozen=True, slots=True)
class Value(Node):
    """A value for each row."""


@dataclass(frozen=True, slots=True)
class Column(Value):
    """A column of the table that the value is computed on."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Const(Value):
    """The same value in every row; its type is part of it, so that 1, 1.0 and True differ, as do 0.0 and -0.0."""

    value: Scalar
    kind: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self._told_apart() == other._told_apart()

    def __hash__(self) -> int:
        return hash(self._told_apart())

    def _told_apart(self) -> Hashable:
        if isinstance(self.value, tuple):
            return tuple(Const.of(member)._told_apart() for member in self.value)
        return self.kind, repr(self.value) if isinstance(self.value, float) else self.value

    @classmethod
    def of(cls, value: Scalar) -> Const:
        return cls(value, type(value).__name__)


@dataclass(frozen=True, slots=True)
class Placeholder(Value):
    """A value that is given when a saved query is run."""

    name: str


@dataclass(frozen=True, slots=True)
class Param(Value):
    """A param of the row's run.

    Attributes:
        kind: as what it is read; None until it is bound.
    """

    key: str
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Tag(Value):
    """A tag of the row's run; true for one without a value."""

    key: str


@dataclass(frozen=True, slots=True)
class Metric(Value):
    """One number of a curve of the row's run.

    Attributes:
        reading: ``min``, ``max``, ``first``, ``last``, ``mean``, ``count``, ``arg_min``, ``arg_max``, ``last_step``,
            ``nan_count`` or ``at``.
        step: where, for ``at``.
    """

    name: str
    reading: str
    step: int | None = None


Noun: TypeAlias = Param | Tag | Metric
"""What is asked of the row's run."""


@dataclass(frozen=True, slots=True)
class Call(Value):
    """A function of values in the same row, operators included."""

    function: str
    args: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Case(Value):
    """The value of the first branch whose condition is true."""

    branches: tuple[tuple[Value, Value], ...]
    default: Value


@dataclass(frozen=True, slots=True)
class Cast(Value):
    """A value as another type: ``int``, ``float``, ``text``, ``bool`` or ``time``."""

    value: Value
    kind: str


@dataclass(frozen=True, slots=True)
class Aggregate(Value):
    """One value for many rows.

    Attributes:
        settings: what is no value, such as the fraction of a quantile.
    """

    function: str
    args: tuple[Value, ...]
    settings: tuple[Scalar, ...] = ()


@dataclass(frozen=True, slots=True)
class Order(Node):
    """What rows are ordered by; those without a value come last either way."""

    value: Value
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Window(Value):
    """An aggregate, or a function of places, over other rows beside each row.

    Attributes:
        rows: how many rows before and including this one; None for all of the partition, or for all up to this one
            where there is an order.
    """

    over: Value
    partition: tuple[Value, ...] = ()
    order: tuple[Order, ...] = ()
    rows: int | None = None

    @property
    def needs_order(self) -> bool:
        """Whether it is another value where its rows come in another order."""
        is_place = isinstance(self.over, Call)
        return is_place or self.rows is not None or (isinstance(self.over, Aggregate) and self.over.function == "ema")


# -- tables

Named: TypeAlias = tuple[str, Value]


@dataclass(frozen=True, slots=True)
class Table(Node):
    """Rows and columns."""


@dataclass(frozen=True, slots=True)
class View(Table):
    """A view of the lake; its columns, with their kinds, are known once it is bound."""

    name: str
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Given(Table):
    """Rows that are given with the question.

    Attributes:
        columns: names, kinds and values of its columns.
    """

    columns: tuple[tuple[str, str, tuple[Scalar, ...]], ...]


@dataclass(frozen=True, slots=True)
class Filter(Table):
    source: Table
    condition: Value


@dataclass(frozen=True, slots=True)
class Project(Table):
    """These columns and no others."""

    source: Table
    columns: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Extend(Table):
    """The columns that were there, with some replaced in their place and others added behind."""

    source: Table
    columns: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Rename(Table):
    source: Table
    names: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Drop(Table):
    source: Table
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group(Table):
    source: Table
    keys: tuple[Named, ...]
    columns: tuple[Named, ...]


@dataclass(frozen=True, slots=True)
class Join(Table):
    """Two tables side by side where columns of both are equal; names of the right that are taken get the suffix."""

    left: Table
    right: Table
    on: tuple[str, ...]
    how: How = "inner"
    suffix: str = "_right"


@dataclass(frozen=True, slots=True)
class Sort(Table):
    source: Table
    keys: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class Slice(Table):
    """Some rows, after skipping others."""

    source: Table
    length: int | None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Sample(Table):
    """Rows chosen by chance, the same ones for the same seed."""

    source: Table
    length: int
    seed: int


@dataclass(frozen=True, slots=True)
class Distinct(Table):
    """Each row once; with names, one row for each of their values, the first by the keys."""

    source: Table
    names: tuple[str, ...] = ()
    keys: tuple[Order, ...] = ()


@dataclass(frozen=True, slots=True)
class Union(Table):
    """The rows of one table, then those of another with the same columns."""

    first: Table
    second: Table


@dataclass(frozen=True, slots=True)
class WithNouns(Table):
    """Rows with hidden columns for what is asked of their runs; made by binding, never by a verb."""

    source: Table
    nouns: tuple[tuple[str, Noun], ...]


def children(node: Node) -> Iterator[Node]:
    """Yield the nodes directly in a node, in order."""
    for name in _fields_of(node):
        yield from _inside(getattr(node, name))


_FIELDS: dict[type, tuple[str, ...]] = {}


def _fields_of(node: Any) -> tuple[str, ...]:
    names = _FIELDS.get(type(node))
    if names is None:
        names = _FIELDS[type(node)] = tuple(field.name for field in fields(node))
    return names


def _inside(value: object) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            if not isinstance(item, str):
                yield from _inside(item)


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all nodes in it."""
    yield node
    for child in children(node):
        yield from walk(child)


def rebuilt(node: Any, change: Callable[[Node], Node]) -> Any:
    """Return a node whose direct children have been changed; the node itself where none was."""
    changed = {}
    for name in _fields_of(node):
        before = getattr(node, name)
        after = _changed(before, change)
        if after is not before:
            changed[name] = after
    return replace(node, **changed) if changed else node


def _changed(value: Any, change: Callable[[Node], Node]) -> Any:
    if isinstance(value, Node):
        return change(value)
    if isinstance(value, tuple):
        items = tuple(_changed(item, change) for item in value)
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value
