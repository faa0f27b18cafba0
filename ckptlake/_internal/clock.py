"""UTC time in microseconds that never runs backwards inside a process."""

from __future__ import annotations

import time

_FORWARD_TOLERANCE_US = 1_000_000


class Clock:
    """Wall time carried forward by the monotonic clock.

    A wall clock set back does not move it; one set forward (or a machine that slept) is followed
    at the next `resync`.
    """

    __slots__ = ("_anchor_us",)

    def __init__(self) -> None:
        self._anchor_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000

    def now_us(self) -> int:
        """Return microseconds since the Unix epoch, UTC."""
        return self._anchor_us + time.monotonic_ns() // 1000

    def resync(self) -> None:
        """Follow a wall clock that has moved ahead by more than a second."""
        anchor_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        if anchor_us > self._anchor_us + _FORWARD_TOLERANCE_US:
            self._anchor_us = anchor_us
