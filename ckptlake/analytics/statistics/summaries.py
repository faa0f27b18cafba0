"""What a set of runs looks like: centre, spread, shape and what is missing, per configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.charts import Axis, Chart, interval_chart
from ckptlake.analytics.frames import Columns, Sample, names, sample, samples
from ckptlake.analytics.progress import track
from ckptlake.analytics.results import Result
from ckptlake.analytics.statistics.estimators import (
    excess_kurtosis,
    iqm,
    mad,
    power_of_two,
    skewness,
    trimmed_mean,
)
from ckptlake.analytics.statistics.intervals import Centre, IntervalMethod, StudentT
from ckptlake.analytics.wording import listing, number, plural
from ckptlake.errors import NotEnoughDataError

_FIGURES = (
    "mean", "std", "sem", "min", "q05", "q25", "median", "q75", "q95", "max", "mad", "iqm", "trimmed_mean",
    "skewness", "excess_kurtosis",
)  # fmt: skip
_TITLES: Mapping[Centre, str] = {
    "mean": "Mean", "median": "Median", "iqm": "Interquartile mean", "trimmed mean": "Trimmed mean",
}  # fmt: skip
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Summary(Result):
    """The values of one configuration in figures.

    All figures are of the finite values alone and None where there are too few of them.

    Attributes:
        label: the configuration, empty where there is only one.
        centre: what `interval` is of.
        mean: arithmetic mean.
        std: standard deviation with n - 1.
        sem: standard error of the mean, ``std / sqrt(n)``.
        min: smallest value.
        q05: the 5 % quantile, interpolated linearly; `q25`, `q75` and `q95` likewise.
        median: the 50 % quantile.
        max: largest value.
        mad: median absolute deviation from the median, not scaled.
        iqm: mean of the middle half.
        trimmed_mean: mean without a tenth at each end.
        skewness: adjusted Fisher-Pearson coefficient.
        excess_kurtosis: unbiased, 0 for a normal law.
        n_missing: how many values were null.
        n_nonfinite: how many were NaN or infinite, as of runs that diverged.
    """

    label: str
    centre: Centre
    mean: float | None
    std: float | None
    sem: float | None
    min: float | None
    q05: float | None
    q25: float | None
    median: float | None
    q75: float | None
    q95: float | None
    max: float | None
    mad: float | None
    iqm: float | None
    trimmed_mean: float | None
    skewness: float | None
    excess_kurtosis: float | None
    n_missing: int
    n_nonfinite: int

    @property
    def estimate(self) -> float | None:
        """The centre that `interval` is of."""
        return {"mean": self.mean, "median": self.median, "iqm": self.iqm, "trimmed mean": self.trimmed_mean}[
            self.centre
        ]

    def sentence(self) -> str:
        who = f"{self.label}: " if self.label else ""
        if self.estimate is None:
            return f"{who}no finite value, {self.n_nonfinite:,} NaN or infinite, {self.n_missing:,} missing."
        unit = f" {self.unit}" if self.unit else ""
        around = f" ({self.interval}, {self.interval.method})" if self.interval is not None else ""
        spread = f", standard deviation {number(self.std)}" if self.std is not None else ""
        gone = f"; {self.n_nonfinite:,} NaN or infinite left out" if self.n_nonfinite else ""
        found = f"{_TITLES[self.centre].lower()} {number(self.estimate)}{unit}{around}"
        return f"{who}{found} of {plural(self.n, 'value')}{spread}{gone}."

    def chart(self) -> Chart:
        return _chart([self], _TITLES[self.centre], self.unit)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Summaries(Result):
    """The summaries of all configurations.

    Attributes:
        value: the column that was summarised.
        parts: one summary a configuration, in the order in which configurations first appear.
    """

    value: str
    parts: tuple[Summary, ...]

    @property
    def table(self) -> pl.DataFrame:
        """One row a configuration, with the columns of `Summary` and its interval as `low`, `high` and `level`."""
        counts = ("label", "n", "n_missing", "n_nonfinite")
        empty = {"low": None, "high": None, "level": None}
        rows = [
            empty | {name: getattr(part, name) for name in (*counts, *_FIGURES)} | part.row() for part in self.parts
        ]
        floats = dict.fromkeys((*_FIGURES, "low", "high", "level"), pl.Float64)
        columns = (*counts, *_FIGURES, "centre", "low", "high", "level", "method", "unit", "doubts", "notes")
        return pl.DataFrame(rows, schema_overrides=floats, infer_schema_length=None).select(columns)

    def sentence(self) -> str:
        told = [part.sentence() for part in self.parts[:5]]
        rest = [f"{plural(len(self.parts) - 5, 'more configuration')} in the frame."] * (len(self.parts) > 5)
        return " ".join([*told, *rest])

    def chart(self) -> Chart:
        return _chart(self.parts, f"{_TITLES[self.parts[0].centre]} of {self.value}", self.unit)


def summary(values: Sample, *, interval: IntervalMethod | None = None, unit: str = "") -> Summary:
    """Return the summary of one sample.

    Args:
        values: the sample; it may be empty.
        interval: how the interval is found and around which centre; Student's t around the mean where None.
        unit: of the values.

    Example:
        >>> found = summary(Sample("lr=0.1", np.array([1.0, 2.0, 3.0, 4.0])))
        >>> print(found)
        lr=0.1: mean 2.5 (95 % interval 0.4457 to 4.554, Student t) of 4 values, standard deviation 1.291.
    """
    how = StudentT() if interval is None else interval
    found = how.of(values.values) if values.n > 1 else None
    notes = values.notes
    if values.n == 1:
        notes = (*notes, f"{values.label or 'all rows'}: one value has no spread, so there is no interval")
    return Summary(
        label=values.label,
        centre=how.centre,
        n=values.n,
        n_missing=values.n_missing,
        n_nonfinite=values.n_nonfinite,
        unit=unit,
        method=f"{how.centre}, {found.method}" if found is not None else how.centre,
        checks=how.checks(values) if found is not None else (),
        interval=found,
        notes=notes,
        **_figures(values),
    )


def summarise(
    frame: pl.DataFrame, value: str, by: Columns = (), *, interval: IntervalMethod | None = None, unit: str = ""
) -> Summaries:
    """Return centre, spread and shape of a column, for each configuration.

    Args:
        frame: one row a run, such as of `readings`.
        value: the column with the values; NaN and infinities are counted and left out.
        by: the columns that tell configurations apart; none takes all rows as one.
        interval: `StudentT()`, `Percentile(...)` or `BCa(...)`; Student's t around the mean where None.
        unit: of the values.

    Raises:
        NotEnoughDataError: the frame has no rows.
        InvalidInputError: a column is missing or holds no numbers.

    Example:
        >>> runs = pl.DataFrame({"lr": [0.1, 0.1, 0.1, 0.2, 0.2], "loss": [3.0, 3.5, 4.0, 2.5, float("nan")]})
        >>> summarise(runs, "loss", by="lr").table.select("label", "n", "n_nonfinite", "mean").rows()
        [('lr=0.1', 3, 0, 3.5), ('lr=0.2', 1, 1, 2.5)]
    """
    keys = names(by)
    groups = samples(frame, value, keys) if keys else (sample(frame, value, ""),)
    if frame.is_empty():
        raise NotEnoughDataError("the frame has no rows: there is nothing to summarise")
    parts = tuple(summary(group, interval=interval, unit=unit) for group in track(groups, "summarising"))
    return Summaries(
        n=sum(part.n for part in parts),
        unit=unit,
        interval=parts[0].interval if len(parts) == 1 else None,
        method=f"summary of {value} by {listing(keys)}" if keys else f"summary of {value}",
        checks=tuple(check for part in parts for check in part.checks),
        notes=tuple(note for part in parts for note in part.notes),
        value=value,
        parts=parts,
    )


def _figures(values: Sample) -> dict[str, float | None]:
    if values.n == 0:
        return dict.fromkeys(_FIGURES)
    scale = power_of_two(values.values)
    scaled = values.values / scale
    quantiles = dict(zip(("q05", "q25", "median", "q75", "q95"), np.quantile(scaled, _QUANTILES), strict=True))
    std = scaled.std(ddof=1) if values.n > 1 else None
    sized = {
        "mean": scaled.mean(), "std": std, "sem": None if std is None else std / np.sqrt(values.n),
        "min": scaled.min(), **quantiles, "max": scaled.max(),
        "mad": mad(scaled), "iqm": iqm(scaled), "trimmed_mean": trimmed_mean(scaled),
    }  # fmt: skip
    shape: dict[str, float | None] = {"skewness": skewness(scaled), "excess_kurtosis": excess_kurtosis(scaled)}
    return {name: None if figure is None else scale * float(figure) for name, figure in sized.items()} | shape


def _chart(parts: tuple[Summary, ...] | list[Summary], title: str, unit: str = "") -> Chart:
    rows = [
        {
            "configuration": part.label or "all",
            "estimate": part.estimate,
            "low": part.interval.low if part.interval else None,
            "high": part.interval.high if part.interval else None,
        }
        for part in parts
    ]
    axis = Axis("estimate", f"{parts[0].centre} ({unit})" if unit else parts[0].centre)
    return interval_chart(title, rows, label="configuration", value=axis, low="low", high="high")
