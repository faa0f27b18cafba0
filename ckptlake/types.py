"""Small values that every layer shares."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Direction = Literal["min", "max"]
"""Whether a smaller or a larger value of a metric is better."""


class RunStatus(StrEnum):
    """Where a run is in its life."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    KILLED = "killed"
