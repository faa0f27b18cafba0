"""The memory of torch tensors: their bytes, whose it is, and the states of torch's random generators.

Importing this module imports torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ckptlake.checkpoints.dtypes import DTYPES, DType
from ckptlake.checkpoints.leaves import LeafInfo
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, MissingDependencyError

TORCH_DTYPES: dict[str, torch.dtype] = {
    str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)
}
"""torch's element types by the names it prints."""

_KEPT = {TORCH_DTYPES[name]: dtype for name, dtype in DTYPES.items() if name in TORCH_DTYPES}


def dtype_of(tensor: torch.Tensor) -> DType:
    """Return the element type of a tensor.

    Raises:
        InvalidInputError: it is none that is kept.
    """
    if tensor.dtype not in _KEPT:
        raise InvalidInputError(f"of {tensor.dtype}, which is not kept; store .view(torch.uint8), or convert it")
    return _KEPT[tensor.dtype]


def is_kept(dtype: torch.dtype) -> bool:
    """Tell whether tensors of an element type can be kept."""
    return dtype in _KEPT


def tensor_bytes(tensor: Any) -> memoryview:
    """Return the elements of a dense tensor as contiguous little-endian bytes.

    The memory itself where it is the CPU's and contiguous; otherwise one copy, made by a single transfer.
    """
    plain = _plain(tensor)
    if plain.device.type != "cpu" or not plain.is_contiguous():
        plain = torch.empty(plain.shape, dtype=plain.dtype).copy_(plain)
    if not plain.numel():
        return memoryview(b"")
    flat = plain.as_strided((plain.numel(),), (1,))  # an axis of one element may have any stride and be contiguous
    return memoryview(flat.view(torch.uint8).numpy())


def copy_tensor(tensor: Any, target: npt.NDArray[np.uint8]) -> None:
    """Copy the elements of a dense tensor of any device and strides, by a single transfer and torch's own threads."""
    plain = _plain(tensor)
    torch.from_numpy(target).view(plain.dtype).view(plain.shape).copy_(plain)


def _plain(tensor: Any) -> Any:
    plain = tensor.resolve_conj().resolve_neg()
    # Not every type of one byte can be copied as what it is.
    return plain.view(torch.uint8) if plain.itemsize == 1 else plain


def as_tensor(info: LeafInfo, data: memoryview) -> torch.Tensor:
    """Return a tensor over bytes on the CPU, without a copy where they can be written and are aligned.

    Args:
        info: element type and shape.
        data: contiguous little-endian bytes.

    Raises:
        DamagedCheckpointError: there are more or fewer bytes than the shape takes, or torch has no such shape.
        MissingDependencyError: this version of torch does not have the element type.

    >>> as_tensor(LeafInfo("w", DTYPES["bfloat16"], (2,)), memoryview(bytearray(b"\\0\\0\\x80?"))).tolist()
    [0.0, 1.0]
    """
    info.check(data)
    if info.dtype.name not in TORCH_DTYPES:
        raise MissingDependencyError(
            f"{info.path!r:.200} is of {info.dtype.name}, which torch {torch.__version__} does not have: upgrade torch"
        )
    dtype = TORCH_DTYPES[info.dtype.name]
    try:
        if not data.nbytes:
            return torch.empty(info.shape, dtype=dtype)
        flat = torch.frombuffer(bytearray(data) if data.readonly else data, dtype=torch.uint8)
        aligned = flat.clone() if flat.data_ptr() % dtype.itemsize else flat
        return aligned.view(dtype).reshape(info.shape)
    except (RuntimeError, TypeError) as error:
        raise DamagedCheckpointError(
            f"no tensor has the shape {info.shape!s:.100} of {info.path!r:.200}: {error!s:.200}"
        ) from None


def start_of(tensor: torch.Tensor) -> tuple[int, torch.device]:
    """Return where the elements of a dense tensor begin: the address of the first, and the device.

    Raises:
        InvalidInputError: the tensor is sparse, or a wrapper around others.
    """
    try:
        return tensor.data_ptr(), tensor.device
    except RuntimeError as error:
        raise InvalidInputError(
            f"a tensor of layout {tensor.layout} has no memory of its own: {error!s:.200}"
        ) from None


def has_memory(tensor: torch.Tensor) -> bool:
    """Tell whether the elements of a dense tensor have an address, as those of torch's wrappers have not."""
    try:
        tensor.data_ptr()
    except RuntimeError:
        return False
    return True


def repeats_elements(tensor: torch.Tensor) -> bool:
    """Tell whether a dense tensor has more elements than the memory it reaches over."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.numel() > reach + 1


def version_of(tensor: torch.Tensor) -> int:
    """Return a number that grows with every write torch makes into the memory of a tensor or its views.

    Raises:
        InvalidInputError: torch does not count for tensors made in inference mode.
    """
    if tensor.is_inference():
        raise InvalidInputError(
            "torch does not count the changes of tensors made in inference mode: clone() them outside"
        )
    return tensor._version


def collect_torch_rng() -> dict[str, object]:
    """Return the states of torch's generators: ``torch`` for the CPU's, ``cuda`` with a list where CUDA is in use."""
    state: dict[str, object] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def check_torch_rng(state: dict[str, Any]) -> None:
    """Make sure that `restore_torch_rng` will take what `collect_torch_rng` has returned.

    Raises:
        InvalidInputError: it is damaged, or of another number of CUDA devices.
    """
    if "torch" in state:
        try:
            torch.Generator().set_state(state["torch"].cpu())
        except (RuntimeError, TypeError, AttributeError) as error:
            raise InvalidInputError(f"state['torch'] is no state of torch's generator: {error!s:.200}") from None
    if "cuda" in state:
        here = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not isinstance(state["cuda"], list) or len(state["cuda"]) != here:
            count = len(state["cuda"]) if isinstance(state["cuda"], list) else "no list"
            raise InvalidInputError(
                f"state['cuda'] has the generators of {count} CUDA devices, {here} are here: "
                "`del state['cuda']` to restore the others"
            )


def restore_torch_rng(state: dict[str, Any]) -> None:
    """Set torch's generators to what `collect_torch_rng` has returned."""
    if "torch" in state:
        torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state:
        torch.cuda.set_rng_state_all([each.cpu() for each in state["cuda"]])
