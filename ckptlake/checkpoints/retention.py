"""Which checkpoints of a run are worth keeping: policies that name them and say why, and never delete.

A policy is a value, in Python ``AnyOf(Latest(3), Best("val/loss", 2, "min"))``, as text
``latest(3)+best(val/loss,2,min)``. `ckptlake.checkpoints.budgets` adds what no policy may drop, and counts bytes.
"""
# ruff: noqa: ARG002  (each policy is told the time, needed or not)

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import inf, isnan, nan
from typing import Literal, Protocol

from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)
_MOST_HOURS = 1_000_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint as retention sees it.

    Attributes:
        saved_at: when it was durable; with a time zone.
        status: ``quarantined`` once its bytes were found damaged.
        blobs: stored bytes by digest of every blob that loading it reads, those its deltas are based on included.
        optimizer_blobs: the digests among them that hold optimizer state and nothing else.
        bases_of: ids of the checkpoints with deltas that need blobs of this one.
        verified: what the last verification found, or None where there was none.

    Raises:
        InvalidInputError: a field contradicts this; the message names the checkpoint.
    """

    checkpoint_id: str
    run_id: str
    experiment: str
    step: int | None
    epoch: int | None
    saved_at: datetime
    metrics: Mapping[str, float]
    pinned: bool
    aliases: frozenset[str]
    status: Literal["good", "quarantined"]
    blobs: Mapping[str, int]
    optimizer_blobs: frozenset[str]
    bases_of: frozenset[str] = frozenset()
    verified: bool | None = None

    def __post_init__(self) -> None:
        name = f"checkpoint {self.checkpoint_id!r:.80}"
        check_moment(f"saved_at of {name}", self.saved_at)
        if self.status not in ("good", "quarantined"):
            raise InvalidInputError(f"status of {name} must be 'good' or 'quarantined', got {self.status!r:.60}")
        if min(self.blobs.values(), default=0) < 0:
            raise InvalidInputError(f"a blob of {name} has {min(self.blobs.values())} bytes: give its stored size")
        if unknown := self.optimizer_blobs - self.blobs.keys():
            raise InvalidInputError(
                f"optimizer blob {min(unknown)!r:.80} of {name} is not among its blobs: add it there"
            )

    @property
    def is_good(self) -> bool:
        """Whether nothing is known against it: neither quarantined nor failed by a verification."""
        return self.status == "good" and self.verified is not False


class Policy(Protocol):
    """Says which checkpoints to keep; a pure function of the checkpoints and the time.

    The policies here look at each run by itself. Those that rank (`Latest`, `Best`, `EveryNSteps`, `EveryHours`,
    `Ladder`) see good checkpoints only, so that a damaged one never takes the place of a good one.
    """

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        """Return the ids of those to keep, each with the reason in words; the order given does not matter."""
        ...


@dataclass(frozen=True, slots=True)
class Latest:
    """Keeps the `n` newest of each run."""

    n: int

    def __post_init__(self) -> None:
        check_count("n of latest", self.n)

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        reason = "newest of its run" if self.n == 1 else f"among the newest {self.n} of its run"
        return {one.checkpoint_id: reason for run in good_runs(checkpoints) for one in run[-self.n :]}


@dataclass(frozen=True, slots=True)
class Best:
    """Keeps the `n` of each run with the best values of a metric; of equal ones the newest.

    A checkpoint without the metric, or with NaN, is not considered. Without a direction it cannot rank; a
    plan fills in what the experiments declare.
    """

    metric: str
    n: int = 1
    direction: Direction | None = None

    def __post_init__(self) -> None:
        check_count(f"n of best by {self.metric!r:.60}", self.n)
        if self.direction not in ("min", "max", None):
            raise InvalidInputError(
                f"the direction of {self.metric!r:.60} is 'min' or 'max', not {self.direction!r:.60}"
            )

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        kept: dict[str, str] = {}
        for run in good_runs(checkpoints):
            valued = [one for one in reversed(run) if not isnan(one.metrics.get(self.metric, nan))]
            if valued and self.direction is None:
                raise InvalidInputError(
                    f"whether a small or a large {self.metric!r:.60} is better in experiment {run[0].experiment!r:.60} "
                    f"is not declared: call run.define({self.metric!r:.60}, direction=…), or name it in the policy"
                )
            valued.sort(key=lambda one: one.metrics[self.metric], reverse=self.direction == "max")
            for rank, one in enumerate(valued[: self.n], 1):
                kept[one.checkpoint_id] = f"number {rank} of its run by {self.metric!r} ({self.direction})"
        return kept


@dataclass(frozen=True, slots=True)
class EveryNSteps:
    """Keeps the first at or after each multiple of `n` steps and before the next; of a step saved twice the newest."""

    n: int

    def __post_init__(self) -> None:
        check_count("the steps of every", self.n)

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        kept: dict[str, str] = {}
        for run in good_runs(checkpoints):
            stepped = [(one.step, one.checkpoint_id) for one in run if one.step is not None]
            falling = sorted(stepped, key=lambda saved: -saved[0])
            first = {step // self.n * self.n: name for step, name in falling}
            kept |= {name: f"first at or after step {multiple}" for multiple, name in first.items()}
        return kept


@dataclass(frozen=True, slots=True)
class EveryHours:
    """Keeps the first that each run saved in each stretch of so many hours, counted from the year 1 in UTC."""

    hours: float

    def __post_init__(self) -> None:
        if not isinstance(self.hours, int | float) or not 1e-9 <= self.hours <= _MOST_HOURS:
            raise InvalidInputError(f"the hours of every must lie in 1e-9 to {_MOST_HOURS}, got {self.hours!r:.60}")

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        width = timedelta(hours=self.hours)
        kept: dict[str, str] = {}
        for run in good_runs(checkpoints):
            first = {(one.saved_at - _BEGINNING) // width: one.checkpoint_id for one in reversed(run)}
            kept |= dict.fromkeys(first.values(), f"first of its run within {self.hours:g} hours")
        return kept


@dataclass(frozen=True, slots=True)
class Ladder:
    """Keeps all of the newest `recent` of each run, and about one for each `base`-fold distance before them.

    Cut the steps into stretches of 1, `base`, `base`², … that begin at their multiples. A checkpoint is as wide as
    the widest stretch it is the first of, and stays until it lies two widths behind the newest `recent`. As
    checkpoints are added, distances only grow and widths only shrink: what is kept now was kept ever since it was
    saved. While steps rise, deleting what is not kept changes no later answer, as the first of a stretch outlives
    the rest of it. The first checkpoint of a run stays. Those without a step form a ladder of their own by time.
    """

    recent: int = 3
    base: int = 2

    def __post_init__(self) -> None:
        check_count("the recent ones of ladder", self.recent)
        check_count("the base of ladder", self.base, least=2)

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        kept: dict[str, str] = {}
        for run in good_runs(checkpoints):
            stepped = [(one.step, one.checkpoint_id) for one in run if one.step is not None]
            timed = [((one.saved_at - _BEGINNING) // _TICK, one.checkpoint_id) for one in run if one.step is None]
            kept |= self._rungs(stepped) | self._rungs(timed)
        return kept

    def _rungs(self, saved: list[tuple[int, str]]) -> dict[str, str]:
        kept = {name: f"among the newest {self.recent} of its run" for _, name in saved[-self.recent :]}
        newest_at = dict(saved)
        places = sorted(newest_at)
        for below, place in zip([None, *places], places, strict=False):
            if places[-self.recent :][0] - place < 2 * self._width(below, place):
                kept.setdefault(newest_at[place], "a rung of the ladder")
        return kept

    def _width(self, below: int | None, place: int) -> float:
        """Return the widest stretch that `place` is the first of, when the last place before it is `below`."""
        if below is None or below < 0 <= place:
            return inf
        width = 1
        while below // (width * self.base) != place // (width * self.base):
            width *= self.base
        return width


@dataclass(frozen=True, slots=True)
class YoungerThan:
    """Keeps those saved less than `duration` ago, damaged ones too."""

    duration: timedelta

    def __post_init__(self) -> None:
        if not timedelta() < self.duration <= timedelta(hours=_MOST_HOURS):
            raise InvalidInputError(f"younger takes above 0 and up to {_MOST_HOURS}h, got {self.duration!r:.60}")

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        check_moment("now", now)
        reason = f"saved within the last {_duration_text(self.duration)}"
        return {one.checkpoint_id: reason for one in checkpoints if now - one.saved_at < self.duration}


@dataclass(frozen=True, slots=True)
class Pinned:
    """Keeps those that are pinned, damaged ones too."""

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        return {one.checkpoint_id: "pinned" for one in checkpoints if one.pinned}


@dataclass(frozen=True, slots=True)
class Aliased:
    """Keeps those with any alias, those that move by themselves and damaged ones too."""

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        return {one.checkpoint_id: f"alias {min(one.aliases)!r}" for one in checkpoints if one.aliases}


@dataclass(frozen=True, slots=True, init=False)
class AnyOf:
    """Keeps what at least one of its policies keeps, for all their reasons."""

    policies: tuple[Policy, ...]

    def __init__(self, *policies: Policy) -> None:
        flat = tuple(one for given in policies for one in (given.policies if isinstance(given, AnyOf) else (given,)))
        if not flat:
            raise InvalidInputError("AnyOf needs at least one policy: an empty one would keep nothing")
        object.__setattr__(self, "policies", flat)

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        return join_reasons(policy.keeps(checkpoints, now) for policy in self.policies)


def good_runs(checkpoints: Iterable[Candidate]) -> list[list[Candidate]]:
    """Return the good checkpoints of each run, the oldest first."""
    runs: dict[str, list[Candidate]] = {}
    for one in sorted(checkpoints, key=recency):
        if one.is_good:
            runs.setdefault(one.run_id, []).append(one)
    return list(runs.values())


def recency(checkpoint: Candidate) -> tuple[datetime, int, str]:
    """Return what orders checkpoints from the oldest to the newest, in one way only."""
    step = checkpoint.step if checkpoint.step is not None else -(2**63)
    return checkpoint.saved_at, step, checkpoint.checkpoint_id


def join_reasons(found: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return one mapping of all ids; several reasons for one of them are joined by semicolons."""
    joined: dict[str, str] = {}
    for name, reason in (item for reasons in found for item in reasons.items()):
        joined[name] = f"{joined[name]}; {reason}" if name in joined else reason
    return joined


def check_moment(kind: str, moment: datetime) -> None:
    """Raise InvalidInputError if a time has no time zone."""
    if moment.utcoffset() is None:
        raise InvalidInputError(f"{kind} must have a time zone, got {moment}: give it as datetime.now(UTC)")


def check_count(kind: str, value: object, *, least: int = 1) -> None:
    """Raise InvalidInputError if `value` is no whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 10**18:
        raise InvalidInputError(f"{kind} must be a whole number from {least} up, got {value!r:.60}")


_UNITS = {"us": 1, "ms": 10**3, "s": 10**6, "m": 6 * 10**7, "h": 36 * 10**8, "d": 864 * 10**8, "w": 6048 * 10**8}
_NAME = r"[\w./:@%-]+"
_ARGUMENT = rf'(?:{_NAME}|"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{{4}})*")'
_TERM = re.compile(rf"\s*(\w+)\s*\(\s*((?:{_ARGUMENT}\s*(?:,\s*{_ARGUMENT}\s*)*)?)\)\s*(\+|$)")


def _whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise InvalidInputError(f"{text!r:.60} is no whole number above 0")
    return int(text)


def _microseconds(text: str) -> Fraction:
    match = re.fullmatch(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)(us|ms|s|m|h|d|w)", text)
    if match is None or Fraction(match[1]) * _UNITS[match[2]] > _MOST_HOURS * _UNITS["h"]:
        raise InvalidInputError(f"{text!r:.60} is no duration: write 90s, 30m, 12h, 7d or 2w, up to {_MOST_HOURS}h")
    return Fraction(match[1]) * _UNITS[match[2]]


def _every(text: str) -> Policy:
    return EveryNSteps(_whole(text)) if text.isdecimal() else EveryHours(float(_microseconds(text) / _UNITS["h"]))


_FORMS: dict[str, tuple[str, Callable[..., Policy], range]] = {
    "latest": ("latest(n)", lambda n: Latest(_whole(n)), range(1, 2)),
    "best": ("best(metric,n,min|max)", lambda metric, n, *way: Best(metric, _whole(n), *way), range(2, 4)),
    "every": ("every(steps) or every(6h)", _every, range(1, 2)),
    "ladder": ("ladder(recent,base)", lambda *given: Ladder(*map(_whole, given)), range(3)),
    "younger": ("younger(7d)", lambda text: YoungerThan(timedelta(0, 0, int(_microseconds(text)))), range(1, 2)),
    "pinned": ("pinned()", Pinned, range(1)),
    "aliased": ("aliased()", Aliased, range(1)),
}


def parse_policy(text: str) -> Policy:
    """Return the policy that a text describes: one, or several joined by ``+`` of which any may keep.

    They are ``latest(n)``, ``best(metric,n)``, ``best(metric,n,min|max)``, ``every(steps)``, ``every(6h)``,
    ``ladder()``, ``ladder(recent,base)``, ``younger(7d)``, ``pinned()`` and ``aliased()``. A metric with other signs
    than letters, digits and ``./:@%_-`` stands in double quotes, escaped as in JSON.

    Raises:
        InvalidInputError: the text is none of these; the message names the part that is not.

    >>> parse_policy("latest(3) + best(val/loss, 2, min)")
    AnyOf(policies=(Latest(n=3), Best(metric='val/loss', n=2, direction='min')))
    """
    parts: list[Policy] = []
    place, more = 0, True
    while more:
        match = _TERM.match(text, place)
        if match is None or match[1] not in _FORMS:
            known = ", ".join(usage for usage, _, _ in _FORMS.values())
            raise InvalidInputError(f"no retention policy can be read at {text[place:]!r:.60}; there are {known}")
        usage, build, counts = _FORMS[match[1]]
        arguments = re.findall(_ARGUMENT, match[2])
        if len(arguments) not in counts:
            raise InvalidInputError(f"{match[0].strip()!r:.60} has {len(arguments)} arguments: write {usage}")
        parts.append(build(*(json.loads(one) if one[0] == '"' else one for one in arguments)))
        place, more = match.end(), match[3] == "+"
    return parts[0] if len(parts) == 1 else AnyOf(*parts)


def describe(policy: Policy) -> str:
    """Return the text that `parse_policy` turns back into this policy.

    Raises:
        InvalidInputError: it is a policy of your own, which has no text.

    >>> describe(AnyOf(EveryHours(6), Ladder(), Best("val loss", 2)))
    'every(6h)+ladder(3,2)+best("val loss",2)'
    """
    match policy:
        case AnyOf(policies=policies):
            return "+".join(describe(one) for one in policies)
        case Latest(n=n):
            return f"latest({n})"
        case Best(metric=metric, n=n, direction=direction):
            name = metric if re.fullmatch(_NAME, metric) else json.dumps(metric)
            return f"best({name},{n})" if direction is None else f"best({name},{n},{direction})"
        case EveryNSteps(n=n):
            return f"every({n})"
        case EveryHours(hours=hours):
            return f"every({format(Decimal(repr(float(hours))), 'f').removesuffix('.0')}h)"
        case Ladder(recent=recent, base=base):
            return f"ladder({recent},{base})"
        case YoungerThan(duration=duration):
            return f"younger({_duration_text(duration)})"
        case Pinned() | Aliased():
            return f"{type(policy).__name__.lower()}()"
    raise InvalidInputError(f"{policy!r:.80} is a policy of your own and has no text")


def _duration_text(duration: timedelta) -> str:
    amount = duration // _TICK
    unit = max((unit for unit, size in _UNITS.items() if amount % size == 0), key=_UNITS.__getitem__)
    return f"{amount // _UNITS[unit]}{unit}"
