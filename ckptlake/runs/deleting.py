"""Which runs may be deleted, and from which tables their rows go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ckptlake.errors import InvalidInputError, RunNotFoundError
from ckptlake.runs.starting import KnownRun
from ckptlake.tables.deletion import delete_runs as delete_rows
from ckptlake.tables.store import TableStore

# In this order a deletion cut short leaves a run that can be deleted again. What runs have declared of an
# experiment's metrics stays with the experiment.
_TABLES_OF_RUNS = ("verifications", "tensors", "checkpoints", "summaries", "metrics", "tags", "params", "runs")


def delete_runs(
    run_ids: Sequence[str],
    stores: Mapping[str, TableStore],
    find_run: Callable[[str], KnownRun | None],
    uncommitted_runs: Callable[[], frozenset[str]],
) -> int:
    """Delete all rows of runs that have ended and return how many that were.

    Raises:
        RunNotFoundError: there is no such run.
        InvalidInputError: one is still running, or has rows on their way.
    """
    for run_id in run_ids:
        known = find_run(run_id)
        if known is None:
            raise RunNotFoundError(f"the lake has no run {run_id!r}; `ckptlake runs list` shows those it has")
        if known.status == "running":
            raise InvalidInputError(f"run {run_id!r} is still running: finish or kill it first")
    uncommitted = sorted(uncommitted_runs() & set(run_ids))
    if uncommitted:
        raise InvalidInputError(
            f"run {uncommitted[0]!r} has rows that another process has not committed yet: try again in a minute"
        )
    return sum(delete_rows(stores[name], run_ids) for name in _TABLES_OF_RUNS)
