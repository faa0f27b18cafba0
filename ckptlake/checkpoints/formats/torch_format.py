"""The format of `torch.save`, safe to open anywhere with `torch.load(weights_only=True)`."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import torch

from ckptlake.checkpoints.formats.sanitising import sanitised
from ckptlake.checkpoints.formats.torch_files import read_torch_file


class TorchFormat:
    """One ``.pt`` file; see `ckptlake.checkpoints.state_format.StateFormat`."""

    name = "torch"
    suffix = ".pt"
    keeps_anything = False

    def write(self, state: object, file: BinaryIO) -> None:
        """Write the state, what is no tensor reduced to plain values."""
        torch.save(sanitised(state), file)

    def read(self, path: Path, *, allow_unsafe: bool) -> object:  # noqa: ARG002 - it holds nothing that could run
        """Return the state as plain values and memory-mapped tensors."""
        return read_torch_file(path).value
