"""Queries with a name: what each answers, which values it takes, and what its columns mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, Literal, get_args

from ckptlake.errors import InvalidInputError

ParameterType = Literal["text", "integer", "number", "boolean"]
PARAMETER_TYPES: tuple[ParameterType, ...] = get_args(ParameterType)
Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that a query takes.

    Attributes:
        name: by which it is given, and `$name` in the text.
        type: ``text``, ``integer``, ``number`` or ``boolean``.
        meaning: what it is, in words.
        required: whether it must be given.
        default: what it is otherwise; None allows it to be None.
    """

    name: str
    type: ParameterType
    meaning: str
    required: bool = True
    default: Value = None

    def check(self, value: object) -> Value:
        """Return `value` as what is bound.

        Raises:
            InvalidInputError: it is of another type.

        >>> Parameter("minutes", "number", "for how long").check(10)
        10.0
        """
        if value is None and not self.required and self.default is None:
            return None
        if self.type == "text" and isinstance(value, str):
            return value
        if self.type == "boolean" and isinstance(value, bool):
            return value
        if not isinstance(value, bool):
            if self.type == "integer" and isinstance(value, Integral):
                return int(value)
            if self.type == "number" and isinstance(value, Real) and math.isfinite(value):
                return float(value)
        kind = f"a finite {self.type}" if self.type == "number" else f"{_ARTICLES.get(self.type, '')}{self.type}"
        raise InvalidInputError(f"{self.name} must be {kind}, not {value!r:.60}: {self.meaning}")

    def __str__(self) -> str:
        return self.name if self.required else f"[{self.name}]"


_HINTS = 3
_ARTICLES = {"integer": "an ", "boolean": "a "}


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a query returns."""

    name: str
    meaning: str


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """A question with a name.

    Attributes:
        name: what `lake.query` and ``ckptlake query`` know it by.
        title: what it is called on a page.
        description: what it answers.
        parameters: the values it takes.
        columns: what it returns, in order.
        text: its SQL, which names the values ``$name``; it runs on the views of a lake.
    """

    name: str
    title: str
    description: str
    parameters: tuple[Parameter, ...]
    columns: tuple[Column, ...]
    text: str

    def bind(self, **values: object) -> dict[str, Any]:
        """Return a value for each parameter: those given, checked, and defaults for the others.

        Raises:
            InvalidInputError: one is unknown, missing or of another type; the message says which there are.

        >>> days = Parameter("days", "integer", "how old")
        >>> query = NamedQuery("old", "Old", "Old runs.", (days,), (), "SELECT $days")
        >>> query.bind(days=3)
        {'days': 3}
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in values.keys() - known.keys():
            raise InvalidInputError(f"the query {self.name!r} has no parameter {name!r}{self._hint(name)}")
        missing = [name for name, parameter in known.items() if parameter.required and name not in values]
        if missing:
            parameter = known[missing[0]]
            raise InvalidInputError(
                f"the query {self.name!r} needs {parameter.name}, {parameter.meaning}: give {parameter.name}=…"
            )
        return {
            name: parameter.check(values[name]) if name in values else parameter.default
            for name, parameter in known.items()
        }

    def _hint(self, name: str) -> str:
        if not self.parameters:
            return "; it takes none"
        return nearest(name, [parameter.name for parameter in self.parameters], "it takes")

    def described(self) -> Mapping[str, object]:
        """Return all but the text as plain values, for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "parameters": [
                {
                    "name": parameter.name,
                    "type": parameter.type,
                    "required": parameter.required,
                    "default": parameter.default,
                    "meaning": parameter.meaning,
                }
                for parameter in self.parameters
            ],
            "columns": [{"name": column.name, "meaning": column.meaning} for column in self.columns],
        }


def nearest(name: str, known: Iterable[str], there_are: str) -> str:
    """Return the end of a message about an unknown name: the nearest known ones, else all.

    >>> nearest("leader", ["leaderboard", "dead_layers"], "there are")
    "; did you mean 'leaderboard'?"
    """
    names = list(known)
    parts = [one for one in names if name and name.lower() in one]
    near = list(dict.fromkeys([*parts, *get_close_matches(name.lower(), names)]))
    if near:
        return f"; did you mean {' or '.join(map(repr, near[:_HINTS]))}?"
    return f"; {there_are} {', '.join(names)}"
