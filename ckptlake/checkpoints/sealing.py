"""The digests and statistics of a checkpoint that was saved under fast checksums alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from ckptlake._internal.files import storage_errors
from ckptlake.checkpoints.manifest import Manifest, StoredTensor
from ckptlake.checkpoints.packs import Packs
from ckptlake.checkpoints.parallel import in_parallel
from ckptlake.checkpoints.previous import Before
from ckptlake.checkpoints.rows import Row, event_row, tensor_rows
from ckptlake.checkpoints.statistics import TensorStatistics
from ckptlake.checkpoints.store import CheckpointStore, blobs_of
from ckptlake.checkpoints.tensor_pass import measure_view

logger = logging.getLogger(__name__)


class Rows(Protocol):
    """Where rows go."""

    def add_rows(self, table: str, rows: Sequence[Row]) -> None: ...

    def flush(self) -> None: ...


def seal(store: CheckpointStore, manifest: Manifest, before: Manifest | None, rows: Rows) -> Manifest:
    """Fill in the SHA-256 of every tensor from its file, once that matches its checksums.

    A checkpoint that has been deleted meanwhile is left as it is.

    Raises:
        DamagedCheckpointError: the file is not what was written.
        StorageError: the disk refused; the checkpoint stays as it was.
    """
    with storage_errors("take the digests of a checkpoint", store.layout.checkpoints), store.gate.together():
        if not store.manifest_path(manifest.checkpoint_id).exists():
            return manifest
        store.sync_packs(manifest)
        packs, earlier = Packs(store), Before(store, before)

        def measure(tensor: StoredTensor) -> tuple[str, TensorStatistics]:
            previous = earlier.find(tensor.path, tensor.dtype, tensor.shape)
            return measure_view(tensor, packs.view(tensor), previous)

        try:
            found = in_parallel(measure, manifest.tensors, lambda tensor: tensor.nbytes)
        finally:
            packs.close()
            earlier.close()
        digests = {t.path: digest for t, (digest, _) in zip(manifest.tensors, found, strict=True)}
        sealed = manifest.sealed(digests)
        store.replace_manifest(sealed)
        statistics = {t.path: stats for t, (_, stats) in zip(manifest.tensors, found, strict=True)}
        now = datetime.now(UTC)
        rows.add_rows("tensors", tensor_rows(sealed, now, statistics, earlier.id))
        rows.add_rows("checkpoints", [event_row(sealed, "sealed", now, digest=sealed.digest)])
        rows.flush()
        store.index.add(blobs_of(sealed))
    return sealed
