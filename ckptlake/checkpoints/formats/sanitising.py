"""States made of nothing but what `torch.load(weights_only=True)` accepts.

The tensors stay the same objects in the same order; of everything else the closest plain value is taken, because
what it was exactly stands in the checkpoint's manifest.
"""

from __future__ import annotations

from argparse import Namespace
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

_AS_THEY_ARE = (bool, int, float, complex, str, bytes, bytearray, torch.Tensor, torch.Size, torch.dtype, torch.device)


def sanitised(value: Any) -> Any:
    """Return a state that `torch.load(weights_only=True)` will accept once it is saved.

    >>> sanitised({"lr": np.float32(0.5), "order": np.arange(3)})
    {'lr': 0.5, 'order': tensor([0, 1, 2])}
    """
    if isinstance(value, np.generic):
        return _plain_scalar(value)
    if value is None or isinstance(value, _AS_THEY_ARE):
        return value
    if isinstance(value, np.ndarray):
        return _as_tensor(value)
    if callable(getattr(value, "state_dict", None)):
        return sanitised(value.state_dict())
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, list | deque | range):
        return [sanitised(item) for item in value]
    if isinstance(value, tuple):
        return tuple(sanitised(item) for item in value)
    if isinstance(value, set | frozenset):
        return {sanitised(item) for item in value}
    if isinstance(value, slice):
        return (sanitised(value.start), sanitised(value.stop), sanitised(value.step))
    if isinstance(value, SimpleNamespace | Namespace):
        return {name: sanitised(item) for name, item in vars(value).items()}
    if isinstance(value, torch.Generator):
        return value.get_state()
    return str(value)


def _mapping(value: Mapping[Any, Any]) -> dict[Any, Any]:
    items = {sanitised(key): sanitised(item) for key, item in value.items()}
    if isinstance(value, OrderedDict):
        ordered = OrderedDict(items)
        if hasattr(value, "_metadata"):
            ordered._metadata = sanitised(value._metadata)  # type: ignore[attr-defined]
        return ordered
    return Counter(items) if isinstance(value, Counter) else items


def _plain_scalar(value: np.generic) -> Any:
    plain = value.item()
    return sanitised(plain) if not isinstance(plain, np.generic) else str(value)


def _as_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    except (TypeError, ValueError):
        return torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
