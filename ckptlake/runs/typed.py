"""Values of params and tags with their types kept: number, text, bool, null or JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from argparse import Namespace
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np

from ckptlake._internal.names import check_name, check_text, flatten
from ckptlake.errors import InvalidInputError, ParamChangedError
from ckptlake.runs.scalars import exact_float, shown

_MOST_INTEGER_BITS = 4096
_ACCEPTED = "None, bool, int, float, str, Path, date, Enum, numpy scalar, or a list, tuple or dict of these"


@dataclasses.dataclass(frozen=True, slots=True)
class TypedValue:
    """One value as the tables keep it.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str``, ``null`` or ``json``.
        number: the value as float64 where it is a number or bool; NaN and infinities exact.
        text: the value as text where it is text.
        json: the value as JSON, exact for integers of any size; null for NaN and infinities.
    """

    kind: str
    number: float | None
    text: str | None
    json: str | None

    def same_as(self, other: TypedValue) -> bool:
        """Return whether both are one value; NaN is the same as NaN, and keys of a dict have no order."""
        if self.kind == other.kind == "json":
            return bool(json.loads(self.json or "null") == json.loads(other.json or "null"))
        return repr(self) == repr(other)

    def __str__(self) -> str:
        return self.text if self.text is not None else str(self.json or self.number)

    def columns(self) -> dict[str, object]:
        """Return the value as columns of a row."""
        return {"kind": self.kind, "number": self.number, "text": self.text, "json": self.json}


def typed(kind: str, name: str, value: object) -> TypedValue:
    """Return the value of a param or tag with its type.

    Raises:
        InvalidInputError: the value, or one inside it, has no exact text form; the message names it.
    """
    plain = _plain(f"{kind} {name!r}", value)
    if plain is None:
        return TypedValue("null", None, None, "null")
    if isinstance(plain, bool):
        return TypedValue("bool", float(plain), None, json.dumps(plain))
    if isinstance(plain, int):
        return TypedValue("int", _nearest(plain), None, str(plain))
    if isinstance(plain, float):
        return TypedValue("float", plain, None, json.dumps(plain) if math.isfinite(plain) else None)
    if isinstance(plain, str):
        return TypedValue("str", None, plain, json.dumps(plain))
    return TypedValue("json", None, None, json.dumps(plain))


def _nearest(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _plain(where: str, value: object) -> Any:
    if isinstance(value, int) and value.bit_length() > _MOST_INTEGER_BITS:
        raise InvalidInputError(f"{where}: {shown(value)} is too long; at most {_MOST_INTEGER_BITS} bits are kept")
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, Enum):
        return _plain(where, value.value)
    if isinstance(value, np.longdouble):
        number = exact_float(value)
        if number is None:
            raise InvalidInputError(f"{where}: {value!r} cannot be kept exactly as a float64; pass float(value)")
        return number
    if isinstance(value, np.bool_ | np.integer | np.floating | np.str_) and not isinstance(value, np.timedelta64):
        return _plain(where, value.item())
    if isinstance(value, str):
        return check_text(f"the text of {where}", str(value))
    if isinstance(value, bool | int | float):
        return _plain(where, float(value) if isinstance(value, float) else int(value))
    if isinstance(value, PurePath):
        return check_text(f"the text of {where}", str(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {check_text(f"a key of {where}", str(key)): _finite(where, item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset) or (isinstance(value, np.ndarray) and value.ndim):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [_finite(where, item) for item in items]
    raise InvalidInputError(
        f"{where}: a {type(value).__name__} ({value!r:.80}) is not accepted; accepted are {_ACCEPTED}; "
        "or pass str(value)"
    )


def _finite(where: str, value: object) -> Any:
    plain = _plain(where, value)
    if isinstance(plain, float) and not math.isfinite(plain):
        raise InvalidInputError(f"{where}: JSON cannot hold {plain} inside a list or dict; give it a name of its own")
    return plain


def typed_params(params: object) -> dict[str, TypedValue]:
    """Return params flattened with dots and typed.

    Args:
        params: a mapping, a dataclass instance or an `argparse.Namespace`.

    Raises:
        InvalidInputError: not such a thing, or a value cannot be kept.

    >>> {name: value.kind for name, value in typed_params({"optim": {"lr": 1e-3, "name": "adamw"}}).items()}
    {'optim.lr': 'float', 'optim.name': 'str'}
    """
    if dataclasses.is_dataclass(params) and not isinstance(params, type):
        params = dataclasses.asdict(params)
    elif isinstance(params, Namespace):
        params = vars(params)
    if not isinstance(params, Mapping):
        raise InvalidInputError(
            f"params must be a dict, a dataclass or an argparse.Namespace, got {type(params).__name__}"
        )
    return {name: typed("param", name, value) for name, value in flatten(params, ".", "param").items()}


def check_unchanged(run_id: str, known: Mapping[str, TypedValue], given: Mapping[str, TypedValue]) -> None:
    """Check that no param has another value than before.

    Raises:
        ParamChangedError: one has; the message names both values.
    """
    for name, value in given.items():
        if name in known and not known[name].same_as(value):
            raise ParamChangedError(
                f"param {name!r} of run {run_id} is {known[name]} and cannot become {value}; start another run, or "
                "pass allow_change=True"
            )


def typed_tags(tags: Mapping[str, object] | Iterable[str] | str) -> dict[str, TypedValue]:
    """Return tags typed; a tag given by name alone is true.

    >>> {name: value.kind for name, value in typed_tags(["baseline"]).items()}
    {'baseline': 'bool'}
    """
    if isinstance(tags, str):
        tags = [tags]
    if isinstance(tags, Mapping):
        return {
            name: typed("tag", name, value)
            for name, value in ((check_name("a tag's name", key), value) for key, value in tags.items())
        }
    if not isinstance(tags, Iterable):
        raise InvalidInputError(f"tags must be a dict or a list of names, got {type(tags).__name__}")
    return {check_name("a tag's name", name): typed("tag", str(name), True) for name in tags}
