"""What differs between runs, and how much of the result goes along with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from ckptlake.analytics.arguments import LARGEST, check_count, check_direction, generator, numbers
from ckptlake.analytics.charts import Axis, Chart, bar_chart
from ckptlake.analytics.comparison.permutation import DRAWN, MOST_VALUES
from ckptlake.analytics.frames import Floats, check_columns, floats, names
from ckptlake.analytics.progress import track
from ckptlake.analytics.results import Result
from ckptlake.analytics.statistics.corrections import Correction, adjusted, check_correction
from ckptlake.analytics.wording import listing, number, p_value, percent, plural
from ckptlake.errors import InvalidInputError, NotEnoughDataError
from ckptlake.types import Direction

_RESULTS = ("last.", "best.", "min.", "max.", "mean.")
_MOST_BINS = 5
_TIE = 1 - 1e-9
Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Differences(Result):
    """Which columns differ between runs, those first that go along most with the result.

    Association is no cause: a column that was changed together with another cannot be told from it.

    Attributes:
        value: the column with the result.
        table: one row a column that differs: `column`, `kind` (``"values"`` or ``"ranges"`` of numbers that hardly
            repeat), `n_groups`, `share` of the rank variance of the result that lies between groups, corrected for
            their number, so that it is about 0 (or below) where a column says nothing, `trend` (Spearman's rho of
            numbers), `p_value`, `p_adjusted`, `together` (columns that part the runs in the same way).
        constant: columns with the same value in every run.
        own: columns of texts in which every run has its own, such as names, so that they tell nothing.
    """

    value: str
    table: pl.DataFrame
    constant: tuple[str, ...]
    own: tuple[str, ...]

    def sentence(self) -> str:
        n_columns = len(self.table) + len(self.constant) + len(self.own)
        head = f"{len(self.table)} of {plural(n_columns, 'column')} can be set against {self.value} of "
        head += plural(self.n, "run")
        if self.table.is_empty():
            return " ".join([*self.notes, f"{head}: no other column differs between runs in a way that could tell."])
        first = self.table.row(0, named=True)
        told = (
            f"{first['column']} goes along most"
            if first["p_adjusted"] < 0.05
            else f"none goes along beyond chance, most nearly {first['column']}"
        )
        told += f", with {percent(max(first['share'], 0.0))} of the rank variance"
        if first["trend"] is not None:
            told += f" and a rank correlation of {number(first['trend'], 2)}"
        told += f", {p_value(first['p_adjusted'])} ({self.method})"
        if first["together"]:
            told += f"; it cannot be told from {first['together']}, changed in the same runs"
        return " ".join([*self.notes, f"{head}: {told}."])

    def chart(self) -> Chart:
        axis = Axis("share", f"share of the rank variance of {self.value}")
        return bar_chart(f"What goes along with {self.value}", self.table.to_dicts(), label="column", value=axis)


def differences(
    frame: pl.DataFrame, value: str, *, columns: Sequence[str] | None = None, direction: Direction = "min",
    correction: Correction = "holm", seed: int = 0,
) -> Differences:  # fmt: skip
    """Return which params, environment and code differ between runs, ranked by association with a result.

    Texts, numbers and booleans need one scale to be ranked on. It is the share of the variance of the result's
    ranks that lies between groups of equal values, corrected for the number of groups (epsilon squared; Kelley 1935):
    ranks so that a diverged run counts as the worst and no more, groups so that a middle optimum is seen, which a
    correlation misses. Numbers that hardly repeat, as in a random search, are grouped into up to five ranges of equal
    size. P-values are by rearranging the result (9,999 arrangements; above 1,000 runs the chi-square of Kruskal and
    Wallis).

    Args:
        frame: one row a run, such as ``lake.sql("SELECT * FROM runs_wide").pl()``.
        value: the column with the result.
        columns: those that are looked at; by default all but the result and other results (``last.``, ``best.``,
            ``min.``, ``max.``, ``mean.``).
        direction: ``"min"`` where a lower result is better; diverged runs (NaN or infinite) are ranked worst.
        correction: of the p-values for the number of columns.
        seed: of the arrangements.

    Raises:
        NotEnoughDataError: fewer than three runs have a result.
        InvalidInputError: a column is missing, or the result holds no numbers.

    Example:
        >>> loss = [0.1, 0.2, 0.15, 0.5, 0.6, 0.55]
        >>> frame = pl.DataFrame({"lr": [1, 1, 1, 2, 2, 2], "gpu": ["a", "b"] * 3, "loss": loss})
        >>> differences(frame, "loss").table["column"].to_list()
        ['lr', 'gpu']
    """
    check_direction(direction)
    check_correction(correction)
    check_count(seed, "seed", least=0)
    looked_at = names(columns) if columns is not None else _other_columns(frame, value)
    check_columns(frame, [value, *looked_at])
    told = frame.drop_nulls(value)
    result = floats(told, value)
    n = len(result)
    if n < 3:
        raise NotEnoughDataError(
            f"{plural(n, 'run')} with {value}: at least 3 are needed to see what goes along with it"
        )
    worst = np.inf if direction == "min" else -np.inf
    ranks = stats.rankdata(np.where(np.isfinite(result), result, worst))
    groups: dict[str, tuple[str, Codes]] = {}
    constant, own, skipped = [], [], []
    for name in looked_at:
        kind, codes = _grouped(told[name])
        if codes is None:
            skipped.append(name)
        elif codes.max() == 0:
            constant.append(name)
        elif codes.max() == n - 1:
            own.append(name)
        else:
            groups[name] = kind, codes
    notes = _notes(result, frame.height - n, value, skipped)
    return Differences(
        n=n, method=f"rearranged ranks, corrected by {correction.title()}" if n <= MOST_VALUES else "Kruskal-Wallis",
        notes=notes, value=value, table=_ranked(told, ranks, groups, correction, seed), constant=tuple(constant),
        own=tuple(own),
    )  # fmt: skip


def rank_variance_shares(ranks: Floats, codes: Codes) -> Floats:
    """Return the share of the variance of ranks that lies between groups (eta squared).

    Args:
        ranks: float64, shape (..., n), finite, not all equal.
        codes: int64, shape (n,), the group of each, counted from 0.

    Raises:
        InvalidInputError: either is not so, or they differ in length.

    >>> rank_variance_shares(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1])).item()
    0.8
    """
    groups, ranks = numbers(codes, "the list of codes"), numbers(ranks, "the array of ranks", dimensions=None)
    if not len(groups) or ranks.shape[-1:] != groups.shape:
        raise InvalidInputError(f"ranks of shape {ranks.shape} and {plural(len(groups), 'code')}: one a rank is needed")
    distinct = np.unique(groups)
    if not np.array_equal(distinct, np.arange(len(distinct))):
        raise InvalidInputError(f"codes={codes!r:.100}: whole numbers from 0 on are needed, none left out")
    low, high = ranks.min(axis=-1), ranks.max(axis=-1)
    if not ((low > -LARGEST) & (high - 1 / LARGEST > low) & (high < LARGEST)).all():
        raise InvalidInputError("ranks are all equal, or not ranks but huge or not finite: their variance is not told")
    member = np.zeros((len(groups), len(distinct)))
    member[np.arange(len(groups)), groups.astype(np.int64)] = 1.0
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    between = ((centred @ member) ** 2 / member.sum(axis=0)).sum(axis=-1)
    return np.asarray(between / (centred**2).sum(axis=-1), np.float64)


def _ranked(
    told: pl.DataFrame, ranks: Floats, groups: dict[str, tuple[str, Codes]], correction: Correction, seed: int
) -> pl.DataFrame:
    n, rows = len(ranks), []
    drawn = None
    if n <= MOST_VALUES:
        drawn = generator(seed).permuted(np.tile(ranks, (DRAWN, 1)), axis=1)
    alike: dict[bytes, list[str]] = {}
    for name, (_, codes) in groups.items():
        alike.setdefault(codes.tobytes(), []).append(name)
    for name, (kind, codes) in track(list(groups.items()), "looking at columns"):
        k = int(codes.max()) + 1
        share, p = _share(ranks, codes, drawn)
        row: dict[str, Any] = {"column": name, "kind": kind, "n_groups": k}
        row["share"] = 1 - (1 - share) * (n - 1) / (n - k)
        row["trend"] = _trend(told[name], ranks)
        row["p_value"] = p
        row["together"] = ", ".join(other for other in alike[codes.tobytes()] if other != name)
        rows.append(row)
    kinds = {"column": pl.String, "kind": pl.String, "n_groups": pl.Int64, "share": pl.Float64, "trend": pl.Float64}
    table = pl.DataFrame(rows, schema={**kinds, "p_value": pl.Float64, "together": pl.String})
    corrected = adjusted(table["p_value"].to_numpy(), correction)
    return table.insert_column(6, pl.Series("p_adjusted", corrected)).sort(
        "share", descending=True, maintain_order=True
    )


def _share(ranks: Floats, codes: Codes, drawn: Floats | None) -> tuple[float, float]:
    if np.ptp(ranks) == 0.0:
        return 0.0, 1.0
    share = float(rank_variance_shares(ranks, codes))
    if drawn is None:
        return share, float(stats.chi2.sf((len(ranks) - 1) * share, codes.max()))
    far = int((rank_variance_shares(drawn, codes) >= share * _TIE).sum())
    return share, (far + 1) / (DRAWN + 1)


def _grouped(column: pl.Series) -> tuple[str, Codes | None]:
    """Return whether groups are values or ranges, and the group of each run in the order in which groups appear."""
    kind = column.dtype
    if kind.is_nested() or kind in (pl.Object, pl.Binary):
        return "values", None
    is_number = kind.is_numeric() or kind.is_temporal()
    if is_number and column.n_unique() > len(column) / 2:
        places = column.rank("dense").cast(pl.Float64)
        bins = min(_MOST_BINS, max(2, len(column) // _MOST_BINS))
        cut = (column.rank("average") - 0.5) * bins / max(column.drop_nulls().len(), 1)
        return "ranges", _codes(cut.floor() if places.n_unique() > 2 else places)
    return "values", _codes(column)


def _codes(column: pl.Series) -> Codes:
    first: dict[object, int] = {}
    labels = ["NaN" if isinstance(value, float) and value != value else value for value in column.to_list()]
    return np.array([first.setdefault(label, len(first)) for label in labels], np.int64)


def _trend(column: pl.Series, ranks: Floats) -> float | None:
    """Return Spearman's rank correlation of a column of numbers with the result, None where there is none."""
    if not column.dtype.is_numeric():
        return None
    values = floats(column.to_frame(), column.name)
    keep = ~np.isnan(values)
    if keep.sum() < 3:
        return None
    one, other = stats.rankdata(values[keep]), stats.rankdata(ranks[keep])
    if np.ptp(one) == 0.0 or np.ptp(other) == 0.0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _other_columns(frame: pl.DataFrame, value: str) -> tuple[str, ...]:
    check_columns(frame, [value])
    return tuple(name for name in frame.columns if name != value and not name.startswith(_RESULTS))


def _notes(result: Floats, n_missing: int, value: str, skipped: Sequence[str]) -> tuple[str, ...]:
    n_diverged = int((~np.isfinite(result)).sum())
    notes = [f"{n_diverged} of {plural(len(result), 'run')} diverged (NaN or infinite {value}) and are ranked worst."]
    notes = notes * (n_diverged > 0)
    notes += [f"{plural(n_missing, 'run')} without {value} are left out."] * (n_missing > 0)
    notes += [f"{listing(skipped)} hold lists or bytes and are not looked at."] * bool(skipped)
    return tuple(notes)
