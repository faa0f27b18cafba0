"""torch tensors that are made of dense ones: sparse and quantized layouts, put together with all checks torch has.

Every function raises RuntimeError, ValueError or TypeError where the parts do not fit each other.
"""

from __future__ import annotations

import torch

COMPRESSED = {
    str(layout).removeprefix("torch."): layout
    for layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
}
"""The compressed sparse layouts by name."""

QUANTIZED = {torch.qint8: torch.int8, torch.quint8: torch.uint8, torch.qint32: torch.int32}
"""The integers that quantized types are stored as."""


def compressed_parts(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the compressed indices, the plain indices and the values of a compressed sparse tensor."""
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    return tensor.ccol_indices(), tensor.row_indices(), tensor.values()


def quantized_integers(tensor: torch.Tensor) -> torch.Tensor:
    """Return the memory of a quantized tensor as integers, without a copy."""
    integers = torch.empty(0, dtype=QUANTIZED[tensor.dtype], device=tensor.device)
    return integers.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())


def build_coo(indices: torch.Tensor, values: torch.Tensor, size: tuple[int, ...], is_coalesced: bool) -> torch.Tensor:
    """Return a sparse COO tensor over its parts."""
    tensor = torch.sparse_coo_tensor(indices, values, size, check_invariants=True)
    return tensor._coalesced_(is_coalesced)


def build_compressed(
    layout: torch.layout, compressed: torch.Tensor, plain: torch.Tensor, values: torch.Tensor, size: tuple[int, ...]
) -> torch.Tensor:
    """Return a sparse CSR, CSC, BSR or BSC tensor over its parts."""
    return torch.sparse_compressed_tensor(compressed, plain, values, size, layout=layout, check_invariants=True)


def build_quantized(integers: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    """Return a copy of integers as a tensor quantized by one scale."""
    if integers.dtype not in QUANTIZED.values():
        raise TypeError(f"{integers.dtype} holds no quantized values")
    return torch._make_per_tensor_quantized_tensor(integers, scale, zero_point)


def build_channelwise(
    integers: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor, axis: int
) -> torch.Tensor:
    """Return a copy of integers as a tensor quantized by a scale for each index along an axis."""
    if integers.dtype not in QUANTIZED.values():
        raise TypeError(f"{integers.dtype} holds no quantized values")
    if not 0 <= axis < integers.dim() or scales.shape != (integers.shape[axis],) or zero_points.shape != scales.shape:
        raise ValueError("not one scale and one zero point for each index along the axis")
    return torch._make_per_channel_quantized_tensor(integers, scales, zero_points, axis)
