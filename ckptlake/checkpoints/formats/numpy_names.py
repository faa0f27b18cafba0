"""What pickles may name of numpy, and how a call to each is answered.

Arrays, scalars and element types become real ones, of exactly the bytes that are in the file. numpy's own
``__setstate__`` trusts its input: here it only ever sees a state that was checked, or that numpy itself wrote
for an element type made by its public constructor. Random generators become the plain dictionary that their
``bit_generator.state`` is.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from ckptlake.checkpoints.formats.stubs import Build, Known, Reader, SetState, Stub, shown

_TYPE_NAME = re.compile(r"[<>=|]?[?bBiufcmMOSUV]\d{0,9}", re.ASCII)
_BIT_GENERATORS = {
    "numpy.random._mt19937.MT19937": "MT19937",
    "numpy.random._pcg64.PCG64": "PCG64",
    "numpy.random._pcg64.PCG64DXSM": "PCG64DXSM",
    "numpy.random._philox.Philox": "Philox",
    "numpy.random._sfc64.SFC64": "SFC64",
}
_POINTERS = np.dtype("O")
_MOST_DIMENSIONS, _INDEX_BITS, _LAST_CHARACTER = 64, 63, 0x10FFFF
_MOST_FIELDS, _STRUCTURE_BYTES, _ENTRY_BYTES = 1000, 4096, 64
_SCALARS = (
    np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.float16, np.float32,
    np.float64, np.longdouble, np.complex64, np.complex128, np.str_, np.bytes_,
)  # fmt: skip


def _element_type(reader: Reader, value: Any) -> np.dtype[Any]:
    """Return an element type of its own for whoever uses it: the file may still change the one it has."""
    if not isinstance(value, np.dtype):
        raise TypeError(f"a {type(value).__name__} where a numpy dtype is expected")
    reader.allowance.spend(0 if value.kind != "V" else _STRUCTURE_BYTES)
    return value.newbyteorder("|")


def _dtype(_: Reader, args: tuple[Any, ...]) -> np.dtype[Any]:
    name = args[0]
    if type(name) is not str or not _TYPE_NAME.fullmatch(name):
        raise TypeError(f"a numpy dtype called {shown(name)}")
    return np.dtype(name, False, True)


def _set_dtype(reader: Reader, target: np.dtype[Any], state: Any) -> None:
    """Give a new element type its byte order, unit, shape or fields, as numpy's constructor would."""
    if not isinstance(state, tuple) or len(state) not in (8, 9):
        raise TypeError("a numpy dtype's state that is none")
    order, inner, names, fields, size, alignment, *metadata = (*state[1:7], *state[8:])
    if order not in ("<", ">", "=", "|") or size not in (-1, target.itemsize) or type(alignment) is not int:
        raise ValueError(f"a numpy dtype of byte order {shown(order)} and {shown(size)} bytes")
    if names is not None:
        made = _structure(reader, target.itemsize, names, fields, alignment > 1)
    elif inner is not None:
        made = np.dtype((_element_type(reader, inner[0]), _counts(inner[1])))
    elif target.kind in "mM" and metadata:
        made = _dated(target, metadata[0]).newbyteorder(order)
    else:
        made = target.newbyteorder(order)
    if made.itemsize != target.itemsize or (made.hasobject and made != _POINTERS):
        raise ValueError(f"a numpy dtype of {made.itemsize} bytes in {target.itemsize}, or one that holds objects")
    _check_fields(made)
    target.__setstate__(made.__reduce__()[2])  # type: ignore[attr-defined]


def _check_fields(dtype: np.dtype[Any]) -> None:
    """Refuse structures in structures in structures, each twice in the next: numpy would walk them for ever."""
    count, pending = 0, [dtype]
    while pending:
        part = pending.pop()
        count += 1
        if count > _MOST_FIELDS:
            raise ValueError(f"a numpy dtype of more than {_MOST_FIELDS} fields")
        if part.subdtype is not None:
            pending.append(part.base)
        elif part.fields is not None:
            pending.extend(field[0] for field in part.fields.values())


def _structure(reader: Reader, size: int, names: Any, fields: Any, aligned: bool) -> np.dtype[Any]:
    if len(names) > _MOST_FIELDS:
        raise ValueError(f"a numpy dtype of more than {_MOST_FIELDS} fields")
    places = [fields[_text(name)] for name in names]
    titles = [_text(place[2]) if len(place) > 2 else None for place in places]
    return np.dtype(
        {
            "names": list(names),
            "formats": [_element_type(reader, place[0]) for place in places],
            "offsets": [place[1] for place in places],
            "titles": titles,
            "itemsize": size,
        },
        align=aligned,
    )


def _dated(target: np.dtype[Any], metadata: Any) -> np.dtype[Any]:
    unit, count, *_ = metadata[1]
    unit = unit.decode() if isinstance(unit, bytes) else unit
    if unit == "generic":
        return np.dtype(target.kind + "8")
    if type(unit) is not str or not unit.isalpha() or type(count) is not int:
        raise TypeError(f"a unit of time {shown(unit)}")
    return np.dtype(f"{target.kind}8[{count}{unit}]")


def _counts(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS:
        raise TypeError(f"a shape that is {shown(shape)}")
    if any(type(size) is not int or size < 0 or size.bit_length() > _INDEX_BITS for size in shape):
        raise TypeError("a shape that no array can have")
    return shape


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"a name that is {shown(value)}")
    return value


def _bytes_of(reader: Reader, raw: Any) -> bytes | bytearray:
    """Return raw bytes, paid for; Python 2's may have been taken for ASCII text."""
    if type(raw) not in (bytes, bytearray, str):
        raise TypeError(f"a {type(raw).__name__} where raw bytes are expected")
    reader.allowance.spend(len(raw))
    return raw.encode("latin1") if isinstance(raw, str) else raw


def _check_size(raw: bytes | bytearray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if dtype.hasobject:
        raise TypeError("pointers where an array's bytes are expected")
    count = math.prod(shape)
    if count * dtype.itemsize != len(raw) or (dtype.itemsize == 0 and count > 1):
        raise ValueError(f"{len(raw)} bytes for an array of shape {shape} and dtype {dtype!s:.60}")
    codes = np.frombuffer(raw, np.dtype("u4").newbyteorder(dtype.byteorder)) if dtype.kind == "U" else ()
    if np.max(codes, initial=0) > _LAST_CHARACTER:
        raise ValueError("an array of text with characters that do not exist")


def _placeholder(_: Reader, args: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Pickled arrays begin as empty ones; what they are is their state."""
    kind, shape, _code = args
    if kind is not np.ndarray or shape != (0,):
        raise TypeError("an array that does not begin as an empty one")
    return np.ndarray((0,), np.int8)


def _set_array(reader: Reader, target: np.ndarray[Any, Any], state: Any) -> None:
    """Give an empty array its shape, element type and bytes.

    An array that has some already keeps them: a tensor or another array may look at the same memory.
    """
    if target.size:
        raise ValueError("an array that is given its bytes twice")
    shape, dtype, fortran, raw = state[-4:]
    _counts(shape)
    dtype = _element_type(reader, dtype)
    if dtype == _POINTERS:
        if type(raw) is not list or len(raw) != math.prod(shape):
            raise ValueError(f"an array of shape {shape} that does not hold as many objects")
        reader.allowance.spend(8 * len(raw))
    else:
        raw = bytes(_bytes_of(reader, raw))
        _check_size(raw, dtype, shape)
    target.__setstate__((1, shape, dtype, bool(fortran), raw))  # type: ignore[arg-type]


def _scalar(reader: Reader, args: tuple[Any, ...]) -> object:
    dtype, raw = args
    dtype, raw = _element_type(reader, dtype), bytes(_bytes_of(reader, raw))
    _check_size(raw, dtype, ())
    return np.ndarray((), dtype, raw)[()]


def _from_buffer(reader: Reader, args: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """Protocol 5 keeps an array's bytes as an object of its own, which the array then looks at."""
    raw, dtype, shape, order, *axes = args
    dtype, raw = _element_type(reader, dtype), _bytes_of(reader, raw)
    _check_size(raw, dtype, _counts(shape))
    flat = np.ndarray((math.prod(shape),), dtype, raw)
    if order == "K" and axes and axes[0] is not None:
        return flat.reshape(shape).transpose(_counts(axes[0]))
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _bit_generator(_: Reader, args: tuple[Any, ...]) -> dict[str, Any]:
    """Return the dictionary that becomes a generator's state; a generator of it is the same dictionary."""
    source = args[0] if args else "MT19937"
    if type(source) is dict:
        return source
    if type(source) is not str or source not in _BIT_GENERATORS.values():
        raise TypeError(f"a bit generator {shown(source)}")
    return {"bit_generator": source}


def _set_generator(reader: Reader, target: dict[Any, Any], state: Any) -> None:
    """Give a bit generator its state; the seed sequence, from which only new generators come, is not kept."""
    state = state[0] if isinstance(state, tuple) and state else state
    if type(state) is not dict or "bit_generator" not in target:
        raise TypeError("a state for a dictionary that is no random generator")
    reader.allowance.spend(_ENTRY_BYTES * len(state))
    for key, value in state.items():
        reader.allowance.take_key(key)
        target[key] = value


def _seed_sequence(_: Reader, _args: tuple[Any, ...]) -> Stub:
    return Stub("numpy.random.SeedSequence")


_FUNCTIONS: dict[str, Build] = {
    "numpy.dtype": _dtype,
    "numpy._core.multiarray._reconstruct": _placeholder,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy.random._pickle.__bit_generator_ctor": _bit_generator,
    "numpy.random._pickle.__generator_ctor": _bit_generator,
    "numpy.random._pickle.__randomstate_ctor": _bit_generator,
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": _seed_sequence,
}
_CURRENT: dict[str, object] = {
    **{name: Known(name, build) for name, build in _FUNCTIONS.items()},
    **{f"numpy.{kind.__name__}": kind for kind in (*_SCALARS, np.ndarray)},
    "numpy.bool_": np.bool_,
    **_BIT_GENERATORS,
    "numpy.random.bit_generator.SeedSequence": Known("numpy.random.bit_generator.SeedSequence"),
}
SETTERS: dict[type, SetState] = {dict: _set_generator, np.dtype: _set_dtype, np.ndarray: _set_array}
NUMPY: dict[str, object] = {
    **_CURRENT,
    **{name.replace("._core.", ".core."): found for name, found in _CURRENT.items() if "._core." in name},
}
