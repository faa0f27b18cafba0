"""An experiment as it is looked over: its runs, their curves and checkpoints, and what counts as good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.arguments import check_direction
from ckptlake.analytics.curve import Curve, curves_of
from ckptlake.analytics.frames import check_columns, floats
from ckptlake.analytics.insight.space import is_seed
from ckptlake.analytics.trends.judgements import Verdict
from ckptlake.analytics.trends.verdicts import verdict
from ckptlake.errors import InvalidInputError
from ckptlake.types import Direction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Experiment:
    """Comparable runs, and all that is known of them.

    Attributes:
        runs: one row a run: `run_id`, its params, and its result in a column named as the metric. NaN or infinite is a
            run that diverged, null one without a result.
        metric: the column with the result.
        direction: ``"min"`` if less is better, or ``"max"``.
        params: the columns with params, seeds too.
        curves: the metric over time, one row a point: `run_id`, `step`, `value`; None if not at hand.
        checkpoints: one row a checkpoint: `run_id`, `step`; None if not at hand.
        name: the column of `runs` by which runs are called in sentences, as they are in verdicts.
        speed: the column of `runs` with steps a second, if there is one.
        device: the column of `runs` with the GPU's name, if there is one.

    Raises:
        InvalidInputError: a column is missing, two runs have the same id or name, or the direction is neither.

    Example:
        >>> runs = pl.DataFrame({"run_id": ["a", "b"], "lr": [0.1, 0.2], "seed": [0, 0], "loss": [1.0, float("nan")]})
        >>> experiment = Experiment(runs=runs, metric="loss", direction="min", params=("lr", "seed"))
        >>> experiment.settings, experiment.diverged.tolist()
        (('lr',), [False, True])
    """

    runs: pl.DataFrame
    metric: str
    direction: Direction
    params: tuple[str, ...]
    curves: pl.DataFrame | None = None
    checkpoints: pl.DataFrame | None = None
    name: str = "run_id"
    speed: str = "steps_per_s"
    device: str = "gpu"

    def __post_init__(self) -> None:
        check_direction(self.direction)
        check_columns(self.runs, ["run_id", self.name, self.metric, *self.params])
        floats(self.runs, self.metric)
        for column in dict.fromkeys(("run_id", self.name)):
            if self.runs[column].n_unique() < self.runs.height:
                raise InvalidInputError(f"two runs have the same {column}: one row a run is needed")
        if self.speed in self.runs.columns:
            floats(self.runs, self.speed)
        for what, frame, columns in (
            ("curves", self.curves, ["run_id", "step", "value"]),
            ("checkpoints", self.checkpoints, ["run_id", "step"]),
        ):
            if frame is not None:
                check_columns(frame, columns)
                kinds = frame.schema["run_id"], self.runs.schema["run_id"]
                if kinds[0] != kinds[1]:
                    raise InvalidInputError(f"run_id is {kinds[0]} in {what}, {kinds[1]} in the runs: cast one of them")

    @property
    def settings(self) -> tuple[str, ...]:
        """The params that make a configuration: all but seeds."""
        return tuple(name for name in self.params if not is_seed(name))

    @property
    def diverged(self) -> np.ndarray:
        """bool, shape (runs,): where the result is NaN or infinite."""
        return (~self.runs[self.metric].cast(pl.Float64).is_finite()).fill_null(False).to_numpy()

    @property
    def names(self) -> pl.Series:
        """What each run is called, String."""
        return self.runs[self.name].cast(pl.String)

    def named(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return those rows that are of its runs, with what each run is called in a column `run`."""
        called = self.runs.select("run_id").with_columns(run=self.names)
        return rows.drop("run", strict=False).join(called, on="run_id", how="inner", maintain_order="left")

    @property
    def finished(self) -> pl.DataFrame:
        """The runs with a finite result."""
        return self.runs.filter(pl.col(self.metric).cast(pl.Float64).is_finite().fill_null(False))

    def losses(self, values: np.ndarray) -> np.ndarray:
        """Return values of the metric turned so that less is better."""
        return values if self.direction == "min" else -values

    def curve_of_each_run(self) -> tuple[Curve, ...]:
        """Return the curves of its runs, labelled by what each is called; none without curves."""
        if self.curves is None:
            return ()
        return curves_of(self.named(self.curves.select("run_id", "step", "value")), run="run")

    def verdicts(self) -> tuple[Verdict, ...]:
        """Return how each curve ended; none without curves."""
        return tuple(verdict(curve, self.direction) for curve in self.curve_of_each_run())
