"""Which runs `ckptlake runs list` shows, in which order, with the values of the metrics asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ckptlake.lake import Lake

_RUNS = """
SELECT run_id, name, experiment, status, attempt, started_at, ended_at, duration_s
FROM runs
WHERE ($experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment::VARCHAR))
    AND (len($statuses::VARCHAR[]) = 0 OR list_contains($statuses::VARCHAR[], status))
    AND (len($tags::VARCHAR[]) = 0 OR run_id IN (
        SELECT run_id FROM tags JOIN (SELECT unnest($tags::VARCHAR[]) AS wanted)
            ON wanted = key OR wanted = concat(key, '=', value)
        GROUP BY run_id HAVING count(DISTINCT wanted) = len(list_distinct($tags::VARCHAR[]))
    ))
ORDER BY started_at DESC, run_id DESC
"""
_VALUES = """
SELECT run_id, metric, last, last_step, direction,
    CASE direction WHEN 'min' THEN s.min WHEN 'max' THEN s.max END AS best,
    CASE direction WHEN 'min' THEN s.min_step WHEN 'max' THEN s.max_step END AS best_step
FROM summaries s LEFT JOIN definitions USING (experiment, metric)
WHERE list_contains($metrics::VARCHAR[], metric)
"""
_METRIC_NAMES = "SELECT DISTINCT metric FROM summaries ORDER BY metric"


@dataclass(frozen=True, slots=True)
class Value:
    """What one run has of one metric; the best is known where the metric's direction is declared."""

    last: float
    last_step: int
    direction: str | None
    best: float | None
    best_step: int | None


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One run of the list; its times are UTC."""

    run_id: str
    name: str
    experiment: str
    status: str
    attempt: int
    started_at: datetime
    ended_at: datetime | None
    duration_s: float | None
    values: Mapping[str, Value] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float | None:
        """How long it took, or has been going on."""
        if self.status == "running":
            return (datetime.now(UTC) - self.started_at).total_seconds()
        return self.duration_s


_KEYS: Mapping[str, Callable[[ListedRun], Any]] = {
    "id": lambda run: run.run_id,
    "name": lambda run: run.name,
    "experiment": lambda run: run.experiment,
    "status": lambda run: run.status,
    "started": lambda run: run.started_at,
    "duration": lambda run: run.elapsed_s,
}
_DESCENDING = frozenset({"started", "duration"})


@dataclass(frozen=True, slots=True)
class Order:
    """By what runs are sorted; `descending` is None where the key itself decides."""

    key: str
    descending: bool | None = None

    @classmethod
    def parse(cls, text: str) -> Order:
        """Return what ``KEY``, ``KEY:asc`` or ``KEY:desc`` means."""
        key, _, direction = text.rpartition(":")
        return cls(key, direction == "desc") if key and direction in ("asc", "desc") else cls(text)

    @property
    def metric(self) -> str | None:
        """The metric to sort by, if it is one."""
        return None if self.key in _KEYS else self.key


@dataclass(frozen=True, slots=True)
class Listing:
    """What is asked for; what is empty or None asks for all.

    Attributes:
        experiment: this one and those below it.
        tags: each ``KEY`` or ``KEY=VALUE``; a run must have all.
        metrics: whose values are shown.
        best: whether the best value is shown beside the last, and decides the order by a metric.
    """

    experiment: str | None
    statuses: tuple[str, ...]
    tags: tuple[str, ...]
    metrics: tuple[str, ...]
    best: bool
    order: Order
    limit: int | None

    @property
    def is_selective(self) -> bool:
        """Whether runs may be left out."""
        return self.experiment is not None or bool(self.statuses or self.tags)

    @property
    def shown_metrics(self) -> tuple[str, ...]:
        """The metrics asked for, and the one sorted by."""
        by = () if self.order.metric is None else (self.order.metric,)
        return tuple(dict.fromkeys((*self.metrics, *by)))


@dataclass(frozen=True, slots=True)
class Listed:
    """The answer: runs in order, how many there are without the limit, and what should be said beside them."""

    runs: Sequence[ListedRun]
    total: int
    remarks: Sequence[str]


def list_runs(lake: Lake, listing: Listing) -> Listed:
    """Return the runs asked for.

    Raises:
        typer.BadParameter: they are to be sorted by something that is no metric either.
    """
    values: dict[str, dict[str, Value]] = {}
    if listing.shown_metrics:
        for run_id, metric, *value in lake.sql(_VALUES, metrics=list(listing.shown_metrics)).fetchall():
            values.setdefault(run_id, {})[metric] = Value(*value)
    rows = lake.sql(
        _RUNS, experiment=listing.experiment, statuses=list(listing.statuses), tags=list(listing.tags)
    ).fetchall()
    runs = [replace(ListedRun(*row), values=values.get(row[0], {})) for row in rows]
    remarks = _remarks(lake, runs, listing) if runs else []
    return Listed(_sorted(runs, listing)[: listing.limit], len(runs), remarks)


def _remarks(lake: Lake, runs: Sequence[ListedRun], listing: Listing) -> list[str]:
    remarks = []
    for metric in listing.shown_metrics:
        values = [run.values[metric] for run in runs if metric in run.values]
        if not values:
            remarks.append(_missing(lake, metric, listing.order))
        elif listing.best and all(value.direction is None for value in values):
            remarks.append(f"which {metric!r} is best nobody has declared: run.define({metric!r}, direction='min')")
    return remarks


def _missing(lake: Lake, metric: str, order: Order) -> str:
    known = [name for (name,) in lake.sql(_METRIC_NAMES).fetchall()]
    near = get_close_matches(metric, known if metric != order.metric else [*known, *_KEYS], n=1)
    hint = f"; did you mean {near[0]!r}?" if near and metric not in known else ""
    if metric == order.metric and metric not in known:
        raise typer.BadParameter(f"{metric!r} is no metric and none of {', '.join(_KEYS)}{hint}", param_hint="'--sort'")
    return f"none of these runs has the metric {metric!r}{hint}"


def _sorted(runs: Sequence[ListedRun], listing: Listing) -> list[ListedRun]:
    """Return the runs in order; those without a value, or with NaN, come last either way."""
    key_of = _key(listing)
    keyed = [(key_of(run), run) for run in runs]
    ranked = [(key, run) for key, run in keyed if key is not None and key == key]
    ranked.sort(key=lambda pair: pair[0], reverse=_is_descending(runs, listing.order))
    return [run for _, run in ranked] + [run for key, run in keyed if key is None or key != key]


def _key(listing: Listing) -> Callable[[ListedRun], Any]:
    metric = listing.order.metric
    if metric is None:
        return _KEYS[listing.order.key]

    def value(run: ListedRun) -> float | None:
        found = run.values.get(metric)
        if found is None:
            return None
        return found.best if listing.best and found.direction is not None else found.last

    return value


def _is_descending(runs: Sequence[ListedRun], order: Order) -> bool:
    if order.descending is not None:
        return order.descending
    metric = order.metric
    if metric is None:
        return order.key in _DESCENDING
    return any(run.values[metric].direction == "max" for run in runs if metric in run.values)
