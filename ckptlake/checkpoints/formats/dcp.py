"""Folders of ``torch.distributed.checkpoint``, written by one process.

Importing this module imports torch. Reading them is in :mod:`ckptlake.checkpoints.foreign.dcp_folders`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save

from ckptlake.checkpoints.formats.sanitising import sanitised
from ckptlake.errors import InvalidInputError


def save_folder(state: Any, folder: Path) -> None:
    """Write a state, what is no tensor reduced to plain values, so that `dcp.load` reads it into one of its shape.

    Raises:
        InvalidInputError: the state is no dict.
        OSError: the system refused.
    """
    if not isinstance(state, dict):
        raise InvalidInputError(
            f"torch.distributed.checkpoint keeps dicts, the state is a {type(state).__name__}; export to .pt"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        try:
            save(sanitised(state), storage_writer=filesystem.FileSystemWriter(folder), no_dist=True)
        except CheckpointException as error:
            refusal = next(filter(None, (_refusal(failed) for failed, _ in error.failures.values())), None)
            if refusal is None:
                raise
            raise refusal from error


def _refusal(error: BaseException | None) -> OSError | None:
    """Return what the system refused, where an error was met while its own was handled."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
