"""States written to and read from files by torch itself, for other programs and from those that are trusted.

Importing this module imports torch.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ckptlake.checkpoints.formats.sanitising import sanitised
from ckptlake.errors import DamagedCheckpointError


def save_file(state: object, file: BinaryIO) -> None:
    """Write a state that ``torch.load(weights_only=True)`` reads: what is no tensor is reduced to plain values."""
    torch.save(sanitised(state), file)


def load_trusted(path: Path) -> Any:
    """Return what a file of ``torch.save`` holds, running whatever it says.

    Raises:
        DamagedCheckpointError: it cannot be read, or needs a package that is not installed.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ImportError, AttributeError, ValueError) as error:
        raise DamagedCheckpointError(f"{str(path)!r} cannot be loaded by torch: {error!s:.300}") from error
