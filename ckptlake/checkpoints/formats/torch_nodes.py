"""torch's tensors and the small values around them as nodes of a state's tree.

Importing this module imports torch. The grammar, added to that of `ckptlake.checkpoints.tree`::

    dense   {"tensor": leaf}  {"view": [leaf, offset, shape, strides]}  {"on": [device, either of the two]}
    data    dense
            {"sparse_coo": [indices, values, shape, is_coalesced]}
            {"sparse_compressed": [layout, compressed indices, plain indices, values, shape]}
            {"quantized": [integers, scale, zero_point]}
            {"channelwise": [integers, scales, zero_points, axis]}
    v       data  {"requires_grad": data}  {"parameter": [requires_grad, data]}
            {"buffer": [persistent, requires_grad, data]}
            {"generator": [device, dense]}  {"size": [integer, ...]}  {"torch_dtype": name}
            {"torch_device": text}  {"torch_layout": name}  {"memory_format": name}

The parts of sparse and quantized data are dense. What is on no other device is on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.torch_version import TorchVersion

from ckptlake.checkpoints.formats import torch_layouts
from ckptlake.checkpoints.formats.torch_tensors import dtype_of, has_memory, is_kept, repeats_elements
from ckptlake.checkpoints.leaves import JSON
from ckptlake.checkpoints.plain_values import write_float, write_int
from ckptlake.checkpoints.sharing import Add, Block
from ckptlake.errors import InvalidInputError

PLAIN_KINDS = (torch.Size, torch.dtype, torch.device, torch.layout, torch.memory_format, TorchVersion)
"""Values without memory that are equal to what comes back, so that they can be keys."""

KINDS = (*PLAIN_KINDS, torch.Tensor, torch.Generator, torch.UntypedStorage, torch.TypedStorage)
"""Everything that `write` knows, be it to refuse it."""


def is_tensor(value: object) -> bool:
    """Tell whether a value is a tensor of any kind."""
    return isinstance(value, torch.Tensor)


def is_plain(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is its elements in memory of its own and nothing besides, so that its node is dense."""
    return (
        type(tensor) is torch.Tensor
        and tensor.layout is torch.strided
        and not (tensor.requires_grad or tensor.is_meta or tensor.is_quantized or tensor.is_nested)
        and not (tensor.is_conj() or tensor.is_neg())
        and not (hasattr(tensor, "_is_buffer") or any(getattr(tensor, "names", ())))
        and is_kept(tensor.dtype)
        and has_memory(tensor)
    )


def write(value: Any, path: str, add: Add) -> JSON:
    """Return the node of a value of torch and `add` the blocks of its elements.

    Raises:
        InvalidInputError: it cannot be kept; the message says what to store instead.
    """
    if isinstance(value, torch.Tensor):
        return _write_tensor(value, path, add)
    if isinstance(value, torch.Generator):
        return {"generator": [str(value.device), _write_dense(value.get_state(), path, add)]}
    if isinstance(value, torch.Size):
        return {"size": [write_int(int(size)) for size in value]}
    if isinstance(value, TorchVersion):
        return str(value)
    for kind, tag in _NAMED.items():
        if isinstance(value, kind):
            return {tag: str(value).removeprefix("torch.")}
    raise InvalidInputError("store a tensor over it: torch.empty(0, dtype=torch.uint8).set_(storage)")


_NAMED = {
    torch.dtype: "torch_dtype",
    torch.device: "torch_device",
    torch.layout: "torch_layout",
    torch.memory_format: "memory_format",
}


def _write_tensor(tensor: torch.Tensor, path: str, add: Add) -> JSON:
    _check(tensor)
    data = _write_data(tensor.detach(), path, add, tensor)
    if type(tensor) is torch.nn.Parameter:
        return {"parameter": [tensor.requires_grad, data]}
    if getattr(tensor, "_is_buffer", False):  # set by torch.nn.Buffer, which is a function that looks like a type
        return {"buffer": [bool(tensor.persistent), tensor.requires_grad, data]}  # type: ignore[attr-defined]
    return {"requires_grad": data} if tensor.requires_grad else data


def _check(tensor: torch.Tensor) -> None:
    kind = type(tensor)
    if kind not in (torch.Tensor, torch.nn.Parameter):
        raise InvalidInputError(_instead_of(kind))
    if tensor.is_meta:
        raise InvalidInputError("on the meta device, so without values; materialise it by .to_empty(), then fill it")
    if tensor.is_nested:
        raise InvalidInputError("nested; store .unbind()")
    if any(name is not None for name in getattr(tensor, "names", ())):  # up to torch 2.12
        raise InvalidInputError("its dimensions have names; store .rename(None)")


def _instead_of(kind: type) -> str:
    names = {each.__name__ for each in kind.__mro__}
    if "DTensor" in names or "ShardedTensor" in names:
        return "spread over processes; gather it by .full_tensor(), or save by torch.distributed.checkpoint"
    if "UninitializedTensorMixin" in names:
        return "without a shape yet; run the module once before saving"
    return "a subclass of Tensor; store .detach().as_subclass(torch.Tensor), or the tensors it is made of"


def _write_data(tensor: torch.Tensor, path: str, add: Add, source: object) -> JSON:
    write_layout = _LAYOUTS.get(tensor.layout)
    if write_layout is not None:
        return write_layout(tensor, path, add)
    if tensor.layout is not torch.strided:
        raise InvalidInputError(f"of layout {tensor.layout}; store .to_dense()")
    if tensor.is_quantized:
        return _write_quantized(tensor, path, add)
    return _write_dense(tensor, path, add, source)


def _write_dense(tensor: torch.Tensor, path: str, add: Add, source: object = None) -> JSON:
    """Return the node of a detached tensor; what `source` stands for is told by it where there is no address."""
    dtype = dtype_of(tensor)
    try:
        address = tensor.data_ptr()
    except RuntimeError as error:
        raise InvalidInputError(f"without memory of its own: {error!s:.200}") from None
    itemsize = tensor.element_size()
    node: dict[str, JSON] = {}
    add(
        Block(
            path=path,
            tags=("tensor", "view"),
            array=tensor,
            source=tensor if source is None else source,
            dtype=dtype,
            shape=tuple(tensor.shape),
            strides=tuple(stride * itemsize for stride in tensor.stride()),
            address=address,
            space=("torch", tensor.device, tensor.dtype, tensor.is_conj(), tensor.is_neg()),
            node=node,
        )
    )
    return node if tensor.device.type == "cpu" else {"on": [str(tensor.device), node]}


def _write_part(tensor: torch.Tensor, path: str, add: Add) -> JSON:
    """Return the node of a part of a tensor, which never repeats elements, as reading relies on."""
    return _write_dense(tensor.contiguous() if repeats_elements(tensor) else tensor, path, add)


def _write_coo(tensor: torch.Tensor, path: str, add: Add) -> JSON:
    indices, values, size = tensor._indices(), tensor._values(), tuple(tensor.shape)
    with_checks(lambda: torch_layouts.build_coo(indices, values, size, tensor.is_coalesced()))
    parts = (_write_part(indices, f"{path}/indices", add), _write_part(values, f"{path}/values", add))
    return {"sparse_coo": [*parts, list(size), tensor.is_coalesced()]}


def _write_compressed(tensor: torch.Tensor, path: str, add: Add) -> JSON:
    compressed, plain, values = torch_layouts.compressed_parts(tensor)
    size = tuple(tensor.shape)
    with_checks(lambda: torch_layouts.build_compressed(tensor.layout, compressed, plain, values, size))
    parts = (
        _write_part(compressed, f"{path}/compressed_indices", add),
        _write_part(plain, f"{path}/plain_indices", add),
        _write_part(values, f"{path}/values", add),
    )
    return {"sparse_compressed": [str(tensor.layout).removeprefix("torch."), *parts, list(size)]}


def with_checks(build: Callable[[], torch.Tensor]) -> None:
    """Make sure that a sparse tensor can be built again.

    Raises:
        InvalidInputError: its parts do not fit each other.
    """
    try:
        build()
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidInputError(f"its indices break the rules of its layout: {error!s:.200}; build it again") from None


def _write_quantized(tensor: torch.Tensor, path: str, add: Add) -> JSON:
    if tensor.dtype not in torch_layouts.QUANTIZED:
        raise InvalidInputError(f"of {tensor.dtype}; store .dequantize(), or its integers and scales")
    integers = _write_part(torch_layouts.quantized_integers(tensor), path, add)
    if tensor.qscheme() == torch.per_tensor_affine:
        return {"quantized": [integers, write_float(tensor.q_scale()), tensor.q_zero_point()]}
    if tensor.qscheme() not in (torch.per_channel_affine, torch.per_channel_affine_float_qparams):
        raise InvalidInputError(f"quantized by {tensor.qscheme()}; store .dequantize()")
    scales = _write_part(tensor.q_per_channel_scales(), f"{path}/scales", add)
    zero_points = _write_part(tensor.q_per_channel_zero_points(), f"{path}/zero_points", add)
    return {"channelwise": [integers, scales, zero_points, tensor.q_per_channel_axis()]}


_LAYOUTS: dict[torch.layout, Callable[[torch.Tensor, str, Add], JSON]] = {
    torch.sparse_coo: _write_coo,
    **dict.fromkeys(torch_layouts.COMPRESSED.values(), _write_compressed),
}
