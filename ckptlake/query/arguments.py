"""Arguments of a query's verbs, checked."""

from __future__ import annotations

from collections.abc import Sequence

from ckptlake._internal.names import check_name
from ckptlake.errors import InvalidInputError
from ckptlake.query import nodes as n
from ckptlake.query.expressions import as_column
from ckptlake.query.showing import shown


def named_values(columns: Sequence[object], named: dict[str, object]) -> tuple[n.Named, ...]:
    made = []
    for column in columns:
        expression = as_column(column)
        made.append((expression.name or shown(expression.node), expression.node))
    made += [(check_name("the name of a column", name), as_column(value).node) for name, value in named.items()]
    return tuple(made)


def whole(what: str, value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise InvalidInputError(f"{what} takes a whole number from 0 on, got {value!r:.40}")
    return value


def positive(what: str, value: object) -> int:
    if type(value) is not int or not 0 < value < 2**62:
        raise InvalidInputError(f"{what} takes a whole number from 1 on, got {value!r:.40}")
    return value
