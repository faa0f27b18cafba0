"""A repair carried out: what was planned, each step verified before it takes the place of what is damaged."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ckptlake._internal.files import storage_errors
from ckptlake.checkpoints.contents import open_contents
from ckptlake.checkpoints.manifest import Manifest, PlainFile
from ckptlake.checkpoints.parallel import in_parallel
from ckptlake.checkpoints.rows import saved_row, tensor_rows
from ckptlake.checkpoints.sealing import Rows
from ckptlake.checkpoints.statistics import TensorStatistics
from ckptlake.checkpoints.store import CheckpointStore, blobs_of
from ckptlake.checkpoints.tensor_pass import measure_view
from ckptlake.errors import CkptlakeError, DamagedCheckpointError, MissingDependencyError, UnsafeFileError
from ckptlake.integrity.mending import mend_pack
from ckptlake.integrity.pieces import Piece, examine_all, pieces_of, read_whole_manifest
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
from ckptlake.integrity.replacing import move_aside, replace_file
from ckptlake.integrity.search import Search, digest_of
from ckptlake.integrity.verification import Verification

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair has done.

    Attributes:
        done: the actions that were carried out.
        failed: those that were not, each with the reason; what they would have changed is as it was.
        losses: what was found nowhere.
        found: what the checks of the checkpoints concerned found afterwards.
    """

    done: tuple[Action, ...]
    failed: tuple[tuple[Action, str], ...]
    losses: tuple[Loss, ...]
    found: tuple[Verification, ...] = ()

    def sentences(self) -> list[str]:
        """Return it in words, a sentence each."""
        good = sum(one.is_good for one in self.found)
        return [
            *(f"done: {action.sentence()}" for action in self.done),
            *(f"not done: {action.sentence()}: {reason}" for action, reason in self.failed),
            *(loss.sentence() for loss in self.losses),
            *([f"{good:,} of {len(self.found):,} checkpoints concerned are whole now"] if self.found else []),
        ]

    def __str__(self) -> str:
        """Return all sentences, one a line.

        >>> print(Repaired((Adopt("c1"),), (), ()))
        done: list checkpoint c1, which is whole and which no row tells of
        """
        return "\n".join(self.sentences()) or "nothing to repair"


def carry_out(store: CheckpointStore, rows: Rows, plan: RepairPlan) -> Repaired:
    """Do what a plan says; what cannot be done is told and stops nothing else.

    An action whose end is reached already does nothing, so a plan may be carried out twice.
    """
    done: list[Action] = []
    failed: list[tuple[Action, str]] = []
    for action in plan.actions:
        try:
            _act(store, rows, action)
        except CkptlakeError as error:
            logger.warning("not done: %s: %s", action.sentence(), error)
            failed.append((action, str(error)))
        else:
            logger.info("done: %s", action.sentence())
            done.append(action)
    return Repaired(tuple(done), tuple(failed), plan.losses)


def _act(store: CheckpointStore, rows: Rows, action: Action) -> None:
    match action:
        case RestoreManifest():
            _restore_manifest(store, action)
        case MendPack():
            mend_pack(store, action)
        case RebuildFile():
            _put(store, action.path, action.pieces, lambda out: rebuild_checked(store, action, out))
        case RestoreFile():
            _put(store, action.path, [action.piece], lambda out: _copy_file(store, action, out))
        case Adopt():
            _adopt(store, rows, action.checkpoint_id)
        case SetAside():
            move_aside(store, store.manifest_path(action.checkpoint_id), action.reason)
        case Release():  # the verification that follows does it
            pass


def _restore_manifest(store: CheckpointStore, action: RestoreManifest) -> None:
    path = store.manifest_path(action.checkpoint_id)
    with storage_errors("restore a manifest", path), store.gate.together():
        try:
            read_whole_manifest(store, action.checkpoint_id)
        except DamagedCheckpointError as error:
            move_aside(store, path, str(error))
            store.publish(action.manifest)


def _put(store: CheckpointStore, path: Path, pieces: Sequence[Piece], write: Callable[[Path], None]) -> None:
    if not pieces or any(examine_all(store, pieces, "digest")):
        replace_file(store, path, write, reason="the file was damaged and has been restored")


def _copy_file(store: CheckpointStore, action: RestoreFile, out: Path) -> None:
    source = action.source
    if not source.is_file() or digest_of(source) != action.piece.digest:
        wanted = PlainFile(action.path.name, action.piece.nbytes, str(action.piece.digest), action.piece.checks)
        other = Search(store).find_file(wanted)
        if other is None:
            raise DamagedCheckpointError(f"{source} has changed since the repair was planned: plan it anew")
        source = other
    shutil.copyfile(source, out)
    if digest_of(out) != action.piece.digest:
        raise DamagedCheckpointError(f"{source} did not reach the disk as it is: check that disk")


def _adopt(store: CheckpointStore, rows: Rows, checkpoint_id: str) -> None:
    """List a checkpoint, with the digests and statistics of its tensors taken from its file."""
    with storage_errors("list a checkpoint", store.layout.root), store.gate.together():
        manifest = read_whole_manifest(store, checkpoint_id)
        if any(examine_all(store, pieces_of(manifest), "digest")):
            raise DamagedCheckpointError(f"checkpoint {checkpoint_id} is not whole, so it is not listed")
        try:
            measured = _measured(store, manifest)
        except (UnsafeFileError, MissingDependencyError) as error:
            logger.info("no tensors of checkpoint %s are listed: %s", checkpoint_id, error)
            measured = {}
        sealed = manifest.sealed({path: digest for path, (digest, _) in measured.items()})
        if sealed != manifest:
            store.replace_manifest(sealed)
        if measured:
            statistics = {path: found for path, (_, found) in measured.items()}
            rows.add_rows("tensors", tensor_rows(sealed, datetime.now(UTC), statistics))
        rows.add_rows("checkpoints", [saved_row(sealed, sealed.created_at, _stored_bytes(store, sealed), 0.0)])
        rows.flush()
        store.index.add(blobs_of(sealed))


def _measured(store: CheckpointStore, manifest: Manifest) -> dict[str, tuple[str, TensorStatistics]]:
    contents = open_contents(store, manifest)

    def measure(number: int) -> tuple[str, TensorStatistics]:
        tensor = manifest.tensors[number]
        return measure_view(tensor, contents.slice(number, 0, tensor.nbytes), None)

    with closing(contents):
        found = in_parallel(measure, range(len(manifest.tensors)), lambda number: manifest.tensors[number].nbytes)
    return {tensor.path: one for tensor, one in zip(manifest.tensors, found, strict=True)}


def _stored_bytes(store: CheckpointStore, manifest: Manifest) -> int:
    if manifest.file is not None:
        return manifest.file.size_bytes
    own = (pack for pack in manifest.packs if pack.endswith(f"/{manifest.checkpoint_id}"))
    paths = (store.find_pack(pack) for pack in own)
    return sum(path.stat().st_size for path in paths if path is not None)
