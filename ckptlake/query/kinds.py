"""The kinds of values that a query tells apart, and what becomes of them in each function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from ckptlake.errors import InvalidInputError

_T = TypeVar("_T")
NUMERIC: Final = frozenset({"int", "float"})
ORDERED: Final = frozenset({"int", "float", "text", "time", "date", "bool", "duration", "bytes"})
_OF_CONST: Final = {
    "NoneType": "null", "bool": "bool", "int": "int", "float": "float", "str": "text", "bytes": "bytes",
    "datetime": "time", "date": "date", "timedelta": "duration", "time": "clock", "tuple": "list",
}  # fmt: skip
_OF_DUCKDB: Final = {
    "BOOLEAN": "bool", "DOUBLE": "float", "FLOAT": "float", "VARCHAR": "text", "DATE": "date", "BLOB": "bytes",
    "TINYINT": "int", "SMALLINT": "int", "INTEGER": "int", "BIGINT": "int", "HUGEINT": "int", "UBIGINT": "int",
    "UINTEGER": "int", "USMALLINT": "int", "UTINYINT": "int", "INTERVAL": "duration", "TIMESTAMP": "time",
    "TIMESTAMP WITH TIME ZONE": "time", "UHUGEINT": "int",
}  # fmt: skip
_OF_PARAM: Final = {"bool": "bool", "int": "int", "number": "float", "text": "text", "mixed": "text"}
_COUNTS: Final = frozenset({"count", "nan_count", "arg_min", "arg_max", "last_step"})
_OF_PLACES: Final = frozenset({"row_number", "rank", "lag", "lead"})
_TEXT_TESTS: Final = frozenset({"like", "ilike", "matches", "starts_with", "ends_with", "contains"})
_COMPARING: Final = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "is_in", "between"})
_FLOAT_OF_NUMBER: Final = frozenset({"log", "log10", "exp", "sqrt", "div", "pow"})
_NUMBER_OF_NUMBERS: Final = frozenset({"add", "sub", "mul", "mod", "floordiv", "neg", "abs", "round", "floor", "ceil"})


def kind_of_duckdb(name: str) -> str:
    """Return the kind of one of DuckDB's types.

    >>> kind_of_duckdb("BIGINT"), kind_of_duckdb("VARCHAR[]"), kind_of_duckdb("TIMESTAMP WITH TIME ZONE")
    ('int', 'list', 'time')
    """
    if name.endswith("]"):
        return "list"
    return "float" if name.startswith("DECIMAL") else _OF_DUCKDB.get(name, "other")


def kind_of_const(kind: str) -> str:
    """Return the kind of a Python value, by the name of its type."""
    return _OF_CONST.get(kind, "other")


def peers(function: str, args: Sequence[_T]) -> Sequence[_T]:
    """Return the arguments that tell of each other what they are; a count of rows tells nothing."""
    return args[:1] if function in ("lag", "lead") else args


def kind_of_param(read: str) -> str:
    """Return the kind of a param that is read as a ``bool``, an ``int``, a ``number``, a ``text`` or as ``mixed``."""
    return _OF_PARAM[read]


def kind_of_metric(reading: str) -> str:
    """Return the kind of a number of a curve: counts and steps are integers, values are floats."""
    return "int" if reading in _COUNTS else "float"


def kind_of_call(function: str, kinds: Sequence[str], told: str) -> str:
    """Return the kind of what a function makes of values of these kinds.

    Raises:
        InvalidInputError: it takes no such values; `told` is how the call is written.
    """
    known = [kind for kind in kinds if kind != "null"]
    if function in ("and", "or", "not"):
        _check(known, frozenset({"bool"}), f"{told}: only conditions can be combined", "compare first")
        return "bool"
    if function in _TEXT_TESTS:
        _check(known, frozenset({"text"}), f"{told}: only texts can be searched", "cast(str) makes a text")
        return "bool"
    if function in _COMPARING:
        _check_comparable([kind for kind in known if kind != "list"], told)
        return "bool"
    if function == "in_subtree":
        return "bool"
    if function in ("is_null", "is_nan", "is_finite"):
        if function != "is_null":
            _check(known, NUMERIC, f"{told}: only numbers can be NaN or infinite", "")
        return "bool"
    if function in ("lower", "upper", "length"):
        _check(known, frozenset({"text"}), f"{told}: only texts have that", "cast(str) makes a text")
        return "int" if function == "length" else "text"
    if function == "seconds":
        _check(known, frozenset({"duration", "time", "date"}), f"{told}: only times and durations have that", "")
        return "float"
    if function == "coalesce":
        _check_comparable(known, told)
        return _widest(known)
    if function in ("lag", "lead"):
        return kinds[0]
    if function in ("row_number", "rank"):
        return "int"
    return _of_arithmetic(function, known, told)


def _of_arithmetic(function: str, known: Sequence[str], told: str) -> str:
    if function not in _NUMBER_OF_NUMBERS | _FLOAT_OF_NUMBER:
        raise InvalidInputError(f"{told}: there is no function {function!r:.40}")
    if function in ("add", "sub") and set(known) - NUMERIC:
        kinds = tuple(known)
        if kinds in (("time", "duration"), ("duration", "time"), ("date", "duration")):
            return "time"
        if function == "sub" and kinds in (("time", "time"), ("date", "date")):
            return "duration"
        if kinds == ("text", "text") and function == "add":
            return "text"
        if kinds == ("duration", "duration"):
            return "duration"
    _check(known, NUMERIC, f"{told}: only numbers can be calculated with", "cast(float) makes a number")
    if function in _FLOAT_OF_NUMBER:
        return "float"
    return _widest(known)


def check_place(function: str, told: str) -> None:
    """Refuse what is no function of places among rows.

    Raises:
        InvalidInputError: there is no such function.
    """
    if function not in _OF_PLACES:
        raise InvalidInputError(f"{told}: there is no function {function!r:.40}")


def kind_of_aggregate(function: str, kinds: Sequence[str], told: str) -> str:
    """Return the kind of what an aggregate makes of values of these kinds.

    Raises:
        InvalidInputError: it takes no such values.
    """
    if function in ("count", "count_rows", "n_unique"):
        return "int"
    if function in ("any", "all"):
        _check(
            [kind for kind in kinds if kind != "null"], frozenset({"bool"}), f"{told}: only conditions have that", ""
        )
        return "bool"
    if function in ("mean", "std", "quantile", "ema", "sum"):
        _check([k for k in kinds if k != "null"], NUMERIC, f"{told}: only numbers have that", "cast(float) makes one")
        return kinds[0] if function == "sum" else "float"
    if function not in ("min", "max", "arg_min", "arg_max"):
        raise InvalidInputError(f"{told}: there is no aggregate {function!r:.40}")
    if kinds[-1] not in ORDERED | {"null"}:
        raise InvalidInputError(f"{told}: a {kinds[-1]} has no order")
    return kinds[0]


def _widest(kinds: Sequence[str]) -> str:
    if set(kinds) <= {"int"}:
        return "int" if kinds else "null"
    return "float" if set(kinds) <= NUMERIC else next(iter(kinds))


def _check(kinds: Sequence[str], accepted: frozenset[str], problem: str, remedy: str) -> None:
    wrong = [kind for kind in kinds if kind not in accepted]
    if wrong:
        raise InvalidInputError(f"{problem}, got a {wrong[0]}{f'; {remedy}' if remedy else ''}")


def _check_comparable(kinds: Sequence[str], told: str) -> None:
    groups: Mapping[str, str] = {"float": "int", "date": "time"}
    found = {groups.get(kind, kind) for kind in kinds}
    if len(found) > 1:
        first, second = sorted(found)[:2]
        one, other = ("number" if kind == "int" else kind for kind in (first, second))
        raise InvalidInputError(f"{told}: a {one} and a {other} cannot be compared; cast one of them")
