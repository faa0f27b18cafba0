"""What goes and what it frees: a policy, the rules above it and a byte quota become a plan that can be read first.

Bytes are counted by references. A blob that several checkpoints share is stored once, and is freed when the last of
them goes; the base of a delta is a blob that the delta's checkpoint refers to as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Literal

from ckptlake.checkpoints.retention import (
    AnyOf,
    Best,
    Candidate,
    Ladder,
    Latest,
    Policy,
    check_count,
    check_moment,
    good_runs,
    join_reasons,
    recency,
)
from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction

AUTOMATIC_ALIASES = frozenset({"latest", "latest_good", "best"})
"""Aliases that move by themselves; every other one somebody gave by hand."""

Action = Literal["keep", "delete", "trim"]
Directions = Mapping[tuple[str, str], Direction]
"""The declared direction of each (experiment, metric)."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BINARY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}
_VERBS = {"keep": "keep", "delete": "delete", "trim": "drop the optimizer state of"}


@dataclass(frozen=True, slots=True)
class Quota:
    """The most bytes that the checkpoints of each run, of each experiment or of the whole lake may take.

    A blob shared between two runs counts in both.

    Raises:
        InvalidInputError: the limit is not above 0, or the scope is none of the three.
    """

    limit_bytes: int
    scope: Literal["run", "experiment", "lake"]

    def __post_init__(self) -> None:
        check_count("limit_bytes of a quota", self.limit_bytes)
        if self.scope not in ("run", "experiment", "lake"):
            raise InvalidInputError(f"a quota's scope is 'run', 'experiment' or 'lake', not {self.scope!r:.60}")

    def group_of(self, checkpoint: Candidate) -> str:
        """Return the id of the run, the name of the experiment, or ``lake``."""
        groups = {"run": checkpoint.run_id, "experiment": checkpoint.experiment, "lake": "lake"}
        return groups[self.scope]


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one checkpoint, and why.

    Attributes:
        freed_bytes: what goes with it when those listed before it are gone; nothing that others still refer to.
    """

    checkpoint_id: str
    run_id: str
    step: int | None
    action: Action
    reason: str
    freed_bytes: int = 0

    @classmethod
    def of(cls, checkpoint: Candidate, action: Action, reason: str, freed_bytes: int = 0) -> Decision:
        """Return a decision about this checkpoint."""
        return cls(checkpoint.checkpoint_id, checkpoint.run_id, checkpoint.step, action, reason, freed_bytes)

    def sentence(self) -> str:
        """Return the decision in words.

        >>> Decision("c1", "r1", 100, "delete", "not kept by the policy", 4096).sentence()
        "delete checkpoint 'c1' of run 'r1' at step 100, freeing 4,096 bytes: not kept by the policy"
        """
        at = "" if self.step is None else f" at step {self.step}"
        what = f"{_VERBS[self.action]} checkpoint {self.checkpoint_id!r} of run {self.run_id!r}{at}"
        freeing = "" if self.action == "keep" else f", freeing {self.freed_bytes:,} bytes"
        return f"{what}{freeing}: {self.reason}"


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """Every checkpoint with what happens to it, the oldest first; nothing is done yet.

    Attributes:
        keep: those that stay, whole or trimmed.
        delete: those that go. Of a delta's base the row goes; blobs that a delta needs stay, and are not counted.
        trim: those of `keep` that lose their optimizer state.
        freed_bytes: the sum over `delete` and `trim`.
        kept_bytes: what is stored afterwards.
        over_quota: bytes above the quota that stay because protected ones take them, by run id, by experiment or
            under ``lake``.
    """

    keep: tuple[Decision, ...]
    delete: tuple[Decision, ...]
    trim: tuple[Decision, ...]
    freed_bytes: int
    kept_bytes: int
    over_quota: Mapping[str, int]

    @property
    def over_quota_bytes(self) -> int:
        """Bytes above the quota in all."""
        return sum(self.over_quota.values())

    def sentence(self) -> str:
        """Return the plan in words; each decision has a sentence of its own."""
        words = (
            f"keep {len(self.keep):,} of {len(self.keep) + len(self.delete):,} checkpoints "
            f"({self.kept_bytes:,} bytes) and delete {len(self.delete):,}"
        )
        if self.trim:
            words += f"; {len(self.trim):,} of those kept lose their optimizer state"
        words += f"; this frees {self.freed_bytes:,} bytes"
        for name, excess in self.over_quota.items():
            words += f"; {name!r} stays {excess:,} bytes over its quota, as protected ones take them"
        return words


def parse_size(text: str) -> int:
    """Return a number of bytes from text such as ``10GB``, ``1.5 TiB`` or ``4096``, rounded down.

    Units are B, KB, MB, GB, TB, PB (powers of 1000) and KiB, MiB, GiB, TiB, PiB (of 1024), in any case.

    Raises:
        InvalidInputError: the text is no such size.

    >>> parse_size("10GB"), parse_size("1.5 KiB"), parse_size("4096")
    (10000000000, 1536, 4096)
    """
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*(?:([KMGTP]?)(I?)B)?\s*", text.upper(), re.ASCII)
    if match is None or (match[3] and not match[2]):
        raise InvalidInputError(f"{text!r:.60} is no size: write a number with B, KB, MB, GB, TB, PB or KiB to PiB")
    units = _BINARY_UNITS if match[3] else _UNITS
    return int(Fraction(match[1]) * units[match[2] or ""])


def plan_retention(
    candidates: Sequence[Candidate],
    policy: Policy,
    *,
    directions: Directions,
    keep_optimizer: int | None = None,
    quota: Quota | None = None,
    now: datetime,
) -> RetentionPlan:
    """Decide what becomes of every checkpoint of a lake; a pure function, whatever order they come in.

    Whatever the policy and the quota say, these stay: pinned ones; those with an alias given by hand; the best good
    one of each run by each metric with a declared direction; the newest good one of each run and the newest verified
    good one; where a run has no good one, its newest.

    Beyond the policy a quota takes what is not protected: first what a `Ladder` over those kept would drop, then the
    others, each the oldest first. What turns out not to bring the bytes down, or not to be needed for it, stays.

    Args:
        candidates: all checkpoints of the lake: bytes of a blob count as freed when none of them needs it.
        directions: what the experiments declare; fills in a `Best` without one.
        keep_optimizer: how many of each run keep their optimizer state, the newest good ones of those that the policy
            keeps; older good ones lose it. What is protected for another reason than its metrics stays whole.
        quota: the most bytes they may take.
        now: the time that ages are counted to, with a time zone.

    Raises:
        InvalidInputError: two candidates have one id or disagree about a blob, one is a base of a checkpoint that is
            missing, a `Best` has no direction, `keep_optimizer` is not above 0, or `now` has no time zone.
    """
    check_moment("now", now)
    checkpoints = _checked(candidates)
    whole = join_reasons([_marked(checkpoints), _newest(checkpoints, now)])
    protected = join_reasons([whole, _best(checkpoints, directions, now)])
    wanted = _with_directions(policy, directions).keeps(checkpoints, now)
    reasons = join_reasons([{name: f"protected ({reason})" for name, reason in protected.items()}, wanted])
    kept = {one.checkpoint_id: one for one in checkpoints if one.checkpoint_id in reasons}
    trimmed = _trimmed(kept.values(), keep_optimizer, whole)
    needs = {name: _without_optimizer(one) if name in trimmed else one.blobs for name, one in kept.items()}
    victims, over_quota = _beyond_quota(list(kept.values()), needs, protected, quota, now)
    for name in victims:
        del kept[name], needs[name]
    stored = _References(one.blobs for one in checkpoints)
    delete = []
    for one in checkpoints:
        if one.checkpoint_id not in kept:
            reason = victims.get(one.checkpoint_id, "not kept by the policy") + _held(one, needs)
            delete.append(Decision.of(one, "delete", reason, stored.drop(one.blobs)))
    older = f"older than the newest {keep_optimizer} kept of its run"
    trim = [
        Decision.of(one, "trim", older, stored.drop({digest: one.blobs[digest] for digest in one.optimizer_blobs}))
        for name, one in kept.items()
        if name in trimmed
    ]
    keep = [Decision.of(one, "keep", reasons[name]) for name, one in kept.items()]
    freed_bytes = sum(decision.freed_bytes for decision in (*delete, *trim))
    return RetentionPlan(tuple(keep), tuple(delete), tuple(trim), freed_bytes, stored.size_bytes, over_quota)


class _References:
    """How many checkpoints refer to each blob, and the bytes of all that are referred to."""

    def __init__(self, holders: Iterable[Mapping[str, int]] = ()) -> None:
        self.size_bytes = 0
        self._counts: Counter[str] = Counter()
        for blobs in holders:
            self.add(blobs)

    def add(self, blobs: Mapping[str, int]) -> None:
        self.size_bytes += self.lacking(blobs)
        self._counts.update(blobs.keys())

    def lacking(self, blobs: Mapping[str, int]) -> int:
        """Return the bytes of those that nobody refers to."""
        return sum(size_bytes for digest, size_bytes in blobs.items() if not self._counts[digest])

    def drop(self, blobs: Mapping[str, int]) -> int:
        """Take one reference to each away and return the bytes of those that had no other."""
        self._counts.subtract(blobs.keys())
        freed_bytes = self.lacking(blobs)
        self.size_bytes -= freed_bytes
        return freed_bytes


def _checked(candidates: Iterable[Candidate]) -> list[Candidate]:
    checkpoints = sorted(candidates, key=recency)
    known = {one.checkpoint_id for one in checkpoints}
    sizes: dict[str, int] = {}
    seen: set[str] = set()
    for one in checkpoints:
        name = f"checkpoint {one.checkpoint_id!r:.80}"
        if one.checkpoint_id in seen:
            raise InvalidInputError(f"{name} is given twice: give each checkpoint once")
        if missing := one.bases_of - known:
            raise InvalidInputError(
                f"{name} is the base of {min(missing)!r:.80}, which is not given: plan with all checkpoints of the lake"
            )
        for digest, size_bytes in one.blobs.items():
            if sizes.setdefault(digest, size_bytes) != size_bytes:
                raise InvalidInputError(
                    f"blob {digest!r:.80} has {size_bytes} bytes in {name} and {sizes[digest]} in an older one: "
                    "read all of them from one snapshot"
                )
        seen.add(one.checkpoint_id)
    return checkpoints


def _marked(checkpoints: Iterable[Candidate]) -> dict[str, str]:
    marks: dict[str, str] = {}
    for one in checkpoints:
        names = sorted(one.aliases - AUTOMATIC_ALIASES)
        words = ["pinned"] * one.pinned + [f"named {name!r}" for name in names]
        if words:
            marks[one.checkpoint_id] = "; ".join(words)
    return marks


def _newest(checkpoints: Sequence[Candidate], now: datetime) -> dict[str, str]:
    verified = Latest(1).keeps([one for one in checkpoints if one.verified], now)
    has_good = {run[0].run_id for run in good_runs(checkpoints)}
    last_of_damaged = {one.run_id: one.checkpoint_id for one in checkpoints if one.run_id not in has_good}
    return join_reasons(
        [
            dict.fromkeys(Latest(1).keeps(checkpoints, now), "newest good one of its run"),
            dict.fromkeys(verified, "newest verified one of its run"),
            dict.fromkeys(last_of_damaged.values(), "newest of its run, which has no good one"),
        ]
    )


def _best(checkpoints: Iterable[Candidate], directions: Directions, now: datetime) -> dict[str, str]:
    groups = _by_experiment(checkpoints)
    return join_reasons(
        dict.fromkeys(
            Best(metric, 1, direction).keeps(groups.get(experiment, []), now),
            f"best of its run by {metric!r} ({direction})",
        )
        for (experiment, metric), direction in sorted(directions.items())
    )


def _by_experiment(checkpoints: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    groups: dict[str, list[Candidate]] = {}
    for one in checkpoints:
        groups.setdefault(one.experiment, []).append(one)
    return groups


@dataclass(frozen=True, slots=True)
class _BestAsDeclared:
    best: Best
    directions: Directions

    def keeps(self, checkpoints: Sequence[Candidate], now: datetime) -> Mapping[str, str]:
        kept: dict[str, str] = {}
        for experiment, group in _by_experiment(checkpoints).items():
            direction = self.directions.get((experiment, self.best.metric))
            kept |= replace(self.best, direction=direction).keeps(group, now)
        return kept


def _with_directions(policy: Policy, directions: Directions) -> Policy:
    match policy:
        case AnyOf(policies=policies):
            return AnyOf(*(_with_directions(one, directions) for one in policies))
        case Best(direction=None):
            return _BestAsDeclared(policy, directions)
    return policy


def _trimmed(kept: Iterable[Candidate], keep_optimizer: int | None, whole: Mapping[str, str]) -> set[str]:
    if keep_optimizer is None:
        return set()
    check_count("keep_optimizer", keep_optimizer)
    return {
        one.checkpoint_id
        for run in good_runs(kept)
        for one in run[:-keep_optimizer]
        if one.optimizer_blobs and one.checkpoint_id not in whole
    }


def _without_optimizer(checkpoint: Candidate) -> dict[str, int]:
    return {digest: size for digest, size in checkpoint.blobs.items() if digest not in checkpoint.optimizer_blobs}


def _beyond_quota(
    kept: Sequence[Candidate],
    needs: Mapping[str, Mapping[str, int]],
    protected: Mapping[str, str],
    quota: Quota | None,
    now: datetime,
) -> tuple[dict[str, str], dict[str, int]]:
    """Return those that a quota deletes beyond the policy, with reasons, and the bytes still above it by group."""
    if quota is None:
        return {}, {}
    rungs = Ladder().keeps(kept, now)
    ranked = sorted(kept, key=lambda one: (one.checkpoint_id in rungs, recency(one)))
    groups: dict[str, list[str]] = {}
    for one in ranked:
        groups.setdefault(quota.group_of(one), []).append(one.checkpoint_id)
    victims: dict[str, str] = {}
    over: dict[str, int] = {}
    for group, names in sorted(groups.items()):
        stored = _References(needs[name] for name in names)
        taken: list[str] = []
        for name in names:
            if stored.size_bytes > quota.limit_bytes and name not in protected:
                stored.drop(needs[name])
                taken.append(name)
        for name in reversed(taken):
            if stored.size_bytes + stored.lacking(needs[name]) <= max(quota.limit_bytes, stored.size_bytes):
                stored.add(needs[name])
            else:
                victims[name] = f"the quota of {quota.limit_bytes:,} bytes for {_scope(quota, group)} is exceeded"
        if stored.size_bytes > quota.limit_bytes:
            over[group] = stored.size_bytes - quota.limit_bytes
    return victims, over


def _scope(quota: Quota, group: str) -> str:
    return "the lake" if quota.scope == "lake" else f"{quota.scope} {group!r}"


def _held(checkpoint: Candidate, remaining: Mapping[str, Mapping[str, int]]) -> str:
    """Return the words for what stays of a deleted checkpoint because deltas of others are based on it."""
    dependents = sorted(checkpoint.bases_of & remaining.keys())
    needed = {digest for name in dependents for digest in remaining[name]}
    held_bytes = sum(size_bytes for digest, size_bytes in checkpoint.blobs.items() if digest in needed)
    if not held_bytes:
        return ""
    others = f" and {len(dependents) - 1:,} others" if len(dependents) > 1 else ""
    return f"; {held_bytes:,} bytes stay, as deltas of {dependents[0]!r}{others} need them"
