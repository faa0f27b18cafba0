"""The format of `torch.save`, safe to open anywhere with `torch.load(weights_only=True)`."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import torch

from ckptlake.checkpoints.formats.sanitising import sanitised
from ckptlake.checkpoints.formats.torch_files import read_torch_file
from ckptlake.checkpoints.formats.torch_tensors import as_tensor
from ckptlake.checkpoints.tree import Flat, flatten, read_bytes
from ckptlake.errors import DamagedCheckpointError, InvalidInputError

LEAVES = "ckptlake.leaves"
"""Where a file has the tensors once more, in order, if its plain values do not bring them in that order."""


class TorchFormat:
    """One ``.pt`` file; see `ckptlake.checkpoints.state_format.StateFormat`."""

    name = "torch"
    suffix = ".pt"
    keeps_anything = False

    def write(self, state: object, file: BinaryIO) -> None:
        """Write the state, what is no tensor reduced to plain values."""
        plain, flat = sanitised(state), flatten(state)
        if _kinds(flatten(plain)) != _kinds(flat):
            # Such as arrays that look at one memory in an order torch has no tensors for.
            leaves = [as_tensor(leaf, read_bytes(leaf)) for leaf in flat.leaves]
            plain = {**(plain if isinstance(plain, dict) else {"state": plain}), LEAVES: leaves}
        torch.save(plain, file)

    def read(self, path: Path, *, allow_unsafe: bool) -> object:  # noqa: ARG002 - it holds nothing that could run
        """Return the state as plain values and memory-mapped tensors.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedCheckpointError: it cannot be read.
        """
        try:
            value = read_torch_file(path).value
        except InvalidInputError as error:
            path.stat()
            raise DamagedCheckpointError(f"{path} is damaged: {error}") from error
        return value[LEAVES] if isinstance(value, dict) and LEAVES in value else value


def _kinds(flat: Flat) -> list[tuple[str, tuple[int, ...]]]:
    return [(leaf.dtype.name, leaf.shape) for leaf in flat.leaves]
