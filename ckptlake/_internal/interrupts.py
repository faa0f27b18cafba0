"""Work that Ctrl-C must not cut in two."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def uninterrupted(work: Callable[[], _T]) -> _T:
    """Return what `work` returns, or raise what it raises; a KeyboardInterrupt does not reach it.

    Python interrupts the main thread only, so there the work is done by a thread of its own: the interrupt
    ends the waiting, and the work goes on to its end.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    results: list[_T] = []
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=guarded, name="ckptlake-uninterrupted")
    try:
        thread.start()
    except RuntimeError:  # the interpreter is shutting down and starts no more threads
        return work()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
