"""What pickles may name of torch, and how a call to each is answered.

Tensors are rebuilt here and not by torch, which trusts the file: every offset, size and stride must lie within
its storage. Everything is on the CPU. What torch would rebuild by running the code of a tensor subclass becomes
the plain tensor inside.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ckptlake.checkpoints.formats.stubs import Build, Known, Reader, Stub, shown
from ckptlake.errors import DamagedCheckpointError, UnsafeFileError

_MOST_DIMENSIONS, _INDEX_BITS = 64, 63
_MOST_ELEMENTS = 2**62
_SPARE_BYTES = 1 << 20
_ENTRY_BYTES = 64
_PARAMETER = "torch.nn.parameter.Parameter"
_QUANTIZED = {"torch.qint8": torch.int8, "torch.quint8": torch.uint8, "torch.qint32": torch.int32}
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexDouble": "complex128",
    "ComplexFloat": "complex64", "QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32", "Untyped": "uint8",
    "_Untyped": "uint8",
}  # fmt: skip


def wrap_storage(memory: torch.UntypedStorage, dtype: torch.dtype) -> torch.storage.TypedStorage:
    """Return memory as a storage of elements, as torch itself does when it loads a file."""
    return torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
        wrap_storage=memory, dtype=dtype, _internal=True
    )


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > _MOST_DIMENSIONS:
        raise TypeError(f"{shown(values)} where integers are expected")
    if any(type(value) is not int or value.bit_length() > _INDEX_BITS for value in values):
        raise TypeError("sizes or strides that no tensor can have")
    return tuple(values)


def _tensor(value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        raise TypeError(f"a {type(value).__name__} where a dense tensor is expected")
    return value


def _check_view(reader: Reader, storage: Any, dtype: Any, place: tuple[Any, Any, Any]) -> tuple[Any, ...]:
    """Return a view's memory, offset, size and stride once they are known to fit together."""
    if not isinstance(storage, torch.storage.TypedStorage) or not isinstance(dtype, torch.dtype):
        raise TypeError(f"a tensor of {type(dtype).__name__} in a {type(storage).__name__}")
    offset, size, stride = _integers((place[0],))[0], _integers(place[1]), _integers(place[2])
    memory = storage._untyped_storage
    view = f"a tensor of size {size!s:.80}, stride {stride!s:.80} and offset {offset}"
    if len(size) != len(stride) or min((*size, *stride, offset)) < 0:
        raise DamagedCheckpointError(f"{reader.allowance.source} holds {view}, which cannot be")
    reach = math.prod(size) and 1 + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    room = math.prod(max(count, 1) for count in size)
    if (offset + reach) * dtype.itemsize > memory.nbytes() or max((room, *stride)) > _MOST_ELEMENTS:
        raise DamagedCheckpointError(
            f"{reader.allowance.source} holds {view} of {dtype} in a storage of {memory.nbytes()} bytes; "
            "it does not fit, so take an intact copy of the file"
        )
    size_bytes = math.prod(size) * dtype.itemsize
    if size_bytes > max(memory.nbytes(), reader.allowance.size, _SPARE_BYTES):
        raise UnsafeFileError(
            f"{reader.allowance.source} holds {view} of {dtype}: {size_bytes} bytes once it is copied, from "
            f"{reader.allowance.size} in the file"
        )
    described = (memory.data_ptr(), dtype, offset, size, stride)
    if described not in reader.views:
        reader.views.add(described)
        reader.allowance.spend(size_bytes)
    return memory, offset, size, stride


def _strided(reader: Reader, storage: Any, dtype: Any, place: tuple[Any, Any, Any]) -> torch.Tensor:
    if str(dtype).startswith("torch.q"):
        raise TypeError(f"a plain tensor of {dtype}")
    memory, offset, size, stride = _check_view(reader, storage, dtype, place)
    empty = torch.empty((0,), dtype=torch.uint8).view(dtype)  # unlike making one, this never warns of young types
    return empty.set_(memory, offset, size, stride)


def _finished(tensor: torch.Tensor, requires_grad: Any, bits: Any = None) -> torch.Tensor:
    """Set what a tensor carries beside its elements; hooks, which would be code, are not kept."""
    for bit in {} if bits is None else bits:
        if bit not in ("conj", "neg") or (bit == "conj" and not tensor.is_complex()):
            raise ValueError(f"a tensor of {tensor.dtype} with the bit {shown(bit)}")
        if bits[bit]:
            tensor = tensor.conj() if bit == "conj" else torch._neg_view(tensor)
    return tensor.requires_grad_() if requires_grad is True else tensor


def _oldest(reader: Reader, args: tuple[Any, ...]) -> torch.Tensor:
    storage, *place = args
    return _strided(reader, storage, storage.dtype, tuple(place))


def _typed(reader: Reader, args: tuple[Any, ...]) -> torch.Tensor:
    storage, offset, size, stride, requires_grad, _, *bits = args
    if not isinstance(storage, torch.storage.TypedStorage):
        raise TypeError(f"a tensor in a {type(storage).__name__}")
    return _finished(_strided(reader, storage, storage.dtype, (offset, size, stride)), requires_grad, *bits)


def _untyped(reader: Reader, args: tuple[Any, ...]) -> torch.Tensor:
    storage, offset, size, stride, requires_grad, _, dtype, *bits = args
    return _finished(_strided(reader, storage, dtype, (offset, size, stride)), requires_grad, *bits)


def _parameter(reader: Reader, args: tuple[Any, ...]) -> torch.nn.Parameter:
    data, requires_grad, _, *state = args
    made = torch.nn.Parameter(_tensor(data), requires_grad is True)
    _set_attributes(reader, made, state[0] if state else None)
    return made


def _of_type(reader: Reader, args: tuple[Any, ...]) -> object:
    """A tensor with attributes, or of a subclass: the plain tensor, with the attributes that are data."""
    function, kind, inner, state = args
    if not isinstance(kind, Known | Stub) or not isinstance(function, Known):
        raise TypeError(f"a tensor of type {shown(kind)}, made by {shown(function)}")
    made = reader.call(function, inner, {})
    if isinstance(made, torch.Tensor):
        _set_attributes(reader, made, state)
    return made


def _set_attributes(reader: Reader, tensor: torch.Tensor, state: Any) -> None:
    for part in state if isinstance(state, tuple) else (state,):
        if part is None:
            continue
        reader.allowance.spend(_ENTRY_BYTES * len(part))
        for name, value in part.items():
            if type(name) is not str or hasattr(type(tensor), name):
                raise UnsafeFileError(
                    f"{reader.allowance.source} puts its own value in the place of {type(tensor).__name__}."
                    f"{shown(name)}"
                )
            tensor.__dict__[name] = value


@contextmanager
def _without_warnings() -> Iterator[None]:
    """torch warns that sparse and quantized tensors are young or old; whoever loads one has no choice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _sparse(reader: Reader, args: tuple[Any, ...]) -> torch.Tensor:
    layout, data = args
    count = 2 if layout == torch.sparse_coo else 3
    parts, size, coalesced = [_tensor(part) for part in data[:count]], data[count], data[count + 1 :]
    if math.prod(_integers(size)) > _MOST_ELEMENTS:
        raise DamagedCheckpointError(f"{reader.allowance.source} holds a sparse tensor of size {tuple(size)}")
    reader.allowance.spend(sum(part.nbytes for part in parts))
    with _without_warnings():
        if layout == torch.sparse_coo:
            indices, values = parts
            known = coalesced[0] if coalesced else None
            return torch.sparse_coo_tensor(indices, values, size, is_coalesced=known, check_invariants=True)
        compressed, plain, values = parts
        return torch.sparse_compressed_tensor(compressed, plain, values, size, layout=layout, check_invariants=True)


def _quantized(reader: Reader, args: tuple[Any, ...]) -> torch.Tensor:
    storage, *place, parameters, requires_grad, _ = args
    if str(getattr(storage, "dtype", None)) not in _QUANTIZED:
        raise TypeError(f"a quantized tensor of {getattr(storage, 'dtype', None)}")
    _, offset, size, stride = _check_view(reader, storage, storage.dtype, tuple(place))
    reader.allowance.spend(math.prod(size) * storage.dtype.itemsize)
    scheme, *rest = parameters
    with _without_warnings():
        if scheme == torch.per_tensor_affine:
            scale, zero = rest
            made = torch._empty_affine_quantized(size, scale=scale, zero_point=zero, dtype=storage.dtype)
        else:
            scales, zeros, axis = rest
            if not 0 <= axis < len(size) or not _tensor(scales).numel() == _tensor(zeros).numel() == size[axis]:
                raise ValueError(f"a tensor of size {size} quantized along axis {shown(axis)}")
            _check_zeros(zeros, _QUANTIZED[str(storage.dtype)])
            made = torch._empty_per_channel_affine_quantized(
                size, scales=scales, zero_points=zeros, axis=axis, dtype=storage.dtype
            )
        return _finished(made.set_(storage, offset, size, stride), requires_grad)


def _check_zeros(zeros: torch.Tensor, inside: torch.dtype) -> None:
    limits = torch.iinfo(inside)
    if zeros.numel() and not (limits.min <= zeros.min() and zeros.max() <= limits.max):
        raise ValueError(f"a tensor whose zeros lie outside its own {inside}")


def _from_numpy(reader: Reader, args: tuple[Any, ...]) -> torch.Tensor:
    """How devices without storages are saved: as an array on the CPU."""
    data, dtype, _, requires_grad = args
    if not isinstance(data, np.ndarray):
        raise TypeError(f"a tensor in a {type(data).__name__}")
    reader.allowance.spend(data.nbytes + data.size * dtype.itemsize)
    return _finished(torch.from_numpy(np.array(data)).to(dtype), requires_grad)


def _from_cpu(reader: Reader, args: tuple[Any, ...]) -> torch.Tensor:
    data, dtype, _, requires_grad = args
    reader.allowance.spend(_tensor(data).numel() * dtype.itemsize)
    return _finished(data.to(dtype), requires_grad)


def _size(_: Reader, args: tuple[Any, ...]) -> torch.Size:
    return torch.Size(_integers(args[0] if args else ()))


def _device(_: Reader, args: tuple[Any, ...]) -> torch.device:
    if any(type(part) not in (str, int) for part in args):
        raise TypeError(f"a device of type {shown(args[0])}")
    return torch.device(*args)


def _layout(_: Reader, args: tuple[Any, ...]) -> torch.layout:
    (name,) = args
    if type(name) is not str:
        raise TypeError(f"a layout called {shown(name)}")
    return _layouts()[name]


@functools.cache
def _layouts() -> dict[str, torch.layout]:
    return {str(value): value for value in vars(torch).values() if isinstance(value, torch.layout)}


def _version(_: Reader, args: tuple[Any, ...]) -> str:
    (text,) = args
    if type(text) is not str:
        raise TypeError(f"a version {shown(text)}")
    return text


def _nested(reader: Reader, args: tuple[Any, ...]) -> object:
    """torch's own would load the bytes with no restriction at all."""
    (data,) = args
    if type(data) is not bytes:
        raise TypeError(f"a {type(data).__name__} where a torch file's bytes are expected")
    return reader.read_nested(data)


_FUNCTIONS: dict[str, Build | None] = {
    "torch._utils._rebuild_tensor": _oldest,
    "torch._utils._rebuild_tensor_v2": _typed,
    "torch._utils._rebuild_tensor_v3": _untyped,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_device_tensor_from_numpy": _from_numpy,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _from_cpu,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.tensor._rebuild_from_type": _of_type,
    "torch.tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _layout,
    "torch.torch_version.TorchVersion": _version,
    "torch.storage._load_from_bytes": _nested,
    "torch.Tensor": None,
    _PARAMETER: None,
    "torch.nn.parameter.Buffer": None,
}
STORAGES: dict[str, Known] = {
    f"{module}.{kind}Storage": Known(f"{module}.{kind}Storage", detail=dtype)
    for kind, dtype in _STORAGES.items()
    for module in ("torch", "torch.cuda", "torch.storage")
}


@functools.cache
def torch_names() -> dict[str, object]:
    """Return everything of torch that a pickle may name."""
    constants = {
        f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype | torch.qscheme)
    }
    functions = {name: Known(name, build) for name, build in _FUNCTIONS.items()}
    return {**constants, **functions, **STORAGES}
