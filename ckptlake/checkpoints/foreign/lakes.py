"""Checkpoints of other lakes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ckptlake.checkpoints.foreign.mapped import MappedCheckpoint
from ckptlake.checkpoints.foreign.origin import Foreign
from ckptlake.checkpoints.foreign.scratch import Scratch
from ckptlake.checkpoints.leaves import JSON
from ckptlake.checkpoints.store import MANIFEST_SUFFIX, CheckpointStore
from ckptlake.tables.layout import Layout


def is_manifest(path: Path) -> bool:
    """Tell whether a path is that of a checkpoint's manifest in a lake."""
    return (
        path.suffix == MANIFEST_SUFFIX
        and path.parent.name == "checkpoints"
        and _root(path).joinpath("lake.json").exists()
    )


def read_other_lake(path: Path, scratch: Scratch) -> Foreign:
    """Return a checkpoint of another lake, exactly as it was saved; every tensor is compared with its SHA-256.

    Args:
        path: its manifest, ``<lake>/checkpoints/<id>.json``.
        scratch: where tensors of compressed packs are decoded to.

    Raises:
        CheckpointNotFoundError: the lake has no such checkpoint.
        DamagedCheckpointError: it is damaged; the message names the tensor.
        UnsafeFileError: it is a pickle that would run code.
    """
    layout = Layout(_root(path))
    manifest = CheckpointStore(layout, "").read_manifest(path.name.removesuffix(MANIFEST_SUFFIX))

    def read() -> object:
        store = CheckpointStore(layout, manifest.lake_id)
        return MappedCheckpoint(store, manifest, scratch, "digest").state(cast(JSON, manifest.tree))

    return Foreign(
        "ckptlake",
        len(manifest.tensors),
        read,
        step=manifest.step,
        epoch=manifest.epoch,
        metrics=manifest.metrics,
        note=manifest.note,
    )


def _root(path: Path) -> Path:
    return path.parent.parent
