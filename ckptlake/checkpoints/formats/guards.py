"""Bounds on what reading a file may cost: memory, objects, time spent on keys, depth and repetition of its value."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from ckptlake.checkpoints.formats.stubs import Known, Stub
from ckptlake.errors import UnsafeFileError

MAX_DEPTH = 250
_COPIES, _NESTINGS = 8, 2
_SPARE_BYTES = 16 << 20
_BYTES_PER_OBJECT = 8
_SPARE_OBJECTS = 1 << 16
_ODD_KEYS = 4096
_KEY_PARTS = 64
_MOST_KEY_PARTS = 10_000
_LONG_KEY = 1 << 16
_HASHED_BITS = 60
_REPEATED = 16
_SPARE_ITEMS = 1_000_000
_ITEM_BYTES = 64
_PLAIN_KEYS = (type(None), bool, float, datetime.date, datetime.datetime, datetime.time, datetime.timedelta)
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
_SIZED_LEAVES = (str, bytes, bytearray)
_BY_IDENTITY: Any = object.__hash__
_LEAVES = frozenset({type(None), bool, int, float, complex, type, *_SIZED_LEAVES})


class Allowance:
    """What one file may still cost, by its size; everything read from inside it draws on the same allowance.

    A pickle's own payload is bounded by its length. What is not: copies of one payload made again and again,
    objects made by a few bytes each, and keys whose hashes or comparisons take long. Each of these has a budget
    that grows with the size of the file.

    Args:
        source: how messages call the file.
        size: its bytes.
    """

    __slots__ = ("_bytes", "_nested_bytes", "_objects", "_odd_keys", "size", "source")

    def __init__(self, source: str, size: int) -> None:
        self.source = source
        self.size = size
        self._bytes = _COPIES * size + _SPARE_BYTES
        self._nested_bytes = _NESTINGS * size
        self._objects = size // _BYTES_PER_OBJECT + _SPARE_OBJECTS
        self._odd_keys = _ODD_KEYS

    def spend(self, size_bytes: int) -> None:
        """Take `size_bytes` of memory beyond the file's own bytes.

        Raises:
            UnsafeFileError: the file is too small to explain it.
        """
        self._bytes -= size_bytes
        if self._bytes < 0:
            raise UnsafeFileError(f"{self.source} asks for more memory than its {self.size} bytes can explain")

    def nest(self, size_bytes: int) -> None:
        """Take the reading of a file inside this one.

        Raises:
            UnsafeFileError: such files would be read again and again.
        """
        self._nested_bytes -= size_bytes
        if self._nested_bytes < 0:
            raise UnsafeFileError(f"{self.source} has the same files inside it read again and again")

    def make(self) -> None:
        """Take one object made by a call.

        Raises:
            UnsafeFileError: the file is too small to explain so many.
        """
        self._objects -= 1
        if self._objects < 0:
            raise UnsafeFileError(f"{self.source} makes more objects than its {self.size} bytes can explain")

    def take_key(self, key: object) -> None:
        """Accept a dictionary's key or a set's member before it is hashed.

        Tuples do not keep their hashes, so a tuple of a tuple of a tuple, each twice in the next, would take for
        ever; and integers that differ by a multiple of 2**61 - 1 have the same hash, so a dictionary of them is
        slow.

        Raises:
            UnsafeFileError: hashing and comparing the file's keys could take for ever.
        """
        kind = type(key)
        if kind is str and len(key) <= _LONG_KEY:  # type: ignore[arg-type]
            return
        if not (self._are_simple(key) if isinstance(key, tuple | frozenset) else _hashes_apart(key)):
            self._odd_keys -= 1
            if self._odd_keys < 0:
                raise UnsafeFileError(
                    f"{self.source} has more than {_ODD_KEYS} dictionary keys or set members that are long, or of a "
                    "type whose values can be made to collide; looking them up could take for ever"
                )

    def _are_simple(self, key: object) -> bool:
        parts, pending, simple = 0, [key], True
        while pending:
            part = pending.pop()
            parts += 1
            if parts > _MOST_KEY_PARTS:
                raise UnsafeFileError(f"{self.source} has a key of more than {_MOST_KEY_PARTS} parts")
            if isinstance(part, tuple | frozenset):
                pending.extend(part)
            else:
                parts += len(part) // _ITEM_BYTES if isinstance(part, str | bytes) else 0
                simple = simple and _hashes_apart(part)
        return simple and parts <= _KEY_PARTS


def _hashes_apart(part: Any) -> bool:
    kind = type(part)
    if kind is str or kind is bytes:
        return len(part) <= _LONG_KEY
    if kind is int:
        return part.bit_length() <= _HASHED_BITS  # type: ignore[no-any-return]
    by_identity = kind.__hash__ is _BY_IDENTITY or kind.__module__.partition(".")[0] == "torch"
    return kind in _PLAIN_KEYS or by_identity


def check_value(value: object, allowance: Allowance) -> list[Known]:
    """Refuse a value that those who walk it could not survive; return the known names left in it as values.

    Sharing costs a file two bytes, so a small file can hold a value that repeats itself beyond all bounds when
    it is walked as a tree, or that nests so deep that a recursive walk ends in a RecursionError. A reference
    back to a container that is still being walked counts as a leaf.

    Raises:
        UnsafeFileError: it nests deeper than `MAX_DEPTH`, or repeats itself more than its size explains.
    """
    measured: dict[int, tuple[int, int]] = {}
    names: list[Known] = []
    kept: list[Any] = [value]
    pending: list[tuple[Any, list[Any] | None, int]] = [(value, None, 0)]
    most = _REPEATED * allowance.size + _SPARE_ITEMS
    while pending:
        item, children, weight = pending.pop()
        if children is None:
            if id(item) in measured:
                continue
            if isinstance(item, Known):
                names.append(item)
            children, weight = _held_by(item)
            if children:
                kept.append(children)
                measured[id(item)] = (0, 1)
                pending.append((item, children, weight))
                pending.extend((child, None, 0) for child in children if id(child) not in measured)
                continue
        depth = 0
        for child in children:
            below, inside = measured[id(child)]
            depth, weight = max(depth, below + 1), weight + inside
        if depth > MAX_DEPTH:
            raise UnsafeFileError(f"{allowance.source} holds a value that nests deeper than {MAX_DEPTH} levels")
        if weight > most:
            raise UnsafeFileError(f"{allowance.source} holds a value that repeats itself into more than {most} items")
        measured[id(item)] = (depth, weight)
    return names


def _held_by(item: Any) -> tuple[list[Any], int]:
    """Return the values that an item holds and that may hold others, and how many leaves it has itself."""
    children: list[Any] = []
    weight = 1
    for group in (item.keys(), item.values()) if type(item) is dict else _groups(item):
        for child in group:
            kind = type(child)
            if kind in _CONTAINERS and not child:
                weight += 1
            elif kind not in _LEAVES:
                children.append(child)
            elif kind in _SIZED_LEAVES:
                weight += 1 + len(child) // _ITEM_BYTES
            else:
                weight += 1
    return children, weight


def _groups(item: Any) -> Iterable[Iterable[Any]]:
    if isinstance(item, dict):
        yield item.keys()
        yield item.values()
    elif isinstance(item, list | tuple | set | frozenset | deque):
        yield item
    elif isinstance(item, np.ndarray) and item.dtype.hasobject:
        yield item.flat
    elif isinstance(item, Stub):
        yield item.args
        yield (item.state,)
        yield item.entries.keys()
        yield item.entries.values()
        yield item.elements
    if not isinstance(item, type):
        yield getattr(item, "__dict__", {}).values()
