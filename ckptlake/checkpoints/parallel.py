"""Two threads for work on bytes that lets go of the interpreter lock: hashing, writing, decoding."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

THREADS = 2
_BATCH_BYTES = 1 << 20
_T = TypeVar("_T")
_R = TypeVar("_R")
_pool: tuple[int, ThreadPoolExecutor] | None = None


def _get_pool() -> ThreadPoolExecutor:
    """Return this process's threads; those of a parent do not survive a fork."""
    global _pool
    if _pool is None or _pool[0] != os.getpid():
        _pool = (os.getpid(), ThreadPoolExecutor(THREADS, thread_name_prefix="ckptlake-bytes"))
    return _pool[1]


def in_parallel(work: Callable[[_T], _R], items: Sequence[_T], size: Callable[[_T], int]) -> list[_R]:
    """Return `work` of every item in order, small ones together.

    Raises:
        BaseException: the first that any work raised; what has not begun then is not begun.
    """
    if not items:
        return []
    results: dict[int, _R] = {}

    def run(batch: list[int]) -> None:
        for number in batch:
            results[number] = work(items[number])

    futures = [_get_pool().submit(run, batch) for batch in _batches([size(item) for item in items])]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((future for future in done if future.exception() is not None), None)
        if failed is not None:
            failed.result()
    except BaseException:
        for future in futures:
            future.cancel()
        wait(futures)
        raise
    return [results[number] for number in range(len(items))]


def _batches(sizes: Sequence[int]) -> Sequence[list[int]]:
    """Return numbers of items, grouped so that no group is much smaller than 1 MiB, in the order they are begun.

    Groups of several come first, since they hold the interpreter lock while others let go of it; then the largest.
    """
    singles: list[list[int]] = []
    groups: list[list[int]] = []
    batch: list[int] = []
    held = 0
    for number in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
        batch.append(number)
        held += sizes[number] + 1024
        if held >= _BATCH_BYTES:
            (groups if len(batch) > 1 else singles).append(batch)
            batch, held = [], 0
    return [*([batch] if batch else []), *groups, *singles]
