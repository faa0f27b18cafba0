"""What a search asks for as a query of runs, best matches first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ckptlake.query import nodes as n
from ckptlake.query.builder import Query
from ckptlake.query.expressions import Expr
from ckptlake.query.search import Ranks
from ckptlake.query.search_text import Field, Filter, Search
from ckptlake.query.search_values import Condition, Operator
from ckptlake.query.session import Session
from ckptlake.query.vocabulary import col, lit, metric, param, tag

SCORE = "score"
_ROWS = {Field.STATUS: "status", Field.NAME: "name", Field.ID: "run_id", Field.HOST: "host"}
_TESTS: dict[Operator, Callable[[Expr, Any], Expr]] = {
    Operator.EQUAL: lambda value, wanted: value == wanted,
    Operator.LESS: lambda value, wanted: value < wanted,
    Operator.AT_MOST: lambda value, wanted: value <= wanted,
    Operator.MORE: lambda value, wanted: value > wanted,
    Operator.AT_LEAST: lambda value, wanted: value >= wanted,
    Operator.PREFIX: lambda value, wanted: value.starts_with(wanted),
}


def query_of(session: Session, search: Search, ranks: Ranks | None) -> Query:
    """Return the runs that a search finds, with their `score` where it has words, the best first.

    Raises:
        InvalidInputError: a param, tag or metric in it is unknown; the message tells the nearest.
    """
    runs = Query(n.View("runs"), session)
    for each in search.filters:
        holds = _condition(each, session).coalesce(lit(False))
        runs = runs.where(~holds if each.is_negated else holds)
    if ranks is None:
        return runs.order_by(col("started_at").desc(), "run_id")
    given = (
        ("run_id", "text", tuple(run for run, _ in ranks)),
        (SCORE, "float", tuple(float(score) for _, score in ranks)),
    )
    found = runs.join(Query(n.Given(given), session), on="run_id")
    return found.order_by(col(SCORE).desc(), col("started_at").desc(), "run_id")


def _condition(wanted: Filter, session: Session) -> Expr:
    condition = wanted.condition
    match wanted.field:
        case Field.EXPERIMENT if condition.operator is Operator.SUBTREE:
            return Expr(n.Call("in_subtree", (n.Column("experiment"), n.Const.of(str(condition.values[0])))))
        case Field.EXPERIMENT:
            return _test(col("experiment"), condition)
        case Field.STARTED:
            return _test(col("started_at"), condition)
        case Field.TAG if condition.operator is Operator.KEY_PREFIX:
            keys = [key for key in session.names().tags() if key.startswith(wanted.key)]
            return _any(tag(key).is_not_null() for key in keys)
        case Field.TAG:
            return _test(tag(wanted.key), _as_text(condition))
        case Field.PARAM:
            is_text = session.names().params().get(wanted.key) == "text"
            return _test(param(wanted.key), _as_text(condition) if is_text else condition)
        case Field.LAST:
            return _test(metric(wanted.key).last(), condition)
        case Field.BEST:
            number = metric(wanted.key)
            is_low = session.direction(wanted.key, None) == "min"
            return _test(number.min() if is_low else number.max(), condition)
    return _test(col(_ROWS[wanted.field]), _as_text(condition))


def _test(value: Expr, condition: Condition) -> Expr:
    match condition.operator, condition.values:
        case Operator.EXISTS, _:
            return value.is_not_null()
        case Operator.BETWEEN, (low, high):
            return value.between(low, high)
        case Operator.WITHIN, (first, end):
            return (value >= first) & (value < end)
    return _TESTS[condition.operator](value, condition.values[0])


def _as_text(condition: Condition) -> Condition:
    """Return a condition that compares with what was written, as the value kept is a text."""
    if len(condition.values) != 1 or isinstance(condition.values[0], str):
        return condition
    return Condition(condition.operator, (condition.written or str(condition.values[0]),), condition.written)


def _any(conditions: Any) -> Expr:
    found = lit(False)
    for condition in conditions:
        found = found | condition
    return found
