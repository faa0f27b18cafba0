"""What torch's optimizers own, and the moment before they change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ckptlake.errors import InvalidInputError


def tensors_of(optimizer: object) -> Iterator[torch.Tensor]:
    """Yield the params and the state tensors of an optimizer.

    Raises:
        InvalidInputError: it is no torch optimizer.
    """
    groups, state = getattr(optimizer, "param_groups", None), getattr(optimizer, "state", None)
    if not isinstance(groups, list) or state is None or not hasattr(optimizer, "register_step_pre_hook"):
        raise InvalidInputError(
            f"{type(optimizer).__name__} is no torch optimizer: give optimizer= one, or a list of them"
        )
    for group in groups:
        yield from group["params"]
    yield from _tensors(state)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def before_step(optimizer: Any, call: Callable[..., None]) -> Callable[[], None]:
    """Have `call` called before each step of an optimizer; returns a function that ends that."""
    end: Callable[[], None] = optimizer.register_step_pre_hook(call).remove
    return end
