"""Digests and checksums of checkpoints: what each covers and how it is made.

Every tensor has a SHA-256 of its contiguous little-endian bytes, which names its content in the whole lake,
and an XXH3-64 for each 4 MiB of them, which finds damage fifteen times faster and tells where it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Protocol

import xxhash

CHECKED_BYTES = 4 << 20
"""Bytes that one checksum covers."""


class Digested(Protocol):
    """A tensor whose content is known by its digest."""

    @property
    def path(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def digest(self) -> str | None: ...


def spans(nbytes: int) -> Iterable[tuple[int, int]]:
    """Yield the byte ranges that have a checksum each.

    >>> list(spans(5 << 20))
    [(0, 4194304), (4194304, 5242880)]
    """
    return ((start, min(start + CHECKED_BYTES, nbytes)) for start in range(0, nbytes, CHECKED_BYTES))


def check(view: memoryview | bytes) -> int:
    """Return the checksum of at most 4 MiB."""
    return xxhash.xxh3_64_intdigest(view)


def quick_key(checks: Sequence[int], nbytes: int) -> bytes:
    """Return 16 bytes that differ for different contents, but may be made to collide: a hint, never a proof."""
    return xxhash.xxh3_128_digest(b"".join(value.to_bytes(8, "little") for value in (nbytes, *checks)))


def tree_digest(tree: object) -> str:
    """Return the SHA-256 of a state's tree as compact JSON."""
    return hashlib.sha256(json.dumps(tree, separators=(",", ":")).encode()).hexdigest()


def root_digest(tree: object, tensors: Iterable[Digested]) -> str | None:
    """Return the digest of a whole checkpoint, or None while that of a tensor is not known.

    It is the SHA-256 over one line of JSON ``[path, dtype, shape, digest]`` a tensor, in order of path, behind
    one for the tree, whose path is empty.
    """
    root = hashlib.sha256(_line("", "json", (), tree_digest(tree)))
    for tensor in sorted(tensors, key=lambda tensor: tensor.path):
        if tensor.digest is None:
            return None
        root.update(_line(tensor.path, tensor.dtype, tensor.shape, tensor.digest))
    return root.hexdigest()


def _line(path: str, dtype: str, shape: Sequence[int], digest: str) -> bytes:
    return json.dumps([path, dtype, list(shape), digest], separators=(",", ":")).encode() + b"\n"
