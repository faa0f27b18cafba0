"""The checkpoint before, which a new one's tensors are compared with."""

from __future__ import annotations

import logging

from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.packs import Packs, pieces
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.checkpoints.tensor_pass import ReadPrevious
from ckptlake.errors import DamagedCheckpointError

logger = logging.getLogger(__name__)


class Before:
    """Finds the same tensor in the checkpoint before; where it cannot be read, the change is not recorded.

    Args:
        store: the lake's checkpoints.
        manifest: the checkpoint before, or None where there is none.
    """

    def __init__(self, store: CheckpointStore, manifest: Manifest | None) -> None:
        is_in_packs = manifest is not None and manifest.file is None
        self._known = {t.path: t for t in manifest.tensors} if manifest is not None and is_in_packs else {}
        self._packs = Packs(store)
        self.id = manifest.checkpoint_id if manifest is not None else None

    def find(self, path: str, dtype: str, shape: tuple[int, ...]) -> ReadPrevious | None:
        """Return how to read a tensor's earlier bytes, or None where it was not there or another."""
        tensor = self._known.get(path)
        if tensor is None or (tensor.dtype, tensor.shape) != (dtype, shape):
            return None
        try:
            self._packs.reach(tensor)
        except DamagedCheckpointError as error:
            logger.warning("the change of tensor %s is not recorded: %s", path, error)
            return None
        return pieces(self._packs, tensor)

    def close(self) -> None:
        """Close what was opened."""
        self._packs.close()
