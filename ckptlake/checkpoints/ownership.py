"""Which tensors only an optimizer's step changes, so that they may be read until the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ckptlake._internal.optional import if_imported
from ckptlake.errors import InvalidInputError


class Ownership:
    """The memory of the params and states of optimizers.

    Raises:
        InvalidInputError: something given as an optimizer is none that torch knows.
    """

    def __init__(self, optimizers: Sequence[object]) -> None:
        self._starts: set[tuple[int, object]] = set()
        if not optimizers:
            return
        if if_imported("torch") is None:
            raise InvalidInputError("optimizer= takes torch optimizers, and torch is not imported")
        from ckptlake.checkpoints.formats.optimizers import tensors_of
        from ckptlake.checkpoints.formats.torch_tensors import start_of

        self._starts.update(start_of(tensor) for optimizer in optimizers for tensor in tensors_of(optimizer))

    def owns(self, array: object) -> bool:
        """Return whether the memory of an array or a tensor belongs to one of the optimizers."""
        if not self._starts or (tensor := _as_tensor(array)) is None:
            return False
        from ckptlake.checkpoints.formats.torch_tensors import start_of

        return start_of(tensor) in self._starts


def version_of(array: object) -> Callable[[], object]:
    """Return a function whose result differs once a tensor has been written to; torch counts such writes."""
    tensor = _as_tensor(array)
    if tensor is None or tensor.is_inference():
        return lambda: None
    from ckptlake.checkpoints.formats.torch_tensors import version_of as version

    return lambda: version(tensor)


def fence_at_step(optimizers: Sequence[object], fence: Callable[..., None]) -> Callable[[], None]:
    """Call `fence` before each step of the optimizers; returns a function that ends that."""
    from ckptlake.checkpoints.formats.optimizers import before_step

    ends = [before_step(optimizer, fence) for optimizer in optimizers]

    def end() -> None:
        for one in ends:
            one()

    return end


def _as_tensor(array: object) -> Any:
    """Return the torch tensor that something is, or None."""
    torch = if_imported("torch")
    return array if torch is not None and isinstance(array, torch.Tensor) else None
