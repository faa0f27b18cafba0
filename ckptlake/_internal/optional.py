"""Libraries that may be absent, or present but not wanted in memory."""

from __future__ import annotations

import sys
from types import ModuleType


def if_imported(name: str) -> ModuleType | None:
    """Return a module only if the program has imported it by itself.

    A value can only be of a library's type once that library is loaded, so recognising such a value
    never has to load it.
    """
    return sys.modules.get(name)
