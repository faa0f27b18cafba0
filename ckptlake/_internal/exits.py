"""What is closed when the program ends."""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Callable, Hashable

from ckptlake.errors import CkptlakeError

Close = Callable[[BaseException | None], None]
"""Is told the exception that ends the program, or None."""

logger = logging.getLogger(__name__)
_closes: dict[Hashable, Close] = {}


def close_at_exit(one: Hashable, close: Close) -> None:
    """Have `close` called when the program ends, unless `one` is forgotten before."""
    _closes[one] = close


def forget(one: Hashable) -> None:
    """Leave it alone when the program ends."""
    _closes.pop(one, None)


def _close_all() -> None:
    error: BaseException | None = None
    if not hasattr(sys, "ps1"):
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    for one, close in tuple(_closes.items()):
        try:
            close(error)
        except CkptlakeError as refusal:
            logger.error("%r was not closed whole: %s", one, refusal)


atexit.register(_close_all)
