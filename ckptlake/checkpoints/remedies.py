"""What to store instead of a value that cannot be kept."""

from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import date
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import numpy as np

_BUILT_IN = (bool, int, float, complex, str, bytes, bytearray, tuple, list, set, frozenset)
_CODE = (FunctionType, BuiltinFunctionType, MethodType, partial, np.ufunc)

_KNOWN: tuple[tuple[Callable[[object], bool], str], ...] = (
    (lambda value: isinstance(value, Enum), "store its .value"),
    (lambda value: isinstance(value, type), "store its name, and look the class up after loading"),
    (dataclasses.is_dataclass, "store dataclasses.asdict(...)"),
    (lambda value: isinstance(value, _CODE), "store its name or its arguments; code is never kept"),
    (lambda value: isinstance(value, ModuleType), "store its name"),
    (lambda value: isinstance(value, io.IOBase), "store its path, or the bytes read from it"),
    (lambda value: isinstance(value, np.random.Generator), "store its .bit_generator.state"),
    (lambda value: isinstance(value, np.random.BitGenerator), "store its .state"),
    (lambda value: isinstance(value, np.random.RandomState), "store its .get_state()"),
    (lambda value: isinstance(value, random.Random), "store its .getstate()"),
    (lambda value: isinstance(value, np.ma.MaskedArray), "store its .data and its .mask"),
    (lambda value: isinstance(value, np.ndarray), "store np.asarray(...)"),
    (lambda value: isinstance(value, np.generic), "store its .item()"),
    (lambda value: isinstance(value, tuple) and hasattr(value, "_fields"), "store tuple(...), or ._asdict()"),
    (lambda value: isinstance(value, date), "store its .isoformat()"),
    (lambda value: isinstance(value, KeysView | ValuesView | ItemsView | Iterator), "store list(...)"),
    (lambda value: isinstance(value, Mapping), "store dict(...)"),
    (lambda value: callable(value), "store its name or its arguments; code is never kept"),
)


def remedy(value: object) -> str:
    """Return what to do with a value of a type that is not kept.

    >>> remedy(iter([1, 2]))
    'store list(...)'
    """
    for applies, advice in _KNOWN:
        if applies(value):
            return advice
    for kind in _BUILT_IN:
        if isinstance(value, kind):
            return f"store {kind.__name__}(...)"
    return "store what it is made of, leave it out, or give its class a state_dict()"
