"""How often the same is asked for, so that what costs something is done for what will be asked for again."""

from __future__ import annotations

from collections.abc import Hashable

WORTH_A_FILE = 6
"""How often in a row until it is worth keeping on disk; a question asks for most things once to three times."""


class InARow:
    """Counts how often one thing was asked for with no other in between.

    >>> asked = InARow()
    >>> [asked.count(key) for key in "aabba"]
    [1, 2, 1, 2, 1]
    """

    def __init__(self) -> None:
        self._last: tuple[Hashable, int] = (None, 0)

    def count(self, key: Hashable) -> int:
        """Count once more, and return how often it was `key` now."""
        last, times = self._last
        self._last = key, times + 1 if last == key else 1
        return self._last[1]
