"""How a run starts: new, resumed after an end, or joined beside a process that has it open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ckptlake._internal.ids import check_run_id, new_id
from ckptlake._internal.names import check_experiment, check_name
from ckptlake.config import Capture
from ckptlake.errors import InvalidInputError, RunExistsError, RunNotFoundError
from ckptlake.runs.requirements import Requirement
from ckptlake.runs.scalars import as_step
from ckptlake.runs.typed import TypedValue, check_unchanged
from ckptlake.types import RunStatus

DEFAULT_EXPERIMENT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """Everything decided about a run before its first row.

    Attributes:
        event: ``created``, ``resumed`` after an end, or ``joined`` beside a process that has it open.
        first_step: what a `log` call without a step counts from.
        params: params the run has already.
        given_params: params to record at the start.
        given_tags: tags to set at the start.
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
    given_params: Mapping[str, TypedValue] = field(default_factory=dict)
    given_tags: Mapping[str, TypedValue] = field(default_factory=dict)
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
    """What a caller asks of a run: names and ids as given, params and tags typed."""

    experiment: object = None
    name: object = None
    run_id: object = None
    parent: object = None
    resume: object = None
    fork_from: object = None
    params: Mapping[str, TypedValue] = field(default_factory=dict)
    tags: Mapping[str, TypedValue] = field(default_factory=dict)
    capture: Capture = field(default_factory=Capture)
    allow_change: bool = False

    @property
    def refers_to_runs(self) -> bool:
        """Whether other runs must be looked up."""
        return any(ref is not None for ref in (self.run_id, self.parent, self.resume, self.fork_from))


FindRequirement = Callable[[str], Requirement | None]


def plan_start(request: RunRequest, facts: RunFacts, find_requirement: FindRequirement) -> RunStart:
    """Decide how the requested run starts.

    Raises:
        InvalidInputError: names or ids that cannot be used, or that contradict each other.
        RunNotFoundError: the run to resume, to fork from or to nest under does not exist.
        RunExistsError: the id belongs to a run that has ended.
        ParamChangedError: a run that is continued has a param with another value.
        RequirementError: the experiment requires a param that the run does not give.
    """
    start = _planned(request, facts)
    if not request.allow_change:
        check_unchanged(start.run_id, start.params, request.params)
    requirement = find_requirement(start.experiment)
    if requirement is not None:
        requirement.check_params(start.experiment, {**start.params, **request.params})
    return replace(
        start,
        requirement=requirement,
        capture=request.capture,
        given_params=request.params,
        given_tags=request.tags,
    )


def _planned(request: RunRequest, facts: RunFacts) -> RunStart:
    if request.resume is not None:
        return _resumed(request, _get(facts, _run_id(request.resume), "resume"))
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
    forked_from = _fork(request.fork_from, facts)
    return RunStart(
        run_id=run_id,
        name=check_name("the run's name", request.name) if request.name is not None else run_id,
        experiment=check_experiment(DEFAULT_EXPERIMENT if request.experiment is None else request.experiment),
        parent_run_id=None if request.parent is None else _get(facts, _run_id(request.parent), "parent").run_id,
        forked_from=forked_from,
        first_step=0 if forked_from is None else max(0, forked_from[1] + 1),
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
        first_step=0 if known.last_step is None else max(0, known.last_step + 1),
        started_us=known.started_us,
        params=known.params,
        logged_metrics=known.metrics,
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
