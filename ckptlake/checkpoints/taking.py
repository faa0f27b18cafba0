"""What has to be taken of a state before training goes on; taking it apart can wait.

To take a state apart costs Python many steps a tensor. A copy of its containers, around the same tensors, costs few,
and gives the same leaves later: nothing but the elements can change meanwhile, and those are what sources keep.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from types import NoneType
from typing import Any

import numpy as np

from ckptlake.checkpoints.arrays import NATIVE
from ckptlake.checkpoints.ownership import version_of
from ckptlake.checkpoints.sources import Source, changed
from ckptlake.checkpoints.tree import Flat, flatten, is_stateful, torch_nodes_if_loaded

_ATOMS = frozenset({NoneType, bool, int, float, complex, str, bytes})
_DEEPEST = 50


class Taken:
    """A state as it was at a call.

    Attributes:
        sources: its memory, each once; whoever changes it before it is saved has to stage them.
    """

    def __init__(self, sources: Sequence[Source], take_apart: Callable[[], tuple[Flat, list[Source]]]) -> None:
        self.sources = sources
        self._take_apart = take_apart

    def apart(self) -> tuple[Flat, list[Source]]:
        """Return the state taken apart, and the source of each of its leaves; the others are given up.

        Raises:
            InvalidInputError: a tensor was given other memory meanwhile.
        """
        return self._take_apart()


def take(state: object) -> Taken:
    """Take a state as it is now.

    Plain states, of dicts, lists, numbers and dense tensors, are taken apart when `Taken.apart` is called; any other
    is at once.

    Raises:
        InvalidInputError: something in it cannot be kept; the message names up to 10 such places.
    """
    asked, walk = _asked(state), _Walk()
    try:
        copy = walk.copy(asked, 0)
    except _NotPlainError:
        flat = flatten(asked)
        sources = [Source(leaf.array, version_of(leaf.array)).named(leaf) for leaf in flat.leaves]
        return Taken(sources, lambda: (flat, sources))
    return Taken(list(walk.sources.values()), lambda: _apart(copy, walk.sources))


def _asked(state: object) -> object:
    """Return a state whose parts have been asked for what they stand for, once: that may cost them much."""
    if type(state) is dict:
        return {name: part.state_dict() if is_stateful(part) else part for name, part in state.items()}
    return state


def _apart(state: object, held: dict[Hashable, Source]) -> tuple[Flat, list[Source]]:
    flat = flatten(state)
    named: list[Source] = []
    for leaf in flat.leaves:
        source = held.get(_memory_of(leaf.array)) if leaf.nbytes else Source(leaf.array)
        if source is None:
            raise changed(leaf.path)
        named.append(source.named(leaf))
    wanted = set(map(id, named))
    for source in held.values():
        if id(source) not in wanted:
            source.give_up()
    return flat, named


class _NotPlainError(Exception):
    """There is something in a state that only `flatten` knows how to keep, or to refuse."""


class _Walk:
    """One way through a state, which copies containers and lists the memory of tensors and arrays."""

    def __init__(self) -> None:
        self.sources: dict[Hashable, Source] = {}
        self._tensors: dict[int, tuple[object, object]] = {}
        self._torch = torch_nodes_if_loaded()

    def copy(self, value: Any, depth: int) -> object:
        """Return a value in containers of its own.

        Raises:
            _NotPlainError: it is not plain all through.
        """
        kind = type(value)
        if kind in _ATOMS:
            return value
        if depth == _DEEPEST:
            raise _NotPlainError
        inside = depth + 1
        if kind is dict:
            return {_key(key): self.copy(item, inside) for key, item in value.items()}
        if kind is list:
            return [self.copy(item, inside) for item in value]
        if kind is tuple:
            return tuple([self.copy(item, inside) for item in value])
        if kind is OrderedDict:
            return self._ordered(value, inside)
        if self._torch is not None and self._torch.is_tensor(value):
            return self._tensor(value, self._torch)
        if kind is np.ndarray:
            return self._array(value)
        if isinstance(value, np.number | np.bool_) and kind is value.dtype.type:
            return value
        if is_stateful(value):
            return self.copy(value.state_dict(), inside)
        raise _NotPlainError

    def _ordered(self, items: OrderedDict[Any, Any], depth: int) -> object:
        copied = OrderedDict((_key(key), self.copy(item, depth)) for key, item in items.items())
        for name, value in vars(items).items():
            setattr(copied, name, self.copy(value, depth))
        return copied

    def _tensor(self, tensor: Any, torch: Any) -> object:
        """Return a tensor over the same memory that nobody else can turn to other memory."""
        known = self._tensors.get(id(tensor))
        if known is not None:
            return known[1]
        if not torch.is_plain(tensor):
            raise _NotPlainError
        detached = tensor.detach()
        self._tensors[id(tensor)] = tensor, detached
        self._add(detached)
        return detached

    def _array(self, array: Any) -> object:
        if array.dtype.names is not None or array.dtype.str not in NATIVE:
            raise _NotPlainError
        self._add(array)
        return array

    def _add(self, array: Any) -> None:
        if array.nbytes and (memory := _memory_of(array)) not in self.sources:
            self.sources[memory] = Source(array, version_of(array))


def _memory_of(array: Any) -> Hashable:
    """Return what two arrays, or two tensors, have in common only if they are the same elements."""
    if isinstance(array, np.ndarray):
        return array.__array_interface__["data"][0], array.dtype.str, array.shape, array.strides
    return array.data_ptr(), array.device, array.dtype, array.shape, array.stride()


def _key(key: object) -> object:
    if type(key) is not str and type(key) is not int:
        raise _NotPlainError
    return key
