"""How the columns of runs move together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import polars as pl
from scipy import stats
from scipy.special import ndtri

from ckptlake.analytics.arguments import check_count, check_level, check_number
from ckptlake.analytics.charts import Axis, Chart, heat_chart
from ckptlake.analytics.frames import Floats, check_columns, floats, names
from ckptlake.analytics.results import Interval, Result
from ckptlake.analytics.statistics.corrections import Correction, adjusted
from ckptlake.analytics.statistics.estimators import is_constant, power_of_two
from ckptlake.analytics.wording import listing, number, p_value, plural
from ckptlake.errors import InvalidInputError

Coefficient: TypeAlias = Literal["pearson", "spearman", "kendall"]

_TESTS = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}
_LEAST, _FEW = 3, 10
_SCHEMA = {
    "x": pl.String, "y": pl.String, "n": pl.Int64, "correlation": pl.Float64, "low": pl.Float64, "high": pl.Float64,
    "p_value": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Correlations(Result):
    """The correlation of every pair of columns.

    Attributes:
        coefficient: ``"pearson"``, ``"spearman"`` or ``"kendall"``.
        columns: the columns that were compared.
        table: one row a pair: `x`, `y`, `n`, `correlation`, `low`, `high`, `p_value`, `p_adjusted`; null where a pair
            has no correlation, because a column is constant or too few rows have both.
    """

    coefficient: Coefficient
    columns: tuple[str, ...]
    table: pl.DataFrame

    @property
    def matrix(self) -> pl.DataFrame:
        """The correlations as a symmetric matrix with ones on its diagonal; the column `column` names its rows."""
        found = {frozenset(pair): value for *pair, value in self.table.select("x", "y", "correlation").rows()}
        cells = {
            name: [1.0 if name == other else found[frozenset((name, other))] for other in self.columns]
            for name in self.columns
        }
        return pl.DataFrame({"column": self.columns, **cells}, schema_overrides=dict.fromkeys(self.columns, pl.Float64))

    def sentence(self) -> str:
        known = self.table.drop_nulls("p_adjusted")
        sure = known.filter(pl.col("p_adjusted") < 0.05).sort(pl.col("correlation").abs(), descending=True)
        told = (
            f"{x} and {y} ({number(value, 2)}, {p_value(p)})"
            for x, y, value, p in sure.select("x", "y", "correlation", "p_adjusted").rows()
        )
        which = f": {listing(told)}" if sure.height else ""
        return (
            f"{sure.height:,} of {plural(known.height, 'pair')} of columns "
            f"{'is' if sure.height == 1 else 'are'} correlated beyond chance{which} ({self.method})."
        )

    def chart(self) -> Chart:
        cells = self.matrix.unpivot(index="column", variable_name="other", value_name="correlation")
        value = Axis("correlation", self.coefficient)
        return heat_chart(f"Correlation ({self.coefficient})", cells.to_dicts(), x="other", y="column", value=value)


def correlations(
    frame: pl.DataFrame,
    columns: Sequence[str] | None = None,
    *,
    coefficient: Coefficient = "spearman",
    correction: Correction = "holm",
    level: float = 0.95,
) -> Correlations:
    """Return the correlation of every pair of columns, with intervals and p-values corrected for the number of pairs.

    A pair is compared over the rows in which both are finite. Params of a sweep are correlated by its design: a
    correlation of a param with a metric says little about cause where other params moved along.

    Args:
        frame: one row a run.
        columns: at least two numeric or boolean columns; all such columns of the frame where None.
        coefficient: ``"pearson"`` for straight lines, ``"spearman"`` for any monotone relation, ``"kendall"`` for the
            same with many ties or few rows.
        correction: how p-values are corrected.
        level: the confidence of each interval by itself: Fisher (1921) for Pearson; Bonett and Wright (2000) for
            Spearman; Fieller, Hartley and Pearson (1957) for Kendall.

    Raises:
        InvalidInputError: there are fewer than two columns, one is missing or holds no numbers, or there is no such
            coefficient.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> width = rng.uniform(1, 9, 30)
        >>> frame = pl.DataFrame({"width": width, "loss": -width + rng.normal(size=30), "seed": rng.permutation(30)})
        >>> found = correlations(frame)
        >>> [(x, y) for x, y, p in found.table.select("x", "y", "p_adjusted").rows() if p < 0.05]
        [('width', 'loss')]
    """
    check_level(level)
    _check_coefficient(coefficient)
    check_columns(frame, [])
    kinds = frame.schema.items()
    chosen = list(names(columns)) if columns is not None else [c for c, k in kinds if k.is_numeric() or k == pl.Boolean]
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise InvalidInputError(f"columns {listing(chosen)}: at least two different ones that hold numbers are needed")
    values = {name: floats(frame, name) for name in chosen}
    rows = [_pair(x, y, values[x], values[y], coefficient, level) for x, y in combinations(chosen, 2)]
    pairs = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    known = pairs["p_value"].is_not_null()
    corrected = iter(adjusted(pairs["p_value"].drop_nulls().to_numpy(), correction))
    p_adjusted = pl.Series(
        "p_adjusted", [float(next(corrected)) if is_known else None for is_known in known], pl.Float64
    )
    return Correlations(
        n=frame.height,
        method=f"{coefficient.title()} correlation, p-values corrected by {correction.title()}",
        notes=tuple(_notes(values, pairs, coefficient)),
        coefficient=coefficient,
        columns=tuple(chosen),
        table=pairs.with_columns(p_adjusted),
    )


def correlation_interval(correlation: float, n: int, coefficient: Coefficient, level: float = 0.95) -> Interval | None:
    """Return the interval of a correlation by Fisher's z; None below five rows or for a perfect correlation.

    Args:
        correlation: between -1 and 1.
        n: how many rows it rests on.
        coefficient: ``"pearson"``, ``"spearman"`` or ``"kendall"``, which differ in the variance of z.
        level: the confidence, between 0 and 1.

    Raises:
        InvalidInputError: one of them is out of its range, or there is no such coefficient.

    Example:
        >>> print(correlation_interval(0.5, 28, "pearson"))
        95 % interval 0.156 to 0.7358
    """
    check_level(level)
    _check_coefficient(coefficient)
    check_number(correlation, "correlation", least=-1.0, most=1.0)
    check_count(n, "n", least=0)
    if n < 5 or abs(correlation) >= 1:
        return None
    variance = {
        "pearson": 1 / (n - 3),
        "spearman": (1 + correlation**2 / 2) / (n - 3),
        "kendall": 0.437 / (n - 4),
    }[coefficient]
    z, half = np.arctanh(correlation), ndtri((1 + level) / 2) * np.sqrt(variance)
    return Interval(float(np.tanh(z - half)), float(np.tanh(z + half)), level, "Fisher z")


def _check_coefficient(coefficient: Coefficient) -> None:
    if coefficient not in get_args(Coefficient):
        raise InvalidInputError(
            f"there is no coefficient {coefficient!r:.100}: take {', '.join(get_args(Coefficient))}"
        )


def _pair(x: str, y: str, first: Floats, second: Floats, coefficient: Coefficient, level: float) -> tuple[Any, ...]:
    both = np.isfinite(first) & np.isfinite(second)
    n = int(both.sum())
    if n < _LEAST or is_constant(first[both]) or is_constant(second[both]):
        return x, y, n, None, None, None, None
    pair = first[both], second[both]
    found = _TESTS[coefficient](*(map(_centred, pair) if coefficient == "pearson" else pair))
    correlation = float(found.statistic)
    interval = correlation_interval(correlation, n, coefficient, level)
    low, high = (interval.low, interval.high) if interval is not None else (None, None)
    return x, y, n, correlation, low, high, float(found.pvalue)


def _centred(values: Floats) -> Floats:
    """Return values moved to zero mean and unit size, which no correlation depends on and no square overflows."""
    scaled = values / power_of_two(values)
    scaled = scaled - scaled.mean()
    return np.asarray(scaled / np.abs(scaled).max(), np.float64)


def _notes(values: dict[str, Floats], pairs: pl.DataFrame, coefficient: Coefficient) -> list[str]:
    notes = []
    for name, column in values.items():
        finite = column[np.isfinite(column)]
        if len(finite) < len(column):
            notes.append(f"{name}: left out {len(column) - len(finite):,} missing or not finite of {len(column):,}")
        if len(finite) and is_constant(finite):
            notes.append(f"{name} is constant: it has no correlation")
    few = pairs.filter(pl.col("correlation").is_not_null() & (pl.col("n") < _FEW)).height
    if few and coefficient == "spearman":
        notes.append(
            f"{plural(few, 'pair')} with fewer than {_FEW} rows: Spearman's p-values are rough there, take kendall"
        )
    return notes
