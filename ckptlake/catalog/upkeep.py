"""What is done for a run after each of its saves: retention at once, compression in a thread of its own."""

from __future__ import annotations

import threading

from ckptlake.catalog.space import Space
from ckptlake.checkpoints.background import Faults
from ckptlake.checkpoints.budgets import Quota, parse_size
from ckptlake.checkpoints.retention import Policy, parse_policy
from ckptlake.errors import CkptlakeError


class SaveUpkeep:
    """Keeps the checkpoints of one run to what its policy says, and older ones compressed.

    It begins when a save is durable and listed. What goes wrong in it is raised at the run's next call; the saved
    checkpoint is not affected.

    Args:
        checkpoints: those of the lake.
        run_id: the run.
        faults: where errors go.
        compresses: whether older checkpoints are compressed by themselves.
    """

    def __init__(self, checkpoints: Space, run_id: str, faults: Faults, *, compresses: bool) -> None:
        self._checkpoints = checkpoints
        self._run_id = run_id
        self._faults = faults
        self._compresses = compresses
        self._policy: Policy | None = None
        self._keep_optimizer: int | None = None
        self._quota: Quota | None = None
        self._thread: threading.Thread | None = None

    def retain(self, policy: Policy | str | None, *, keep_optimizer: int | None, quota: str | int | None) -> None:
        """Set what is kept from the next save on; without a policy all are.

        Raises:
            InvalidInputError: a text cannot be read.
        """
        self._policy = parse_policy(policy) if isinstance(policy, str) else policy
        self._keep_optimizer = keep_optimizer
        limit = parse_size(quota) if isinstance(quota, str) else quota
        self._quota = None if limit is None else Quota(limit, "run")

    def __call__(self) -> None:
        """Do what is due after a save."""
        try:
            if self._policy is not None:
                plan = self._checkpoints.plan_retention(
                    self._policy, keep_optimizer=self._keep_optimizer, quota=self._quota, run=self._run_id
                )
                self._checkpoints.apply(plan)
        except CkptlakeError as error:
            self._faults.report(error)
        if self._compresses and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._compress, name="ckptlake-compress", daemon=True)
            self._thread.start()

    def _compress(self) -> None:
        try:
            self._checkpoints.compact(self._run_id)
        except CkptlakeError as error:
            self._faults.report(error)

    def join(self) -> None:
        """Return once nothing is being compressed."""
        if self._thread is not None:
            self._thread.join()
