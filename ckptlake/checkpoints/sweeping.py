"""Files that nothing needs any more: found first, deleted alone in the store, and only if they are still not needed."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from ckptlake._internal.files import storage_errors, sync_directory
from ckptlake.checkpoints.codec.archive import Archive, StoredTensor
from ckptlake.checkpoints.marks import Ledger, Marks, closed_over_bases, pack_of
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, MANIFEST_SUFFIX, PARITY_SUFFIX, RAW_SUFFIX, CheckpointStore
from ckptlake.errors import CheckpointNotFoundError, DamagedCheckpointError, InvalidInputError

logger = logging.getLogger(__name__)
Kind = Literal["manifest", "plain", "raw", "archive", "parity", "partial"]

GRACE_S = 3600.0
"""What no row tells of is left alone for this long: a repair may still list it."""

_MOST_GRACE_S = 1e9
_NAME = re.compile(r"([0-9]{8}-[0-9]{6}-[0-9a-z]{10})(\.[0-9A-Za-z._-]+)")
_PARTIAL = re.compile(r"\..+\.partial")


class StoredFile(NamedTuple):
    """One file of the store.

    Attributes:
        path: its path within the lake.
        kind: what it is; ``plain`` is a checkpoint's own file in any format, ``partial`` one that was being written.
        owner: the id of the checkpoint that wrote it; of a partial file none.
    """

    path: str
    kind: Kind
    owner: str | None


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file that nothing needs: its path within the lake, and why it may go."""

    path: str
    size_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found, and whether it is gone."""

    files: tuple[Orphan, ...]
    deleted: bool

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)

    def sentence(self) -> str:
        """Return it in words.

        >>> Sweep((Orphan("blobs/a.safetensors", 4096, "no checkpoint needs it"),), deleted=False).sentence()
        '1 file of 4,096 bytes is not needed any more'
        """
        count = len(self.files)
        files = f"{count:,} file{'s' * (count != 1)} of {self.size_bytes:,} bytes"
        return f"deleted {files}" if self.deleted else f"{files} {'is' if count == 1 else 'are'} not needed any more"


def sweep(store: CheckpointStore, ledger: Ledger, *, grace_s: float = GRACE_S, dry_run: bool = True) -> Sweep:
    """Find and unless `dry_run` delete what no checkpoint needs.

    Deleting waits until no save is under way, holds back new ones, and reads anew what is needed then.

    Args:
        store: the lake's checkpoints.
        ledger: what the tables say.
        grace_s: seconds since its last change for which a file stays that no row tells of; what belongs to a
            deleted checkpoint goes at once.
        dry_run: only tell.

    Raises:
        InvalidInputError: `grace_s` is negative or more than 1e9.
        StorageError: the disk refused; what is left goes with the next sweep.
    """
    if not 0 <= grace_s <= _MOST_GRACE_S:
        raise InvalidInputError(f"grace_s must lie between 0 and {_MOST_GRACE_S:.0e}, got {grace_s!r:.60}")
    if not store.layout.blobs.is_dir():
        return Sweep((), not dry_run)
    if dry_run:
        files = scan(store)
        return Sweep(_told(store, find_orphans(store, files, ledger.marks(), grace_s=grace_s)), deleted=False)
    with storage_errors("delete what no checkpoint needs", store.layout.blobs), store.gate.alone():
        return sweep_within(store, ledger.marks(), grace_s=grace_s)


def sweep_within(
    store: CheckpointStore, marks: Marks, owners: frozenset[str] | None = None, *, grace_s: float = GRACE_S
) -> Sweep:
    """Delete what no checkpoint needs, or of that only what these checkpoints wrote; the gate must be held alone.

    The index forgets a pack before it goes. A crash on the way leaves what the next sweep finds.
    """
    files = scan(store)
    orphans = find_orphans(store, files, marks, grace_s=grace_s)
    if owners is not None:
        orphans = [(file, reason) for file, reason in orphans if file.owner in owners]
    if not orphans:
        return Sweep((), deleted=True)
    told = _told(store, orphans)
    staying = {_pack_in(file) for file in {*files} - {file for file, _ in orphans}}
    store.index.forget_packs(sorted({_pack_in(file) for file, _ in orphans} - {*staying, ""}))
    for file, _ in sorted(orphans, key=lambda found: found[0].kind != "manifest"):
        (store.layout.root / file.path).unlink(missing_ok=True)
    for folder in {file.path.partition("/")[0] for file, _ in orphans}:
        sync_directory(store.layout.root / folder)
    return Sweep(told, deleted=True)


def _pack_in(file: StoredFile) -> str:
    """Return the pack that a file holds, or nothing."""
    return pack_of(file.owner) if file.owner is not None and file.kind in ("raw", "archive") else ""


def _told(store: CheckpointStore, orphans: Iterable[tuple[StoredFile, str]]) -> tuple[Orphan, ...]:
    found = [Orphan(file.path, size_of(store, file), reason) for file, reason in orphans]
    return tuple(sorted(found, key=lambda orphan: orphan.path))


def size_of(store: CheckpointStore, file: StoredFile) -> int:
    """Return the bytes of a file, none if it is gone."""
    try:
        return (store.layout.root / file.path).lstat().st_size
    except FileNotFoundError:
        return 0


def scan(store: CheckpointStore) -> list[StoredFile]:
    """Return the files of all checkpoints; what bears no name that a checkpoint gives is none of them."""
    files: list[StoredFile] = []
    for folder, kinds in ((store.layout.blobs, _IN_BLOBS), (store.layout.checkpoints, _IN_CHECKPOINTS)):
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            continue
        for name in names:
            match = _NAME.fullmatch(name)
            if match is None:
                kind: Kind | None = "partial" if _PARTIAL.fullmatch(name) else None
            elif match[2].endswith(PARITY_SUFFIX):
                kind = "parity"
            else:
                kind = kinds.get(match[2], kinds.get(""))
            if kind is not None:
                files.append(StoredFile(f"{folder.name}/{name}", kind, match[1] if match else None))
    return files


_IN_BLOBS: Mapping[str, Kind] = {RAW_SUFFIX: "raw", ARCHIVE_SUFFIX: "archive"}
_IN_CHECKPOINTS: Mapping[str, Kind] = {MANIFEST_SUFFIX: "manifest", "": "plain"}


def find_orphans(
    store: CheckpointStore, files: Sequence[StoredFile], marks: Marks, *, grace_s: float = GRACE_S
) -> list[tuple[StoredFile, str]]:
    """Return those of `files` that nothing needs as of `marks`, each with the reason."""
    return _Search(store, files, marks, grace_s).run()


class _Search:
    """One search; a manifest that no row tells of counts as a checkpoint while it is young."""

    def __init__(self, store: CheckpointStore, files: Sequence[StoredFile], marks: Marks, grace_s: float) -> None:
        self._store = store
        self._files = files
        self._marks = marks
        self._grace_s = grace_s
        self._now = time.time()
        self._present = {file.path for file in files}
        self._unlisted = frozenset(
            str(file.owner)
            for file in files
            if file.kind == "manifest" and file.owner not in marks.holdings and not self._is_old(file)
        )
        self._held = closed_over_bases(self._needed(), self._bases_of)
        self._replaced: dict[str, bool] = {}

    def run(self) -> list[tuple[StoredFile, str]]:
        found = {file.path: (file, reason) for file in self._files if (reason := self._reason(file)) is not None}
        for file in self._files:
            data = file.path.removesuffix(PARITY_SUFFIX)
            if file.kind == "parity" and (data in found or data not in self._present) and self._may_go(file):
                found[file.path] = (file, "what it protects is not needed any more")
        return list(found.values())

    def _needed(self) -> Iterator[str]:
        for holding in self._marks.live():
            yield from self._packs_in_manifest(holding.checkpoint_id) if holding.packs is None else holding.packs
        for checkpoint_id in self._unlisted:
            yield pack_of(checkpoint_id)
            yield from self._packs_in_manifest(checkpoint_id)

    def _packs_in_manifest(self, checkpoint_id: str) -> frozenset[str]:
        try:
            return self._store.read_manifest(checkpoint_id).packs
        except (CheckpointNotFoundError, DamagedCheckpointError) as error:
            logger.warning("which packs checkpoint %s needs is not known: %s", checkpoint_id, error)
            return frozenset()

    def _bases_of(self, pack: str) -> Iterable[str]:
        """Return what a pack's deltas need: as recorded, and where nothing is, as its own footer tells."""
        if f"{pack}{ARCHIVE_SUFFIX}" not in self._present:
            return ()
        if pack in self._marks.recodings or f"{pack}{RAW_SUFFIX}" in self._present:
            return self._marks.bases_of(pack)
        try:
            return read_bases(self._store.pack_path(pack, ARCHIVE_SUFFIX))
        except DamagedCheckpointError as error:
            logger.warning("which packs the deltas of a pack need is not known: %s", error)
            return ()

    def _is_old(self, file: StoredFile) -> bool:
        """Tell whether a file has not changed for as long as it is to be left alone."""
        try:
            age_s = self._now - (self._store.layout.root / file.path).lstat().st_mtime
        except FileNotFoundError:
            return True
        return age_s >= self._grace_s or self._grace_s == 0

    def _may_go(self, file: StoredFile) -> bool:
        """Tell whether nobody could still list what wrote a file."""
        return file.owner in self._marks.holdings or self._is_old(file)

    def _reason(self, file: StoredFile) -> str | None:
        if file.owner is None:
            return "left by a write that was cut short" if self._is_old(file) else None
        if file.kind in ("raw", "archive"):
            return self._reason_for_pack(file, pack_of(file.owner))
        if file.kind == "parity" or file.owner in self._unlisted:
            return None
        if file.owner in self._marks.holdings:
            return "its checkpoint was deleted" if self._marks.is_deleted(file.owner) else None
        return "no row tells of its checkpoint" if self._is_old(file) else None

    def _reason_for_pack(self, file: StoredFile, pack: str) -> str | None:
        if not self._may_go(file):
            return None
        if pack not in self._held:
            return "no checkpoint needs it"
        if not {f"{pack}{RAW_SUFFIX}", f"{pack}{ARCHIVE_SUFFIX}"} <= self._present:
            return None
        if pack not in self._replaced:
            self._replaced[pack] = self._is_replaced(pack)
        if file.kind == "raw":
            return "its compressed pack has taken its place" if self._replaced[pack] else None
        return None if self._replaced[pack] else "left by a compression that was cut short"

    def _is_replaced(self, pack: str) -> bool:
        """Tell whether the compressed pack beside a raw one was recorded, with all that it needs."""
        recorded = self._marks.recodings.get(pack)
        try:
            return recorded is not None and read_bases(self._store.pack_path(pack, ARCHIVE_SUFFIX)) <= set(recorded)
        except DamagedCheckpointError as error:
            logger.warning("the uncompressed pack stays: %s", error)
            return False


def read_bases(path: Path) -> frozenset[str]:
    """Return the packs that the deltas in a compressed pack are based on.

    Raises:
        DamagedCheckpointError: the file is not a whole pack.
    """
    with Archive(path) as archive:
        return bases_in(archive.entries)


def bases_in(entries: Mapping[str, StoredTensor]) -> frozenset[str]:
    """Return the packs that the deltas among the entries of a compressed pack are based on."""
    return frozenset(entry.base.pack for entry in entries.values() if entry.base is not None)
