"""A bar on the screen for long work that tells how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, int], None]
"""Takes how much is done, and of how much."""


@contextmanager
def bar(doing: str, *, of_bytes: bool, quiet: bool) -> Iterator[Report]:
    """Show a bar for the block, on stderr and only where that is a screen; it moves as the yielded function is called.

    Args:
        doing: what is being done, as in ``verifying``.
        of_bytes: whether the amounts are bytes; otherwise they are counted.
        quiet: show nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield _say_nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    amount = DownloadColumn() if of_bytes else MofNCompleteColumn()
    screen = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _say_nothing(done: int, total: int) -> None:
    pass
