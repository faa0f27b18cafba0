"""The points of one run, each given out once, in whatever order they arrive.

Points may arrive late: from another process of the same run, or with times of their own. So a high-water mark is
not enough; the keys of all points given out so far are kept, eight bytes each. Looking for new ones reads
only what is past the mark unless the count of points tells that a late one has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ckptlake.lake import Lake

Keys = npt.NDArray[np.uint64]

_COUNT = """
WITH points AS (
    SELECT epoch_us(ts) AS ts_us FROM metrics_raw
    WHERE run_id = $run_id AND CASE WHEN len($metrics::VARCHAR[]) > 0 THEN list_contains($metrics::VARCHAR[], metric)
        ELSE $with_system OR NOT starts_with(metric, 'system/') END
)
SELECT count(*), count(*) FILTER (ts_us > $mark_us) FROM points
"""
_KEYS = """
WITH points AS (
    SELECT epoch_us(ts) AS ts_us, hash(metric, step, ts, attempt, value) AS key FROM metrics_raw
    WHERE run_id = $run_id AND CASE WHEN len($metrics::VARCHAR[]) > 0 THEN list_contains($metrics::VARCHAR[], metric)
        ELSE $with_system OR NOT starts_with(metric, 'system/') END
)
SELECT key, ts_us FROM points WHERE ts_us > $mark_us
"""
_POINTS = """
SELECT metric, step, ts, value, attempt, hash(metric, step, ts, attempt, value) AS key
FROM metrics_raw
WHERE run_id = $run_id AND hash(metric, step, ts, attempt, value) IN (SELECT unnest($keys::UBIGINT[]))
ORDER BY ts, step, metric
"""
_BEGINNING_US = -(2**63)


@dataclass(frozen=True, slots=True)
class Point:
    """One point; its time is UTC."""

    metric: str
    step: int
    ts: datetime
    value: float
    attempt: int

    def document(self) -> dict[str, object]:
        """Return the point as a mapping."""
        return {
            "ts": self.ts,
            "step": self.step,
            "metric": self.metric,
            "value": self.value,
            "attempt": self.attempt,
        }


class PointReader:
    """Gives out the points of one run: `latest` first, then `fresh` again and again."""

    def __init__(self, lake: Lake, run_id: str, metrics: Sequence[str], *, with_system: bool) -> None:
        self._lake = lake
        self._run_id = run_id
        self._filter: dict[str, Any] = {"metrics": list(metrics), "with_system": with_system}
        self._known = np.empty(0, np.uint64)
        self._mark_us = _BEGINNING_US

    def latest(self, number: int) -> list[Point]:
        """Return the newest points, at most `number`, and count all that are older as given out."""
        keys, times_us = self._keys(_BEGINNING_US)
        order = np.argsort(times_us, kind="stable")
        self._take(keys, times_us)
        return self._points(keys[order][len(keys) - min(number, len(keys)) :])

    def fresh(self) -> list[Point]:
        """Return the points that have come since the last call, sorted by time."""
        total, past_mark = self._count()
        has_late = total - past_mark > len(self._known)
        if not has_late and not past_mark:
            return []
        keys, times_us = self._keys(_BEGINNING_US if has_late else self._mark_us)
        if has_late:
            keys, times_us = _without(keys, times_us, self._known)
        self._take(keys, times_us)
        return self._points(keys)

    def _take(self, keys: Keys, times_us: npt.NDArray[np.int64]) -> None:
        self._known = np.concatenate([self._known, keys])
        if len(times_us):
            self._mark_us = max(self._mark_us, int(times_us.max()))

    def _count(self) -> tuple[int, int]:
        ((total, past_mark),) = self._ask(_COUNT, mark_us=self._mark_us, **self._filter).fetchall()
        return total, past_mark

    def _keys(self, past_us: int) -> tuple[Keys, npt.NDArray[np.int64]]:
        columns = self._ask(_KEYS, mark_us=past_us, **self._filter).fetchnumpy()
        return np.asarray(columns["key"], np.uint64), np.asarray(columns["ts_us"], np.int64)

    def _points(self, keys: Keys) -> list[Point]:
        if not len(keys):
            return []
        copies = dict(zip(*(found.tolist() for found in np.unique(keys, return_counts=True)), strict=True))
        points = []
        for *point, key in self._ask(_POINTS, keys=keys.tolist()).fetchall():
            if copies[key]:
                copies[key] -= 1
                points.append(Point(*point))
        return points

    def _ask(self, query: str, **values: Any) -> Any:
        return self._lake.sql(query, run_id=self._run_id, **values)


def _without(keys: Keys, times_us: npt.NDArray[np.int64], known: Keys) -> tuple[Keys, npt.NDArray[np.int64]]:
    """Return the keys that occur more often than in `known`, as often as they do so."""
    distinct, first, counts = np.unique(keys, return_index=True, return_counts=True)
    known_distinct, known_counts = np.unique(known, return_counts=True)
    places = np.searchsorted(known_distinct, distinct)
    places = np.minimum(places, max(len(known_distinct) - 1, 0))
    before = np.zeros(len(distinct), np.int64)
    if len(known_distinct):
        is_known = known_distinct[places] == distinct
        before[is_known] = known_counts[places[is_known]]
    more = np.maximum(counts - before, 0)
    return np.repeat(distinct, more), np.repeat(times_us[first], more)
