"""How params, tags and numbers of curves are read off the views that hold them, one row a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ckptlake.query import nodes as n
from ckptlake.query.dialects import Text

Noun: TypeAlias = n.Param | n.Tag | n.Metric
Members: TypeAlias = Sequence[tuple[str, Noun]]
"""Nouns of one view with the names of their columns."""
Bind = Callable[[n.Const], str]
"""Returns the parameter that stands for a value."""
_READINGS = {
    "min": "min(min)",
    "max": "max(max)",
    "first": "arg_min(first, first_step)",
    "last": "arg_max(last, last_step)",
    "mean": "sum(sum){filter} / nullif(sum(n - n_nan){filter}, 0)",
    "count": "CAST(sum(n) AS BIGINT)",
    "nan_count": "CAST(sum(n_nan) AS BIGINT)",
    "arg_min": "arg_min(min_step, min)",
    "arg_max": "arg_max(max_step, max)",
    "last_step": "max(last_step)",
}
"""How the numbers of a curve are read off the rows of `summaries`."""


_KIND_OF_PARAM = {"bool": "bool", "int": "int", "number": "float", "text": "text", "mixed": "text"}


def home_of(noun: Noun) -> str:
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


def value_of(noun: Noun, bound: Bind) -> Text:
    match noun:
        case n.Param(key, kind):
            mine = f" FILTER (key = {bound(n.Const.of(key))})"
            if kind in ("text", "mixed"):
                return Text(f"any_value(value){mine}", "text")
            number = f"any_value(number){mine}"
            stored = {"bool": "BOOLEAN", "int": "BIGINT"}.get(str(kind))
            text = number if stored is None else f"CAST({number} AS {stored})"
            return Text(text, _KIND_OF_PARAM[str(kind)])
        case n.Tag(key):
            return Text(f"any_value(value) FILTER (key = {bound(n.Const.of(key))})", "text")
        case n.Metric(name, "at", step):
            mine = f" FILTER (metric = {bound(n.Const.of(name))} AND step = {step})"
            return Text(f"any_value(value){mine}", "float")
        case n.Metric(name, reading):
            mine = f" FILTER (metric = {bound(n.Const.of(name))})"
            kind = "int" if reading in ("count", "nan_count", "arg_min", "arg_max", "last_step") else "float"
            read = _READINGS[reading]
            text = read.format(filter=mine) if "{filter}" in read else _filtered(read, mine)
            return Text(text, kind)


def _metrics_of(members: Members) -> list[str]:
    return list(dict.fromkeys(noun.name for _, noun in members if isinstance(noun, n.Metric)))


def _filtered(text: str, mine: str) -> str:
    """Return an aggregate of the rows of one metric alone."""
    if text.startswith("CAST("):
        return text.replace(" AS ", f"{mine} AS ")
    return f"{text}{mine}"
