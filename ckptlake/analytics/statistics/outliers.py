"""Runs that lie far from the others of their configuration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ckptlake.analytics.charts import Axis, Chart, point_chart
from ckptlake.analytics.frames import Columns, Sample, check_columns, floats, label_of, names, parts_of
from ckptlake.analytics.results import Check, Result
from ckptlake.analytics.statistics.estimators import is_constant
from ckptlake.analytics.statistics.outlier_rules import MedianDeviation, OutlierRule
from ckptlake.analytics.wording import listing, number, plural

_LEAST = 3
_ROW = "row of the frame"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outliers(Result):
    """Which runs lie far from the others, and how far.

    Attributes:
        value: the column that was looked at.
        table: one row a run in the order given: the columns of run and
            configuration, the value, `distance` from the
            others (signed), the `limit` for its magnitude, and `is_outlier`; the three are null where a run could not
            be judged because its value is not finite or its configuration is too small or without spread.
    """

    value: str
    table: pl.DataFrame

    @property
    def outliers(self) -> pl.DataFrame:
        """The rows of `frame` that are outliers, the farthest first."""
        return self.table.filter(pl.col("is_outlier")).sort(pl.col("distance").abs(), descending=True)

    def sentence(self) -> str:
        found = self.outliers
        if not self.n:
            return f"No run can be judged: {'; '.join(self.notes) or 'there is none'}."
        if found.is_empty():
            return f"No outlier among {plural(self.n, 'run')} ({self.method})."
        run = found.columns[0]
        told = (
            f"{row[run]} ({number(row[self.value])}, {number(row['distance'], 3)} from the others)"
            for row in found.iter_rows(named=True)
        )
        count = f"{plural(found.height, 'outlier')} among {plural(self.n, 'run')}"
        return f"{count}: {listing(told)} ({self.method})."

    def chart(self) -> Chart:
        rows = [
            {**row, "run": row[self.table.columns[0]], "found": "outlier" if row["is_outlier"] else "other"}
            for row in self.table.drop_nulls("distance").iter_rows(named=True)
        ]
        x, y = Axis(self.value, self.value), Axis("distance", "distance from the others")
        return point_chart(f"Outliers of {self.value}", rows, x=x, y=y, color="found")


def outliers(
    frame: pl.DataFrame,
    value: str,
    *,
    run: Columns = "run_id",
    by: Columns = (),
    rule: OutlierRule | None = None,
) -> Outliers:
    """Return which runs lie far from the others of their configuration.

    An outlier is a run to look at, not one to leave out: a lucky or unlucky seed belongs to the result. Runs whose
    value is NaN or infinite are named in the notes; no rule judges them.

    Args:
        frame: one row a run.
        value: the column with the values.
        run: the columns that name a run.
        by: the columns that tell configurations apart; none takes all runs as one.
        rule: `MedianDeviation()`, `Grubbs()` or `GeneralisedESD()`; the first where None.

    Raises:
        InvalidInputError: a column is missing or holds no numbers.

    Example:
        >>> frame = pl.DataFrame({"run_id": list("abcdef"), "loss": [1.0, 1.1, 0.9, 1.0, 1.2, 5.0]})
        >>> print(outliers(frame, "loss").sentence().split(" (mod")[0])
        1 outlier among 6 runs: f (5, 26.6 from the others)
    """
    runs, keys, how = names(run), names(by), MedianDeviation() if rule is None else rule
    check_columns(frame, [*runs, *keys, value])
    values = floats(frame, value)
    told = frame.select(*dict.fromkeys((*runs, *keys)), pl.Series(value, values))
    groups = parts_of(told.with_row_index(_ROW), keys) if keys else {}
    places = {label_of(keys, key): part[_ROW].to_numpy() for key, part in groups.items()} or {
        "": np.arange(len(values))
    }
    distance, limit = np.full((2, len(values)), np.nan)
    is_outlier, is_judged = np.zeros((2, len(values)), bool)
    checks: list[Check] = []
    notes: list[str] = []
    for label, rows in places.items():
        finite = rows[np.isfinite(values[rows])]
        if len(finite) < _LEAST or is_constant(values[finite]):
            why = f"fewer than {_LEAST} finite values" if len(finite) < _LEAST else "all values are equal"
            notes.append(f"{label or 'all runs'}: not judged, {why}")
            continue
        found = how.distances(Sample(label, values[finite]))
        distance[finite], limit[finite], is_outlier[finite] = found.distance, found.limit, found.is_outlier
        is_judged[finite] = True
        checks += found.checks
        notes += [f"{label or 'all runs'}: {note}" for note in found.notes]
    lost = frame.filter(~np.isfinite(values))[runs[0]]
    if len(lost):
        notes.append(f"not judged, missing or not finite: {listing(map(str, lost))}")
    judged = pl.Series(is_judged)
    return Outliers(
        n=int(judged.sum()),
        method=how.name,
        checks=tuple(checks),
        notes=tuple(notes),
        value=value,
        table=told.with_columns(
            pl.Series(name, column).set(~judged, None)
            for name, column in (("distance", distance), ("limit", limit), ("is_outlier", is_outlier))
        ),
    )
