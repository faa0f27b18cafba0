"""Whether two configurations are the same for practical purposes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from ckptlake.analytics.arguments import LARGEST, check_level, check_number
from ckptlake.analytics.charts import Axis, Chart, interval_chart
from ckptlake.analytics.comparison.posterior import chance, independent_posterior, paired_posterior
from ckptlake.analytics.comparison.runs import Runs, runs_of
from ckptlake.analytics.comparison.two_samples import pair_differences, variance, welch_terms
from ckptlake.analytics.frames import Columns, Floats
from ckptlake.analytics.results import Interval, Result
from ckptlake.analytics.statistics.checks import normality
from ckptlake.analytics.wording import number, p_value, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Equivalence(Result):
    """Whether two means differ by less than a margin.

    Attributes:
        value: the column that is compared.
        first: the name of one configuration.
        second: the name of the other.
        difference: the mean of the first minus that of the second.
        margin: the difference that would matter, in the unit of the values.
        p_value: of the hypothesis that they differ by the margin or more; None where it cannot be told.
        is_equivalent: whether that is refused; False does not mean that they differ.
        p_within: the posterior probability that they differ by less than the margin, or None.
    """

    value: str
    first: str
    second: str
    difference: float
    margin: float
    p_value: float | None
    is_equivalent: bool
    p_within: float | None

    def sentence(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        verdict = "are equivalent" if self.is_equivalent else "are not shown to be equivalent"
        figures = f"difference {number(self.difference)}{unit}"
        if self.interval is not None:
            figures += f", {self.interval}"
        told = "cannot be told" if self.p_value is None else p_value(self.p_value)
        told_within = "" if self.p_within is None else f", probability of lying within {chance(self.p_within)}"
        found = (
            f"{self.first} and {self.second} {verdict} in {self.value} within ±{number(self.margin)}{unit}: {figures}, "
        )
        return " ".join([*self.notes, f"{found}{self.method}, {told}{told_within}."])

    def chart(self) -> Chart:
        low, high = (self.difference,) * 2 if self.interval is None else (self.interval.low, self.interval.high)
        title = f"{self.first} minus {self.second}, margin ±{number(self.margin)}"
        edges = [{"what": f"margin {sign}", "at": side * self.margin} for sign, side in (("−", -1), ("+", 1))]
        rows = [{"what": "difference", "at": self.difference, "low": low, "high": high}]
        rows += [{**edge, "low": edge["at"], "high": edge["at"]} for edge in edges]
        axis = Axis("at", f"difference of {self.value}{f' ({self.unit})' if self.unit else ''}")
        return interval_chart(title, rows, label="what", value=axis, low="low", high="high", reference=0.0)


def equivalent(
    frame: pl.DataFrame, value: str, *, by: Columns, margin: float, pair_by: str | None = None, level: float = 0.95,
    unit: str = "",
) -> Equivalence:  # fmt: skip
    """Test whether two configurations differ by less than a margin.

    Two one-sided tests (Schuirmann 1987), by Welch's t or by the t of pairs; equivalent where both refuse at
    alpha = 1 - level, which is where the interval of confidence 1 - 2 alpha lies within the margin. Say the margin
    before looking at the results.

    Args:
        frame: one row a run.
        value: the column with the values.
        by: the columns that tell the two configurations apart.
        margin: the difference that would matter, above 0, in the unit of the values.
        pair_by: the column that pairs runs, such as ``"seed"``.
        level: one minus the chance of calling them equivalent if they are not.
        unit: of the values.

    Raises:
        NotEnoughDataError: there are fewer than two finite values or pairs a configuration.
        InvalidInputError: there are not two configurations, or a column or the margin does not fit.

    Example:
        >>> frame = pl.DataFrame({"lr": [1] * 4 + [2] * 4, "loss": [3.1, 3.11, 3.09, 3.1, 3.1, 3.12, 3.1, 3.09]})
        >>> equivalent(frame, "loss", by="lr", margin=0.05).is_equivalent
        True
    """
    check_level(level)
    check_number(margin, "margin", above=0.0, most=LARGEST)
    runs = runs_of(frame, value, by, pair_by)
    if len(runs.samples) != 2:
        raise InvalidInputError(
            f"equivalence is of two configurations, by {by!r:.100} there are {len(runs.samples)}: filter the frame"
        )
    one, other = runs.samples
    if min(one.n, other.n) < 2:
        raise NotEnoughDataError(
            f"{one.label} has {plural(one.n, 'finite value')} and {other.label} {other.n}: two each are needed"
        )
    difference, se, df = _terms(runs, one.values, other.values)
    p_within = None
    notes = runs.findings
    if se == 0.0:
        p, interval, notes = None, None, (*notes, "The values do not vary, so that nothing can be told.")
    else:
        p = float(max(stats.t.sf((difference + margin) / se, df), stats.t.cdf((difference - margin) / se, df)))
        reach = se * float(stats.t.ppf(level, df))
        interval = Interval(difference - reach, difference + reach, 2 * level - 1, "Student t") if level > 0.5 else None
        found = (paired_posterior if runs.is_paired else independent_posterior)(one.values, other.values)
        p_within = found.below(margin) - found.below(-margin)
    return Equivalence(
        n=one.n if runs.is_paired else one.n + other.n, unit=unit,
        method=f"two one-sided {'paired' if runs.is_paired else 'Welch'} t tests",
        checks=tuple(normality(sample) for sample in runs.checked), interval=interval, notes=notes, value=value,
        first=one.label, second=other.label, difference=difference, margin=margin, p_value=p,
        is_equivalent=p is not None and p < 1 - level, p_within=p_within,
    )  # fmt: skip


def _terms(runs: Runs, first: Floats, second: Floats) -> tuple[float, float, float]:
    if not runs.is_paired:
        return welch_terms(first, second)
    differences = pair_differences(first, second)
    return float(np.mean(differences)), math.sqrt(variance(differences) / len(differences)), len(differences) - 1
