"""Settings under which lakes keep still, and how rows are put into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ckptlake.config import Settings

Put = Callable[..., None]


def quiet(**settings: Any) -> Settings:
    """Return settings under which nothing happens that a test did not ask for."""
    return Settings(auto_compact=False, commit_interval_s=3600, **settings)
