"""What a query means, told a second time: its nodes interpreted row by row on Polars frames of the views.

It shares the nodes with the query builder and nothing else, and is written to be plainly right rather than fast.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ckptlake.query import nodes as n

Rows = Sequence[int]
TIME = pl.Datetime("us", "UTC")
_KINDS = {bool: pl.Boolean, int: pl.Int64, float: pl.Float64, str: pl.String, type(None): pl.Null}
_CASTS = {"int": pl.Int64, "float": pl.Float64, "text": pl.String, "bool": pl.Boolean}
_COUNTS = {"count", "nan_count", "arg_min", "arg_max", "last_step"}


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def place(value: Any) -> tuple[bool, Any]:
    """Return what to compare a value by: NaN equals itself and is above all numbers."""
    return (True, 0) if is_nan(value) else (False, value)


def key_of(values: Sequence[Any]) -> Hashable:
    return tuple(None if value is None else place(value) for value in values)


# -- functions of one row; all but those in _NULL_AWARE are null where a value is


def _divided(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if not a or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _floordiv(a: float, b: float) -> float | None:
    if b:
        return a // b
    return None if isinstance(a, int) and isinstance(b, int) else _divided(a, b)


def _mod(a: float, b: float) -> float | None:
    if isinstance(a, int) and isinstance(b, int):
        return a % b if b else None
    return math.nan if not b or math.isinf(a) or math.isnan(a) else a % b


def _rounded(value: float, digits: int) -> float:
    assert digits == 0
    if isinstance(value, int) or not math.isfinite(value):
        return value
    return math.copysign(math.floor(abs(value) + 0.5), value)


def _log(value: float, base: Callable[[float], float]) -> float:
    if math.isnan(value) or value < 0:
        return math.nan
    return base(value) if value else -math.inf


def _matched(text: str, pattern: str, flags: int) -> bool:
    parts = {"%": ".*", "_": "."}
    return (
        re.fullmatch("".join(parts.get(sign, re.escape(sign)) for sign in pattern), text, flags | re.DOTALL) is not None
    )


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: value if isinstance(value, int) or not math.isfinite(value) else float(function(value))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": lambda a, b: place(a) == place(b),
    "ne": lambda a, b: place(a) != place(b),
    "lt": lambda a, b: place(a) < place(b),
    "le": lambda a, b: place(a) <= place(b),
    "gt": lambda a, b: place(a) > place(b),
    "ge": lambda a, b: place(a) >= place(b),
    "not": lambda a: not a,
    "is_nan": is_nan,
    "is_finite": lambda a: math.isfinite(a),
    "like": lambda a, b: _matched(a, b, 0),
    "ilike": lambda a, b: _matched(a, b, re.IGNORECASE),
    "matches": lambda a, b: re.search(b, a) is not None,
    "starts_with": lambda a, b: a.startswith(b),
    "ends_with": lambda a, b: a.endswith(b),
    "contains": lambda a, b: b in a,
    "in_subtree": lambda a, b: a == b or a.startswith(b + "/"),
    "lower": str.lower,
    "upper": str.upper,
    "length": len,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: _divided(float(a), float(b)),
    "floordiv": _floordiv,
    "mod": _mod,
    "neg": lambda a: -a,
    "abs": abs,
    "round": _rounded,
    "floor": _whole(math.floor),
    "ceil": _whole(math.ceil),
    "sqrt": lambda a: math.sqrt(a) if a >= 0 else math.nan,
    "log": lambda a: _log(a, math.log),
    "log10": lambda a: _log(a, math.log10),
}


def _and(*values: bool | None) -> bool | None:
    return False if False in values else None if None in values else True


def _or(*values: bool | None) -> bool | None:
    return True if True in values else None if None in values else False


def _equal(a: Any, b: Any) -> bool | None:
    return None if a is None or b is None else place(a) == place(b)


def _between(value: Any, low: Any, high: Any) -> bool | None:
    least = None if value is None or low is None else place(value) >= place(low)
    most = None if value is None or high is None else place(value) <= place(high)
    return _and(least, most)


_NULL_AWARE: dict[str, Callable[..., Any]] = {
    "and": _and,
    "or": _or,
    "is_null": lambda value: value is None,
    "is_in": lambda value, *members: _or(*(_equal(value, member) for member in members)),
    "between": _between,
    "coalesce": lambda *values: next((value for value in values if value is not None), None),
}
_BOOLEAN = {
    "eq", "ne", "lt", "le", "gt", "ge", "not", "and", "or", "is_null", "is_in", "between", "is_nan", "is_finite",
    "like", "ilike", "matches", "starts_with", "ends_with", "contains", "in_subtree",
}  # fmt: skip
_FLOAT = {"div", "sqrt", "log", "log10"}


def _called(function: str, *values: Any) -> Any:
    if function in _NULL_AWARE:
        return _NULL_AWARE[function](*values)
    return None if None in values else _FUNCTIONS[function](*values)


def _type_of_call(function: str, args: Sequence[pl.Series]) -> Any:
    if function in _BOOLEAN:
        return pl.Boolean
    if function in _FLOAT:
        return pl.Float64
    return pl.Int64 if function == "length" else _widest([arg.dtype for arg in args])


def _widest(types: Sequence[Any]) -> Any:
    known = [kind for kind in types if kind != pl.Null]
    if set(known) == {pl.Int64, pl.Float64}:
        return pl.Float64
    return known[0] if known else pl.Null


def _as_type(value: Any, kind: Any) -> Any:
    return float(value) if kind == pl.Float64 and value is not None else value


def _series(values: Sequence[Any], kind: Any) -> pl.Series:
    return pl.Series([_as_type(value, kind) for value in values], dtype=kind)


def _cast(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "text":
        return str(value).lower() if isinstance(value, bool) else str(value)
    return {"int": math.trunc, "float": float, "bool": bool}[kind](value)


# -- aggregates of some rows


def _ordered(values: Sequence[Any]) -> list[Any]:
    return sorted((value for value in values if value is not None and not is_nan(value)), key=place)


def _quantile(values: Sequence[Any], fraction: float) -> float | None:
    known = _ordered(values)
    if not known:
        return None
    where = (len(known) - 1) * fraction
    low, high = float(known[math.floor(where)]), float(known[math.ceil(where)])
    return low if low == high else low + (high - low) * (where - math.floor(where))


def _std(values: Sequence[Any]) -> float | None:
    if len(values) < 2:
        return None
    if not all(map(math.isfinite, values)):
        return math.nan
    middle = sum(values) / len(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))


def _arg(values: Sequence[Any], by: Sequence[Any], sign: int) -> Any:
    known = [(value, at) for value, at in zip(values, by, strict=True) if at is not None and not is_nan(at)]
    if not known:
        return None
    best = (min if sign > 0 else max)(at for _, at in known)
    among = [value for value, at in known if at == best]
    return min((value for value in among if value is not None), key=place, default=None)


def _ema(values: Sequence[Any], alpha: float) -> float | None:
    weights = [(1 - alpha) ** back for back in range(len(values) - 1, -1, -1)]
    return sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights) if values else None


def _aggregated(node: n.Aggregate, args: Sequence[Sequence[Any]], rows: Rows) -> Any:
    if node.function == "count_rows":
        return len(rows)
    chosen = [[arg[row] for row in rows] for arg in args]
    if node.function in ("arg_min", "arg_max"):
        return _arg(chosen[0], chosen[1], 1 if node.function == "arg_min" else -1)
    known = [value for value in chosen[0] if value is not None]
    match node.function:
        case "count":
            return len(known)
        case "n_unique":
            return len({place(value) for value in known})
        case "sum":
            return sum(known) if known else None
        case "mean":
            return sum(known) / len(known) if known else None
        case "std":
            return _std(known)
        case "min":
            return next(iter(_ordered(known)), None)
        case "max":
            return next(reversed(_ordered(known)), None)
        case "any":
            return any(known) if known else None
        case "all":
            return all(known) if known else None
        case "quantile":
            return _quantile(known, float(str(node.settings[0])))
        case "ema":
            return _ema(known, float(str(node.settings[0])))
    raise AssertionError(node.function)


def _type_of_aggregate(node: n.Aggregate, args: Sequence[pl.Series]) -> Any:
    if node.function in ("count", "count_rows", "n_unique"):
        return pl.Int64
    if node.function in ("mean", "std", "quantile", "ema"):
        return pl.Float64
    return args[0].dtype


# -- tables


@dataclass(frozen=True)
class _Groups:
    """Rows of a frame in groups, on which aggregates and the keys are values."""

    frame: pl.DataFrame
    rows: Sequence[Rows]
    keys: Mapping[n.Value, pl.Series]

    @property
    def height(self) -> int:
        return len(self.rows)


class Oracle:
    """Answers queries from the frames of a lake's views."""

    def __init__(self, views: Mapping[str, pl.DataFrame]) -> None:
        self._views = views
        points: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for row in views["metrics"].sort("step").iter_rows(named=True):
            points.setdefault((row["run_id"], row["metric"]), []).append((row["step"], row["value"]))
        self._points = points
        self._params = {(row["run_id"], row["key"]): row for row in views["params"].iter_rows(named=True)}
        self._tags = {(row["run_id"], row["key"]): row["value"] for row in views["tags"].iter_rows(named=True)}

    def answer(self, table: n.Table) -> pl.DataFrame:
        match table:
            case n.View(name):
                return self._views[name]
            case n.Filter(source, condition):
                frame = self.answer(source)
                return frame.filter(self._value(condition, frame).fill_null(False).cast(pl.Boolean))
            case n.Project(source, columns):
                frame = self.answer(source)
                return self._made(frame, columns)
            case n.Extend(source, columns):
                frame = self.answer(source)
                return frame.with_columns(self._made(frame, columns))
            case n.Rename(source, pairs):
                return self.answer(source).rename(dict(pairs))
            case n.Drop(source, names):
                return self.answer(source).drop(*names)
            case n.Sort(source, keys):
                frame = self.answer(source)
                return frame[self._in_order(range(frame.height), keys, frame)]
            case n.Slice(source, length, offset):
                return self.answer(source).slice(offset, length)
            case n.Distinct(source, names, keys):
                frame = self.answer(source)
                frame = frame[self._in_order(range(frame.height), keys, frame)]
                groups = _grouped([frame[name] for name in names or frame.columns], frame.height)
                return frame[[rows[0] for rows in groups]]
            case n.Union(first, second):
                top, bottom = self.answer(first), self.answer(second)
                kinds = {name: _widest([top[name].dtype, bottom[name].dtype]) for name in top.columns}
                both = {name: _series([*top[name], *bottom[name]], kind) for name, kind in kinds.items()}
                return pl.DataFrame(both)
            case n.Group():
                return self._group(table)
            case n.Join():
                return _joined(self.answer(table.left), self.answer(table.right), table)
        raise AssertionError(table)

    def _made(self, on: pl.DataFrame | _Groups, columns: Sequence[n.Named]) -> pl.DataFrame:
        return pl.DataFrame({name: self._value(value, on) for name, value in columns})

    def _group(self, table: n.Group) -> pl.DataFrame:
        frame = self.answer(table.source)
        keys = [self._value(value, frame) for _, value in table.keys]
        rows = _grouped(keys, frame.height) if keys else [range(frame.height)]
        firsts = [key[[group[0] for group in rows]] for key in keys] if keys else []
        known = {value: first for (_, value), first in zip(table.keys, firsts, strict=True)}
        return self._made(_Groups(frame, rows, known), (*table.keys, *table.columns))

    def _in_order(self, rows: Rows, keys: Sequence[n.Order], frame: pl.DataFrame) -> list[int]:
        found = list(rows)
        for key in reversed(keys):
            values = self._value(key.value, frame).to_list()
            there = [row for row in found if values[row] is not None]
            there.sort(key=lambda row, values=values: place(values[row]), reverse=key.descending)  # type: ignore[misc]
            found = [*there, *(row for row in found if values[row] is None)]
        return found

    # -- values

    def _value(self, value: n.Value, on: pl.DataFrame | _Groups) -> pl.Series:
        if isinstance(on, _Groups):
            if value in on.keys:
                return on.keys[value]
            if isinstance(value, n.Aggregate):
                args = [self._value(arg, on.frame) for arg in value.args]
                lists = [arg.to_list() for arg in args]
                made = [_aggregated(value, lists, rows) for rows in on.rows]
                return _series(made, _type_of_aggregate(value, args))
        match value:
            case n.Column(name):
                assert isinstance(on, pl.DataFrame)
                return on[name]
            case n.Const(held):
                return pl.Series([held] * on.height, dtype=_KINDS.get(type(held), TIME))
            case n.Param() | n.Tag() | n.Metric():
                return self._noun(value, on)
            case n.Call(function, args):
                series = [self._argument(arg, args, on) for arg in args]
                made = [_called(function, *row) for row in zip(*series, strict=True)]
                return _series(made, _type_of_call(function, series))
            case n.Case(branches, default):
                tests = [self._value(test, on) for test, _ in branches]
                series = [*(self._value(then, on) for _, then in branches), self._value(default, on)]
                made = [
                    next((then[row] for test, then in zip(tests, series, strict=False) if test[row]), series[-1][row])
                    for row in range(on.height)
                ]
                return _series(made, _widest([one.dtype for one in series]))
            case n.Cast(inner, kind):
                return _series([_cast(one, kind) for one in self._value(inner, on)], _CASTS[kind])
            case n.Window():
                assert isinstance(on, pl.DataFrame)
                return self._window(value, on)
        raise AssertionError(value)

    def _argument(self, arg: n.Value, args: Sequence[n.Value], on: pl.DataFrame | _Groups) -> pl.Series:
        """Return an argument; a param is read as what stands beside it."""
        if isinstance(arg, n.Param):
            beside = {type(other.value) for other in args if isinstance(other, n.Const)}
            if beside & {str, int, float, bool}:
                reading = "text" if str in beside else "bool" if beside == {bool} else "number"
                is_whole = reading == "number" and self._kinds_of_param(arg.key) == {"int"}
                return self._param(arg.key, "int" if is_whole else reading, on)
        return self._value(arg, on)

    def _kinds_of_param(self, key: str) -> set[str]:
        return {row["kind"] for (_, known), row in self._params.items() if known == key}

    def _noun(self, noun: n.Param | n.Tag | n.Metric, on: Any) -> pl.Series:
        if isinstance(noun, n.Param):
            kinds = self._kinds_of_param(noun.key)
            reading = {frozenset({"int"}): "int", frozenset({"bool"}): "bool"}.get(frozenset(kinds))
            return self._param(noun.key, reading or ("number" if kinds <= {"int", "float", "null"} else "text"), on)
        if isinstance(noun, n.Tag):
            return _series([self._tags.get((run, noun.key)) for run in on["run_id"]], pl.String)
        kind = pl.Int64 if noun.reading in _COUNTS else pl.Float64
        made = [_reading(self._points.get((run, noun.name), []), noun) for run in on["run_id"]]
        return _series(made, kind)

    def _param(self, key: str, reading: str, on: Any) -> pl.Series:
        column = "value" if reading == "text" else "number"
        kind = {"text": pl.String, "number": pl.Float64, "int": pl.Int64, "bool": pl.Boolean}[reading]
        as_kind = {"int": int, "bool": bool}.get(reading, lambda value: value)
        found = [self._params.get((run, key), {}).get(column) for run in on["run_id"]]
        return _series([None if value is None else as_kind(value) for value in found], kind)

    def _window(self, window: n.Window, frame: pl.DataFrame) -> pl.Series:
        parts = [self._value(part, frame) for part in window.partition]
        found: list[Any] = [None] * frame.height
        args = [self._value(arg, frame) for arg in window.over.args]  # type: ignore[attr-defined]
        lists = [arg.to_list() for arg in args]
        keys = [self._value(key.value, frame).to_list() for key in window.order]
        for group in _grouped(parts, frame.height):
            rows = self._in_order(group, window.order, frame)
            for at, row in enumerate(rows):
                found[row] = _beside(window, lists, keys, rows, at)
        if isinstance(window.over, n.Aggregate):
            return _series(found, _type_of_aggregate(window.over, args))
        return _series(found, args[0].dtype if args else pl.Int64)


def _beside(window: n.Window, args: Sequence[Sequence[Any]], keys: Sequence[Sequence[Any]], rows: Rows, at: int) -> Any:
    """Return a window's value for the row at a place among the rows of its partition."""
    over = window.over
    if isinstance(over, n.Aggregate):
        is_whole = not window.order and window.rows is None and over.function != "ema"
        first = 0 if window.rows is None else max(0, at - window.rows + 1)
        return _aggregated(over, args, rows if is_whole else rows[first : at + 1])
    assert isinstance(over, n.Call)
    if over.function == "row_number":
        return at + 1
    if over.function == "rank":
        mine = key_of([key[rows[at]] for key in keys])
        return 1 + next(i for i, row in enumerate(rows) if key_of([key[row] for key in keys]) == mine)
    back = args[1][0] if over.function == "lag" else -args[1][0]
    return args[0][rows[at - back]] if 0 <= at - back < len(rows) else None


def _reading(points: Sequence[tuple[int, float]], noun: n.Metric) -> Any:
    """Return a number of a curve whose points come by their steps."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    numbers = [value for value in values if not math.isnan(value)]
    match noun.reading:
        case "at":
            return dict(points).get(noun.step)  # type: ignore[arg-type]
        case "count":
            return len(points) or None
        case "nan_count":
            return len(values) - len(numbers) if points else None
        case "last_step":
            return steps[-1] if points else None
        case "first":
            return values[0] if points else None
        case "last":
            return values[-1] if points else None
        case "mean":
            return sum(numbers) / len(numbers) if numbers else None
        case "min" | "max":
            return (min if noun.reading == "min" else max)(numbers, default=None)
        case "arg_min" | "arg_max":
            best = (min if noun.reading == "arg_min" else max)(numbers, default=None)
            return next((step for step, value in points if value == best), None)
    raise AssertionError(noun)


def _grouped(keys: Sequence[pl.Series], height: int) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    lists = [key.to_list() for key in keys]
    for row in range(height):
        groups.setdefault(key_of([values[row] for values in lists]), []).append(row)
    return list(groups.values())


def _joined(left: pl.DataFrame, right: pl.DataFrame, join: n.Join) -> pl.DataFrame:
    there: dict[Hashable, list[int]] = {}
    for row, values in enumerate(right.select(join.on).iter_rows()):
        if None not in values:
            there.setdefault(key_of(values), []).append(row)
    matches = [there.get(key_of(values), []) for values in left.select(join.on).iter_rows()]
    if join.how in ("semi", "anti"):
        return left.filter(pl.Series([bool(found) == (join.how == "semi") for found in matches], dtype=pl.Boolean))
    pairs: list[tuple[int | None, int | None]] = []
    for row, found in enumerate(matches):
        pairs += [(row, other) for other in found]
        if not found and join.how in ("left", "full"):
            pairs.append((row, None))
    if join.how == "full":
        matched = functools.reduce(set.union, map(set, matches), set())  # type: ignore[arg-type]
        pairs += [(None, row) for row in range(right.height) if row not in matched]
    made = {}
    for name in left.columns:
        values = [
            left[name][row] if row is not None else right[name][other] if name in join.on else None
            for row, other in pairs
        ]
        made[name] = pl.Series(values, dtype=left[name].dtype)
    for name in right.columns:
        if name not in join.on:
            values = [None if other is None else right[name][other] for _, other in pairs]
            made[name + join.suffix if name in left.columns else name] = pl.Series(values, dtype=right[name].dtype)
    return pl.DataFrame(made)
