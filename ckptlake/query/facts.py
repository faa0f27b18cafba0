"""Short answers about single runs that the rest of the package needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

Ask = Callable[..., "DuckDBPyRelation"]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run's row of `runs`, its rows of `params`, and the last step of each of its metrics."""

    row: Mapping[str, object]
    params: tuple[Mapping[str, object], ...]
    last_steps: Mapping[str, int]


def find_run(ask: Ask, run_id: str) -> RunFacts | None:
    """Return the facts of a run, or None if there is no such run."""
    rows = ask("SELECT * FROM runs WHERE run_id = $run_id", run_id=run_id).to_arrow_table().to_pylist()
    if not rows:
        return None
    params = ask("SELECT * FROM params WHERE run_id = $run_id", run_id=run_id).to_arrow_table().to_pylist()
    steps = ask("SELECT metric, last_step FROM summaries WHERE run_id = $run_id", run_id=run_id).fetchall()
    return RunFacts(rows[0], tuple(params), dict(steps))
