"""Every tensor and array in a state's tree under the path it has there, those that share memory included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ckptlake.checkpoints.leaves import JSON
from ckptlake.checkpoints.paths import child_names, child_path
from ckptlake.checkpoints.restore import unflatten
from ckptlake.checkpoints.windows import Window, read_window
from ckptlake.errors import InvalidInputError

_PAIRS = {"dict": 0, "ordered": 0, "counter": 0, "namespace": 0, "argparse": 0, "ordered_with_metadata": 1}
_PAIRS["defaultdict"] = 1
_ITEMS = {"tuple": 0, "deque": 1}
_AROUND_DATA = {"requires_grad": None, "on": 1, "parameter": 1, "buffer": 2, "generator": 1}
_OF_PARTS = {
    "sparse_coo": "sparse",
    "sparse_compressed": "sparse",
    "quantized": "quantized",
    "channelwise": "quantized",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor or an array where it stands in a state.

    Attributes:
        path: keys of the containers around it, joined by ``/``.
        node: its node in the tree.
        leaf: the number of the stored block it lies in, or -1 where it is made of several.
        window: which elements of the block it has, or None for all.
        raw: numpy's type and the shape of an array that is kept as bytes, or None.
        made_of_parts: ``sparse`` or ``quantized`` where it is that, else None.
    """

    path: str
    node: JSON
    leaf: int
    window: Window | None = None
    raw: tuple[JSON, JSON] | None = None
    made_of_parts: str | None = None


def places(tree: JSON, path: str | None = None) -> Iterator[Place]:
    """Yield the tensors and arrays of a tree, or of a part of one, in order.

    >>> tree = {"dict": [["w", {"array": 0}], ["tied", {"array": 0}], ["epoch", 3]]}
    >>> [(place.path, place.leaf) for place in places(tree)]
    [('w', 0), ('tied', 0)]
    """
    if isinstance(tree, list):
        yield from _in_items(tree, path)
    elif isinstance(tree, dict) and len(tree) == 1:
        ((tag, inner),) = tree.items()
        if tag in _PAIRS:
            if tag == "ordered_with_metadata":
                yield from places(_items(inner)[0], child_path(path, "%(metadata)"))
            yield from _in_pairs(_items(inner)[_PAIRS[tag] :], path)
        elif tag in _ITEMS:
            yield from _in_items(_items(inner)[_ITEMS[tag] :], path)
        else:
            place = _place(tag, inner, tree, path or "")
            if place is not None:
                yield place


def part_of(tree: JSON, name: str) -> JSON:
    """Return the node of one part of a state that is a dict.

    Raises:
        InvalidInputError: there is no such part; the message names those there are.
    """
    pairs = pairs_of(tree)
    for key, node in pairs:
        if key == name:
            return node
    known = ", ".join(repr(key) for key, _ in pairs) or "none"
    raise InvalidInputError(f"the checkpoint has no part {name!r:.80}; its parts are {known:.500}")


def pairs_of(tree: JSON) -> list[tuple[Any, JSON]]:
    """Return the keys and nodes of a tree that is some dict, else nothing."""
    if isinstance(tree, dict):
        for tag, first in _PAIRS.items():
            if tag in tree:
                return [(_key(pair), _items(pair)[1]) for pair in _items(tree[tag])[first:]]
    return []


def key_of(path: str) -> str:
    """Return the key that a path of one level was made of; a longer path stays as it is.

    >>> key_of("a%2Fb"), key_of("encoder/a%2Fb")
    ('a/b', 'encoder/a%2Fb')
    """
    return path if "/" in path else unquote(path)


def _in_pairs(pairs: Sequence[JSON], path: str | None) -> Iterator[Place]:
    names = child_names([_key(pair) for pair in pairs])
    for name, pair in zip(names, pairs, strict=True):
        yield from places(_items(pair)[1], child_path(path, name))


def _in_items(items: Sequence[JSON], path: str | None) -> Iterator[Place]:
    for number, node in enumerate(items):
        yield from places(node, child_path(path, str(number)))


def _place(tag: str, inner: JSON, node: JSON, path: str) -> Place | None:
    if tag in _OF_PARTS:
        return Place(path, node, -1, made_of_parts=_OF_PARTS[tag])
    if tag in _AROUND_DATA:
        number = _AROUND_DATA[tag]
        data = inner if number is None else _items(inner)[number]
        found = next(iter(places(data, path)), None)
        return None if found is None else Place(path, node, found.leaf, found.window, None, found.made_of_parts)
    if tag in ("tensor", "array") and isinstance(inner, int):
        return Place(path, node, inner)
    if tag in ("view", "array_view"):
        window = read_window(inner)
        return Place(path, node, window.leaf, window) if isinstance(window.leaf, int) else None
    if tag == "raw":
        array, described, shape = _items(inner)
        found = next(iter(places(array, path)), None)
        return None if found is None else Place(path, node, found.leaf, found.window, (described, shape))
    return None


def _key(pair: JSON) -> Any:
    key = _items(pair)[0]
    return key if isinstance(key, str) else unflatten(key, [], [].__getitem__)


def _items(node: JSON) -> list[JSON]:
    if not isinstance(node, list):
        raise TypeError(f"{node!r:.60} where a list should be")
    return node
