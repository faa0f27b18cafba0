"""The familiar trio: `init`, `log`, `finish` on one run that is active in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ckptlake.errors import InvalidInputError, RunClosedError
from ckptlake.lake import open as open_lake

if TYPE_CHECKING:
    from ckptlake.lake import Lake
    from ckptlake.runs.run import Run

_active: tuple[Lake, Run] | None = None


def init(
    project: str | None = None,
    name: str | None = None,
    config: Any = None,
    tags: Mapping[str, object] | Iterable[str] | str | None = None,
    group: str | None = None,
    resume: str | bool | None = None,
    dir: str | os.PathLike[str] | None = None,
    id: str | None = None,
) -> Run:
    """Start a run, make it the active one, and return it.

    Args:
        project: the experiment.
        name: what people call the run.
        config: its params.
        tags: a dict, or names alone.
        group: kept as the tag ``group``.
        resume: the id of a run to continue, or True to continue the run `id`.
        dir: the lake; default the environment variable ``CKPTLAKE_DIR``, else ``./lake``.
        id: an id of your own.

    Raises:
        InvalidInputError: a value that cannot be kept, or ``resume=True`` without `id`.
        RunClosedError: never for the run before; it is finished first.
    """
    global _active
    if resume is True and id is None:
        raise InvalidInputError("resume=True needs id=, the run to continue; or give resume='<run id>'")
    if _active is not None:
        finish()
    lake = open_lake(dir)
    all_tags = tags if group is None else {**_as_mapping(tags), "group": group}
    run = lake.run(
        experiment=project,
        name=name,
        params=config,
        tags=all_tags,
        run_id=id,
        resume=id if resume is True else resume or None,
    )
    _active = (lake, run)
    return run


def _as_mapping(tags: Mapping[str, object] | Iterable[str] | str | None) -> dict[str, object]:
    if isinstance(tags, Mapping):
        return dict(tags)
    return dict.fromkeys([tags] if isinstance(tags, str) else tags or (), True)


def active_run() -> Run:
    """Return the active run.

    Raises:
        RunClosedError: there is none.
    """
    if _active is None:
        raise RunClosedError("no run is active: call ckptlake.init(project=...) first")
    return _active[1]


def log(metrics: Mapping[str, Any], step: int | None = None) -> None:
    """Record metrics of the active run; see `Run.log`."""
    active_run().log(metrics, step)


def finish() -> None:
    """End the active run; see `Run.finish`."""
    global _active
    run = active_run()
    lake, _active = _active[0], None  # type: ignore[index]
    try:
        run.finish()
    finally:
        lake.close()
