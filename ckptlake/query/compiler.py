"""The one place where a bound query becomes SQL: text with named parameters, and the values for them.

Verbs that follow each other go into one SELECT for as long as SQL evaluates them in that order; where it would not, the
SELECT so far becomes a table in the next one. Conditions on views therefore stand beside the view's name, where what
they say of files can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from ckptlake.query import nodes as n
from ckptlake.query.binding import Bound
from ckptlake.query.dialects import Dialect, Text, ema_rows
from ckptlake.query.hidden import HIDDEN, Schema
from ckptlake.query.kinds import kind_of_aggregate, kind_of_call, kind_of_const
from ckptlake.query.names import apart
from ckptlake.query.noun_rows import Members, are_one, home_of, rows_of, value_of

Stand = Callable[[str, n.Const], str]
"""Returns what stands in the text for a value that has this name among those bound."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A query as SQL.

    Attributes:
        text: with a parameter for each value.
        values: what is bound to them.
        schema: the kinds of its columns.
    """

    text: str
    values: Mapping[str, object]
    schema: Schema


@dataclass(slots=True)
class _Block:
    """A SELECT that is still being added to."""

    source: str
    columns: dict[str, Text]
    where: list[str] = field(default_factory=list)
    group: list[str] | None = None
    order: list[str] = field(default_factory=list)
    limit: str = ""
    is_distinct: bool = False
    windowed: set[str] = field(default_factory=set)

    @property
    def is_plain(self) -> bool:
        """Whether more conditions, joins and groups may be added."""
        return self.group is None and not self.limit and not self.is_distinct


def compile_query(bound: Bound, dialect: Dialect, stand: Stand | None = None) -> Compiled:
    """Return a bound query as SQL.

    Args:
        bound: the query.
        dialect: how the engine writes it.
        stand: what stands for values: by default the dialect's parameters; its `literal` writes them into the text.
    """
    writer = _Writer(dialect, stand or dialect.parameter)
    block = writer.block(bound.table)
    text = writer.text(block, {name: name for name in bound.schema})
    used = dialect.parameters_in(text)  # columns that were left out leave their values out too
    return Compiled(text, {name: value for name, value in writer.values.items() if name in used}, bound.schema)


class _Writer:
    def __init__(self, dialect: Dialect, stand: Stand) -> None:
        self._dialect = dialect
        self._stand = stand
        self.values: dict[str, object] = {}
        self._known: dict[tuple[str, str], str] = {}
        self._tables = 0

    # -- tables

    def block(self, table: n.Table) -> _Block:
        """Return a table as a SELECT to go on with."""
        match table:
            case n.View(name, columns):
                return self._from(self._dialect.quoted(name), dict(columns))
            case n.Given(given):
                return self._given(given)
            case n.Filter(source, condition):
                block = self.block(source)
                if not block.is_plain or block.windowed:  # a window looks at rows that a condition would leave out
                    block = self._wrapped(block)
                block.where.append(self.value(condition, block).sql)
                return block
            case n.WithNouns(source, nouns):
                return self._with_nouns(self._ready(self.block(source), [n.Column("run_id")]), nouns)
            case n.Project(source, columns):
                return self._projected(self.block(source), columns)
            case n.Group(source, keys, columns):
                return self._grouped(self.block(source), keys, columns)
            case n.Sort(source, keys):
                block = self.block(source)
                if block.limit or (block.is_distinct and not all(isinstance(key.value, n.Column) for key in keys)):
                    block = self._wrapped(block)
                told = [self._order(key, block) for key in keys]
                block.order = [
                    *(text for text in told if not self._dialect.is_constant(text.rpartition("\0")[0])),
                    *block.order,
                ]
                return block
            case n.Slice(source, length, offset):
                block = self.block(source)
                if block.limit:
                    block = self._wrapped(block)
                block.limit = self._dialect.sliced(length, offset)
                return block
            case n.Sample(source, length, seed):
                return self._sampled(self.block(source), length, seed)
            case n.Distinct(source, names, keys):
                return self._distinct(self.block(source), names, keys)
            case n.Join():
                return self._joined(table)
            case n.Union(first, second):
                return self._united(first, second)
        raise AssertionError(table)

    def _alias(self) -> str:
        self._tables += 1
        return f"t{self._tables - 1}"

    def _from(self, source: str, schema: Schema) -> _Block:
        alias, inner = self._alias(), apart(schema)
        columns = {name: Text(f"{alias}.{self._dialect.quoted(inner[name])}", kind) for name, kind in schema.items()}
        return _Block(f"{source} AS {alias}", columns)

    def _given(self, columns: Sequence[tuple[str, str, tuple[n.Scalar, ...]]]) -> _Block:
        lists = [self._bound(n.Const(values, "tuple")) for _, _, values in columns]
        named = zip((name for name, _, _ in columns), lists, strict=True)
        rows = ", ".join(f"unnest({values}) AS {self._dialect.quoted(name)}" for name, values in named)
        return self._from(f"(SELECT {rows})", {name: kind for name, kind, _ in columns})

    def _wrapped(self, block: _Block) -> _Block:
        """Return a SELECT from a SELECT; its rows stay in their order."""
        names = list(block.columns)
        order = []
        for number, text in enumerate(block.order):
            value, _, direction = text.rpartition("\0")
            name = f"{HIDDEN}order{number}"
            block.columns[name] = Text(value, "other")
            order.append((name, direction))
        if not block.limit:  # then no row is chosen by its order in there
            block.order = []
        schema = {name: text.kind for name, text in block.columns.items()}
        outer = self._from(f"({self.text(block, apart(schema))})", schema)
        outer.order = [f"{outer.columns[name].sql}\0{direction}" for name, direction in order]
        outer.columns = {name: outer.columns[name] for name in names}
        return outer

    def _ready(self, block: _Block, values: Sequence[n.Value]) -> _Block:
        """Return a block that conditions and joins on these values may be added to."""
        is_windowed = bool(block.windowed & _names_in(values))
        return block if block.is_plain and not is_windowed else self._wrapped(block)

    def _projected(self, block: _Block, columns: Sequence[n.Named]) -> _Block:
        values = [value for _, value in columns]
        has_windows = any(isinstance(node, n.Window) for value in values for node in n.walk(value))
        computes = any(not isinstance(value, n.Column) for value in values)
        if (
            (has_windows and not block.is_plain)
            or (computes and (block.group is not None or block.is_distinct))
            or (has_windows and block.windowed & _names_in(values))
            or (block.is_distinct and _names_in(values) != block.columns.keys())
        ):
            block = self._wrapped(block)
        made = {name: self.value(value, block) for name, value in columns}
        windowed = {
            name
            for name, value in columns
            if block.windowed & _names_in([value]) or any(isinstance(node, n.Window) for node in n.walk(value))
        }
        block.columns, block.windowed = made, windowed
        return block

    def _grouped(self, block: _Block, keys: Sequence[n.Named], columns: Sequence[n.Named]) -> _Block:
        block = self._ready(_unordered(block), [value for _, value in (*keys, *columns)])
        grouped = {name: self.value(value, block) for name, value in keys}
        made = {name: self.value(value, block) for name, value in columns}
        block.columns = {**grouped, **made}
        for name, text in grouped.items():
            if self._dialect.is_constant(text.sql) and text.sql != "NULL":  # SQL would take a parameter for a place
                grouped[name] = block.columns[name] = Text(f"coalesce({text.sql})", text.kind)
        block.group = [text.sql for text in grouped.values()]
        block.order = []
        return block

    def _order(self, key: n.Order, block: _Block) -> str:
        """Return what to order by and how, apart, as the value may become a column of its own."""
        return f"{self.value(key.value, block).sql}\0{self._dialect.direction(descending=key.descending)}"

    def _sampled(self, block: _Block, length: int, seed: int) -> _Block:
        block = self._wrapped(_unordered(block))
        told = [text for name, text in block.columns.items() if name in _TELLING] or list(block.columns.values())
        block.order = [f"{self._dialect.shuffled(seed, told)}\0{self._dialect.direction(descending=False)}"]
        block.limit = self._dialect.sliced(length, 0)
        return self._wrapped(block)

    def _distinct(self, block: _Block, names: Sequence[str], keys: Sequence[n.Order]) -> _Block:
        if not names:
            block = block if block.is_plain else self._wrapped(block)
            block.is_distinct = True
            made = {text.sql for text in block.columns.values()}
            block.order = list(takewhile(lambda text: text.rpartition("\0")[0] in made, block.order))
            return block
        block = self._ready(block, [*(n.Column(name) for name in names), *(key.value for key in keys)])
        partition = ", ".join(block.columns[name].sql for name in names)
        order = ", ".join(map(_ordered, [*(self._order(key, block) for key in keys), *block.order]))
        ordered = f" ORDER BY {order}" if order else self._dialect.places_without_order
        place = f"row_number() OVER (PARTITION BY {partition}{ordered})"
        kept = list(block.columns)
        block.columns[f"{HIDDEN}place"] = Text(place, "int")
        block = self._wrapped(block)
        block.where.append(f"{block.columns.pop(f'{HIDDEN}place').sql} = 1")
        block.columns = {name: block.columns[name] for name in kept}
        return block

    def _joined(self, table: n.Join) -> _Block:
        left = self.block(table.left)
        # Its conditions would also drop rows of the right, and what it computes would also be there beside those.
        computed = [text.sql for text in left.columns.values()] + [text.rpartition("\0")[0] for text in left.order]
        spoils_right = table.how == "full" and (left.where or not all(map(self._dialect.is_column, computed)))
        if not left.is_plain or left.windowed or spoils_right:
            left = self._wrapped(left)
        right = self._wrapped(_unordered(self.block(table.right)))
        on = " AND ".join(f"{left.columns[name].sql} = {right.columns[name].sql}" for name in table.on)
        if table.how in ("semi", "anti"):
            word = "" if table.how == "semi" else "NOT "
            left.where.append(f"{word}EXISTS (SELECT 1 FROM {right.source} WHERE {on})")
            return left
        kind = {"inner": "JOIN", "left": "LEFT JOIN", "full": "FULL JOIN"}[table.how]
        columns = dict(left.columns)
        if table.how == "full":
            for name in table.on:
                both = f"coalesce({left.columns[name].sql}, {right.columns[name].sql})"
                columns[name] = Text(both, left.columns[name].kind)
        for name, text in right.columns.items():
            if name not in table.on:
                columns[f"{name}{table.suffix}" if name in left.columns else name] = text
        left.source = f"{left.source} {kind} {right.source} ON {on}"
        left.columns = columns
        return left

    def _united(self, first: n.Table, second: n.Table) -> _Block:
        left, right = self.block(first), self.block(second)
        names = apart(left.columns)
        kinds = {name: _both(left.columns[name].kind, right.columns[name].kind) for name in names}
        return self._from(f"(({self.text(left, names)}) UNION ALL ({self.text(right, names)}))", kinds)

    # -- what is asked of runs

    def _with_nouns(self, block: _Block, nouns: Members) -> _Block:
        groups: dict[str, list[tuple[str, n.Noun]]] = {}
        for name, noun in nouns:
            groups.setdefault(home_of(noun), []).append((name, noun))
        for view, members in groups.items():
            alias = self._alias()
            inner = apart(("run_id", *(name for name, _ in members)))
            is_alone = are_one(members)
            made = [(name, value_of(noun, self._bound, self._dialect, is_alone=is_alone)) for name, noun in members]
            columns = ", ".join(f"{text.sql} AS {self._dialect.quoted(inner[name])}" for name, text in made)
            text = f"SELECT run_id, {columns} FROM {view} WHERE {rows_of(members, self._bound)} GROUP BY run_id"
            block.source += f" LEFT JOIN ({text}) AS {alias} ON {alias}.run_id = {block.columns['run_id'].sql}"
            for name, made_text in made:
                block.columns[name] = Text(f"{alias}.{self._dialect.quoted(inner[name])}", made_text.kind)
        return block

    # -- values

    def value(self, value: n.Value, block: _Block) -> Text:
        """Return a value as SQL."""
        match value:
            case n.Column(name):
                return block.columns[name]
            case n.Const(held, kind):
                return Text("NULL" if held is None else self._bound(value), kind_of_const(kind))
            case n.Call(function, args):
                texts = [self.value(arg, block) for arg in args]
                if function == "round":
                    texts[1] = Text(str(_whole(args[1])), "int")
                kind = kind_of_call(function, [text.kind for text in texts], function)
                return Text(self._dialect.call(function, texts), kind)
            case n.Case(branches, default):
                parts = [(self.value(when, block), self.value(then, block)) for when, then in branches]
                last = self.value(default, block)
                written = " ".join(f"WHEN {when.sql} THEN {then.sql}" for when, then in parts)
                kind = kind_of_call("coalesce", [*(then.kind for _, then in parts), last.kind], "")
                return Text(f"CASE {written} ELSE {last.sql} END", kind)
            case n.Cast(inner, kind):
                return Text(self._dialect.cast(self.value(inner, block), kind), kind)
            case n.Aggregate(function, args, settings):
                return self._aggregate(function, args, settings, block, "")
            case n.Window():
                return self._window(value, block)
        raise AssertionError(value)

    def _aggregate(
        self, function: str, args: Sequence[n.Value], settings: Sequence[Any], block: _Block, over: str
    ) -> Text:
        texts = [self.value(arg, block) for arg in args]
        kind = kind_of_aggregate(function, [text.kind for text in texts], function)
        return Text(self._dialect.aggregate(function, texts, settings, over), kind)

    def _window(self, window: n.Window, block: _Block) -> Text:
        partition = ", ".join(self.value(part, block).sql for part in window.partition)
        order = ", ".join(_ordered(self._order(key, block)) for key in window.order)
        inner = window.over
        rows = window.rows
        if isinstance(inner, n.Aggregate) and inner.function == "ema":
            rows = ema_rows(float(str(inner.settings[0])))
        parts = [f"PARTITION BY {partition}" if partition else "", f"ORDER BY {order}" if order else ""]
        if isinstance(inner, n.Aggregate) and (order or rows):
            first = "UNBOUNDED PRECEDING" if rows is None else f"{rows - 1:d} PRECEDING"
            parts.append(f"ROWS BETWEEN {first} AND CURRENT ROW")
        over = f" OVER ({' '.join(part for part in parts if part)})"
        if isinstance(inner, n.Aggregate):
            return self._aggregate(inner.function, inner.args, inner.settings, block, over)
        assert isinstance(inner, n.Call)
        args = [self.value(arg, block) for arg in inner.args]
        if inner.function in ("lag", "lead"):
            args[1] = Text(str(_whole(inner.args[1])), "int")
        kind = kind_of_call(inner.function, [arg.kind for arg in args], inner.function)
        return Text(self._dialect.place(inner.function, [arg.sql for arg in args], over), kind)

    def _bound(self, const: n.Const) -> str:
        if isinstance(const.value, tuple) and const.value and not self._dialect.has_list_values:
            return f"({', '.join(self._bound(n.Const.of(member)) for member in const.value)})"
        key = (const.kind, repr(const.value))  # 0.0 equals -0.0, but is another value
        if key not in self._known:
            name = f"p{len(self._known)}"
            self._known[key] = name
            self.values[name] = self._dialect.bound(const)
        return self._stand(self._known[key], const)

    # -- text

    def text(self, block: _Block, names: Mapping[str, str]) -> str:
        """Return a SELECT of some of its columns, each under a name."""
        columns = ", ".join(f"{block.columns[name].sql} AS {self._dialect.quoted(to)}" for name, to in names.items())
        parts = [f"SELECT {'DISTINCT ' if block.is_distinct else ''}{columns}", f"FROM {block.source}"]
        if block.where:
            parts.append(f"WHERE {' AND '.join(block.where)}")
        if block.group:
            parts.append(f"GROUP BY {', '.join(block.group)}")
        if block.order:
            # Rows that are distinct are ordered by what they show: Spark does not look beneath.
            shown = {block.columns[name].sql: self._dialect.quoted(to) for name, to in names.items()}
            keys = (text.rpartition("\0") for text in block.order)
            order = (f"{shown.get(value, value) if block.is_distinct else value} {way}" for value, _, way in keys)
            parts.append(f"ORDER BY {', '.join(order)}")
        return "\n".join(parts) + block.limit


_TELLING = frozenset({"run_id", "metric", "step", "checkpoint_id", "path", "experiment"})


def _names_in(values: Sequence[n.Value]) -> set[str]:
    return {node.name for value in values for node in n.walk(value) if isinstance(node, n.Column)}


def _unordered(block: _Block) -> _Block:
    """Return a block without its order, unless rows are chosen by that."""
    if not block.limit:
        block.order = []
    return block


def _ordered(text: str) -> str:
    return text.replace("\0", " ")


def _both(one: str, other: str) -> str:
    return kind_of_call("coalesce", [one, other], "union")


def _whole(value: n.Value) -> int:
    assert isinstance(value, n.Const)
    return int(str(value.value))
