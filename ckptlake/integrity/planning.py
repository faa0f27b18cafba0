"""What is wrong with checkpoints and their files, and what can be done about it; nothing is changed."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ckptlake._internal.files import storage_errors
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, RAW_SUFFIX, CheckpointStore
from ckptlake.checkpoints.trimming import trimmed
from ckptlake.errors import CkptlakeError, DamagedCheckpointError
from ckptlake.integrity.copies import Copy, InFile
from ckptlake.integrity.deltas import bases_first, comes_back
from ckptlake.integrity.headers import RawHeader, make_header, read_header, told_start
from ckptlake.integrity.parity import parity_path
from ckptlake.integrity.pieces import Fault, Piece, examine_all, is_readable, pieces_of, read_whole_manifest
from ckptlake.integrity.rebuilding import rebuild_checked
from ckptlake.integrity.repair_plan import (
    Action,
    Adopt,
    Loss,
    MendPack,
    RebuildFile,
    Release,
    RepairPlan,
    RestoreFile,
    RestoreManifest,
    SetAside,
)
from ckptlake.integrity.search import Search
from ckptlake.integrity.verification import describe, lost_tensors

logger = logging.getLogger(__name__)
_EXAMINED_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Listed:
    """What the tables know of a checkpoint.

    Attributes:
        digest: its root, or None while that is deferred.
        is_deleted: whether it was deleted; what is left of its files is not to be repaired.
        is_quarantined: whether it was found damaged.
    """

    digest: str | None
    is_deleted: bool = False
    is_quarantined: bool = False


class Register(Protocol):
    """What the tables know of all checkpoints."""

    def listed(self) -> Mapping[str, Listed]:
        """Return every checkpoint that a row tells of."""
        ...

    def tensor_digests(self, checkpoint_id: str) -> Mapping[str, str]:
        """Return the digests of a checkpoint's tensors by path, as far as rows tell them."""
        ...


def plan_repair(
    store: CheckpointStore, register: Register, wanted: Sequence[str] | None, sources: Sequence[Path] = ()
) -> RepairPlan:
    """Examine checkpoints, every byte of them, and look for copies of what is damaged.

    Args:
        store: the lake's checkpoints.
        register: what the tables know of them.
        wanted: which to look at; None for all, and for files that no row tells of.
        sources: other places where copies may be: lakes, exported files, folders of either.

    Raises:
        InvalidInputError: one of the sources does not exist.
        LakeFormatError: a newer ckptlake wrote something.
        ReadOnlyLakeError: the lake cannot be written, so it cannot be repaired either.
    """
    search = Search(store, sources)
    on_disk = [] if wanted is not None else [*store.checkpoint_ids(), *_owners_of_packs(store)]
    if on_disk and store.layout.blobs.is_dir():
        with (
            storage_errors("plan a repair", store.layout.blobs),
            store.gate.alone(),
        ):  # whoever was saving has listed it once this has been held
            pass
    listed = register.listed()
    live = [name for name, facts in listed.items() if not facts.is_deleted]
    strays = sorted(set(on_disk) - listed.keys())
    planner = _Planner(store, register, listed, search)
    return planner.plan([*(live if wanted is None else wanted), *strays])


def _owners_of_packs(store: CheckpointStore) -> list[str]:
    """Return the checkpoints that wrote packs which no manifest of theirs tells of."""
    names = {p.stem for suffix in (RAW_SUFFIX, ARCHIVE_SUFFIX) for p in store.layout.blobs.glob(f"[!.]*{suffix}")}
    names |= {p.stem for p in store.layout.checkpoints.glob(f"[!.]*{RAW_SUFFIX}")}
    return sorted(name for name in names if not store.manifest_path(name).exists())


class _Planner:
    """Makes one plan."""

    def __init__(
        self, store: CheckpointStore, register: Register, listed: Mapping[str, Listed], search: Search
    ) -> None:
        self._store = store
        self._register = register
        self._listed = listed
        self._search = search
        self._actions: list[Action] = []
        self._losses: list[Loss] = []
        self._manifests: dict[str, Manifest] = {}
        self._concerned: list[str] = []

    def plan(self, names: Sequence[str]) -> RepairPlan:
        for name in names:
            self._find_manifest(name)
        faults = self._examine()
        saved = self._plan_files(faults)
        for name, manifest in self._manifests.items():
            own = {piece: faults[piece] for piece in pieces_of(manifest) if piece in faults}
            self._conclude(manifest, own, {piece for piece in own if piece not in saved})
            if own or (name in self._listed and self._listed[name].is_quarantined):
                self._concerned.append(name)
        concerned = tuple(dict.fromkeys(self._concerned))
        return RepairPlan(len(names), tuple(self._actions), tuple(self._losses), concerned)

    def _find_manifest(self, name: str) -> None:
        try:
            self._manifests[name] = read_whole_manifest(self._store, name)
            return
        except DamagedCheckpointError as error:
            damage = str(error).partition("; `ckptlake checkpoints repair`")[0]
        for manifest, origin in self._search.find_manifests(name):
            fitting = self._fitting(manifest)
            if fitting is not None:
                self._actions.append(RestoreManifest(name, fitting, origin))
                self._manifests[name] = fitting
                self._search.learn(fitting)
                self._concerned.append(name)
                return
        if name in self._listed:
            self._losses.append(Loss(name, damage, tuple(self._register.tensor_digests(name))))
            self._concerned.append(name)
        elif self._store.manifest_path(name).exists():
            self._actions.append(SetAside(name, damage))

    def _fitting(self, manifest: Manifest) -> Manifest | None:
        """Return a copy of a manifest as the tables say that it is now, or None where it cannot be made so."""
        listed = self._listed.get(manifest.checkpoint_id)
        if listed is None or listed.digest in (None, manifest.digest):
            return manifest
        if manifest.digest is None:
            manifest = manifest.sealed(self._register.tensor_digests(manifest.checkpoint_id))
        candidates = (manifest, trimmed(manifest))
        return next((found for found in candidates if found is not None and found.digest == listed.digest), None)

    def _examine(self) -> dict[Piece, Fault]:
        faults: dict[Piece, Fault] = {}
        seen: set[Piece] = set()
        manifests = list(self._manifests.values())
        for start in range(0, len(manifests), _EXAMINED_TOGETHER):
            some = manifests[start : start + _EXAMINED_TOGETHER]
            fresh = list(dict.fromkeys(p for manifest in some for p in pieces_of(manifest) if p not in seen))
            seen.update(fresh)
            found = zip(fresh, examine_all(self._store, fresh, "digest"), strict=True)
            faults |= {piece: fault for piece, fault in found if fault is not None}
        return faults

    def _plan_files(self, faults: Mapping[Piece, Fault]) -> set[Piece]:
        """Plan what mends each file with damage in it; return the pieces that are good after that."""
        by_pack: dict[str, list[Piece]] = {p: [] for m in self._manifests.values() for p in m.packs if m.file is None}
        actions: list[Action | None] = []
        for piece in faults:
            if piece.is_pack:
                by_pack[piece.file].append(piece)
            else:
                actions.append(self._plan_file(piece))
        saved: set[Piece] = set()
        for pack in bases_first(self._store, by_pack):
            mended = {piece.digest for piece in saved}
            follow = {p for p in by_pack[pack] if comes_back(self._store, pack, str(p.digest), mended)}
            pieces = [piece for piece in by_pack[pack] if piece not in follow]
            action = self._plan_pack(pack, pieces, mended) if pieces else self._plan_header(pack)
            actions.append(action)
            saved.update(follow, mended_by(action))
        self._actions += [action for action in actions if action is not None]
        return saved | {piece for action in actions for piece in mended_by(action)}

    def _plan_file(self, piece: Piece) -> Action | None:
        manifest = next(m for m in self._manifests.values() if m.file is not None and m.file.name == piece.file)
        assert manifest.file is not None
        path = self._store.plain_path(piece.file)
        source = self._search.find_file(manifest.file)
        return self._plan_rebuild(path, [piece]) if source is None else RestoreFile(path, source, piece)

    def _plan_pack(self, pack: str, pieces: Sequence[Piece], mended: Collection[str | None]) -> Action | None:
        raw = self._store.pack_path(pack, RAW_SUFFIX)
        start = self._other_start(pack, raw)
        copies: list[tuple[Piece, Copy]] = []
        for piece in pieces:
            own = [InFile(raw, start + piece.offset, piece.nbytes)] if start is not None else []
            copy = self._search.find_for(piece, own)
            if copy is not None:
                copies.append((piece, copy))
        found = {piece for piece, _ in copies}
        lost = tuple(piece for piece in pieces if piece not in found)
        path = self._store.find_pack(pack)
        rebuilt = self._plan_rebuild(path, pieces, mended) if lost and path is not None else None
        if rebuilt is not None:
            return rebuilt
        return MendPack(pack, tuple(copies), lost) if copies else None

    def _other_start(self, pack: str, raw: Path) -> int | None:
        """Return where the data of a pack should begin, if that is not where its damaged header says."""
        expected = self._expected_header(pack)
        if expected is None or not is_readable(self._store, raw) or told_start(raw) == len(expected.payload):
            return None
        return len(expected.payload)

    def _plan_header(self, pack: str) -> Action | None:
        """Plan to mend an uncompressed pack whose tensors are right and whose header is not what was written."""
        path = self._store.pack_path(pack, RAW_SUFFIX)
        if not is_readable(self._store, path):
            return None
        expected, told = self._expected_header(pack), read_header(path)
        if expected is not None and path.stat().st_size != len(expected.payload) + expected.data_bytes:
            expected = None  # the checkpoint was trimmed, so its manifest does not tell of all that is in there
        if told is not None and (expected is None or expected.slots == told.slots):
            return None
        return MendPack(pack, ()) if expected is not None else self._plan_rebuild(path, ())

    def _expected_header(self, pack: str) -> RawHeader | None:
        owner = pack.rpartition("/")[2]
        try:
            manifest = self._manifests.get(owner) or read_whole_manifest(self._store, owner)
        except DamagedCheckpointError:
            return None
        return make_header(manifest, pack)

    def _plan_rebuild(
        self, path: Path, pieces: Sequence[Piece], mended: Collection[str | None] = ()
    ) -> RebuildFile | None:
        """Plan to rebuild a file from its parity, if that has been seen to work."""
        action = RebuildFile(path, parity_path(path), tuple(pieces))
        if not is_readable(self._store, path) or not action.parity.is_file():
            return None
        try:
            with storage_errors("rebuild a file", self._store.layout.cache):
                self._store.layout.cache.mkdir(exist_ok=True)
                with tempfile.TemporaryDirectory(dir=self._store.layout.cache) as folder:
                    rebuild_checked(self._store, action, Path(folder, path.name), mended)
        except CkptlakeError as error:
            logger.info("its parity does not help: %s", error)
            return None
        return action

    def _conclude(self, manifest: Manifest, faults: Mapping[Piece, Fault], lost: Collection[Piece]) -> None:
        """Plan what is left to do with a checkpoint, and tell what of it is lost."""
        name = manifest.checkpoint_id
        gone = {piece: fault for piece, fault in faults.items() if piece in lost}
        finding = describe(manifest, gone)
        if name not in self._listed:
            if finding is None:
                self._actions.append(Adopt(name))
            elif self._store.manifest_path(name).exists():
                self._actions.append(SetAside(name, finding))
            self._actions = [a for a in self._actions if finding is None or not _restores(a, name)]
        elif finding is not None:
            tensors = lost_tensors(manifest, gone)
            self._losses.append(Loss(name, finding, tensors, len(manifest.tensors) - len(tensors)))
        elif not faults and self._listed[name].is_quarantined:
            self._actions.append(Release(name))


def _restores(action: Action, name: str) -> bool:
    return isinstance(action, RestoreManifest) and action.checkpoint_id == name


def mended_by(action: Action | None) -> Sequence[Piece]:
    """Return the damaged pieces that are good again after an action."""
    match action:
        case MendPack(_, copies, _):
            return [piece for piece, _ in copies]
        case RebuildFile(_, _, pieces):
            return pieces
        case RestoreFile(_, _, piece):
            return [piece]
    return ()
