"""What checkpoints cost, and how they are made to cost less."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ckptlake.catalog.finding import Finding, Which, _run_id
from ckptlake.catalog.ledger import TableLedger
from ckptlake.catalog.pruning import Applied, apply
from ckptlake.checkpoints.budgets import Quota, RetentionPlan, parse_size, plan_retention
from ckptlake.checkpoints.candidates import candidates
from ckptlake.checkpoints.compaction import Compaction, Progress, compact, tell_nobody
from ckptlake.checkpoints.deleting import delete
from ckptlake.checkpoints.records import RESERVED, CheckpointRecord
from ckptlake.checkpoints.retention import Policy, check_count, parse_policy
from ckptlake.checkpoints.sweeping import GRACE_S, Sweep, sweep
from ckptlake.checkpoints.trimming import finish_trims
from ckptlake.checkpoints.usage import By, Usage, usage
from ckptlake.errors import InvalidInputError
from ckptlake.query import checkpoint_facts as facts

if TYPE_CHECKING:
    from ckptlake.runs.run import Run


class Space(Finding):
    """The part of `lake.checkpoints` that looks after what they cost."""

    @property
    def _ledger(self) -> TableLedger:
        return TableLedger(self._ask)

    # -- deleting

    def delete(self, *which: Which, run: str | Run | None = None) -> Sweep:
        """Delete checkpoints for good, with all of their bytes that no other checkpoint needs.

        Args:
            which: ids, steps or your own aliases.
            run: whose.

        Returns:
            The files that are gone.

        Raises:
            CheckpointNotFoundError: none answers to one of `which`; nothing is deleted.
            InvalidInputError: one is pinned, or named by a name that is worked out such as ``latest``; nothing is
                deleted.
            StorageError: the disk refused; `gc` removes what is left of those that are not listed any more.

        >>> import ckptlake, numpy as np, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> with lake.run(experiment="doc") as run:
        ...     for step in (1, 2):
        ...         saved = run.save_checkpoint({"weights": np.full(1000, step, np.float32)}, step=step)
        >>> lake.checkpoints.delete(1).deleted, [checkpoint.step for checkpoint in lake.checkpoints.list()]
        (True, [2])
        """
        if not which:
            raise InvalidInputError("which checkpoints? Give their ids, steps or aliases")
        records: dict[str, CheckpointRecord] = {}
        for name in which:
            if isinstance(name, str) and (name in RESERVED or name.startswith("best:")):
                raise InvalidInputError(
                    f"{name!r} may be another checkpoint by now: give the id, as in delete(get({name!r}).id)"
                )
            record = self.get(name, run)
            if record.pinned:
                raise InvalidInputError(f"checkpoint {record.id} is pinned: take the pin away by unpin({record.id!r})")
            records[record.id] = record
        holdings = self._ledger.marks().holdings
        return delete(self._store, self._ledger, self._rows(), [holdings[name] for name in records])

    def gc(self, grace_s: float = GRACE_S, dry_run: bool = True) -> Sweep:
        """Find, and with `dry_run=False` delete, files that no checkpoint needs, such as crashes leave.

        Args:
            grace_s: seconds since its last change for which a file stays that no row tells of: it may belong to a
                save under way elsewhere whose rows wait for a disk, and a repair may still list it.
            dry_run: only tell.

        Raises:
            InvalidInputError: `grace_s` is negative or more than 1e9.
            StorageError: the disk refused; what is left goes the next time.
        """
        if not dry_run and self._store.layout.blobs.is_dir():
            with self._store.gate.alone():
                finish_trims(self._store, self._ledger, self._rows())
        return sweep(self._store, self._ledger, grace_s=grace_s, dry_run=dry_run)

    # -- retention

    def plan_retention(
        self,
        policy: Policy | str,
        *,
        keep_optimizer: int | None = None,
        quota: Quota | str | None = None,
        run: str | Run | None = None,
        experiment: str | None = None,
    ) -> RetentionPlan:
        """Decide which checkpoints to delete or trim, without doing it.

        Whatever the policy says, pinned ones stay, those with an alias of your own, the best by every metric with a
        declared direction, and the newest good and the newest verified one of each run.

        Args:
            policy: a policy, or text such as ``latest(3)+best(val/loss,2)``.
            keep_optimizer: how many of each run keep their optimizer state; older ones keep the model alone.
            quota: the most bytes, as a `Quota` or as text such as ``10GB`` for what is looked at here in all.
            run: only this run's.
            experiment: only those of this experiment and below.

        Returns:
            A plan to read, and to give to `apply`.

        Raises:
            InvalidInputError: a text cannot be read, or a `best` has no direction.

        >>> import ckptlake, numpy as np, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> with lake.run(experiment="doc") as run:
        ...     for step in range(5):
        ...         saved = run.save_checkpoint({"weights": np.full(1000, step, np.float32)}, step=step)
        >>> plan = lake.checkpoints.plan_retention("latest(2)")
        >>> plan.sentence()
        'keep 2 of 5 checkpoints (8,000 bytes) and delete 3; this frees 12,000 bytes'
        >>> len(lake.checkpoints.apply(plan).deleted)
        3
        """
        run_id = _run_id(run)
        if isinstance(quota, str):
            quota = Quota(parse_size(quota), "run" if run_id is not None else "experiment" if experiment else "lake")
        records = self.list(run, experiment)
        is_part = run_id is not None or experiment is not None
        others = self._ledger.sharers(records) if is_part else []
        plan = plan_retention(
            candidates(self._store, records, others),
            parse_policy(policy) if isinstance(policy, str) else policy,
            directions=facts.directions(self._ask),
            keep_optimizer=keep_optimizer,
            quota=quota,
            now=datetime.now(UTC),
        )
        return _without(plan, others, records)

    def apply(self, plan: RetentionPlan) -> Applied:
        """Carry out a plan: delete and trim what it says, but for what has come to be protected since.

        Nothing that was saved after the plan was made is touched. Of a run whose newest good checkpoint is not
        whole nothing is deleted. Trimmed checkpoints load as before, without their optimizer state.

        Raises:
            DamagedCheckpointError: a pack that optimizer state lay in is damaged; nothing in it is lost by this.
            StorageError: the disk refused; apply the plan again, or run `gc`.
        """
        return apply(self._store, self._ledger, self._rows(), facts.directions(self._ask), plan)

    # -- compressing

    def compact(
        self,
        run: str | Run | None = None,
        *,
        experiment: str | None = None,
        base: Which | None = None,
        keep_raw: int = 1,
        progress: Progress | None = None,
    ) -> Compaction:
        """Compress older checkpoints without loss: each tensor as the difference to the checkpoint before.

        Every pack is decoded back and compared before it takes the place of the uncompressed one. Loading works as
        before and costs decoding, of at most five tensors for each. May run beside training, in a thread or in another
        process.

        Args:
            run: only this run's.
            experiment: only those of this experiment and below.
            base: a checkpoint that the first ones of the runs are stored as differences to, such as that which
                fine-tuning began from; by default the one that a run was forked from.
            keep_raw: how many of the newest of each run stay uncompressed, so that their tensors are read in place.
            progress: called with bytes done and bytes in all.

        Raises:
            CheckpointNotFoundError: none answers to `base`.
            DamagedCheckpointError: a tensor is not what was saved; its pack stays as it is, all others are done.
            StorageError: the disk refused; what was done stays done.
        """
        check_count("keep_raw", keep_raw, least=0)
        origin = None if base is None else self.get(base).id
        run_ids = facts.runs_with_checkpoints(self._ask, run_id=_run_id(run), experiment=experiment)
        lineages = self._ledger.lineages(run_ids, origin)
        return compact(
            self._store, self._ledger, self._rows(), lineages, keep_raw=keep_raw, progress=progress or tell_nobody
        )

    # -- counting

    def usage(self, by: By = "run") -> list[Usage]:
        """Return what each run, each experiment or the whole lake costs on the disk, the most expensive first.

        Raises:
            InvalidInputError: `by` is none of ``run``, ``experiment`` and ``lake``.
        """
        return usage(self._store, self._ledger, self.list(), by)


def _without(
    plan: RetentionPlan, others: Sequence[CheckpointRecord], records: Sequence[CheckpointRecord]
) -> RetentionPlan:
    """Return a plan without those that were only looked at because they share with the ones to decide about."""
    strangers = {record.id for record in others}
    groups = {name for record in records for name in (record.run_id, record.experiment, "lake")}
    return RetentionPlan(
        tuple(decision for decision in plan.keep if decision.checkpoint_id not in strangers),
        plan.delete,
        plan.trim,
        plan.freed_bytes,
        plan.kept_bytes,
        {name: excess for name, excess in plan.over_quota.items() if name in groups},
    )
