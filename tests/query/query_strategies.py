"""Random queries that fit a lake of nasty values, with what is known of their columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from ckptlake import Lake, Query, col, count, lit, metric, param, rank, row_number, tag, when
from ckptlake.query.expressions import Expr
from ckptlake.query.nodes import View

Draw = Callable[[Any], Any]
VIEWS: dict[str, dict[str, str]] = {
    "runs": {
        "run_id": "text", "name": "text", "experiment": "text", "status": "text", "attempt": "int",
        "parent_run_id": "text", "notes": "text",
    },
    "metrics": {"experiment": "text", "run_id": "text", "metric": "text", "step": "int", "value": "float"},
    "params": {"run_id": "text", "key": "text", "kind": "text", "number": "float", "value": "text"},
    "tags": {"run_id": "text", "key": "text", "value": "text"},
}  # fmt: skip
METRICS = ("loss", "Loss", 'it\'s "q"/ü', "only/nan")
PARAMS = {"lr": "float", "LR": "float", "seed": "int", "on": "bool", "mixed": "text", "arch": "text", "deep.x": "float"}
TAGS = ("stage", "Stage", "bare tag")
FLOATS = (0.0, -0.0, 0.5, -1.25, 2.5, 3.0, float("nan"), float("inf"), float("-inf"))
TEXTS = ("", "a", "r1", "ü", "it's", "pose", "pose/vit", "loss", "auto", "3", "%", "NaN")
NAMES = ("x", "X", "y", "select", "a b", 'q"t', "$p0", "value", "step")
SIMPLE = ("int", "float", "text", "bool")


@dataclass(frozen=True)
class Asked:
    """A query so far.

    Attributes:
        columns: the kind of each column; ``rough`` for floats that depend on the order of calculation.
        is_of_runs: whether `run_id` tells the run of each row.
        is_ordered: whether the order of rows is known but for equal ones.
    """

    query: Query
    columns: dict[str, str] = field(default_factory=dict)
    is_of_runs: bool = True
    is_ordered: bool = False

    @property
    def exact(self) -> list[str]:
        return [name for name, kind in self.columns.items() if kind in SIMPLE]


def of_kind(draw: Draw, asked: Asked, kind: str, depth: int = 2) -> Expr:
    """Return a value that is calculated without rounding, so that it may be compared and grouped by."""
    makers: list[Callable[[], Expr]] = [lambda: _constant(draw, kind)]
    if names := [name for name, of in asked.columns.items() if of == kind]:
        makers += [lambda: col(draw(st.sampled_from(names)))] * 3
    if asked.is_of_runs:
        makers += _nouns(draw, kind)
    if depth:
        makers += _calls(draw, asked, kind, depth - 1)
    chosen: Expr = draw(st.sampled_from(makers))()
    return chosen


def _constant(draw: Draw, kind: str) -> Expr:
    numbers = {"int": st.integers(-4, 4), "float": st.sampled_from(FLOATS), "bool": st.booleans()}
    return lit(draw(numbers.get(kind, st.sampled_from(TEXTS))))


def _nouns(draw: Draw, kind: str) -> list[Callable[[], Expr]]:
    made: list[Callable[[], Expr]] = []
    if keys := [key for key, of in PARAMS.items() if of == kind]:
        made.append(lambda: param(draw(st.sampled_from(keys))))
    if kind == "text":
        made.append(lambda: tag(draw(st.sampled_from(TAGS))))
    readings = {
        "int": ("count", "nan_count", "arg_min", "arg_max", "last_step"),
        "float": ("min", "max", "first", "last"),
    }
    if kind in readings:
        made.append(lambda: getattr(metric(draw(st.sampled_from(METRICS))), draw(st.sampled_from(readings[kind])))())
    if kind == "float":
        made.append(lambda: metric(draw(st.sampled_from(METRICS))).at(draw(st.integers(-3, 6))))
    return made


def _calls(draw: Draw, asked: Asked, kind: str, depth: int) -> list[Callable[[], Expr]]:
    def of(kind: str) -> Expr:
        return of_kind(draw, asked, kind, depth)

    made: list[Callable[[], Expr]] = [
        lambda: of(kind).coalesce(of(kind)),
        lambda: when(of("bool")).then(of(kind)).when(of("bool")).then(of(kind)).otherwise(of(kind)),
        lambda: when(of("bool")).then(of(kind)).otherwise(None),
    ]
    if kind in ("int", "float"):
        made += [
            lambda: of(kind) + of(kind), lambda: of(kind) - of(kind), lambda: of(kind) * draw(st.integers(-2, 2)),
            lambda: -of(kind), lambda: of(kind).abs(), lambda: of(kind).round(), lambda: of(kind).floor(),
            lambda: of(kind).ceil(), lambda: of(kind) % draw(st.sampled_from([-3, -1, 2, 0])),
            lambda: of(kind) // draw(st.sampled_from([-3, 2, 0])),
        ]  # fmt: skip
    if kind == "int":
        made += [lambda: of("text").length(), lambda: of("bool").cast(int), lambda: of("int") % of("int")]
    if kind == "float":
        made += [lambda: of("int").cast(float), lambda: of("int") / 2, lambda: of("float") + of("int")]
    if kind == "text":
        made += [
            lambda: of("text").upper(), lambda: of("int").cast(str), lambda: of("bool").cast(str),
            lambda: of("text") + of("text"), lambda: of("text").lower(),
        ]  # fmt: skip
    if kind == "bool":
        made += _conditions(draw, of)
    return made


def _conditions(draw: Draw, of: Callable[[str], Expr]) -> list[Callable[[], Expr]]:
    def compared() -> Expr:
        kind = draw(st.sampled_from(SIMPLE))
        left, right = of(kind), of("float" if kind == "int" and draw(st.booleans()) else kind)
        which = draw(st.sampled_from(["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"]))
        told: Expr = getattr(left, which)(right)
        return told

    def in_some() -> Expr:
        kind = draw(st.sampled_from(["int", "float", "text"]))
        some = {"int": st.integers(-4, 4), "float": st.sampled_from(FLOATS), "text": st.sampled_from(TEXTS)}[kind]
        return of(kind).is_in(draw(st.lists(st.none() | some, max_size=3)))

    def ranged() -> Expr:
        kind = draw(st.sampled_from(["int", "float", "text"]))
        return of(kind).between(of(kind), of(kind))

    searches = ["like", "ilike", "starts_with", "ends_with", "contains"]
    return [
        compared, compared, compared, in_some, ranged,
        lambda: of("bool") & of("bool"), lambda: of("bool") | of("bool"), lambda: ~of("bool"),
        lambda: of(draw(st.sampled_from(SIMPLE))).is_null(), lambda: of("float").is_nan(), lambda: of("int").is_nan(),
        lambda: of("float").is_finite(),
        lambda: getattr(of("text"), draw(st.sampled_from(searches)))(draw(st.sampled_from([*TEXTS, "%a%", "_", "r_"]))),
    ]  # fmt: skip


def _total(draw: Draw, asked: Asked) -> list[object]:
    """Return what to order by so that rows that come together by chance are equal."""
    keys: list[object] = []
    for _ in range(draw(st.integers(0, 2))):
        key = of_kind(draw, asked, draw(st.sampled_from(SIMPLE)), 1)
        keys.append(key.desc() if draw(st.booleans()) else key)
    return [*keys, *(col(name).desc() if draw(st.booleans()) else name for name in draw(st.permutations(asked.exact)))]


def _window(draw: Draw, asked: Asked) -> tuple[Expr, str]:
    parts = draw(st.lists(st.sampled_from(asked.exact), max_size=2, unique=True))
    order = _total(draw, asked)
    kind = draw(st.sampled_from(SIMPLE))
    value = of_kind(draw, asked, kind, 1)
    number = of_kind(draw, asked, "float", 1)
    rows = draw(st.integers(1, 3))
    made: list[tuple[Expr, str]] = [
        (row_number().over(*parts, order_by=order), "int"),
        (rank().over(*parts, order_by=order[:1]), "int"),
        (value.lag(rows).over(*parts, order_by=order), kind),
        (value.lead(rows).over(*parts, order_by=order), kind),
        (number.rolling_mean(rows).over(*parts, order_by=order), "rough"),
        (number.rolling_max(rows).over(*parts, order_by=order), "float"),
        (number.rolling_sum(rows).over(*parts, order_by=order), "float"),
        (number.rolling_std(rows).over(*parts, order_by=order), "rough"),
        (number.ema(0.5).over(*parts, order_by=order), "rough"),
        (number.min().over(*parts), "float"),
        (number.sum().over(*parts, order_by=order), "float"),
        (count().over(*parts), "int"),
        (value.count().over(*parts), "int"),
        (value.first(row_number().over(order_by=order)).over(*parts), kind),
    ]
    window: tuple[Expr, str] = draw(st.sampled_from(made))
    return window


def _aggregate(draw: Draw, asked: Asked) -> tuple[Expr, str]:
    kind = draw(st.sampled_from(SIMPLE))
    value, number = of_kind(draw, asked, kind, 1), of_kind(draw, asked, draw(st.sampled_from(["int", "float"])), 1)
    of_number = "float" if draw(st.booleans()) else "int"
    exact = of_kind(draw, asked, of_number, 1)
    by = of_kind(draw, asked, draw(st.sampled_from(["int", "float"])), 1)
    made: list[tuple[Expr, str]] = [
        (count(), "int"), (value.count(), "int"), (value.n_unique(), "int"), (exact.sum(), of_number),
        (number.mean(), "rough"), (number.std(), "rough"), (exact.min(), of_number), (exact.max(), of_number),
        (value.max(), kind), (value.arg_min(by), kind), (value.arg_max(by), kind),
        (number.quantile(draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))), "rough"),
        (of_kind(draw, asked, "bool", 1).any(), "bool"), (of_kind(draw, asked, "bool", 1).all(), "bool"),
        (count() * 2 + value.count(), "int"),
    ]  # fmt: skip
    aggregate: tuple[Expr, str] = draw(st.sampled_from(made))
    return aggregate


def _started(draw: Draw, lake: Lake) -> Asked:
    view = draw(st.sampled_from(["runs", "runs", "metrics", "metrics", "params", "tags"]))
    query, columns = lake.runs._with(View(view)), VIEWS[view]
    asked = Asked(query, columns)
    if view == "runs" and draw(st.booleans()):
        asked = replace(asked, query=asked.query.subtree(draw(st.sampled_from(["pose", "pose/vit", "nothing"]))))
    if view == "runs" and draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(METRICS))
        best = asked.query.best(name, n=100, direction=draw(st.sampled_from(["min", "max"])))
        columns = {**asked.columns, f"best.{name}": "float", f"best_step.{name}": "int"}
        return Asked(best, columns)
    if view == "runs" and draw(st.integers(0, 3)) == 0:
        kept = draw(st.lists(st.sampled_from(METRICS), max_size=2, unique=True))
        return Asked(asked.query.curves(*kept), VIEWS["metrics"])
    return asked


def _with_verb(draw: Draw, lake: Lake, asked: Asked, depth: int) -> Asked:
    query, columns = asked.query, asked.columns
    name = draw(st.sampled_from(NAMES))
    verbs = ["where", "where", "where", "select", "with_columns", "order_by", "rename", "drop", "distinct_by"]
    verbs += ["group", "distinct", "limit"]
    if asked.exact:
        verbs.append("window")
    if depth:
        verbs += ["join", "join", "union"]
    match draw(st.sampled_from(verbs)):
        case "where":
            return replace(asked, query=query.where(of_kind(draw, asked, "bool", 3)))
        case "with_columns":
            kind = draw(st.sampled_from(SIMPLE))
            made = query.with_columns(**{name: of_kind(draw, asked, kind)})
            return replace(asked, query=made, columns={**columns, name: kind}, is_ordered=False)
        case "window":
            window, kind = _window(draw, asked)
            return replace(
                asked, query=query.with_columns(**{name: window}), columns={**columns, name: kind}, is_ordered=False
            )
        case "select":
            kept = draw(st.lists(st.sampled_from(list(columns)), max_size=4, unique=True))
            kind = draw(st.sampled_from(SIMPLE))
            more = {} if name in kept and kept else {name: of_kind(draw, asked, kind)}
            chosen = {**{each: columns[each] for each in kept}, **dict.fromkeys(more, kind)}
            is_of_runs = asked.is_of_runs and "run_id" in kept
            return Asked(query.select(*kept, **more), chosen, is_of_runs)
        case "order_by" if asked.exact:
            is_ordered = "rough" not in columns.values()
            return replace(asked, query=query.order_by(*_total(draw, asked)), is_ordered=is_ordered)
        case "limit" if asked.exact and "rough" not in columns.values():
            ordered = query.order_by(*_total(draw, asked))
            some = draw(st.integers(0, 6))
            sliced = ordered.limit(some) if draw(st.booleans()) else ordered.offset(some)
            return replace(asked, query=sliced, is_ordered=True)
        case "rename":
            old = draw(st.sampled_from(list(columns)))
            if name not in columns and old != "run_id":
                named = {name if each == old else each: kind for each, kind in columns.items()}
                return replace(asked, query=query.rename(**{old: name}), columns=named)
        case "drop" if len(columns) > 2:
            gone = draw(st.sampled_from(list(columns)))
            left = {each: kind for each, kind in columns.items() if each != gone}
            return Asked(query.drop(gone), left, asked.is_of_runs and gone != "run_id")
        case "distinct" if "rough" not in columns.values():
            return replace(asked, query=query.select(*columns).distinct(), is_ordered=False)
        case "distinct_by" if asked.exact and "rough" not in columns.values():
            keys = draw(st.lists(st.sampled_from(asked.exact), min_size=1, max_size=2, unique=True))
            return replace(asked, query=query.distinct(*keys, order_by=_total(draw, asked)), is_ordered=False)
        case "group":
            return _grouped(draw, asked)
        case "union":
            return _united(draw, lake, asked)
        case "join":
            return _joined(draw, lake, asked, depth)
    return asked


def _grouped(draw: Draw, asked: Asked) -> Asked:
    keys: dict[str, Expr] = {}
    columns: dict[str, str] = {}
    for key in draw(st.lists(st.sampled_from(["run_id", "metric", "k1", "k2"]), max_size=3, unique=True)):
        if key in asked.exact:
            keys[key], columns[key] = col(key), asked.columns[key]
        elif key.startswith("k"):
            kind = draw(st.sampled_from(SIMPLE))
            keys[key], columns[key] = of_kind(draw, asked, kind, 1), kind
    made = {}
    for name in draw(st.lists(st.sampled_from(["n", "m", "M"]), min_size=1, max_size=3, unique=True)):
        made[name], columns[name] = _aggregate(draw, asked)
    return Asked(asked.query.group_by(**keys).agg(**made), columns, asked.is_of_runs and "run_id" in keys)


def _united(draw: Draw, lake: Lake, asked: Asked) -> Asked:
    if draw(st.booleans()):
        other = asked.query.where(of_kind(draw, asked, "bool"))
        both = asked.query.select(*asked.columns).union(other.select(*draw(st.permutations(list(asked.columns)))))
        return replace(asked, query=both, is_ordered=False)
    other = queries(draw, lake, 0)
    columns = {"x": "int", "y": "text"}
    one, two = (
        each.query.select(x=of_kind(draw, each, "int"), y=of_kind(draw, each, "text")) for each in (asked, other)
    )
    if draw(st.booleans()):
        one = one.with_columns(x=col("x").cast(float))
        columns = {"x": "float", "y": "text"}
    return Asked(one.union(two), columns, is_of_runs=False)


def _joined(draw: Draw, lake: Lake, asked: Asked, depth: int) -> Asked:
    other = queries(draw, lake, depth - 1)
    both = [name for name in asked.exact if asked.columns[name] == other.columns.get(name)]
    if not both:
        return asked
    on = draw(st.lists(st.sampled_from(both), min_size=1, max_size=2, unique=True))
    how = draw(st.sampled_from(["inner", "left", "semi", "anti", "full"]))
    left, right = asked.query.select(*asked.columns), other.query.select(*other.columns)
    columns = dict(asked.columns)
    if how in ("semi", "anti"):
        return replace(asked, query=left.join(right, on, how), is_ordered=False)
    for name, kind in other.columns.items():
        if name not in on:
            columns[f"{name}_right" if name in asked.columns else name] = kind
    if len(columns) < len(asked.columns) + len(other.columns) - len(on):
        return asked
    return Asked(left.join(right, on, how), columns, asked.is_of_runs)


def queries(draw: Draw, lake: Lake, depth: int = 2) -> Asked:
    """Return a random query."""
    asked = _started(draw, lake)
    for _ in range(draw(st.integers(0, 4))):
        asked = _with_verb(draw, lake, asked, depth)
    return asked
