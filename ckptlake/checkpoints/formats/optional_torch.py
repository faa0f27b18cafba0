"""What is said where torch is needed and not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ckptlake.errors import MissingDependencyError


@contextmanager
def needing_torch(what: str) -> Iterator[None]:
    """Say what torch is needed for if the block finds it missing.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError(f"{what} needs torch: install it by `pip install 'ckptlake[torch]'`") from None
