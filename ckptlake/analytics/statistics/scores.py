"""Scores of algorithms on tasks: for each algorithm, those of its runs on every task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.frames import Floats, check_columns, parts_of, samples
from ckptlake.analytics.results import Check
from ckptlake.analytics.wording import listing
from ckptlake.errors import InvalidInputError, NotEnoughDataError

_ENOUGH_RUNS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The scores of one algorithm.

    Attributes:
        label: its name.
        by_task: the finite scores of its runs on each task, float64 of shape (runs,), at least two a task.
        notes: what was left out.
    """

    label: str
    by_task: dict[str, Floats]
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return sum(map(len, self.by_task.values()))

    @property
    def pooled(self) -> Floats:
        """float64, shape (n,): the scores of all tasks, one task after the other."""
        return np.concatenate(list(self.by_task.values()))

    @property
    def pooling_notes(self) -> tuple[str, ...]:
        """What a reader of figures of the pooled scores must know, with `notes`."""
        sizes = sorted(map(len, self.by_task.values()))
        uneven = f"{self.label} has {sizes[0]} to {sizes[-1]} scores a task: a task with more weighs more"
        return (*self.notes, uneven) if sizes[0] < sizes[-1] else self.notes

    @property
    def enough_runs(self) -> Check:
        """Whether every task has as many runs as resampling within tasks takes."""
        fewest = min(map(len, self.by_task.values()))
        evidence = f"at least {fewest} on each, {_ENOUGH_RUNS} are wanted"
        return Check(f"enough runs of {self.label} on every task to resample", fewest >= _ENOUGH_RUNS, evidence)


def scores_of(frame: pl.DataFrame, value: str, *, by: str, task: str) -> tuple[Scores, ...]:
    """Return the scores of each algorithm, in the order in which algorithms first appear.

    Scores that are NaN or infinite are left out and told in `notes`. That flatters an algorithm whose runs diverge:
    where it is fair, give such runs the worst score possible before.

    Args:
        frame: one row a run.
        value: the column with the scores.
        by: the column with the algorithm or configuration.
        task: the column with the task, data set or size.

    Raises:
        NotEnoughDataError: the frame is empty, or an algorithm has fewer than two finite scores on a task.
        InvalidInputError: a column is missing or holds no numbers.

    Example:
        >>> frame = pl.DataFrame({"alg": list("aaaa"), "task": list("xxyy"), "score": [0.1, 0.2, 0.8, 0.9]})
        >>> [(each.label, list(each.by_task), each.n) for each in scores_of(frame, "score", by="alg", task="task")]
        [('a', ['x', 'y'], 4)]
    """
    check_columns(frame, [by, task, value])
    if frame.is_empty():
        raise NotEnoughDataError("the frame has no rows: there are no scores")
    tasks = [str(key) for (key,) in parts_of(frame, [task])]
    return tuple(_scores(str(key), part, value, task, tasks) for (key,), part in parts_of(frame, [by]).items())


def scores_named(scores: tuple[Scores, ...], label: object) -> Scores:
    """Return the scores of one algorithm.

    Raises:
        InvalidInputError: there is no such algorithm.
    """
    for each in scores:
        if each.label == str(label):
            return each
    raise InvalidInputError(f"no scores of {label!r:.100}; there are those of {listing(each.label for each in scores)}")


def _scores(label: str, part: pl.DataFrame, value: str, task: str, tasks: list[str]) -> Scores:
    found = {each.label.removeprefix(f"{task}="): each for each in samples(part, value, task)}
    short = [name for name in tasks if name not in found or found[name].n < 2]
    if short:
        raise NotEnoughDataError(
            f"{label!r:.100} has fewer than two finite scores on {listing(map(repr, short))}: "
            "run it there more often, or leave those tasks out for all"
        )
    notes = tuple(f"{label}, {note}" for name in tasks for note in found[name].notes)
    return Scores(label, {name: found[name].values for name in tasks}, notes)
