"""Names of a query looked up in a lake: columns, params, tags and metrics; what is unknown is refused by name.

What comes out has no `Param`, `Tag` or `Metric` among its values any more: below each table that asks for them lies a
`WithNouns`, whose hidden columns hold them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ckptlake.errors import InvalidInputError
from ckptlake.query import nodes as n
from ckptlake.query.hidden import (
    HIDDEN,
    Schema,
    check_visible,
    hidden_name,
    still_true,
    visible,
    without_hidden,
    without_windows,
)
from ckptlake.query.kinds import (
    check_place,
    kind_of_aggregate,
    kind_of_call,
    kind_of_const,
    kind_of_metric,
    kind_of_param,
    peers,
)
from ckptlake.query.showing import shown
from ckptlake.query.unknown_names import check_known, listed
from ckptlake.query.windows import lift


class Names(Protocol):
    """What there is in a lake to be named."""

    def columns(self, view: str) -> Schema: ...

    def params(self) -> Mapping[str, str]:
        """Return each param with its kind: ``bool``, ``int``, ``number``, ``text``, or ``mixed`` with texts."""
        ...

    def tags(self) -> Iterable[str]: ...

    def metrics(self) -> Iterable[str]: ...


@dataclass(frozen=True, slots=True)
class Bound:
    """A table whose every name is known, with its columns; hidden ones are left out of `schema`."""

    table: n.Table
    schema: Schema


def kind_of(value: n.Value, schema: Schema) -> str:
    """Return the kind of a bound value on a table with these columns."""
    return _Binder.kind(value, schema)


def bind(table: n.Table, names: Names) -> Bound:
    """Look up every name of a query.

    Raises:
        InvalidInputError: a name is unknown (the message tells the nearest), or values do not fit each other.
    """
    bound, schema = _Binder(names).table(table)
    return Bound(bound, visible(schema))


class _Binder:
    def __init__(self, names: Names) -> None:
        self._names = names

    def table(self, table: n.Table) -> tuple[n.Table, Schema]:
        """Return a table bound, with its columns, hidden ones included."""
        match table:
            case n.View(name):
                schema = self._names.columns(name)
                return n.View(name, tuple(schema.items())), schema
            case n.Given(given):
                return table, {name: kind for name, kind, _ in given}
            case n.Filter(source, condition):
                source, schema, (value,) = self._with_values(source, [condition], lifts_all=True)
                if self.kind(value, schema) not in ("bool", "null"):
                    raise InvalidInputError(f"where takes conditions, and {shown(condition)} is none; compare it")
                return without_windows(n.Filter(source, value), schema)
            case n.Project(source, columns):
                source, schema, columns = self._with_columns(source, columns)
                kept = still_true(schema, columns)
                made = {name: self.kind(value, schema) for name, value in columns}
                hidden = tuple((name, n.Column(name)) for name in kept)
                return n.Project(source, (*columns, *hidden)), {**made, **kept}
            case n.Extend(source, columns):
                source, schema, columns = self._with_columns(source, columns)
                made = {name: self.kind(value, schema) for name, value in columns}
                kept = {**visible(schema), **still_true(schema, columns)}
                values = {**{name: n.Column(name) for name in kept}, **dict(columns)}
                return n.Project(source, tuple(values.items())), {**kept, **made}
            case n.Rename(source, pairs):
                return self._renamed(source, pairs)
            case n.Drop(source, dropped):
                source, schema = self.table(source)
                self._check_columns(dropped, schema)
                kept = {name: kind for name, kind in schema.items() if name not in dropped}
                return n.Project(source, tuple((name, n.Column(name)) for name in kept)), kept
            case n.Group():
                return self._grouped(table)
            case n.Join():
                return self._joined(table)
            case n.Sort(source, keys):
                source, schema, orders = self._with_orders(source, keys)
                return without_windows(n.Sort(source, orders), schema)
            case n.Slice(source) | n.Sample(source):
                source, schema = self.table(source)
                return replace(table, source=source), schema
            case n.Distinct(source, columns_named, keys):
                source, schema, orders = self._with_orders(source, keys)
                self._check_columns(columns_named, schema)
                if not columns_named:
                    return n.Distinct(without_hidden(source, schema)), visible(schema)
                return without_windows(n.Distinct(source, columns_named, orders), schema)
            case n.Union(first, second):
                return self._united(first, second)
        raise AssertionError(table)

    def _renamed(self, source: n.Table, pairs: Sequence[tuple[str, str]]) -> tuple[n.Table, Schema]:
        source, schema = self.table(source)
        self._check_columns([old for old, _ in pairs], schema)
        new = dict(pairs)
        for name in new.values():
            check_visible(name)
        names = {name: new.get(name, name) for name in schema}
        taken: set[str] = set()
        for name in names.values():
            if name in taken:
                raise InvalidInputError(f"two columns would be called {name!r}: rename to other names")
            taken.add(name)
        columns = tuple((names[name], n.Column(name)) for name in visible(schema))
        kept = still_true(schema, columns)
        hidden = tuple((name, n.Column(name)) for name in kept)
        made = {new: schema[value.name] for new, value in columns}
        return n.Project(source, (*columns, *hidden)), {**made, **kept}

    def _grouped(self, table: n.Group) -> tuple[n.Table, Schema]:
        named = (*table.keys, *table.columns)
        source, schema, columns = self._with_columns(table.source, named, in_groups=True)
        keys, columns = columns[: len(table.keys)], columns[len(table.keys) :]
        for (name, value), (_, written) in zip(columns, table.columns, strict=True):
            if stray := _outside_aggregates(value, {key for _, key in keys}):
                many = shown(written if stray.name.startswith(HIDDEN) else stray)
                raise InvalidInputError(
                    f"column {name!r} is {shown(written)}: {many} has many values in a group; aggregate it, as "
                    "in .mean(), or group by it"
                )
        made = {name: self.kind(value, schema) for name, value in (*keys, *columns)}
        return n.Group(source, keys, columns), made

    def _joined(self, table: n.Join) -> tuple[n.Table, Schema]:
        left, schema = self.table(table.left)
        right, other = self.table(table.right)
        left, right, schema, other = (
            without_hidden(left, schema),
            without_hidden(right, other),
            visible(schema),
            visible(other),
        )
        self._check_columns(table.on, schema)
        self._check_columns(table.on, other)
        for name in table.on:
            kind_of_call("eq", [schema[name], other[name]], f"join on {name!r}")
        joined = dict(schema)
        if table.how not in ("semi", "anti"):
            for name, kind in other.items():
                if name not in table.on:
                    new = f"{name}{table.suffix}" if name in schema else name
                    if new in joined:
                        raise InvalidInputError(
                            f"the join would have two columns {new!r}: rename one, or give a suffix"
                        )
                    joined[new] = kind
        return replace(table, left=left, right=right), joined

    def _united(self, first: n.Table, second: n.Table) -> tuple[n.Table, Schema]:
        (first, schema), (second, other) = self.table(first), self.table(second)
        first, second = without_hidden(first, schema), without_hidden(second, other)
        schema, other = visible(schema), visible(other)
        if set(schema) != set(other):
            odd = sorted(set(schema) ^ set(other))
            raise InvalidInputError(f"a union needs the same columns on both sides; only one has {', '.join(odd)}")
        kinds = {
            name: kind_of_call("coalesce", [kind, other[name]], f"union of {name!r}") for name, kind in schema.items()
        }
        return n.Union(_as_kinds(first, schema, kinds), _as_kinds(second, other, kinds)), kinds

    # -- values

    def _with_columns(
        self, source: n.Table, columns: Sequence[n.Named], *, in_groups: bool = False
    ) -> tuple[n.Table, Schema, tuple[n.Named, ...]]:
        names = [name for name, _ in columns]
        for name in names:
            if names.count(name) > 1:
                raise InvalidInputError(f"two columns would be called {name!r}: name one of them with .alias()")
            check_visible(name)
        source, schema, values = self._with_values(
            source, [value for _, value in columns], in_groups=in_groups, lifts_all=in_groups
        )
        return source, schema, tuple(zip(names, values, strict=True))

    def _with_values(
        self, source: n.Table, values: Sequence[n.Value], *, in_groups: bool = False, lifts_all: bool = False
    ) -> tuple[n.Table, Schema, list[n.Value]]:
        """Return the source with what the values need of it in hidden columns, its columns, and the values bound."""
        source, schema = self.table(source)
        wanted: dict[str, n.Noun] = {}
        bound = [self._value(value, schema, wanted) for value in values]
        fresh = {name: noun for name, noun in wanted.items() if name not in schema}
        if fresh:
            if "run_id" not in schema:
                asked = shown(next(iter(fresh.values())))
                raise InvalidInputError(f"{asked} belongs to a run, and these rows have no column run_id: ask earlier")
            source = n.WithNouns(source, tuple(fresh.items()))
            schema = {**schema, **{name: self._kind_of_noun(noun) for name, noun in fresh.items()}}
        if not in_groups:
            for value, written in zip(bound, values, strict=True):
                if _outside_windows(value):
                    raise InvalidInputError(f"{shown(written)} needs groups: use group_by(...).agg(...), or .over(...)")
        for value in bound:
            self.kind(value, schema)
        return lift(source, schema, bound, self.kind, lifts_all=lifts_all)

    def _with_orders(self, source: n.Table, keys: Sequence[n.Order]) -> tuple[n.Table, Schema, tuple[n.Order, ...]]:
        source, schema, values = self._with_values(source, [key.value for key in keys], lifts_all=True)
        for value in values:
            self._check_ordered(value, schema)
        return source, schema, tuple(replace(key, value=value) for key, value in zip(keys, values, strict=True))

    def _value(self, value: n.Value, schema: Schema, wanted: dict[str, n.Noun]) -> n.Value:
        match value:
            case n.Column(name):
                self._check_columns([name], schema)
                return value
            case n.Placeholder(name):
                raise InvalidInputError(f"the query leaves {name!r} open: give it, as in lake.query(name, {name}=...)")
            case n.Param() | n.Tag() | n.Metric():
                noun = self._noun(value)
                name = hidden_name(noun)
                wanted[name] = noun
                return n.Column(name)
            case n.Call(function, args):
                kinds = {self._loose_kind(arg, schema) for arg in peers(function, args) if not isinstance(arg, n.Param)}
                typed = tuple(_read_as(arg, kinds) if isinstance(arg, n.Param) else arg for arg in args)
                return n.Call(function, tuple(self._value(arg, schema, wanted) for arg in typed))
            case n.Cast(n.Param() as inner, kind):
                read = {"int": "number", "float": "number", "bool": "bool"}.get(kind, "text")
                return n.Cast(self._value(replace(inner, kind=read), schema, wanted), kind)
        bound: n.Value = n.rebuilt(value, lambda child: self._child(child, schema, wanted))
        return bound

    def _child(self, child: n.Node, schema: Schema, wanted: dict[str, n.Noun]) -> n.Node:
        if isinstance(child, n.Value):
            return self._value(child, schema, wanted)
        assert isinstance(child, n.Order)
        return replace(child, value=self._value(child.value, schema, wanted))

    def _loose_kind(self, value: n.Value, schema: Schema) -> str:
        """Return the kind of a value that is not bound yet, as far as that is plain to see."""
        match value:
            case n.Const(_, kind):
                return kind_of_const(kind)
            case n.Column(name):
                return schema.get(name, "null")
            case n.Metric(_, reading):
                return kind_of_metric(reading)
            case n.Call("add", args) if "text" in {self._loose_kind(arg, schema) for arg in args}:
                return "text"
            case n.Call("add" | "sub" | "mul" | "div" | "pow" | "neg" | "log" | "log10" | "exp" | "sqrt" | "abs"):
                return "float"
        return "null"

    def _noun(self, noun: n.Noun) -> n.Noun:
        match noun:
            case n.Param(key, kind):
                known = self._names.params()
                check_known("param", key, known, f"metric({key!r})" if key in self._names.metrics() else None)
                if kind in ("number", "bool") and known[key] == "text":
                    raise InvalidInputError(f"the param {key!r} is a text in every run: compare it with a text")
                is_whole = kind == "number" and known[key] == "int"
                return replace(noun, kind=known[key]) if kind is None or is_whole else noun
            case n.Tag(key):
                check_known("tag", key, self._names.tags())
            case n.Metric(name):
                check_known("metric", name, self._names.metrics())
        return noun

    def _kind_of_noun(self, noun: n.Noun) -> str:
        match noun:
            case n.Param(_, kind):
                return kind_of_param(str(kind))
            case n.Tag():
                return "text"
            case n.Metric(_, reading):
                return kind_of_metric(reading)

    def _check_columns(self, names: Iterable[str], schema: Schema) -> None:
        for name in names:
            if name not in schema or name.startswith(HIDDEN):
                raise InvalidInputError(self._unknown_column(name, schema))

    def _unknown_column(self, name: str, schema: Schema) -> str:
        there = list(visible(schema))
        others = {
            f"param({name!r})": name in self._names.params(),
            f"tag({name!r})": name in self._names.tags(),
            f"metric({name!r}).last()": name in self._names.metrics(),
        }
        meant = [text for text, is_known in others.items() if is_known and "run_id" in schema]
        near = meant or difflib.get_close_matches(name, there, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        return f"there is no column {name!r}; {hint}the columns here are {listed(there)}"

    def _check_ordered(self, value: n.Value, schema: Schema) -> None:
        kind = self.kind(value, schema)
        if kind in ("list", "map", "other"):
            raise InvalidInputError(f"{shown(value)} is a {kind}, which has no order")

    @classmethod
    def kind(cls, value: n.Value, schema: Schema) -> str:
        """Return the kind of a bound value; raises where values do not fit their functions."""
        match value:
            case n.Column(name):
                return schema[name]
            case n.Const(_, kind):
                return kind_of_const(kind)
            case n.Call(function, args):
                return kind_of_call(function, [cls.kind(arg, schema) for arg in args], shown(value))
            case n.Aggregate(function, args):
                return kind_of_aggregate(function, [cls.kind(arg, schema) for arg in args], shown(value))
            case n.Cast(inner, kind):
                cls.kind(inner, schema)
                return kind
            case n.Window(over, partition, order, _):
                if isinstance(over, n.Call):
                    check_place(over.function, shown(over))
                if not order and value.needs_order:
                    raise InvalidInputError(f"{shown(over)} depends on the order of rows: give it order_by=")
                for part in (*partition, *(one.value for one in order)):
                    cls.kind(part, schema)
                return cls.kind(over, schema)
            case n.Case(branches, default):
                for condition, _ in branches:
                    kind_of_call("not", [cls.kind(condition, schema)], shown(condition))
                kinds = [cls.kind(branch, schema) for _, branch in branches] + [cls.kind(default, schema)]
                return kind_of_call("coalesce", kinds, "when(...)")
        raise AssertionError(value)


def _as_kinds(side: n.Table, schema: Schema, kinds: Schema) -> n.Table:
    """Return a side of a union with its columns in order, integers as floats where the other side has floats."""
    columns = {
        name: n.Cast(n.Column(name), kind) if (schema[name], kind) == ("int", "float") else n.Column(name)
        for name, kind in kinds.items()
    }
    return n.Project(side, tuple(columns.items()))


def _read_as(param: n.Param, kinds: set[str]) -> n.Param:
    """Return a param read as what it is put beside: a number beside numbers, a text beside texts."""
    if param.kind is not None:
        return param
    for kind, read in (("text", "text"), ("float", "number"), ("int", "number"), ("bool", "bool")):
        if kind in kinds:
            return replace(param, kind=read)
    return param


def _outside_aggregates(value: n.Value, keys: set[n.Value]) -> n.Column | None:
    """Return a column in a value that is neither aggregated nor grouped by, or None."""
    if value in keys or isinstance(value, n.Aggregate):
        return None
    if isinstance(value, n.Column):
        return value
    found = (_outside_aggregates(child, keys) for child in n.children(value) if isinstance(child, n.Value))
    return next((stray for stray in found if stray is not None), None)


def _outside_windows(value: n.Value) -> bool:
    """Tell whether an aggregate stands where there are no groups."""
    if isinstance(value, n.Aggregate):
        return True
    if isinstance(value, n.Window):
        return False
    return any(_outside_windows(child) for child in n.children(value) if isinstance(child, n.Value))
