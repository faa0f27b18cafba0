"""Formats that put a whole state into one file, declared by entry points.

A package adds one by an entry point in the group ``ckptlake.state_formats`` that names an instance or class of
`StateFormat`; the project's own are declared the same way. The packed format is the store's own.
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import BinaryIO, Protocol

from ckptlake.checkpoints.store import PACKED
from ckptlake.errors import InvalidInputError

GROUP = "ckptlake.state_formats"


class StateFormat(Protocol):
    """Turns a state into the bytes of one file and back.

    Attributes:
        name: what `save_checkpoint(format=…)` calls it.
        suffix: of its files, with the dot.
        keeps_anything: whether it takes states that hold more than tensors and plain values.
    """

    name: str
    suffix: str
    keeps_anything: bool

    def write(self, state: object, file: BinaryIO) -> None:
        """Write the state, front to back; `file` can neither seek nor read."""
        ...

    def read(self, path: Path, *, allow_unsafe: bool) -> object:
        """Return the state; its tensors are in the order in which they were written.

        Raises:
            FileNotFoundError: there is no such file.
            UnsafeFileError: the file would run code and `allow_unsafe` is false.
            DamagedCheckpointError: it cannot be read.
        """
        ...


def format_names() -> list[str]:
    """Return the names `save_checkpoint` knows."""
    return sorted({PACKED, "safetensors", *(entry.name for entry in entry_points(group=GROUP))})


@lru_cache(maxsize=32)
def get_format(name: str) -> StateFormat:
    """Return the format called `name`.

    Raises:
        InvalidInputError: no installed package declares it.
    """
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            found = entry.load()
            form: StateFormat = found() if isinstance(found, type) else found
            return form
    names = format_names()
    near = difflib.get_close_matches(str(name), names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    raise InvalidInputError(f"no checkpoint format is called {name!r:.60}; {hint}")
