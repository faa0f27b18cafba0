"""The checkpoints of one run while it is being trained: saved in order, one at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from ckptlake._internal.files import storage_error, storage_errors
from ckptlake._internal.ids import new_id
from ckptlake.checkpoints.appending import AppendingSave
from ckptlake.checkpoints.background import Faults, Fence, Pending
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.ownership import Ownership, fence_at_step
from ckptlake.checkpoints.packed import PackedSave, Written
from ckptlake.checkpoints.plain import save_plain
from ckptlake.checkpoints.previous import Before
from ckptlake.checkpoints.retention import Policy
from ckptlake.checkpoints.rows import Row, rows_of_save
from ckptlake.checkpoints.sealing import seal
from ckptlake.checkpoints.sources import Source
from ckptlake.checkpoints.staging import Staging
from ckptlake.checkpoints.state_format import get_format
from ckptlake.checkpoints.store import PACKED, CheckpointStore, blobs_of
from ckptlake.checkpoints.taking import take
from ckptlake.checkpoints.tensor_pass import ReadPrevious
from ckptlake.checkpoints.tree import Flat, flatten
from ckptlake.errors import CheckpointNotFoundError, DamagedCheckpointError, InvalidInputError, StorageError

logger = logging.getLogger(__name__)
DigestMode = Literal["sha256", "deferred"]


class Rows(Faults, Protocol):
    """Where a run's rows go."""

    def add_rows(self, table: str, rows: Sequence[Row]) -> None: ...

    def write_rows(self, groups: Sequence[tuple[str, Sequence[Row]]], drop: Callable[[], None]) -> None: ...

    def flush(self) -> None: ...


class Upkeep(Protocol):
    """What is done after each save."""

    def __call__(self) -> None: ...

    def join(self) -> None: ...

    def retain(self, policy: Policy | str | None, *, keep_optimizer: int | None, quota: str | int | None) -> None: ...


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Which run checkpoints belong to."""

    run_id: str
    experiment: str
    attempt: int


@dataclass(frozen=True, slots=True)
class SaveRequest:
    """What is to be saved, checked and complete.

    Attributes:
        state: the tree to save.
        optimizers: whose steps change the tensors they own; others are copied at once in the background.
        digest: ``sha256`` in the same pass, as always in the background, or ``deferred``: a thread of its own takes it,
            and waits for the disk.
    """

    state: object
    step: int | None = None
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    format: str = PACKED
    pin: bool = False
    alias: str | None = None
    note: str | None = None
    digest: DigestMode = "sha256"
    optimizers: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint that is listed, and durable unless its digest is deferred.

    Attributes:
        digest: the root over everything in it, or None while that is deferred.
        logical_bytes: bytes of all its tensors.
        stored_bytes: bytes that it added to the lake.
        duration_s: from the call until it was written.
    """

    id: str
    run_id: str
    step: int | None
    epoch: int | None
    format: str
    digest: str | None
    num_tensors: int
    logical_bytes: int
    stored_bytes: int
    duration_s: float


class CheckpointSession:
    """Saves the checkpoints of one run.

    Args:
        store: the lake's checkpoints.
        run: which run.
        rows: where rows go.
        find_newest: returns the id of the run's newest checkpoint from before, or None; asked once.
        max_staging_bytes: memory for copies of tensors that are saved in the background.
        upkeep: what is done once a save is durable.
    """

    def __init__(
        self,
        store: CheckpointStore,
        run: RunIdentity,
        rows: Rows,
        find_newest: Callable[[], str | None],
        max_staging_bytes: int,
        upkeep: Upkeep,
    ) -> None:
        self._store = store
        self._run = run
        self._rows = rows
        self._find_newest = find_newest
        self.upkeep = upkeep
        self._staging = Staging(max_staging_bytes)
        self._pending: Pending[SavedCheckpoint] | None = None
        self._sealing: Pending[None] | None = None
        self._end_fences: Callable[[], None] = _nothing
        self._newest: Manifest | None = None
        self._has_looked = False

    def save(self, request: SaveRequest) -> SavedCheckpoint:
        """Save a checkpoint; it is durable on return, or with deferred digests once these are there."""
        begun = time.perf_counter()
        self.join()
        flat = self._flatten(request)
        self._store.prepare()
        sources = [Source(leaf.array).named(leaf) for leaf in flat.leaves]
        return self._save(request, self._draft(request, flat, new_id()), sources, begun, is_hurried=True)

    def save_async(self, request: SaveRequest) -> Pending[SavedCheckpoint]:
        """Save a checkpoint in the background; waits for the one before, so one is in flight at most."""
        begun = time.perf_counter()
        if request.format not in (PACKED, "safetensors"):
            raise InvalidInputError(
                f"the format {request.format!r} is written by another library in one go: save it without async_, or "
                "use the format 'packed' or 'safetensors'"
            )
        self.join()
        taken = take(request.state)
        self._store.prepare()
        ownership = Ownership(request.optimizers)
        live: list[Source] = []
        staged: list[Source] = []
        for source in taken.sources:
            (live if ownership.owns(source.array) else staged).append(source)
        fence, at_once = Fence(live, self._staging), Fence(staged, self._staging)
        checkpoint_id = new_id()

        def work() -> SavedCheckpoint:
            try:
                flat, sources = taken.apart()
                return self._save(request, self._draft(request, flat, checkpoint_id), sources, begun, is_hurried=False)
            finally:
                for source in taken.sources:
                    source.give_up()
                self._staging.give_back()

        at_once.copy_what_fits()
        pending = Pending(checkpoint_id, fence, work, self._rows)
        if live:
            self._end_fences = fence_at_step(request.optimizers, fence)
        self._pending = pending.begin()
        at_once()
        return pending

    def join(self) -> None:
        """Return once nothing is being saved any more; errors are raised at the run's next call."""
        for pending in (self._pending, self._sealing):
            if pending is not None:
                pending.join()
        self._pending = self._sealing = None
        self._end_fences()
        self._end_fences = _nothing

    def close(self) -> None:
        """Wait for what is being saved, then let go of the staging memory."""
        self.join()
        self.upkeep.join()
        self._staging.release()

    def _flatten(self, request: SaveRequest) -> Flat:
        if request.format not in (PACKED, "safetensors") and get_format(request.format).keeps_anything:
            try:
                return flatten(request.state)
            except InvalidInputError as error:
                logger.info("no tensors are recorded of a state that only %s keeps: %s", request.format, error)
                return Flat(None, ())
        return flatten(request.state)

    def _draft(self, request: SaveRequest, flat: Flat, checkpoint_id: str) -> Manifest:
        return Manifest(
            checkpoint_id=checkpoint_id,
            lake_id=self._store.lake_id,
            run_id=self._run.run_id,
            experiment=self._run.experiment,
            attempt=self._run.attempt,
            step=request.step,
            epoch=request.epoch,
            format=request.format,
            created_at=datetime.now(UTC),
            tree=flat.tree,
            tensors=(),
            metrics=request.metrics,
            note=request.note,
        )

    def _save(
        self, request: SaveRequest, draft: Manifest, sources: Sequence[Source], begun: float, *, is_hurried: bool
    ) -> SavedCheckpoint:
        """Save a checkpoint and list it; only where somebody waits for it can digests be left for later."""
        before = Before(self._store, self._newest_manifest())
        dropped: list[Manifest] = []
        try:
            with storage_errors("save a checkpoint", self._store.layout.blobs), self._store.gate.together():
                written = self._write(request, draft, sources, before, is_hurried=is_hurried)
                duration_s = time.perf_counter() - begun
                self._commit(request, written, duration_s, before.id, lambda: dropped.append(written.manifest))
        finally:
            before.close()
            for manifest in dropped:
                self._store.withdraw(manifest)
        earlier, self._newest = self._newest, written.manifest
        manifest = written.manifest
        if manifest.digest is None:
            self._seal_later(manifest, earlier)
        else:
            self.upkeep()
        return SavedCheckpoint(
            manifest.checkpoint_id,
            manifest.run_id,
            manifest.step,
            manifest.epoch,
            manifest.format,
            manifest.digest,
            len(manifest.tensors),
            manifest.logical_bytes,
            written.stored_bytes,
            duration_s,
        )

    def _write(
        self,
        request: SaveRequest,
        draft: Manifest,
        sources: Sequence[Source],
        before: Before,
        *,
        is_hurried: bool,
    ) -> Written:
        def previous(source: Source) -> ReadPrevious | None:
            return before.find(source.leaf.path, source.leaf.dtype.name, source.leaf.shape)

        if request.format in (PACKED, "safetensors"):
            folder = "blobs" if request.format == PACKED else "checkpoints"
            arguments = (self._store, draft, sources, previous, folder)
            if not is_hurried:
                return PackedSave(*arguments).run()
            save = AppendingSave(*arguments)
            return save.run_deferred() if request.digest == "deferred" else save.run()
        return save_plain(self._store, draft, request.state, sources, get_format(request.format), previous)

    def _commit(
        self,
        request: SaveRequest,
        written: Written,
        duration_s: float,
        previous_id: str | None,
        drop: Callable[[], None],
    ) -> None:
        """Make the checkpoint known, then what later ones may share of it; `drop` is called if it stays unknown."""
        rows = rows_of_save(
            written,
            datetime.now(UTC),
            duration_s,
            alias=request.alias,
            pin=request.pin,
            previous_id=previous_id,
        )
        try:
            self._rows.write_rows(rows, drop)
        except StorageError as error:
            if isinstance(error.__cause__, OSError):
                raise storage_error("list a checkpoint", self._store.layout.root, error.__cause__) from error
            raise
        try:
            self._store.index.add(blobs_of(written.manifest))
        except StorageError as error:
            logger.warning("later checkpoints will not share tensors of %s: %s", written.manifest.checkpoint_id, error)

    def _seal_later(self, manifest: Manifest, before: Manifest | None) -> None:
        def work() -> None:
            sealed = seal(self._store, manifest, before, self._rows)
            if self._newest is manifest:
                self._newest = sealed
            self.upkeep()

        self._sealing = Pending(manifest.checkpoint_id, Fence((), self._staging), work, self._rows).begin()

    def _newest_manifest(self) -> Manifest | None:
        """Return the manifest of the run's newest checkpoint, or None where there is none to compare with."""
        if self._newest is None and not self._has_looked:
            self._has_looked = True
            checkpoint_id = self._find_newest()
            if checkpoint_id is not None:
                try:
                    self._newest = self._store.read_manifest(checkpoint_id)
                except (CheckpointNotFoundError, DamagedCheckpointError) as error:
                    logger.warning("no change against the checkpoint before is recorded: %s", error)
        return self._newest


def _nothing() -> None:
    """Do nothing: no fence stands."""
