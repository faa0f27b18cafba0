"""What pickles may name of Python's standard library, and how a call to each is answered.

Classes whose values are plain data stand for themselves, so that a file may also hold them as values (the
``list`` of a ``defaultdict(list)``). Whatever takes a size, copies without bound, computes, or looks something up
is re-implemented with a check or left out. Paths become pure paths, because only those touch no file system.
"""

from __future__ import annotations

import argparse
import datetime
import decimal
import fractions
import re
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ckptlake.checkpoints.formats.stubs import Build, Known, Reader, SetState, Stub, shown
from ckptlake.errors import UnsafeFileError

_LATIN1 = ("latin1", "latin-1", "iso-8859-1")
_MOST_DIGITS = 4000
_ITEM_BYTES, _ENTRY_BYTES, _CHARACTER_BYTES = 16, 64, 4
_FRACTION = re.compile(r"(-?\d+)(?:/(\d+))?", re.ASCII)


def _checked(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise TypeError(f"a {type(value).__name__} where {' or '.join(kind.__name__ for kind in kinds)} is expected")
    return value


def _items(reader: Reader, value: Any) -> Any:
    """Return a container that a call copies, paid for."""
    _checked(value, list, tuple, set, frozenset, dict)
    reader.allowance.spend(_ITEM_BYTES * len(value))
    return value


def _members(reader: Reader, args: tuple[Any, ...]) -> Any:
    (items,) = args or ((),)
    for item in _items(reader, items):
        reader.allowance.take_key(item)
    return items


def _ordered(reader: Reader, args: tuple[Any, ...]) -> OrderedDict[Any, Any]:
    (items,) = args or ((),)
    made: OrderedDict[Any, Any] = OrderedDict()
    items = _items(reader, items)
    reader.allowance.spend(_ENTRY_BYTES * len(items))
    for key, value in items.items() if isinstance(items, dict) else items:
        reader.allowance.take_key(key)
        made[key] = value
    return made


def _counter(reader: Reader, args: tuple[Any, ...]) -> Counter[Any]:
    made: Counter[Any] = Counter()
    made.update(_checked(_members(reader, args), dict, tuple))
    return made


def _defaultdict(_: Reader, args: tuple[Any, ...]) -> defaultdict[Any, Any]:
    """A factory that is no plain class is forgotten: looking a key up must not call it."""
    (factory,) = args or (None,)
    if not (factory is None or factory in _FACTORIES or isinstance(factory, Stub | Known)):
        raise TypeError(f"a defaultdict of {type(factory).__name__}")
    return defaultdict(factory if factory in _FACTORIES else None)


def _deque(reader: Reader, args: tuple[Any, ...]) -> deque[Any]:
    items = args[0] if args else ()
    longest = args[1] if len(args) == 2 else None
    return deque(_items(reader, items), _checked(longest, int, type(None)))


def _bytearray(reader: Reader, args: tuple[Any, ...]) -> bytearray:
    data = _encoded(reader, args) if len(args) == 2 else _checked(*(args or (b"",)), bytes)
    reader.allowance.spend(len(data))
    return bytearray(data)


def _bytes(reader: Reader, args: tuple[Any, ...]) -> bytes:
    return _encoded(reader, args) if args else b""


def _encoded(reader: Reader, args: tuple[Any, ...]) -> bytes:
    """How protocols 0 to 2 write bytes: as text, one character a byte."""
    text, encoding = args
    if encoding not in _LATIN1:
        raise TypeError(f"an encoding {shown(encoding)} that pickles do not use for bytes")
    _checked(text, str)
    reader.allowance.spend(len(text))
    return text.encode("latin1")  # type: ignore[no-any-return]


def _complex(_: Reader, args: tuple[Any, ...]) -> complex:
    return complex(*(_checked(part, int, float) for part in args))


def _slice(_: Reader, args: tuple[Any, ...]) -> slice:
    return slice(*(_checked(part, int, type(None)) for part in args))


def _range(_: Reader, args: tuple[Any, ...]) -> range:
    return range(*(_checked(part, int) for part in args))


def _moment(kind: type) -> Build:
    """Dates and times are pickled as bytes (as text by Python 2) or as their fields."""
    parts = (bytes, str, int, datetime.timedelta, datetime.timezone, type(None))
    return lambda _, args: kind(*(_checked(part, *parts) for part in args))


def _decimal(_: Reader, args: tuple[Any, ...]) -> decimal.Decimal:
    (text,) = args
    if len(_checked(text, str)) > _MOST_DIGITS:
        raise UnsafeFileError(
            f"the pickle holds a decimal of {len(text)} digits; computing with it could take for ever"
        )
    return decimal.Decimal(text)


def _fraction(_: Reader, args: tuple[Any, ...]) -> fractions.Fraction:
    if len(args) == 1:
        match = _FRACTION.fullmatch(_checked(args[0], str)) if len(args[0]) <= _MOST_DIGITS else None
        if match is None:
            raise TypeError(f"a fraction written as {shown(args[0])}")
        args = (int(match[1]), int(match[2] or 1))
    if any(_checked(part, int).bit_length() > 4 * _MOST_DIGITS for part in args):
        raise UnsafeFileError("the pickle holds a fraction of huge numbers; reducing it could take for ever")
    return fractions.Fraction(*args)


def _path(kind: type) -> Build:
    def build(reader: Reader, args: tuple[Any, ...]) -> Any:
        reader.allowance.spend(_CHARACTER_BYTES * sum(len(_checked(part, str)) for part in args))
        return kind(*args)

    return build


def _empty(kind: type) -> Build:
    def build(_: Reader, args: tuple[Any, ...]) -> Any:
        if args:
            raise TypeError(f"a {kind.__name__} with arguments")
        return kind()

    return build


def _uuid(_: Reader, args: tuple[Any, ...]) -> uuid.UUID:
    if args:
        raise TypeError("a UUID with arguments")
    return uuid.UUID(int=0)


def _reconstructed(reader: Reader, args: tuple[Any, ...]) -> object:
    """How protocols 0 and 1 make an object: of its class, its first built-in ancestor, and that one's value."""
    kind, ancestor, value = args
    return reader.call(_class(kind), () if ancestor is object else (value,), {})


def _new(reader: Reader, args: tuple[Any, ...]) -> object:
    return reader.call(_class(args[0]), args[1:], {})


def _new_named(reader: Reader, args: tuple[Any, ...]) -> object:
    kind, positional, named = args
    return reader.call(_class(kind), _checked(positional, tuple), _checked(named, dict))


def _class(value: Any) -> Any:
    if isinstance(value, Known) and value.name in _FUNCTIONS:
        raise TypeError(f"{value.name} where a class is expected")
    return value


def _set_attributes(reader: Reader, target: Any, state: Any) -> None:
    """Set attributes that are data; none of a class may be hidden behind one."""
    reader.allowance.spend(_ENTRY_BYTES * len(_checked(state, dict)))
    for name, value in state.items():
        if hasattr(type(target), _checked(name, str)):
            raise UnsafeFileError(
                f"{reader.allowance.source} puts its own value in the place of {type(target).__name__}.{name[:60]}"
            )
        target.__dict__[name] = value


def _set_uuid(_: Reader, target: uuid.UUID, state: Any) -> None:
    """Whether it was generated safely across processes is not kept."""
    object.__setattr__(target, "int", uuid.UUID(int=_checked(state["int"], int)).int)


SETTERS: dict[type, SetState] = {
    OrderedDict: _set_attributes,
    argparse.Namespace: _set_attributes,
    types.SimpleNamespace: _set_attributes,
    uuid.UUID: _set_uuid,
}
BUILDS: dict[type, Build] = {
    set: lambda reader, args: set(_members(reader, args)),
    frozenset: lambda reader, args: frozenset(_members(reader, args)),
    bytes: _bytes,
    bytearray: _bytearray,
    complex: _complex,
    slice: _slice,
    range: _range,
    OrderedDict: _ordered,
    Counter: _counter,
    defaultdict: _defaultdict,
    deque: _deque,
    argparse.Namespace: _empty(argparse.Namespace),
    types.SimpleNamespace: _empty(types.SimpleNamespace),
    datetime.date: _moment(datetime.date),
    datetime.time: _moment(datetime.time),
    datetime.datetime: _moment(datetime.datetime),
    datetime.timedelta: _moment(datetime.timedelta),
    datetime.timezone: _moment(datetime.timezone),
    decimal.Decimal: _decimal,
    fractions.Fraction: _fraction,
    uuid.UUID: _uuid,
    PurePosixPath: _path(PurePosixPath),
    PureWindowsPath: _path(PureWindowsPath),
}
_FACTORIES = (bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple, Counter, OrderedDict, deque)
_CLASSES = (*BUILDS, *_FACTORIES, object)
_FUNCTIONS: dict[str, Build] = {
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "copyreg.__newobj__": _new,
    "copyreg.__newobj_ex__": _new_named,
}
_PATHS = {
    "Path": PurePosixPath,
    "PosixPath": PurePosixPath,
    "PurePath": PurePosixPath,
    "PurePosixPath": PurePosixPath,
    "PureWindowsPath": PureWindowsPath,
    "WindowsPath": PureWindowsPath,
}
PLAIN: dict[str, object] = {
    **{f"{kind.__module__}.{kind.__qualname__}": kind for kind in _CLASSES},
    **{f"{module}.{name}": kind for name, kind in _PATHS.items() for module in ("pathlib", "pathlib._local")},
    **{name: Known(name, build) for name, build in _FUNCTIONS.items()},
    "builtins.Ellipsis": ...,
    "builtins.NotImplemented": NotImplemented,
}
