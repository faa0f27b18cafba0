"""Saving while training goes on: what the loop has to wait for, and what it does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, Self, TypeVar

from ckptlake.checkpoints.sources import Source
from ckptlake.checkpoints.staging import Staging
from ckptlake.errors import InvalidInputError

_T = TypeVar("_T")


class Faults(Protocol):
    """Where errors of the background go, to be raised at the run's next call."""

    def report(self, error: BaseException) -> None:
        """Have an error raised once."""
        ...

    def withdraw(self, error: BaseException) -> None:
        """Take an error back that has been raised elsewhere."""
        ...


class Fence:
    """Keeps memory that is being saved from changing under the save, by copying what is not saved yet.

    Calling it again costs nothing. Tensors beyond the staging memory's bound are waited for instead.
    """

    def __init__(self, sources: Sequence[Source], staging: Staging) -> None:
        self._live = list(sources)
        self._staging = staging
        self._lock = threading.Lock()

    def copy_what_fits(self) -> None:
        """Copy what is not saved yet, as far as the staging memory reaches."""
        with self._lock:
            without_room = []
            for source in self._live:
                if not source.is_live:
                    continue
                room = self._staging.find_room(source.nbytes)
                if room is None:
                    without_room.append(source)
                else:
                    source.stage(room)
            self._live = without_room

    def __call__(self, *_: object) -> None:
        self.copy_what_fits()
        with self._lock:
            for source in self._live:
                source.wait()
            self._live.clear()


class Pending(Generic[_T]):
    """A checkpoint that is saved in the background from `begin` on; `save_checkpoint(async_=True)` returns it begun.

    Attributes:
        id: the checkpoint's id; the lake lists it once it is durable.
    """

    def __init__(self, checkpoint_id: str, fence: Fence, work: Callable[[], _T], faults: Faults) -> None:
        self.id = checkpoint_id
        self._fence = fence
        self._faults = faults
        self._result: list[_T] = []
        self._error: BaseException | None = None
        self._may_begin = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), name="ckptlake-checkpoint", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"Pending({self.id!r}, {'done' if self.done else 'running'})"

    def begin(self) -> Self:
        """Begin the work; whoever calls it goes on at once, ahead of the thread that does it."""
        self._may_begin.set()
        return self

    def _run(self, work: Callable[[], _T]) -> None:
        self._may_begin.wait()
        try:
            self._result.append(work())
        except BaseException as error:  # noqa: BLE001 - raised where the caller waits or calls next
            self._error = error
            self._faults.report(error)

    @property
    def done(self) -> bool:
        """Whether it is durable or has failed."""
        return not self._thread.is_alive()

    def fence(self) -> None:
        """Return once the state's memory may change: what is not saved yet has been copied.

        `optimizer.step()` calls it by itself where the optimizer was given; call it in a loop that changes tensors
        in another way.

        Raises:
            InvalidInputError: a tensor was changed before.
        """
        self._fence()

    def wait(self, timeout_s: float | None = None) -> _T:
        """Return the saved checkpoint once it is durable.

        Raises:
            InvalidInputError: it is not within `timeout_s` seconds.
            CkptlakeError: saving failed; the checkpoint before is still the newest.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise InvalidInputError(f"checkpoint {self.id} was not saved within {timeout_s} s: it goes on, wait again")
        if self._error is not None:
            self._faults.withdraw(self._error)
            raise self._error
        return self._result[0]

    def join(self) -> None:
        """Return once it is over, well or not."""
        self._thread.join()
