"""How a run starts: new, resumed after an end, or joined beside a process that has it open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ckptlake._internal.ids import check_run_id, new_id
from ckptlake._internal.names import check_experiment, check_name
from ckptlake.config import Capture
from ckptlake.errors import InvalidInputError, RunExistsError, RunNotFoundError
from ckptlake.runs.requirements import Requirement
from ckptlake.runs.scalars import as_step
from ckptlake.runs.typed import TypedValue
from ckptlake.types import RunStatus

DEFAULT_EXPERIMENT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """Everything decided about a run before its first row.

    Attributes:
        event: ``created``, ``resumed`` after an end, or ``joined`` beside a process that has it open.
        first_step: what a `log` call without a step counts from.
        params: params the run has already.
        logged_metrics: metrics the run has already.
    """

    run_id: str
    name: str
    experiment: str
    attempt: int = 1
    event: str = "created"
    parent_run_id: str | None = None
    forked_from: tuple[str, int] | None = None
    first_step: int = 0
    started_us: int | None = None
    params: Mapping[str, TypedValue] = field(default_factory=dict)
    logged_metrics: frozenset[str] = frozenset()
    requirement: Requirement | None = None
    capture: Capture = field(default_factory=Capture)


@dataclass(frozen=True, slots=True)
class KnownRun:
    """What the lake knows of a run that exists.

    Attributes:
        last_step: the largest step of any metric but the system's own, or None.
        started_us: first start, microseconds since 1970 UTC.
    """

    run_id: str
    name: str
    experiment: str
    status: str
    attempt: int
    started_us: int
    last_step: int | None
    params: Mapping[str, TypedValue]
    metrics: frozenset[str]

    @classmethod
    def of(
        cls,
        row: Mapping[str, Any],
        params: Sequence[Mapping[str, Any]],
        last_steps: Mapping[str, int],
    ) -> KnownRun:
        """Return a known run from its row of `runs`, its rows of `params` and its metrics' last steps."""
        counted = [step for metric, step in last_steps.items() if not metric.startswith("system/")]
        return cls(
            row["run_id"],
            row["name"],
            row["experiment"],
            row["status"],
            row["attempt"],
            int(row["started_at"].timestamp() * 1_000_000),
            max(counted, default=None),
            {
                param["key"]: TypedValue(param["kind"], param["number"], param["text"], param["json"])
                for param in params
            },
            frozenset(last_steps),
        )


class RunFacts(Protocol):
    """Looks runs up in the lake."""

    def find_run(self, run_id: str) -> KnownRun | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a caller asks of a run, as given."""

    experiment: object = None
    name: object = None
    run_id: object = None
    parent: object = None
    resume: object = None
    fork_from: object = None
    capture: Capture = field(default_factory=Capture)


def plan_start(request: RunRequest, facts: RunFacts, find_requirement: Callable[[str], Requirement | None]) -> RunStart:
    """Decide how the requested run starts.

    Raises:
        InvalidInputError: names or ids that cannot be used, or that contradict each other.
        RunNotFoundError: the run to resume, to fork from or to nest under does not exist.
        RunExistsError: the id belongs to a run that has ended.
    """
    if request.resume is not None:
        return _resumed(request, _get(facts, _run_id(request.resume), "resume"))
    experiment = check_experiment(DEFAULT_EXPERIMENT if request.experiment is None else request.experiment)
    run_id = new_id()
    if request.run_id is not None:
        run_id = check_run_id(request.run_id)
        known = facts.find_run(run_id)
        if known is not None and known.status != RunStatus.RUNNING:
            raise RunExistsError(
                f"run {run_id!r} exists and is {known.status}: continue it with resume={run_id!r}, or choose another id"
            )
        if known is not None:
            return _continued(request, known, "joined", known.attempt)
    parent = None if request.parent is None else _get(facts, _run_id(request.parent), "parent").run_id
    return RunStart(
        run_id=run_id,
        name=check_name("the run's name", request.name) if request.name is not None else run_id,
        experiment=experiment,
        parent_run_id=parent,
        forked_from=_fork(request.fork_from, facts),
        requirement=find_requirement(experiment),
        capture=request.capture,
    )


def _resumed(request: RunRequest, known: KnownRun) -> RunStart:
    if request.run_id not in (None, known.run_id):
        raise InvalidInputError(f"run_id={request.run_id!r} and resume={known.run_id!r} name two runs: give one")
    if request.fork_from is not None:
        raise InvalidInputError("a run is either resumed or forked from another: give resume or fork_from, not both")
    if known.status == RunStatus.RUNNING:
        return _continued(request, known, "joined", known.attempt)
    return _continued(request, known, "resumed", known.attempt + 1)


def _continued(request: RunRequest, known: KnownRun, event: str, attempt: int) -> RunStart:
    if request.experiment not in (None, known.experiment):
        raise InvalidInputError(
            f"run {known.run_id!r} belongs to experiment {known.experiment!r}, not {request.experiment!r}"
        )
    return RunStart(
        run_id=known.run_id,
        name=check_name("the run's name", request.name) if request.name is not None else known.name,
        experiment=known.experiment,
        attempt=attempt,
        event=event,
        first_step=0 if known.last_step is None else known.last_step + 1,
        started_us=known.started_us,
        params=known.params,
        logged_metrics=known.metrics,
        capture=request.capture,
    )


def _fork(fork_from: object, facts: RunFacts) -> tuple[str, int] | None:
    if fork_from is None:
        return None
    if not isinstance(fork_from, tuple | list) or len(fork_from) != 2:
        raise InvalidInputError(f"fork_from must be (run_id, step), got {fork_from!r:.100}")
    origin = _get(facts, _run_id(fork_from[0]), "fork_from")
    return origin.run_id, as_step(fork_from[1])


def _get(facts: RunFacts, run_id: str, role: str) -> KnownRun:
    known = facts.find_run(run_id)
    if known is None:
        raise RunNotFoundError(f"{role}={run_id!r}: the lake has no such run; `ckptlake runs list` shows those it has")
    return known


def _run_id(run: object) -> str:
    return check_run_id(getattr(run, "id", run))
