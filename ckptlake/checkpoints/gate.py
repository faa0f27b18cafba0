"""Who may be in the blob store: many savers together, or one sweeper alone.

A saver passes from its look-up of what is stored already to its commit, so nothing it found can be swept
in between. A sweeper waits at the turnstile first, which holds back new savers; otherwise a stream of
savers would never let it in. Both are `flock`s: a process that dies gives them up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ckptlake._internal.locks import lock_alone, lock_together, open_lock, release


class Gate:
    """The two lock files of a blob store."""

    def __init__(self, directory: Path) -> None:
        self._room = directory / ".gc.lock"
        self._turnstile = directory / ".gc.wanted"

    @contextmanager
    def together(self) -> Iterator[None]:
        """Be in the store together with other savers for the block."""
        with self._passing(lock_together):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be alone in the store for the block, once all who are in have left."""
        with self._passing(lock_alone):
            yield

    @contextmanager
    def _passing(self, take: Callable[[int], None]) -> Iterator[None]:
        room = open_lock(self._room)
        try:
            turnstile = open_lock(self._turnstile)
            try:
                take(turnstile)
                take(room)
            finally:
                release(turnstile)
            yield
        finally:
            release(room)
