"""Parity for all files of some checkpoints, written beside those that have none yet."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ckptlake._internal.files import storage_errors
from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, CheckpointStore
from ckptlake.errors import DamagedCheckpointError
from ckptlake.integrity.parity import examine, parity_path, protect
from ckptlake.integrity.parity_file import ParityFile
from ckptlake.integrity.pieces import Piece, examine_all, pieces_of, read_whole_manifest
from ckptlake.integrity.repair_plan import counted

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Told how many bytes of files have been gone through, and of how many."""


@dataclass(frozen=True, slots=True)
class ProtectedFile:
    """A file whose parity has been written; its path is relative to the lake."""

    path: str
    data_bytes: int
    parity_bytes: int


@dataclass(frozen=True, slots=True)
class Protected:
    """What a call of `protect` has done.

    Attributes:
        written: files that have parity now and had none that fitted.
        fresh: paths of those that had it already.
        refused: paths of those that are damaged, each with the finding: parity of damage helps nobody.
    """

    written: tuple[ProtectedFile, ...]
    fresh: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def added_bytes(self) -> int:
        """Bytes of the parity that was written."""
        return sum(file.parity_bytes for file in self.written)

    def sentence(self) -> str:
        """Return it in words.

        >>> Protected((ProtectedFile("blobs/c1.safetensors", 40_000, 9_000),), ("blobs/c2.ckpk",)).sentence()
        'protected 1 file of 40,000 bytes by 9,000 bytes of parity; 1 file had it already'
        """
        data_bytes = sum(file.data_bytes for file in self.written)
        files = counted(len(self.written), "file")
        said = f"protected {files} of {data_bytes:,} bytes by {self.added_bytes:,} bytes of parity"
        if self.fresh:
            said += f"; {counted(len(self.fresh), 'file')} had it already"
        if self.refused:
            said += f"; {counted(len(self.refused), 'file')} not protected because of damage: repair first"
        return said


def protect_checkpoints(
    store: CheckpointStore, checkpoint_ids: Iterable[str], progress: Progress | None = None
) -> Protected:
    """Write parity beside every file of some checkpoints that has none, or not its own.

    These are their packs with those that hold the bases of their deltas, files of plain formats, and manifests of
    which no pack holds a copy. Each file is compared with its checksums first; its parity is taken for its own if it
    is of the file's size and not older, or else if the file is exactly as it was.

    Raises:
        StorageError: the disk refused; the files before are protected.
        LakeFormatError: a newer ckptlake wrote something.
    """
    files = _Files(store)
    for checkpoint_id in checkpoint_ids:
        files.add(checkpoint_id)
    written: list[ProtectedFile] = []
    fresh: list[str] = []
    gone_through = 0
    total = sum(path.stat().st_size for path in files.pieces if path.exists())
    for path, pieces in files.pieces.items():
        name = path.relative_to(store.layout.root).as_posix()
        with storage_errors("protect a file", path), store.gate.together():
            if not path.exists():  # deleted meanwhile
                continue
            if _is_fresh(path):
                fresh.append(name)
            elif (damage := _damage(store, list(pieces))) is not None:
                files.refused[name] = damage
            else:
                found = protect(path, progress=_shifted(progress, gone_through, total))
                written.append(ProtectedFile(name, found.data_bytes, found.parity_bytes))
            gone_through += path.stat().st_size
        if progress is not None:
            progress(gone_through, total)
    return Protected(tuple(written), tuple(fresh), tuple(files.refused.items()))


class _Files:
    """The files of checkpoints, and the pieces that are known of each."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self.pieces: dict[Path, dict[Piece, None]] = {}
        self.refused: dict[str, str] = {}

    def add(self, checkpoint_id: str) -> None:
        """Add the files of a checkpoint."""
        try:
            manifest = read_whole_manifest(self._store, checkpoint_id)
        except DamagedCheckpointError as error:
            self.refused[f"checkpoints/{checkpoint_id}.json"] = str(error)
            return
        if not self._has_copy(manifest):
            self.pieces.setdefault(self._store.manifest_path(checkpoint_id), {})
        for piece in pieces_of(manifest):
            path = self._add_pack(piece.file) if piece.is_pack else self._store.plain_path(piece.file)
            if path is None:
                self.refused[piece.file] = "it is missing"
            else:
                self.pieces.setdefault(path, {})[piece] = None

    def _has_copy(self, manifest: Manifest) -> bool:
        own = (pack for pack in manifest.packs if pack.endswith(f"/{manifest.checkpoint_id}"))
        return manifest.file is None and any(self._store.find_pack(pack) is not None for pack in own)

    def _add_pack(self, pack: str) -> Path | None:
        path = self._store.find_pack(pack)
        if path is None or path in self.pieces:
            return path
        self.pieces[path] = {}
        if path.suffix == ARCHIVE_SUFFIX:
            try:
                with Archive(path) as archive:
                    bases = {entry.base.pack for entry in archive.entries.values() if entry.base is not None}
            except (DamagedCheckpointError, OSError):  # its pieces tell what is wrong
                return path
            for base in sorted(bases):
                self._add_pack(base)
        return path


def _damage(store: CheckpointStore, pieces: list[Piece]) -> str | None:
    return next((fault.text for fault in examine_all(store, pieces, "fast") if fault is not None), None)


def _is_fresh(path: Path) -> bool:
    """Tell whether a file's parity is its own."""
    parity = parity_path(path)
    if not parity.is_file():
        return False
    try:
        with parity.open("rb") as file:
            data_bytes = ParityFile(file.fileno(), parity).header.data_bytes
        if data_bytes != path.stat().st_size:
            return False
        if parity.stat().st_mtime_ns >= path.stat().st_mtime_ns:
            return True
        if not examine(path, parity).is_clean:
            return False
    except DamagedCheckpointError as error:
        logger.info("parity is written anew: %s", error)
        return False
    os.utime(parity)
    return True


def _shifted(progress: Progress | None, before: int, total: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress(before + done, total)
