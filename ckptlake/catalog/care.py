"""Whether checkpoints are whole, and how they are kept so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ckptlake.catalog.finding import Finding, Which
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.records import CheckpointRecord
from ckptlake.checkpoints.sealing import seal
from ckptlake.checkpoints.store import blobs_of
from ckptlake.errors import CheckpointNotFoundError, DamagedCheckpointError, InvalidInputError
from ckptlake.integrity.coverage import Target
from ckptlake.integrity.monitor import BYTES_PER_S, EVERY_S, Monitor, Scrub
from ckptlake.integrity.pieces import Level, read_whole_manifest
from ckptlake.integrity.planning import plan_repair
from ckptlake.integrity.protection import Progress, Protected, protect_checkpoints
from ckptlake.integrity.register import TableRegister
from ckptlake.integrity.repair import Repaired, carry_out
from ckptlake.integrity.repair_plan import RepairPlan, named
from ckptlake.integrity.verification import (
    Verification,
    Verifier,
    VerifyProgress,
    check_level,
    levels_from,
    row_of,
    verify,
)
from ckptlake.query import checkpoint_facts as facts

if TYPE_CHECKING:
    from ckptlake.runs.run import Run

logger = logging.getLogger(__name__)
_NEVER = datetime.min.replace(tzinfo=UTC)


class Care(Finding):
    """The part of `lake.checkpoints` that looks after whether they are whole."""

    # -- verifying

    def verify(self, which: Which, run: str | Run | None = None, *, level: Level = "digest") -> Verification:
        """Check one checkpoint against what was written and record what was found.

        One that is damaged is quarantined: `latest` and `best` pass it over, and later saves do not share its
        tensors. A quarantined one that is found good at level ``digest`` or ``loads`` is released. Digests that a
        process died before taking are taken at these levels.

        Args:
            which: its id, a step, an alias, ``latest`` or ``best``.
            run: whose.
            level: ``exists`` (its files are there), ``size`` (and long enough), ``fast`` (every 4 MiB matches its
                checksum), ``digest`` (every tensor its SHA-256), ``loads`` (and the whole state can be made).

        Raises:
            CheckpointNotFoundError: none answers to `which`.
            InvalidInputError: there is no such level.
            LakeFormatError: a newer ckptlake wrote it.
            ReadOnlyLakeError: what was found cannot be recorded.

        >>> import ckptlake, numpy as np, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> with lake.run(experiment="doc") as run:
        ...     saved = run.save_checkpoint({"weights": np.ones(1000)}, step=1)
        >>> found = lake.checkpoints.verify(saved.id)
        >>> found.verdict, found.bytes_read
        ('good', 8000)
        """
        check_level(level)
        owner = facts.owner_of_sound(self._ask, which) if isinstance(which, str) else None
        if owner is None:
            record = self.get(which, run)
            self._seal_what_is_left(record, level)
            which = record.id
        found = verify(self._store, str(which), level)
        if owner is None or not found.is_good:
            self.record_verification(found, self.get(which))
        else:
            self._rows().add_rows("verifications", [row_of(found, *owner)])
            self._rows().flush()
        return found

    def verify_all(
        self,
        run: str | Run | None = None,
        experiment: str | None = None,
        *,
        level: Level = "fast",
        budget_s: float | None = None,
        sample: int | None = None,
        progress: Callable[[VerifyProgress], None] | None = None,
    ) -> list[Verification]:
        """Check many checkpoints and record what was found; bytes that several share are read once.

        Those that were never verified come first, then those verified longest ago, so calls with a `sample` or a
        budget cover all of them in the end. What has been found is recorded even if the call is interrupted.

        Args:
            run: only this run's.
            experiment: only those of this experiment and below.
            level: as for `verify`.
            budget_s: seconds after which no further checkpoint is begun.
            sample: how many checkpoints to check at most.
            progress: called after each checkpoint.

        Raises:
            InvalidInputError: there is no such level, or a budget or sample is not positive.
            LakeFormatError: a newer ckptlake wrote one.
            ReadOnlyLakeError: what was found cannot be recorded.

        >>> import ckptlake, numpy as np, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> with lake.run(experiment="doc") as run:
        ...     for step in (1, 2):
        ...         saved = run.save_checkpoint({"frozen": np.ones(4000), "step": np.array(step)}, step=step)
        >>> [(found.verdict, found.bytes_read) for found in lake.checkpoints.verify_all(level="digest")]
        [('good', 32008), ('good', 8)]
        """
        check_level(level)
        for name, value in (("budget_s", budget_s), ("sample", sample)):
            if value is not None and not value > 0:
                raise InvalidInputError(f"{name} must be positive, got {value!r:.40}")
        deadline = None if budget_s is None else time.monotonic() + budget_s
        records = self._longest_ago_first(run, experiment, level)[:sample]
        found: list[Verification] = []
        bytes_read = 0
        try:
            for record, verification in self._check(records, level, deadline):
                found.append(verification)
                bytes_read += verification.bytes_read
                self._record(verification, record)
                if progress is not None:
                    progress(VerifyProgress(len(found), len(records), bytes_read, verification))
        finally:
            if found:
                self._rows().flush()
        return found

    def _check(
        self, records: Sequence[CheckpointRecord], level: Level, deadline: float | None
    ) -> Iterator[tuple[CheckpointRecord, Verification]]:
        """Yield each checkpoint that is still there with what was found of it."""
        by_id = {record.id: record for record in records}

        def in_time() -> Iterator[str]:
            for record in records:
                if deadline is not None and time.monotonic() >= deadline:
                    return
                self._seal_what_is_left(record, level)
                yield record.id

        for found in Verifier(self._store, level).check(in_time()):
            if found.is_good or facts.with_id(self._ask, found.checkpoint_id):
                yield by_id[found.checkpoint_id], found

    def _record(self, found: Verification, record: CheckpointRecord) -> None:
        """Record a check; it is durable with the next flush, and at once where it says something new."""
        if found.is_good and record.status == "good":
            self._rows().add_rows("verifications", [row_of(found, record.run_id, record.experiment)])
        else:
            self.record_verification(found, record)

    def record_verification(self, found: Verification, record: CheckpointRecord) -> None:
        """Record a check; damaged checkpoints are quarantined, and those found good again are released."""
        super().record_verification(found, record)
        if found.is_good and found.level in levels_from("digest") and record.status == "quarantined":
            self.add_event(record, "released")
            logger.info("checkpoint %s of step %s is good again", record.id, record.step)

    def _forget_damaged(self, found: Verification) -> None:
        try:
            super()._forget_damaged(found)
        except (CheckpointNotFoundError, DamagedCheckpointError) as error:  # its tensors may be good for others
            logger.info("later checkpoints go on to share tensors of %s: %s", found.checkpoint_id, error)

    def _longest_ago_first(self, run: str | Run | None, experiment: str | None, level: Level) -> list[CheckpointRecord]:
        verified_from = facts.verified_from(self._ask, levels_from(level))
        records = self.list(run, experiment)
        return sorted(records, key=lambda record: (verified_from.get(record.id, _NEVER), record.saved_at, record.id))

    def _seal_what_is_left(self, record: CheckpointRecord, level: Level) -> None:
        """Take the digests of a checkpoint that its process, which is gone, has not taken."""
        if record.digest is not None or level not in levels_from("digest"):
            return
        if not facts.is_over(self._ask, record.run_id, record.attempt):
            return
        try:
            manifest = read_whole_manifest(self._store, record.id)
            seal(self._store, manifest, self._before(record), self._rows())
        except DamagedCheckpointError as error:  # the check that follows tells what is wrong
            logger.warning("the digests of checkpoint %s cannot be taken: %s", record.id, error)

    def _before(self, record: CheckpointRecord) -> Manifest | None:
        """Return the manifest of the good checkpoint that the run saved before another."""
        earlier = [one for one in self.list(record.run_id) if one.saved_at < record.saved_at and one.status == "good"]
        try:
            return read_whole_manifest(self._store, earlier[-1].id) if earlier else None
        except DamagedCheckpointError as error:
            logger.warning("no change against the checkpoint before is recorded: %s", error)
            return None

    # -- watching

    def watch(
        self,
        run: str | Run | None = None,
        experiment: str | None = None,
        *,
        bytes_per_s: float = BYTES_PER_S,
        level: Level = "fast",
        every_s: float = EVERY_S,
    ) -> Monitor:
        """Return a monitor that reads checkpoints again and again, slowly, and records what it finds.

        It does nothing by itself: call its `run`, or its `step` from a loop of your own. `status` tells how old the
        oldest unverified byte is. A new monitor goes on where the one before stopped.

        Args:
            run: only this run's.
            experiment: only those of this experiment and below.
            bytes_per_s: how much it may read.
            level: ``fast`` compares checksums, which costs a processor little; ``digest`` compares SHA-256.
            every_s: how often, in seconds, each byte is to be read.

        Raises:
            InvalidInputError: an argument is none of these.

        >>> import ckptlake, numpy as np, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> with lake.run(experiment="doc") as run:
        ...     saved = run.save_checkpoint({"weights": np.ones(1000)}, step=1)
        >>> monitor = lake.checkpoints.watch(bytes_per_s=1e12)
        >>> monitor.step().found.verdict, monitor.status().coverage
        ('good', 1.0)
        """
        scrub = Scrub(bytes_per_s=bytes_per_s, level=level, every_s=every_s)
        return Monitor(self._store, _Logbook(self, run, experiment, scrub.level), scrub)

    # -- protecting and repairing

    def protect(
        self, which: Which | None = None, run: str | Run | None = None, *, progress: Progress | None = None
    ) -> Protected:
        """Write parity beside the files of checkpoints, by which each can lose a twentieth of its bytes and come back.

        Files that have it already are left alone. It takes 5.2 % of the size of large files.

        Args:
            which: a checkpoint; without it, all of `run` or of the lake.
            run: whose.
            progress: called with the bytes of files that have been gone through, and of how many.

        Raises:
            CheckpointNotFoundError: none answers to `which`.
            StorageError: the disk refused; the files before are protected.

        >>> import ckptlake, numpy as np, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> with lake.run(experiment="doc") as run:
        ...     saved = run.save_checkpoint({"weights": np.ones(100_000)}, step=1)
        >>> protected = lake.checkpoints.protect()
        >>> len(protected.written), f"{protected.added_bytes / 800_000:.0%}"
        (1, '5%')
        """
        return protect_checkpoints(self._store, self._named(which, run), progress)

    def plan_repair(
        self, which: Which | None = None, run: str | Run | None = None, *, sources: Sequence[str | Path] = ()
    ) -> RepairPlan:
        """Look at every byte of checkpoints and find out what can be done about damage, without doing it.

        For each damaged tensor copies are looked for in the lake's other packs and checkpoints, then in `sources`,
        then the parity of its file is tried. Manifests are made anew from the copy that packs hold. Without `which`
        and `run`, files are looked at too that no row tells of.

        Args:
            which: a checkpoint; without it, all of `run` or of the lake.
            run: whose.
            sources: other lakes, copies of this one, exported ``.safetensors`` or ``.pt`` files, folders of them.

        Returns:
            A plan to print, and to give to `repair`.

        Raises:
            CheckpointNotFoundError: none answers to `which`.
            InvalidInputError: one of the sources does not exist.

        >>> import ckptlake, numpy as np, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> with lake.run(experiment="doc") as run:
        ...     saved = run.save_checkpoint({"weights": np.ones(1000)}, step=1)
        >>> print(lake.checkpoints.plan_repair())
        1 checkpoint was examined and is whole
        """
        wanted = None if which is None and run is None else self._named(which, run)
        return plan_repair(
            self._store, TableRegister(self._ask), wanted, [Path(source).expanduser().absolute() for source in sources]
        )

    def repair(self, plan: RepairPlan) -> Repaired:
        """Do what a plan says, then verify what it concerns.

        Nothing is deleted: what is replaced goes to ``quarantine/``. Checkpoints that are whole afterwards are
        released; of those that are not, it is recorded which tensors are lost, and
        ``lake.checkpoints.open(id).salvage()`` loads the rest.

        Raises:
            ReadOnlyLakeError: the lake cannot be written.

        >>> import ckptlake, numpy as np, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> with lake.run(experiment="doc") as run:
        ...     saved = run.save_checkpoint({"weights": np.ones(1000)}, step=1)
        >>> manifest = lake.path / "checkpoints" / f"{saved.id}.json"
        >>> manifest.unlink()
        >>> repaired = lake.checkpoints.repair(lake.checkpoints.plan_repair())
        >>> [found.verdict for found in repaired.found], manifest.exists()
        (['good'], True)
        """
        self._store.prepare()
        repaired = carry_out(self._store, self._rows(), plan)
        lost = {loss.checkpoint_id: loss for loss in plan.losses}
        found = []
        for name in plan.concerned:
            record = self.find(name)
            if record is None:
                continue
            self._seal_what_is_left(record, "digest")
            verification = verify(self._store, name, "digest")
            if verification.finding is not None and not verification.tensors_lost and name in lost:
                finding = f"{verification.finding}; lost are {named(lost[name].tensors)}"
                verification = replace(verification, finding=finding, tensors_lost=lost[name].tensors)
            self.record_verification(verification, record)
            found.append(verification)
            if verification.is_good:
                self._store.index.add(blobs_of(self._store.read_manifest(name)))
        return replace(repaired, found=tuple(found))

    def _named(self, which: Which | None, run: str | Run | None) -> Sequence[str]:
        return [record.id for record in (self.list(run) if which is None else [self.get(which, run)])]


class _Logbook:
    """What the tables know of the checkpoints that a monitor watches over."""

    def __init__(self, care: Care, run: str | Run | None, experiment: str | None, level: Level) -> None:
        self._care = care
        self._scope = (run, experiment)
        self._level = level

    def targets(self) -> Sequence[Target]:
        verified_from = facts.verified_from(self._care._ask, levels_from(self._level))
        return [Target(one.id, one.saved_at, verified_from.get(one.id)) for one in self._care.list(*self._scope)]

    def record(self, found: Verification) -> Verification | None:
        record = self._care.find(found.checkpoint_id)
        if record is None:
            return None
        self._care._record(found, record)
        self._care._rows().flush()
        return found
