"""States made of nothing but what `torch.load(weights_only=True)` accepts.

The tensors stay the same objects in the same order; of everything else the closest plain value is taken, because
what it was exactly stands in the checkpoint's manifest.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.dtypes import StringDType

_AS_THEY_ARE = (bool, int, float, complex, str, bytes, bytearray, torch.Tensor, torch.Size, torch.dtype, torch.device)
_KEYS = (bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)
_NO_BYTES = torch.empty(0, dtype=torch.uint8)


def sanitised(value: Any) -> Any:
    """Return a state that `torch.load(weights_only=True)` will accept once it is saved.

    >>> sanitised({"lr": np.float32(0.5), "order": np.arange(3)})
    {'lr': 0.5, 'order': tensor([0, 1, 2])}
    """
    if isinstance(value, np.generic):
        return _plain_scalar(value)
    if type(value) is bytes and not value:
        return bytearray()  # torch pickles no bytes as a call to `bytes`, which it refuses to read
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
    items: dict[Any, Any] = {}
    for key, item in value.items():
        items[_free_key(_plain_key(key), items)] = sanitised(item)
    if isinstance(value, OrderedDict):
        ordered = OrderedDict(items)
        if hasattr(value, "_metadata"):
            ordered._metadata = sanitised(value._metadata)  # type: ignore[attr-defined]
        return ordered
    return Counter(items) if isinstance(value, Counter) and _counts(items) else items


def _plain_key(key: Any) -> Any:
    """Return a key that can be hashed and that torch reads."""
    if isinstance(key, np.generic):
        return _plain_scalar(key)
    if type(key) is tuple:
        return tuple(_plain_key(part) for part in key)
    return key if key is None or (isinstance(key, _KEYS) and key != b"") else str(key)


def _free_key(key: Any, taken: dict[Any, Any]) -> Any:
    """Return a key, changed where another has become equal to it."""
    if key not in taken:
        return key
    name, number = str(key), 2
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"


def _counts(items: dict[Any, Any]) -> bool:
    return all(type(item) is int for item in items.values())


def _plain_scalar(value: np.generic) -> Any:
    plain = value.item()
    return sanitised(plain) if not isinstance(plain, np.generic) else str(value)


def _as_tensor(array: npt.NDArray[Any]) -> Any:
    if isinstance(array.dtype, StringDType):
        return array.tolist()
    try:
        with warnings.catch_warnings():
            # An array that cannot be written to is only read here.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
            return torch.from_numpy(array)
    except (TypeError, ValueError):
        pass
    try:
        return torch.from_numpy(array.copy(order="C"))
    except (TypeError, ValueError):
        return torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8) if array.nbytes else _NO_BYTES.clone()
