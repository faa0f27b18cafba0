"""Which runs a deletion takes with it, decided and shown before anything goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, name_column, number_column
from ckptlake.cli.lookup import find_run
from ckptlake.errors import InvalidInputError

if TYPE_CHECKING:
    from ckptlake.lake import Lake

_DOOMED = """
SELECT run_id, name, experiment, status,
    (SELECT coalesce(sum(n), 0) FROM summaries s WHERE s.run_id = r.run_id)::BIGINT AS points,
    (SELECT list(c.run_id) FROM runs c WHERE c.parent_run_id = r.run_id) AS children
FROM runs r WHERE run_id = $run_id
"""


@dataclass(frozen=True, slots=True)
class Doomed:
    """A run that is to be deleted, and the ids of runs nested under it, which are not."""

    run_id: str
    name: str
    experiment: str
    status: str
    points: int
    children: Sequence[str] | None


def plan(lake: Lake, texts: Sequence[str], *, whole: bool) -> list[Doomed]:
    """Return the runs meant by `texts`, each once.

    Runs whose process has died are recovered first, so that they no longer count as running.

    Args:
        whole: accept whole ids only.

    Raises:
        RunNotFoundError: an id names no run.
        InvalidInputError: an id is not whole or not unique, or a run is still running.
    """
    lake.recover()
    runs: dict[str, Doomed] = {}
    for text in texts:
        found = find_run(lake, text)
        if whole and found.run_id != text:
            raise InvalidInputError(f"{text!r} is only the beginning of {found.run_id!r}: with --yes give the whole id")
        if found.status == "running":
            raise InvalidInputError(f"run {found.run_id!r} is still running: finish or kill it first")
        runs[found.run_id] = Doomed(*lake.sql(_DOOMED, run_id=found.run_id).fetchall()[0])
    return list(runs.values())


def show(runs: Sequence[Doomed]) -> None:
    """Print what is to be deleted."""
    columns = [
        Column("id"),
        name_column("name"),
        name_column("experiment"),
        Column("status"),
        number_column("points"),
    ]
    console.table(columns, [[run.run_id, run.name, run.experiment, run.status, f"{run.points:,}"] for run in runs])
    orphans = {child for run in runs for child in run.children or ()} - {run.run_id for run in runs}
    if orphans:
        console.note(f"nested under these, and not deleted with them: {', '.join(sorted(orphans))}")
