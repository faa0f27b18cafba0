"""Training states taken apart into a tree of JSON and the tensors and arrays in it; nothing is pickled.

`json.dumps(tree, allow_nan=False)` always works, and `ckptlake.checkpoints.restore.unflatten` puts what it gives
together again, values and types alike. The grammar, where ``v`` is any value::

    v       null, true, false, text, an integer within 2**53, a finite float
            [v, ...]                                         list
            {tag: payload}                                   everything else, one tag an object

    python  {"int": "0x..."}  {"float": "nan" | "inf" | "-inf"}  {"complex": [real, imaginary]}
            {"bytes": base64}  {"bytearray": base64}  {"range": [start, stop, step]}
            {"date": iso}  {"datetime": [iso, fold, zone]}  {"time": [iso, fold, zone]}
            {"timedelta": [days, seconds, microseconds]}  {"timezone": [days, seconds, microseconds, name?]}
            {"zoneinfo": key}  {"decimal": text}  {"fraction": [numerator, denominator]}  {"uuid": text}
            {"path": [class, text]}
            {"tuple": [v, ...]}  {"set": [v, ...]}  {"frozenset": [v, ...]}  {"slice": [v, v, v]}
            {"deque": [maxlen, v, ...]}  {"dict": [[key, v], ...]}  {"counter": [[key, v], ...]}
            {"ordered": [[key, v], ...]}  {"ordered_with_metadata": [v, [key, v], ...]}
            {"defaultdict": [factory's name or null, [key, v], ...]}
            {"namespace": [[name, v], ...]}  {"argparse": [[name, v], ...]}
    numpy   {"np_str": text}  {"np_bytes": base64}  {"scalar": [type, base64]}  {"dtype": type}
            {"strings": [shape, [text, ...]]}  {"raw": [array, type, shape]}
            array is {"array": leaf} or {"array_view": [leaf, offset, shape, strides]}
            type is numpy's code, {"struct": [[[name, type, offset, title?], ...], itemsize, aligned]}
            or {"subarray": [type, shape]}
    torch   see `ckptlake.checkpoints.formats.torch_nodes`

A leaf is a number; offsets and strides count elements. Sets are sorted by their JSON, so equal states give equal
trees. What is one memory in the state is one leaf, and one memory again after loading: the same elements come back
as one object, others as views. Lists and dicts that occur twice come back as two.

A leaf's path joins keys by ``/``. In a key ``/``, ``%``, NUL and lone surrogates are escaped by percents, as in
``%2F``; a key that is no string is shown as Python does, followed by its type, as in ``0%(int)``, where another key
of its dict reads the same.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptlake._internal.optional import if_imported
from ckptlake.checkpoints.arrays import array_bytes, write_array
from ckptlake.checkpoints.leaves import JSON, Flat, Leaf
from ckptlake.checkpoints.numpy_types import write_dtype, write_scalar
from ckptlake.checkpoints.paths import child_names, child_path
from ckptlake.checkpoints.plain_values import WRITERS
from ckptlake.checkpoints.remedies import remedy
from ckptlake.checkpoints.sharing import Block, place
from ckptlake.errors import InvalidInputError

__all__ = [
    "DEEPEST",
    "FACTORIES",
    "Flat",
    "Leaf",
    "bytes_of",
    "copy_bytes",
    "flatten",
    "is_stateful",
    "read_bytes",
    "torch_nodes_if_loaded",
]

DEEPEST = 200
"""How many containers may lie in each other."""

FACTORIES: dict[str, type] = {kind.__name__: kind for kind in (bool, int, float, str, tuple, list, dict, set)}
"""What a defaultdict may make its missing values by."""

_MOST_NAMED = 10


def flatten(state: object) -> Flat:
    """Take a state apart; no element of a tensor or an array is read, let alone copied.

    Objects with a `state_dict` method, anywhere in the state, stand for what that returns. Attributes that were set
    on tensors and their gradients are not part of a state, nor is the memory order of an array that shares none.

    Raises:
        InvalidInputError: something in it cannot be kept; the message names up to 10 such places, and what to do.

    >>> flat = flatten({"epoch": 3, "weights": np.zeros((2, 3), np.float32)})
    >>> flat.tree
    {'dict': [['epoch', 3], ['weights', {'array': 0}]]}
    >>> [(leaf.path, leaf.dtype.name, leaf.shape) for leaf in flat.leaves]
    [('weights', 'float32', (2, 3))]
    """
    walk = _Walk()
    tree = walk.node(state, None)
    if walk.refused:
        raise InvalidInputError(_told(walk.refused))
    return Flat(tree, place(walk.blocks))


def read_bytes(leaf: Leaf) -> memoryview:
    """Return the elements of a leaf as `bytes_of` does those of an array."""
    return bytes_of(leaf.array)


def bytes_of(array: object) -> memoryview:
    """Return the elements of a numpy array or a dense tensor as contiguous little-endian bytes.

    The memory itself where it is the CPU's, contiguous and little-endian; otherwise one copy.
    """
    if isinstance(array, np.ndarray):
        return array_bytes(array)
    from ckptlake.checkpoints.formats.torch_tensors import tensor_bytes

    return tensor_bytes(array)


def copy_bytes(array: object, target: npt.NDArray[np.uint8]) -> None:
    """Copy the elements of a numpy array or a dense tensor, as `bytes_of` gives them, to memory of their size."""
    if isinstance(array, np.ndarray):
        np.copyto(target, np.frombuffer(array_bytes(array), np.uint8))
    else:
        from ckptlake.checkpoints.formats.torch_tensors import copy_tensor

        copy_tensor(array, target)


def is_stateful(value: object) -> bool:
    """Tell whether a value stands for what its `state_dict` returns."""
    return not isinstance(value, type) and callable(getattr(value, "state_dict", None))


def _told(refused: list[str]) -> str:
    more = len(refused) - _MOST_NAMED
    rest = f"; and {more} more" if more > 0 else ""
    return f"the state holds what cannot be kept: {'; '.join(refused[:_MOST_NAMED])}{rest}"


class _Walk:
    """One way through a state; a place that is refused is noted, so that all are told at once."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.refused: list[str] = []
        self._around: list[int] = []

    def node(self, value: Any, path: str | None) -> JSON:
        """Return the node of a value; the path of the state itself is None."""
        kind = type(value)
        try:
            if kind in WRITERS:
                return WRITERS[kind](value)
            container = _CONTAINERS.get(kind) or _stateful(value)
            if container is None:
                return self._foreign(value, path or "")
            self._check_place(value)
            self._around.append(id(value))
            try:
                return container.finish(value, container.gather(self, container.inside(value), path))
            finally:
                self._around.pop()
        except InvalidInputError as error:
            self._refuse(value, path, str(error))
            return None

    def _refuse(self, value: object, path: str | None, reason: str) -> None:
        kind = type(value)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        self.refused.append(f"{'the state itself' if path is None else repr(path)} ({name}): {reason}")

    def _check_place(self, value: object) -> None:
        if id(value) in self._around:
            raise InvalidInputError("it contains itself; store a copy that does not")
        if len(self._around) == DEEPEST:
            raise InvalidInputError(f"it lies in {DEEPEST} containers; store the state less nested")

    def _foreign(self, value: Any, path: str) -> JSON:
        """Return the node of a value of numpy or torch."""
        if type(value) is np.ndarray:
            return write_array(value, path, self.blocks.append)
        if isinstance(value, np.generic) and type(value) is value.dtype.type:
            return write_scalar(value)
        if isinstance(value, np.dtype):
            return {"dtype": write_dtype(value)}
        torch_nodes = torch_nodes_if_loaded()
        if torch_nodes is not None and isinstance(value, torch_nodes.KINDS):
            node: JSON = torch_nodes.write(value, path, self.blocks.append)
            return node
        raise InvalidInputError(remedy(value))

    def nodes(self, values: Iterable[object], path: str | None) -> list[JSON]:
        """Return the nodes of values that are counted."""
        found = []
        for number, value in enumerate(values):
            found.append(self.node(value, child_path(path, str(number))))
        return found

    def pairs(self, items: dict[Any, Any], path: str | None) -> list[JSON]:
        """Return the nodes of a dict's keys and values."""
        found: list[JSON] = []
        for name, (key, value) in zip(child_names(items), items.items(), strict=True):
            place = child_path(path, name)
            found.append([self._key(key, place), self.node(value, place)])
        return found

    def unordered(self, values: Iterable[object], path: str | None) -> list[JSON]:
        """Return the nodes of a set's elements, sorted."""
        return sorted([self._key(value, path) for value in values], key=json.dumps)

    def ordered(self, items: OrderedDict[Any, Any], path: str | None) -> JSON:
        """Return the node of an ordered dict, with what torch attaches to those of modules."""
        attached = vars(items)
        if attached.keys() - {"_metadata"}:
            raise InvalidInputError(f"it has the attributes {', '.join(attached)}; store them as values of their own")
        pairs = self.pairs(items, path)
        if not attached:
            return {"ordered": pairs}
        return {"ordered_with_metadata": [self.node(attached["_metadata"], child_path(path, "%(metadata)")), *pairs]}

    def _key(self, key: object, path: str | None) -> JSON:
        """Return the node of what a dict or a set finds its values by."""
        if type(key) is str:
            return key
        for stranger in _strangers(key):
            self._refuse(stranger, path, "it cannot be a key or be in a set; use a text, a number or a tuple of such")
            return None
        return self.node(key, path)


def _strangers(key: object) -> Iterator[object]:
    """Yield what in a key would not come back as an equal one."""
    inside: list[object] = [key]
    while inside:
        part = inside.pop()
        if isinstance(part, tuple | frozenset) and type(part) in _CONTAINERS:
            inside.extend(part)
        elif type(part) not in WRITERS and not _is_plain(part):
            yield part


def _is_plain(part: object) -> bool:
    if isinstance(part, np.void) or not isinstance(part, np.generic | np.dtype):
        torch_nodes = torch_nodes_if_loaded()
        return torch_nodes is not None and isinstance(part, torch_nodes.PLAIN_KINDS)
    return True


def torch_nodes_if_loaded() -> ModuleType | None:
    """Return the part that knows torch, if the program has loaded torch."""
    return None if if_imported("torch") is None else _torch_nodes()


@cache
def _torch_nodes() -> ModuleType:
    from ckptlake.checkpoints.formats import torch_nodes

    return torch_nodes


@dataclass(frozen=True, slots=True)
class _Container:
    """How the values of a container are found, turned into nodes, and put into the node of their container."""

    inside: Callable[[Any], Any]
    gather: Callable[[_Walk, Any, str | None], Any]
    finish: Callable[[Any, Any], JSON] = lambda _, node: node


def _itself(value: object) -> object:
    return value


def _tagged(tag: str) -> Callable[[object, JSON], JSON]:
    return lambda _, nodes: {tag: nodes}


def _finish_defaultdict(value: defaultdict[Any, Any], pairs: list[JSON]) -> JSON:
    factory = value.default_factory
    if factory is None:
        return {"defaultdict": [None, *pairs]}
    for name, known in FACTORIES.items():
        if factory is known:
            return {"defaultdict": [name, *pairs]}
    raise InvalidInputError(f"its factory is {factory!r:.80}; use {', '.join(FACTORIES)}, or store dict(...)")


_CONTAINERS: dict[type, _Container] = {
    list: _Container(_itself, _Walk.nodes),
    tuple: _Container(_itself, _Walk.nodes, _tagged("tuple")),
    slice: _Container(lambda value: (value.start, value.stop, value.step), _Walk.nodes, _tagged("slice")),
    deque: _Container(_itself, _Walk.nodes, lambda value, nodes: {"deque": [value.maxlen, *nodes]}),
    set: _Container(_itself, _Walk.unordered, _tagged("set")),
    frozenset: _Container(_itself, _Walk.unordered, _tagged("frozenset")),
    dict: _Container(_itself, _Walk.pairs, _tagged("dict")),
    Counter: _Container(_itself, _Walk.pairs, _tagged("counter")),
    defaultdict: _Container(_itself, _Walk.pairs, _finish_defaultdict),
    OrderedDict: _Container(_itself, _Walk.ordered),
    SimpleNamespace: _Container(vars, _Walk.pairs, _tagged("namespace")),
    Namespace: _Container(vars, _Walk.pairs, _tagged("argparse")),
}
_STATEFUL = _Container(lambda value: value.state_dict(), _Walk.node)


def _stateful(value: object) -> _Container | None:
    return _STATEFUL if is_stateful(value) else None
