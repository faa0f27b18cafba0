"""Where the bytes of a tensor or an array are read while it is saved: live memory, or a copy made in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from ckptlake.checkpoints.tree import Leaf, bytes_of
from ckptlake.errors import InvalidInputError

Version = Callable[[], object]
"""Returns something that differs once the memory has been written to."""


class Source:
    """The bytes of one leaf; `stage` may put a copy in their place between two pieces that are read.

    Args:
        array: a numpy array or a dense tensor.
        version: tells whether its memory has been changed; looked at whenever live memory has been read.

    Attributes:
        leaf: what it is in its state, once it has been `named`.
    """

    leaf: Leaf

    def __init__(self, array: Any, version: Version = lambda: None) -> None:
        self.array = array
        self.nbytes: int = array.nbytes
        self._version = version
        self._first_version = version()
        self._lock = threading.Lock()
        self._staged: memoryview | None = None
        self._was_torn = False
        self._is_done = False
        self._told: threading.Event | None = None

    def named(self, leaf: Leaf) -> Self:
        """Say which leaf these bytes are, before they are read."""
        self.leaf = leaf
        return self

    @property
    def is_live(self) -> bool:
        """Whether the memory itself is still to be read."""
        return self._staged is None and not self._is_done

    def finish(self) -> None:
        """Say that all of it has been saved, or given up, and let go of a copy.

        Raises:
            InvalidInputError: the memory was written to while it was read.
        """
        with self._lock:
            is_torn = self._is_torn()
            self._end()
        if is_torn:
            raise changed(self.leaf.path)

    def give_up(self) -> None:
        """Let go of everything; whoever waits goes on."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._staged = None
        self._is_done = True
        if self._told is not None:
            self._told.set()

    def wait(self) -> None:
        """Wait until all of it has been saved or given up."""
        with self._lock:
            if self._is_done:
                return
            self._told = self._told or threading.Event()
        self._told.wait()

    def stage(self, copy: Callable[[object], memoryview]) -> None:
        """Read from a copy from now on, unless that is so already or all of it has been saved.

        Memory that was written to before is not copied: whoever reads it next is told.
        """
        with self._lock:
            if self.is_live:
                self._was_torn = self._is_torn()
                if not self._was_torn:
                    self._staged = copy(self.array)

    def _is_torn(self) -> bool:
        return self._was_torn or (self.is_live and self._version() != self._first_version)

    def read(self) -> Reading:
        """Begin a pass over the bytes."""
        return Reading(self)


class Reading:
    """One pass over a source.

    Memory that is not contiguous or not the CPU's is copied for as long as the pass lasts.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._view: memoryview | None = None

    @contextmanager
    def piece(self, start: int, stop: int) -> Iterator[memoryview]:
        """Hold the bytes from `start` to `stop` still for the block."""
        source = self._source
        with source._lock:
            if source._staged is not None:
                yield source._staged[start:stop]
                return
            if source._is_torn():
                raise changed(source.leaf.path)
            if self._view is None:
                self._view = bytes_of(source.array)
            yield self._view[start:stop]


def changed(path: str) -> InvalidInputError:
    """Return the error for a tensor that was written to while it was saved."""
    return InvalidInputError(
        f"tensor {path!r} was changed while it was being saved, so this checkpoint was given up: call "
        "`handle.fence()` before changing tensors outside of optimizer.step(), or save without async_"
    )
