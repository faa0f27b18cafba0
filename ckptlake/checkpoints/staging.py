"""Memory that holds copies of tensors while they are saved in the background; kept between saves."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from ckptlake.checkpoints.tree import copy_bytes

Buffer = npt.NDArray[np.uint8]


def _copied(buffer: Buffer, array: object) -> memoryview:
    copy_bytes(array, buffer)
    return buffer.data


class Staging:
    """Buffers of a bounded size in all; a buffer goes back for the next save of a tensor of its size.

    Fresh memory costs ten times the copy, which is why it is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._free: dict[int, list[Buffer]] = defaultdict(list)
        self._used: list[Buffer] = []
        self._held_bytes = 0
        self._lock = threading.Lock()

    def find_room(self, nbytes: int) -> Callable[[object], memoryview] | None:
        """Return what copies that many bytes into a buffer held for them, or None where there is no room."""
        with self._lock:
            if self._free[nbytes]:
                buffer = self._free[nbytes].pop()
            elif self._held_bytes + nbytes <= self._max_bytes:
                buffer = np.empty(nbytes, np.uint8)
                self._held_bytes += nbytes
            else:
                return None
            self._used.append(buffer)
        return partial(_copied, buffer)

    def give_back(self) -> None:
        """Take back all buffers: the save they were for is over."""
        with self._lock:
            for buffer in self._used:
                self._free[buffer.nbytes].append(buffer)
            self._used.clear()

    def release(self) -> None:
        """Let go of all memory."""
        with self._lock:
            self._free.clear()
            self._held_bytes = sum(buffer.nbytes for buffer in self._used)
