"""The bytes of all checkpoints of one lake: where they lie, and how one becomes durable."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from ckptlake._internal.files import storage_errors, sync_directory, sync_file, write_anew, write_once
from ckptlake._internal.ids import check_run_id
from ckptlake.checkpoints.checksums import quick_key
from ckptlake.checkpoints.gate import Gate
from ckptlake.checkpoints.index import Blob, BlobIndex
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.errors import CheckpointNotFoundError, CkptlakeError, DamagedCheckpointError, StorageError
from ckptlake.tables.layout import Layout

logger = logging.getLogger(__name__)
MANIFEST_SUFFIX = ".json"
RAW_SUFFIX = ".safetensors"
ARCHIVE_SUFFIX = ".ckpk"
PARITY_SUFFIX = ".pq"
PACKED = "packed"
_RECALLED = 8
"""Manifests that are kept to open their checkpoints again."""


class CheckpointStore:
    """Manifests under checkpoints/, packs under blobs/, with the gate and the index that go with them."""

    def __init__(self, layout: Layout, lake_id: str) -> None:
        self.layout = layout
        self.lake_id = lake_id
        self.gate = Gate(layout.blobs)
        self.index = BlobIndex(layout.blobs / ".index.sqlite", self._scan)
        self._recalled: dict[str, tuple[tuple[int, int, int], Manifest]] = {}
        self._recalling = threading.Lock()

    def prepare(self) -> None:
        """Make the directories.

        Raises:
            ReadOnlyLakeError: the lake cannot be written.
        """
        with storage_errors("save a checkpoint", self.layout.root):
            for directory in (self.layout.blobs, self.layout.checkpoints):
                if not directory.is_dir():
                    directory.mkdir(exist_ok=True)
                    sync_directory(self.layout.root)

    def manifest_path(self, checkpoint_id: str) -> Path:
        """Return where the manifest of a checkpoint is, or would be."""
        return self.layout.checkpoints / f"{check_run_id(checkpoint_id)}{MANIFEST_SUFFIX}"

    def plain_path(self, name: str) -> Path:
        """Return where the file of a plain format is."""
        return self.layout.checkpoints / name

    def pack_path(self, pack: str, suffix: str = RAW_SUFFIX) -> Path:
        """Return where a pack is, given its name in manifests."""
        return self.layout.root / f"{pack}{suffix}"

    def find_pack(self, pack: str) -> Path | None:
        """Return the file of a pack in whichever encoding it is stored now, or None."""
        for suffix in (RAW_SUFFIX, ARCHIVE_SUFFIX):
            path = self.pack_path(pack, suffix)
            if path.exists():
                return path
        return None

    def read_manifest(self, checkpoint_id: str) -> Manifest:
        """Return the manifest of a checkpoint.

        Raises:
            CheckpointNotFoundError: there is no checkpoint of this id.
            DamagedCheckpointError: its manifest cannot be read.
        """
        path = self.manifest_path(checkpoint_id)
        try:
            manifest = Manifest.decode(path.read_bytes(), str(path))
        except FileNotFoundError:
            raise CheckpointNotFoundError(
                f"the lake has no checkpoint {checkpoint_id!r}; `ckptlake checkpoints list` shows those it has"
            ) from None
        if manifest.checkpoint_id != checkpoint_id:
            raise DamagedCheckpointError(
                f"the manifest {path} is that of another checkpoint, {manifest.checkpoint_id}: `ckptlake checkpoints "
                "repair` looks for its own"
            )
        return manifest

    def recall_manifest(self, checkpoint_id: str) -> Manifest:
        """Return the manifest of a checkpoint, without reading it again while its file is the same.

        Raises:
            CheckpointNotFoundError: there is no checkpoint of this id.
            DamagedCheckpointError: its manifest cannot be read.
        """
        try:
            facts = self.manifest_path(checkpoint_id).stat()
        except FileNotFoundError:
            return self.read_manifest(checkpoint_id)
        identity = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
        known = self._recalled.get(checkpoint_id)
        if known is not None and known[0] == identity:
            return known[1]
        manifest = self.read_manifest(checkpoint_id)
        with self._recalling:
            self._recalled[checkpoint_id] = (identity, manifest)
            while len(self._recalled) > _RECALLED:
                self._recalled.pop(next(iter(self._recalled)))
        return manifest

    def checkpoint_ids(self) -> list[str]:
        """Return the ids of all checkpoints that have a manifest."""
        try:
            names = os.listdir(self.layout.checkpoints)
        except FileNotFoundError:
            return []
        return sorted(n.removesuffix(MANIFEST_SUFFIX) for n in names if n.endswith(MANIFEST_SUFFIX) and n[0] != ".")

    def sync_packs(self, manifest: Manifest) -> None:
        """Bring the packs of a checkpoint to the disk, where the system may still hold what was written."""
        with storage_errors("bring a checkpoint to the disk", self.layout.root):
            for path in filter(None, map(self.find_pack, manifest.packs)):
                sync_file(path)
                sync_directory(path.parent)

    def publish(self, manifest: Manifest, payload: bytes | None = None) -> None:
        """Make a checkpoint exist: its packs are there already, the manifest comes last, encoded if it is so far."""
        payload = manifest.encode() if payload is None else payload
        if not write_once(self.manifest_path(manifest.checkpoint_id), payload):
            raise FileExistsError(f"checkpoint {manifest.checkpoint_id} exists already")

    def withdraw(self, manifest: Manifest) -> None:
        """Delete a checkpoint that was published and could not be listed; the gate must not be held.

        Where the disk refuses, a sweep removes the rest later.
        """
        own = {pack for pack in manifest.packs if pack.endswith(f"/{manifest.checkpoint_id}")}
        try:
            with storage_errors("delete a checkpoint", self.layout.checkpoints), self.gate.alone():
                self.manifest_path(manifest.checkpoint_id).unlink(missing_ok=True)
                if manifest.file is not None:
                    self.plain_path(manifest.file.name).unlink(missing_ok=True)
                for pack in own:
                    if not self.index.knows(pack):  # else somebody who made the index anew may share it by now
                        self.pack_path(pack).unlink(missing_ok=True)
        except StorageError as error:
            logger.warning("not all of checkpoint %s is deleted: %s", manifest.checkpoint_id, error)

    def replace_manifest(self, manifest: Manifest) -> None:
        """Put a manifest in the place of an older one of the same checkpoint, in one step."""
        write_anew(self.manifest_path(manifest.checkpoint_id), manifest.encode())

    def _scan(self) -> Iterator[Blob]:
        """Yield every tensor that some manifest says is in a pack."""
        for checkpoint_id in self.checkpoint_ids():
            try:
                yield from blobs_of(self.read_manifest(checkpoint_id))
            except CkptlakeError as error:
                logger.warning("its tensors are not found again: %s", error)


def blobs_of(manifest: Manifest) -> Iterator[Blob]:
    """Yield the tensors of a checkpoint that later ones may share."""
    for tensor in manifest.tensors:
        if tensor.digest is not None and tensor.nbytes and tensor.pack.startswith("blobs/"):
            yield Blob(tensor.digest, quick_key(tensor.checks, tensor.nbytes), tensor.pack, tensor.offset)
