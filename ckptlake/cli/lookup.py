"""Which run a person means by an id, or by the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptlake.errors import InvalidInputError, RunNotFoundError

if TYPE_CHECKING:
    from ckptlake.lake import Lake

_CANDIDATES_SHOWN = 5
_CANDIDATES = """
SELECT run_id, name, status FROM runs
WHERE starts_with(run_id, $text) OR name = $text
ORDER BY started_at DESC, run_id DESC
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A run that exists."""

    run_id: str
    name: str
    status: str


def find_run(lake: Lake, text: str) -> Found:
    """Return the run whose id is `text`, or the only one whose id begins with it.

    Raises:
        RunNotFoundError: no id begins so; the message tells of runs that have it for a name.
        InvalidInputError: several ids begin so, or `text` is empty.
    """
    if not text:
        raise InvalidInputError("the run id is empty: give one, or the beginning of one")
    rows = [Found(*row) for row in lake.sql(_CANDIDATES, text=text).fetchall()]
    exact = [run for run in rows if run.run_id == text]
    begun = exact or [run for run in rows if run.run_id.startswith(text)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise InvalidInputError(f"{text!r} begins the ids of {len(begun)} runs: {_listed(begun)}; give more of it")
    if rows:
        noun = "run is" if len(rows) == 1 else "runs are"
        raise RunNotFoundError(f"no run id begins with {text!r}, but {len(rows)} {noun} named so: {_listed(rows)}")
    raise RunNotFoundError(f"the lake has no run {text!r}; `ckptlake runs list` shows those it has")


def _listed(runs: Sequence[Found]) -> str:
    shown = ", ".join(run.run_id for run in runs[:_CANDIDATES_SHOWN])
    return f"{shown}, …" if len(runs) > _CANDIDATES_SHOWN else shown
