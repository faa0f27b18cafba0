"""Training states put together from a tree of JSON and the bytes of its leaves.

`ckptlake.checkpoints.tree` tells the grammar. Nothing in a tree is run, imported or looked up by name outside of
fixed tables, and nothing is allocated that the tree and the bytes do not account for, so a tree from anywhere is safe
to read.
"""

from __future__ import annotations

from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ckptlake.checkpoints.arrays import as_array, read_strings, reinterpret, view_within
from ckptlake.checkpoints.formats.optional_torch import needing_torch
from ckptlake.checkpoints.leaves import JSON, LeafInfo
from ckptlake.checkpoints.numpy_types import NUMPY_READERS
from ckptlake.checkpoints.plain_values import READERS, read_int
from ckptlake.checkpoints.tree import DEEPEST, FACTORIES
from ckptlake.checkpoints.windows import read_window
from ckptlake.errors import CkptlakeError, DamagedCheckpointError

if TYPE_CHECKING:
    from ckptlake.checkpoints.formats.torch_restore import TorchRestorer

__all__ = ["LeafInfo", "as_array", "as_leaf", "unflatten"]

Read = Callable[[int], memoryview]

_TORCH_TAGS = frozenset(
    {"tensor", "view", "on", "sparse_coo", "sparse_compressed", "quantized", "channelwise"}
    | {"requires_grad", "parameter", "buffer", "generator"}
    | {"size", "torch_dtype", "torch_device", "torch_layout", "memory_format"}
)
_VIEW_TAGS = frozenset({"view", "array_view"})
_LEAF_TAGS = frozenset({"tensor", "array"}) | _VIEW_TAGS
_DEEPEST_ARRAY = 100  # levels of JSON in the node of one array, most of which can be those of its dtype


def unflatten(tree: object, leaves: Sequence[LeafInfo], read: Read, map_location: object = None) -> Any:
    """Put a state together.

    Args:
        tree: what `flatten` has returned, as it comes back from JSON.
        leaves: what each leaf is.
        read: returns the contiguous little-endian bytes of a leaf by its number; asked once for each leaf that the
            tree uses. Tensors and arrays use that memory without a copy, so it should be theirs to write.
        map_location: the device to put tensors on, or None for the devices they were on, as in `torch.load`.

    Raises:
        DamagedCheckpointError: the tree is none that `flatten` returns, or does not fit the leaves.
        InvalidInputError: a device is not here; `map_location` tells another.
        MissingDependencyError: the state holds tensors and torch is not installed.

    >>> unflatten({"dict": [[1, {"tuple": [None, "a"]}]]}, [], [].__getitem__)
    {1: (None, 'a')}
    """
    return _Restorer(leaves, read, map_location).value(tree, 0)


def as_leaf(tree: object, number: int, info: LeafInfo, data: memoryview) -> Any:
    """Return one leaf alone: a torch tensor if it was one in the tree, otherwise a numpy array.

    Args:
        tree: the whole tree.
        number: which leaf.
        info: its element type and shape, or those of the part of it that `data` is.
        data: contiguous little-endian bytes, used without a copy.

    Raises:
        DamagedCheckpointError: the bytes do not fit.
        MissingDependencyError: it is a tensor and torch is not installed.
    """
    if number in _tensor_numbers(_Same(tree)):
        with needing_torch(f"tensor {info.path!r:.200}"):
            from ckptlake.checkpoints.formats.torch_tensors import as_tensor
        return as_tensor(info, data)
    return as_array(info, data)


@dataclass(frozen=True, slots=True, eq=False)
class _Same:
    """A tree as a key: equal to itself alone, since trees are long and have no hash."""

    tree: object

    def __hash__(self) -> int:
        return id(self.tree)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.tree is self.tree


@lru_cache(maxsize=2)
def _tensor_numbers(same: _Same) -> frozenset[int]:
    """Return which leaves of a tree are tensors."""
    found: set[int] = set()
    left = [same.tree]
    while left:
        node = left.pop()
        if isinstance(node, list):
            left.extend(node)
        elif isinstance(node, dict):
            left.extend(node.values())
            if isinstance(node.get("tensor"), int):
                found.add(node["tensor"])
    return frozenset(found)


@contextmanager
def _sound(tag: str) -> Iterator[None]:
    """Have what a reader says against a node be said as damage."""
    try:
        yield
    except CkptlakeError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise DamagedCheckpointError(f"the tree's node {tag!r:.40} is damaged: {error!s:.200}") from None


class _Restorer:
    """One way through a tree; equal nodes of memory give the same object."""

    def __init__(self, leaves: Sequence[LeafInfo], read: Read, map_location: object) -> None:
        self._leaves = leaves
        self._read = read
        self._map_location = map_location
        self._torch: TorchRestorer | None = None
        self._asked: set[int] = set()
        self._fetched: dict[int, memoryview] = {}
        self._arrays: dict[int, npt.NDArray[Any]] = {}
        self._made: dict[Hashable, object] = {}

    def value(self, node: Any, depth: int = 0) -> Any:
        """Return the value of a node."""
        if node is None or type(node) in (bool, int, float, str):
            return node
        if depth > DEEPEST:
            raise DamagedCheckpointError(f"the tree is nested deeper than {DEEPEST} containers")
        if type(node) is list:
            return self.values(node, depth + 1)
        if type(node) is not dict or len(node) != 1:
            raise DamagedCheckpointError(f"the tree has a {type(node).__name__} where a node with one tag belongs")
        ((tag, payload),) = node.items()
        container = _CONTAINERS.get(tag)
        if container is None:
            return self._single(tag, payload)
        with _sound(tag):
            head, rest = container.split(payload)
        inside = container.gather(self, rest, depth + 1)
        with _sound(tag):
            return container.build([self.value(each, depth + 1) for each in head], inside)

    def values(self, nodes: list[JSON], depth: int) -> list[Any]:
        """Return the values of nodes."""
        found = []
        for node in nodes:
            found.append(self.value(node, depth))  # noqa: PERF401 - keeps the stack short
        return found

    def pairs(self, nodes: list[JSON], depth: int) -> list[tuple[Any, Any]]:
        """Return keys with values."""
        found = []
        for pair in nodes:
            if type(pair) is not list or len(pair) != 2:
                raise DamagedCheckpointError("the tree has something else where a key and its value belong")
            found.append((self.value(pair[0], depth), self.value(pair[1], depth)))
        return found

    def _single(self, tag: str, payload: JSON) -> object:
        """Return the value of a node that holds no others."""
        with _sound(tag):
            if tag in _PLAIN:
                return _PLAIN[tag](payload)
            if tag not in _TORCH_TAGS and tag not in _ARRAYS:
                raise ValueError("this ckptlake does not know it")
            key = _frozen({tag: payload}, _DEEPEST_ARRAY)
        if key not in self._made:
            self._fetch({tag: payload})
            with _sound(tag):
                made = self._of_torch(tag, payload) if tag in _TORCH_TAGS else _ARRAYS[tag](self, payload)
            self._made[key] = made
            self._fetched.clear()
        return self._made[key]

    def _fetch(self, node: JSON) -> None:
        """Read the leaves that a node names and no other has; what `read` raises is no damage of the tree."""
        if isinstance(node, list):
            for each in node:
                self._fetch(each)
        elif isinstance(node, dict):
            for tag, payload in node.items():
                number = payload[0] if tag in _VIEW_TAGS and isinstance(payload, list) and payload else payload
                if tag not in _LEAF_TAGS or type(number) is not int:
                    self._fetch(payload)
                elif 0 <= number < len(self._leaves) and number not in self._asked:
                    self._asked.add(number)
                    self._fetched[number] = self._read(number)

    def _of_torch(self, tag: str, payload: JSON) -> object:
        if self._torch is None:
            with needing_torch("this state"):
                from ckptlake.checkpoints.formats.torch_restore import TorchRestorer
            self._torch = TorchRestorer(self._leaf, self._map_location)
        return self._torch.read(tag, payload)

    def _leaf(self, node: JSON) -> tuple[LeafInfo, memoryview]:
        """Return what a leaf is and its bytes."""
        number = read_int(node)
        if not 0 <= number < len(self._leaves):
            raise DamagedCheckpointError(f"the tree has a leaf {number:.0f}; there are {len(self._leaves)}")
        if number not in self._fetched:
            raise DamagedCheckpointError(f"the tree has leaf {number} twice, as one thing and as another")
        return self._leaves[number], self._fetched[number]

    def _array(self, payload: JSON) -> npt.NDArray[Any]:
        number = read_int(payload)
        if number not in self._arrays:
            info, data = self._leaf(number)
            if info.dtype.numpy is None:
                raise TypeError(f"an array of {info.dtype.name}")
            self._arrays[number] = as_array(info, data)
        return self._arrays[number]

    def _array_view(self, payload: JSON) -> npt.NDArray[Any]:
        window = read_window(payload)
        stored = self._array(window.leaf)
        window.check(stored.size)
        return view_within(stored, window)

    def _raw(self, payload: JSON) -> npt.NDArray[Any]:
        match payload:
            case [{"array": leaf}, described, shape]:
                return reinterpret(self._array(leaf), described, shape)
            case [{"array_view": view}, described, shape]:
                return reinterpret(self._array_view(view), described, shape)
        raise TypeError("no bytes of an array")


def _frozen(node: JSON, levels: int) -> Hashable:
    """Return the node as a key for what is made of it."""
    if not levels:
        raise ValueError("nested too deep")
    if isinstance(node, list):
        return tuple([_frozen(each, levels - 1) for each in node])
    if isinstance(node, dict):
        return frozenset([(tag, _frozen(payload, levels - 1)) for tag, payload in node.items()])
    return type(node), node


@dataclass(frozen=True, slots=True)
class _Container:
    """How the payload of a container's node becomes the container.

    Attributes:
        gather: makes the values inside.
        build: puts them together, given the values of the head.
        heads: how many items at the front of the payload are not inside.
    """

    gather: Callable[[_Restorer, list[JSON], int], list[Any]]
    build: Callable[[list[Any], list[Any]], object]
    heads: int = 0

    def split(self, payload: JSON) -> tuple[list[JSON], list[JSON]]:
        """Return head and rest of a payload."""
        if type(payload) is not list or len(payload) < self.heads:
            raise TypeError("something is missing")
        return payload[: self.heads], payload[self.heads :]


def _filled(empty: Any, pairs: list[tuple[Any, Any]]) -> Any:
    """Return a mapping with the pairs in it, whose keys are all different."""
    for key, value in pairs:
        empty[key] = value
    if len(empty) != len(pairs):
        raise ValueError("a key is there twice")
    return empty


def _all_different(kind: type[set[Any]] | type[frozenset[Any]], values: list[Any]) -> set[Any] | frozenset[Any]:
    found = kind(values)
    if len(found) != len(values):
        raise ValueError("an element is there twice")
    return found


def _deque(head: list[Any], values: list[Any]) -> deque[Any]:
    (maxlen,) = head
    if maxlen is not None and (type(maxlen) is not int or maxlen < len(values)):
        raise ValueError("more values than its maxlen")
    return deque(values, maxlen)


def _defaultdict(head: list[Any], pairs: list[tuple[Any, Any]]) -> defaultdict[Any, Any]:
    (name,) = head
    return _filled(defaultdict(None if name is None else FACTORIES[name]), pairs)  # type: ignore[no-any-return]


def _with_metadata(head: list[Any], pairs: list[tuple[Any, Any]]) -> OrderedDict[Any, Any]:
    found: OrderedDict[Any, Any] = _filled(OrderedDict(), pairs)
    (found._metadata,) = head  # type: ignore[attr-defined]
    return found


def _namespace(empty: SimpleNamespace | Namespace, pairs: list[tuple[Any, Any]]) -> SimpleNamespace | Namespace:
    if any(type(name) is not str for name, _ in pairs):
        raise TypeError("a name that is no text")
    _filled(vars(empty), pairs)  # not setattr: a name such as __class__ is a name like others
    return empty


_CONTAINERS: dict[str, _Container] = {
    "tuple": _Container(_Restorer.values, lambda _, values: tuple(values)),
    "slice": _Container(_Restorer.values, lambda _, values: slice(*_three(values))),
    "deque": _Container(_Restorer.values, _deque, 1),
    "set": _Container(_Restorer.values, lambda _, values: _all_different(set, values)),
    "frozenset": _Container(_Restorer.values, lambda _, values: _all_different(frozenset, values)),
    "dict": _Container(_Restorer.pairs, lambda _, pairs: _filled({}, pairs)),
    "counter": _Container(_Restorer.pairs, lambda _, pairs: _filled(Counter(), pairs)),
    "ordered": _Container(_Restorer.pairs, lambda _, pairs: _filled(OrderedDict(), pairs)),
    "ordered_with_metadata": _Container(_Restorer.pairs, _with_metadata, 1),
    "defaultdict": _Container(_Restorer.pairs, _defaultdict, 1),
    "namespace": _Container(_Restorer.pairs, lambda _, pairs: _namespace(SimpleNamespace(), pairs)),
    "argparse": _Container(_Restorer.pairs, lambda _, pairs: _namespace(Namespace(), pairs)),
}
_PLAIN: dict[str, Callable[[JSON], object]] = {**READERS, **NUMPY_READERS, "strings": read_strings}
_ARRAYS: dict[str, Callable[[_Restorer, JSON], object]] = {
    "array": _Restorer._array,
    "array_view": _Restorer._array_view,
    "raw": _Restorer._raw,
}


def _three(values: list[Any]) -> list[Any]:
    if len(values) != 3:
        raise ValueError("not start, stop and step")
    return values
