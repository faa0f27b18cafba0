"""What finished runs teach about the rest of a live one: `calibrate`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_direction, check_not_huge, numbers
from ckptlake.analytics.charts import Axis, Chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.forecasts.reference import FinishedRuns, ReferenceClass
from ckptlake.analytics.forecasts.seen import FEWEST_POINTS
from ckptlake.analytics.frames import Floats
from ckptlake.analytics.results import Result
from ckptlake.analytics.wording import number, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError
from ckptlake.types import Direction

FEWEST_GROUPS = 5
_FRACTIONS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration(Result):
    """Finished runs, ready to tell what remains of a live run.

    Attributes:
        runs: their curves on one grid of fractions of a run.
        direction: whether lower or higher is better.
        n_groups: how many groups of repeats they form.
        n_diverged: how many finished runs ended in NaN or infinity; they tell how often that happens, not values.
        own_ends: whether what is forecast is the last value of the curve itself, not another outcome.
    """

    runs: FinishedRuns
    direction: Direction
    n_groups: int
    n_diverged: int
    own_ends: bool

    def at(self, fraction: float, later: Floats | None = None) -> ReferenceClass:
        """Return what is known of a run after a fraction of it.

        Args:
            fraction: how much of the run has been seen, between 0 and 1.
            later: rising fractions to forecast, the last one 1; only the end by default.

        Raises:
            NotEnoughDataError: fewer than five groups had at least eight values by then and still improved.
        """
        usable = self.runs.usable(fraction)
        n_groups = len(np.unique(usable.groups))
        if n_groups < FEWEST_GROUPS:
            raise NotEnoughDataError(
                f"after {fraction:.1%} of a run only {plural(n_groups, 'group')} of finished runs had shown at least "
                f"{FEWEST_POINTS} values and still improved; it takes {FEWEST_GROUPS}: calibrate with more finished "
                "runs, or forecast later or without a calibration"
            )
        return ReferenceClass.of(usable, fraction, np.array([1.0]) if later is None else later)

    @property
    def diverged_share(self) -> float:
        """The share of finished runs that diverged."""
        return self.n_diverged / (self.n + self.n_diverged)

    def table(self) -> pl.DataFrame:
        """Return how well ends are forecast after each eighth of a run, from runs of other groups.

        Columns: ``fraction``, ``n_runs``, ``n_groups``, ``remaining_change`` (the typical change to the end, in units
        of the change over the second half of what was seen), and the mean absolute errors ``error``,
        ``last_value_error`` and ``best_so_far_error``; fractions at which too few runs tell are absent.
        """
        rows = []
        for fraction in _FRACTIONS:
            usable = self.runs.usable(fraction)
            if len(np.unique(usable.groups)) >= FEWEST_GROUPS:
                found = ReferenceClass.of(usable, fraction, np.array([1.0]))
                ours, last, best = found.errors()
                rows.append((fraction, len(found.weights), found.n_groups, float(found.mean[-1]), ours, last, best))
        numbers = dict.fromkeys(("remaining_change", "error", "last_value_error", "best_so_far_error"), pl.Float64)
        schema = {"fraction": pl.Float64, "n_runs": pl.Int64, "n_groups": pl.Int64, **numbers}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def sentence(self) -> str:
        told = f"{plural(self.n, 'finished run')} in {plural(self.n_groups, 'group')}"
        half = self.table().filter(pl.col("fraction") == 0.5)
        if not half.height:
            return f"{told} tell what remains of a run; too few of them have enough values by half of it."
        row = half.row(0, named=True)
        return (
            f"{told}: from half of a run to its end a value typically changes {number(row['remaining_change'], 3)} "
            f"times what it changed in the quarter before. Its end is then forecast with a mean error of "
            f"{number(row['error'], 3)}, against {number(row['last_value_error'], 3)} for the last value and "
            f"{number(row['best_so_far_error'], 3)} for the best so far."
        )

    def chart(self) -> Chart:
        named = {"error": "forecast", "last_value_error": "last value", "best_so_far_error": "best so far"}
        table = self.table().unpivot(on=list(named), index="fraction", variable_name="end told by")
        rows = table.with_columns(pl.col("end told by").replace_strict(named)).to_dicts()
        return line_chart(
            "Error of the end of a run, from runs of other groups",
            rows,
            x=Axis("fraction", "fraction of the run seen"),
            y=Axis("value", _with_unit("mean absolute error", self.unit), zero=True),
            color="end told by",
        )


def _with_unit(words: str, unit: str) -> str:
    return f"{words} ({unit})" if unit else words


def calibrate(
    finished: Sequence[Curve],
    *,
    outcomes: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
    direction: Direction = "min",
    unit: str = "",
) -> Calibration:
    """Return what finished runs teach about the rest of a live one.

    How far a loss still falls depends on the schedule of the learning rate, which one curve alone does not show. Runs
    that have ended do: after each fraction of a run, their remaining change is learned from their level, from their
    recent change and from its bend, and the error of such forecasts from runs of *other* groups, which makes the
    intervals honest where repeats resemble each other (split conformal prediction in its leave-one-group-out form:
    Barber et al. 2021, "Predictive inference with the jackknife+"; Lee, Barber and Willett 2023).

    Args:
        finished: curves of runs that ran to their planned end, of the same metric as the live one. Leave out the live
            run, and what is the same run under another name.
        outcomes: what is to be forecast of each, such as the final validation loss where the curves are training
            losses; by default the last value of each curve.
        groups: which runs are repeats of each other, such as the configuration of each; by default none is.
        direction: ``"min"`` for losses, ``"max"`` for accuracies.
        unit: the unit of the values.

    Raises:
        InvalidInputError: there are not as many outcomes or groups as curves, a run ends at a step of 0 or before, or
            values are so large that their squares are infinite.
        NotEnoughDataError: fewer than five groups have runs with a finite end.

    Example:
        >>> steps = np.arange(1.0, 101.0)
        >>> runs = [Curve.of(f"run {k}", steps, 3 + k / 20 + (1 + k / 9) / np.sqrt(steps)) for k in range(12)]
        >>> calibrate(runs).at(0.5).n_groups
        12
    """
    check_direction(direction)
    given_ends = None if outcomes is None else numbers(outcomes, "the list of outcomes")
    for name, given in (("outcomes", given_ends), ("groups", groups)):
        if given is not None and len(given) != len(finished):
            raise InvalidInputError(f"{len(finished)} curves need as many {name}, got {len(given)}")
    labels = list(range(len(finished))) if groups is None else list(groups)
    ends = given_ends
    if ends is None:
        ends = np.array([curve.values[-1] if curve.n else np.nan for curve in finished])
    diverged = [not np.isfinite(end) for end in ends]
    check_not_huge(ends[np.isfinite(ends)], "the outcome of finished runs")
    usable = [curve.finite() for curve in finished]
    for curve in usable:
        check_not_huge(curve.values, f"the finished run {curve.label!r:.100}")
    keep = [at for at, curve in enumerate(usable) if not diverged[at] and curve.n >= FEWEST_POINTS]
    for at in keep:
        if usable[at].steps[-1] <= 0:
            raise InvalidInputError(f"the finished run {finished[at].label!r:.100} ends at step 0 or before")
    numbered = {label: at for at, label in enumerate(dict.fromkeys(labels[at] for at in keep))}
    if len(numbered) < FEWEST_GROUPS:
        raise NotEnoughDataError(
            f"{plural(len(numbered), 'group')} of finished runs with at least {FEWEST_POINTS} values and a finite end: "
            f"a calibration takes at least {FEWEST_GROUPS}"
        )
    kept = [usable[at] for at in keep]
    sign = 1.0 if direction == "min" else -1.0
    runs = FinishedRuns.of(kept, ends[keep], np.array([numbered[labels[at]] for at in keep]), sign)
    return Calibration(
        n=len(keep),
        unit=unit,
        method="Gaussian process on finished runs, with leave-one-group-out conformal intervals",
        notes=_notes(finished, usable, diverged),
        runs=runs,
        direction=direction,
        n_groups=len(numbered),
        n_diverged=sum(diverged),
        own_ends=outcomes is None,
    )


def _notes(finished: Sequence[Curve], usable: Sequence[Curve], diverged: Sequence[bool]) -> tuple[str, ...]:
    short = sum(curve.n < FEWEST_POINTS and not lost for curve, lost in zip(usable, diverged, strict=True))
    n_left_out = sum(
        before.n - after.n for before, after, lost in zip(finished, usable, diverged, strict=True) if not lost
    )
    notes = []
    if any(diverged):
        notes.append(f"{sum(diverged):,} of {plural(len(finished), 'finished run')} diverged")
    if short:
        notes.append(f"left out {plural(short, 'finished run')} of fewer than {FEWEST_POINTS} values")
    if n_left_out:
        notes.append(f"left out {n_left_out:,} NaN or infinite values of finished runs")
    return tuple(notes)
