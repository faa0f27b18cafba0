"""A progress bar for work that turns out to take long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

_PATIENCE_S = 2.0
_T = TypeVar("_T")


def track(items: Sequence[_T], doing: str) -> Iterator[_T]:
    """Yield items, and past two seconds show on a terminal or in Jupyter how many are done.

    Args:
        items: what is worked on.
        doing: what is done with it, such as ``"fitting curves"``.
    """
    began = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - began > _PATIENCE_S and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            yield from _with_bar(items[number:], doing, number, len(items))
            return
        yield item


def _with_bar(rest: Sequence[_T], doing: str, done: int, total: int) -> Iterator[_T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=total, completed=done)
        for item in rest:
            yield item
            progress.advance(task)
