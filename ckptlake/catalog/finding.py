"""Checkpoints found, opened, loaded and named."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ckptlake.checkpoints.loading import LoadedCheckpoint, LoadOptions, Skipped
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.opened import OpenedCheckpoint
from ckptlake.checkpoints.records import RESERVED, CheckpointRecord, check_alias
from ckptlake.checkpoints.session import Rows
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.errors import CheckpointNotFoundError, DamagedCheckpointError, InvalidInputError, ReadOnlyLakeError
from ckptlake.integrity.verification import Verification, row_of, verify
from ckptlake.query import checkpoint_facts as facts
from ckptlake.types import Direction

if TYPE_CHECKING:
    from ckptlake.runs.run import Run

logger = logging.getLogger(__name__)
Which = str | int
"""``latest``, ``latest_good``, ``best``, ``best:<metric>``, an alias, an id, or a step."""


class Finding:
    """The part of `lake.checkpoints` that finds, loads and names.

    Args:
        store: their bytes.
        ask: runs SQL on the lake's views.
        rows: returns where rows go; asked only when something is written.
    """

    def __init__(self, store: CheckpointStore, ask: facts.Ask, rows: Callable[[], Rows]) -> None:
        self._store = store
        self._ask = ask
        self._rows = rows

    # -- finding

    def list(self, run: str | Run | None = None, experiment: str | None = None) -> list[CheckpointRecord]:
        """Return the checkpoints of a run, of an experiment with those below it, or of the lake, oldest first."""
        found = facts.checkpoints(self._ask, run_id=_run_id(run), experiment=experiment)
        return [CheckpointRecord.of(row) for row in found]

    def get(self, which: Which, run: str | Run | None = None) -> CheckpointRecord:
        """Return one checkpoint.

        Args:
            which: its id, a step, an alias, ``latest``, ``latest_good``, ``best`` or ``best:val/loss``.
            run: whose; without it, of all runs of the lake.

        Raises:
            CheckpointNotFoundError: none answers to `which`; the message tells what there is.
            InvalidInputError: `best` does not tell by which metric or in which direction.
        """
        run_id = _run_id(run)
        if isinstance(which, bool) or not isinstance(which, str | int):
            raise InvalidInputError(f"a checkpoint is named by text or step, got {which!r:.60}")
        if isinstance(which, int):
            rows = facts.at_step(self._ask, which, run_id=run_id)
        elif which == "best" or which.startswith("best:"):
            return self.best(which.partition(":")[2] or self._only_directed(run_id), run=run)
        elif which == "latest_good":
            return self._latest_good(run)[0]
        elif which == "latest":
            rows = facts.newest(self._ask, run_id=run_id, status="good")[:1]
        else:
            rows = facts.with_id(self._ask, which) or facts.with_alias(self._ask, which, run_id=run_id)
        if not rows:
            raise self._not_found(which, run_id)
        return CheckpointRecord.of(rows[0])

    def find(self, which: Which, run: str | Run | None = None) -> CheckpointRecord | None:
        """Return one checkpoint, or None where none answers to `which`."""
        try:
            return self.get(which, run)
        except CheckpointNotFoundError:
            return None

    def best(
        self,
        metric: str,
        *,
        run: str | Run | None = None,
        experiment: str | None = None,
        direction: Direction | None = None,
    ) -> CheckpointRecord:
        """Return the checkpoint with the best value of a metric; NaN never is the best.

        Args:
            metric: a metric that checkpoints were saved with.
            run: of which run; without it, of all.
            experiment: of which experiment and those below.
            direction: ``min`` or ``max``; default what `run.define` has declared.

        Raises:
            CheckpointNotFoundError: no good checkpoint was saved with a value of the metric.
            InvalidInputError: no direction is declared, or different ones are; it is not guessed.
        """
        run_id = _run_id(run)
        if direction not in ("min", "max", None):
            raise InvalidInputError(f"direction must be 'min' or 'max', got {direction!r:.40}")
        direction = direction or self._declared(metric, run_id, experiment)
        rows = facts.best(self._ask, metric, direction, run_id=run_id, experiment=experiment)
        if not rows:
            known = facts.recorded_metrics(self._ask, run_id=run_id, experiment=experiment)
            raise CheckpointNotFoundError(
                f"no good checkpoint has a value of {metric!r}; checkpoints have {', '.join(known) or 'no metrics'}: "
                "give save_checkpoint(metrics={...})"
            )
        return CheckpointRecord.of(rows[0])

    def _declared(self, metric: str, run_id: str | None, experiment: str | None) -> Direction:
        found = {
            direction
            for (where, name), direction in facts.directions(self._ask).items()
            if name == metric and (experiment is None or where == experiment or where.startswith(f"{experiment}/"))
        }
        if run_id is not None and len(found) > 1:
            of_run = facts.newest(self._ask, run_id=run_id)
            own = facts.directions(self._ask).get((of_run[0]["experiment"], metric)) if of_run else None
            found = {own} if own is not None else found
        if len(found) == 1:
            return found.pop()
        problem = "different directions are" if found else "no direction is"
        raise InvalidInputError(
            f"{problem} declared for {metric!r}: declare one with run.define({metric!r}, direction='min'), or give "
            "direction='min' or 'max'"
        )

    def _only_directed(self, run_id: str | None) -> str:
        """Return the one metric of the checkpoints that has a direction."""
        recorded = facts.recorded_metrics(self._ask, run_id=run_id)
        directed = {name for _, name in facts.directions(self._ask)}
        found = [name for name in recorded if name in directed]
        if len(found) == 1:
            return found[0]
        raise InvalidInputError(
            f"'best' by which metric? Checkpoints have {', '.join(recorded) or 'none'}, with a declared direction "
            f"{', '.join(found) or 'none'}: say 'best:<metric>', and declare it with run.define(metric, direction=...)"
        )

    def _not_found(self, which: Which, run_id: str | None) -> CheckpointNotFoundError:
        there = facts.newest(self._ask, run_id=run_id)
        where = f"run {run_id}" if run_id is not None else "the lake"
        if not there:
            return CheckpointNotFoundError(f"{where} has no checkpoints, so none answers to {which!r:.60}")
        if isinstance(which, int):
            steps = {row["step"] for row in there if row["step"] is not None}
            near = sorted(steps, key=lambda step: abs(step - which))[:2]
            nearest = ", ".join(map(str, near)) or "none"
            return CheckpointNotFoundError(
                f"{where} has no checkpoint of step {which}; the nearest steps are {nearest}"
            )
        aliases = [alias for row in there for alias in row["aliases"] or ()]
        names = [*RESERVED, *aliases, *(row["checkpoint_id"] for row in there)]
        near = difflib.get_close_matches(str(which), names, 3, 0.5)
        return CheckpointNotFoundError(
            f"{where} has no checkpoint {which!r:.80}; near it are {', '.join(near) or 'none'}, and "
            "`ckptlake checkpoints list` shows all"
        )

    # -- loading

    def open(self, which: Which, run: str | Run | None = None, *, allow_unsafe: bool = False) -> OpenedCheckpoint:
        """Open a checkpoint to read single tensors or slices of it; an id is opened without asking the tables.

        Raises:
            CheckpointNotFoundError: none answers to `which`.
            DamagedCheckpointError: its manifest cannot be read.
        """
        manifest = self._manifest_of(which, run)
        return OpenedCheckpoint(self._store, manifest, allow_unsafe=allow_unsafe)

    def _manifest_of(self, which: Which, run: str | Run | None) -> Manifest:
        if isinstance(which, str) and which not in RESERVED and _looks_like_id(which):
            with suppress(CheckpointNotFoundError):
                return self._store.recall_manifest(which)
        return self._store.recall_manifest(self.get(which, run).id)

    def load(
        self,
        which: Which = "latest",
        run: str | Run | None = None,
        *,
        into: object = None,
        options: LoadOptions | None = None,
        allow_unsafe: bool = False,
    ) -> LoadedCheckpoint:
        """Load a checkpoint; `run.load_checkpoint` describes the choices.

        Raises:
            CheckpointNotFoundError: none answers to `which`.
            DamagedCheckpointError: a tensor is missing or not what was written; for ``latest_good``, of every one.
            UnsafeFileError: loading would run code from the file; `allow_unsafe=True` permits it.
        """
        options = options or LoadOptions()
        skipped: Sequence[Skipped] = ()
        if which == "latest_good":
            record, skipped = self._latest_good(run)
            which = record.id
        opened = self.open(which, run, allow_unsafe=allow_unsafe)
        loaded = LoadedCheckpoint(opened, options, skipped)
        if into is not None:
            loaded.load_into(into)
        if options.rng:
            loaded.restore_rng()
        return loaded

    def _latest_good(self, run: str | Run | None) -> tuple[CheckpointRecord, Sequence[Skipped]]:
        """Return the newest checkpoint whose every tensor matches its digest; quarantine those that do not."""
        skipped: tuple[Skipped, ...] = ()
        for row in facts.newest(self._ask, run_id=_run_id(run), status="good"):
            record = CheckpointRecord.of(row)
            found = verify(self._store, record.id, "digest")
            try:
                self.record_verification(found, record)
            except ReadOnlyLakeError as error:
                logger.warning("that checkpoint %s is %s is not recorded: %s", record.id, found.verdict, error)
            if found.is_good:
                return record, skipped
            logger.warning("checkpoint %s of step %s is passed over: %s", record.id, record.step, found.finding)
            skipped = (*skipped, Skipped(record.id, record.step, str(found.finding)))
        if not skipped:
            raise self._not_found("latest_good", _run_id(run))
        raise DamagedCheckpointError(
            f"none of {len(skipped)} checkpoints is whole; the newest, {skipped[0].id}: {skipped[0].finding}; "
            "`ckptlake checkpoints repair` looks for other copies"
        )

    # -- naming

    def pin(self, which: Which, run: str | Run | None = None) -> CheckpointRecord:
        """Keep a checkpoint from ever being deleted by retention."""
        return self._tell(which, run, "pinned")

    def unpin(self, which: Which, run: str | Run | None = None) -> CheckpointRecord:
        """Take a pin away; one that is not there is no error."""
        return self._tell(which, run, "unpinned")

    def alias(self, which: Which, name: str, run: str | Run | None = None) -> CheckpointRecord:
        """Give a checkpoint a name of your own; in its run the name moves there from any other.

        Raises:
            InvalidInputError: the name is empty or one that is worked out, such as ``latest``.
        """
        return self._tell(which, run, "aliased", alias=check_alias(name))

    def unalias(self, name: str, run: str | Run | None = None) -> CheckpointRecord:
        """Take a name away from the checkpoint that has it."""
        return self._tell(name, run, "unaliased", alias=name)

    def _tell(self, which: Which, run: str | Run | None, event: str, **columns: object) -> CheckpointRecord:
        record = self.get(which, run)
        self.add_event(record, event, **columns)
        return self.get(record.id)

    def add_event(self, record: CheckpointRecord, event: str, **columns: object) -> None:
        """Record something new of a checkpoint; it is durable on return."""
        row = {
            "checkpoint_id": record.id,
            "run_id": record.run_id,
            "experiment": record.experiment,
            "attempt": record.attempt,
            "ts": datetime.now(UTC),
            "event": event,
            **columns,
        }
        rows = self._rows()
        rows.add_rows("checkpoints", [row])
        rows.flush()

    # -- integrity

    def record_verification(self, found: Verification, record: CheckpointRecord) -> None:
        """Record a check; a damaged checkpoint is quarantined, and later saves do not share its tensors."""
        rows = self._rows()
        rows.add_rows("verifications", [row_of(found, record.run_id, record.experiment)])
        if not found.is_good and record.status == "good":
            self.add_event(record, "quarantined", note=found.finding)
            self._forget_damaged(found)
        rows.flush()

    def _forget_damaged(self, found: Verification) -> None:
        lost = set(found.tensors_lost)
        if lost:
            tensors = self._store.read_manifest(found.checkpoint_id).tensors
            self._store.index.forget([t.digest for t in tensors if t.path in lost and t.digest is not None])


def _run_id(run: str | Run | None) -> str | None:
    return run if run is None or isinstance(run, str) else run.id


def _looks_like_id(which: str) -> bool:
    return len(which) == 26 and which[8] == which[15] == "-" and which[:8].isdigit()
