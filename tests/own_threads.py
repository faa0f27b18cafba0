"""The threads that are this package's; those of libraries come and go as they like."""

from __future__ import annotations

import threading


def own_threads() -> set[threading.Thread]:
    """Return the threads that run in this package's name."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("ckptlake")}
