"""Comparing configurations: the runs of a frame in, a comparison out."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import stats

from ckptlake.analytics.arguments import check_direction, check_level
from ckptlake.analytics.comparison.chooser import Test, choose
from ckptlake.analytics.comparison.comparison import Comparison
from ckptlake.analytics.comparison.contrasts import Question, of_all, of_pairs
from ckptlake.analytics.comparison.runs import runs_of
from ckptlake.analytics.comparison.two_samples import one_sample_t
from ckptlake.analytics.frames import Columns, Floats
from ckptlake.analytics.results import Check
from ckptlake.analytics.statistics.checks import equal_variances, normality
from ckptlake.analytics.statistics.corrections import Correction
from ckptlake.analytics.wording import plural
from ckptlake.errors import NotEnoughDataError
from ckptlake.types import Direction


def compare(
    frame: pl.DataFrame, value: str, *, by: Columns, direction: Direction = "min", pair_by: str | None = None,
    test: Test | None = None, correction: Correction = "holm", level: float = 0.95, unit: str = "", seed: int = 0,
) -> Comparison:  # fmt: skip
    """Compare two or more configurations: which is best, by how much, and how sure that is.

    By default means are compared by rearrangement, which needs no normal values and bears unequal variances; `choose`
    tells when another test is taken. A run that diverged (NaN or infinite) is told first; it then counts by its rank,
    behind all runs that finished, and means are those of the runs that finished. With more than two configurations a
    test of all comes first, p-values of pairs are corrected for their number, and intervals of pairs hold jointly.

    Args:
        frame: one row a run.
        value: the column with the values.
        by: the columns that tell configurations apart.
        direction: ``"min"`` where lower is better.
        pair_by: the column that pairs runs of different configurations, such as ``"seed"``.
        test: forces a test: ``"permutation"``, ``"welch"``, ``"mann-whitney"``, ``"kolmogorov-smirnov"``, ``"anova"``,
            ``"kruskal"``; of pairs ``"sign-flip"``, ``"paired-t"``, ``"wilcoxon"``, ``"friedman"``. With more than two
            configurations ``"welch"`` is followed by Games-Howell, ``"anova"`` by Tukey, ``"kruskal"`` by Dunn and
            ``"friedman"`` by Nemenyi.
        correction: of p-values of pairs, where they are not joint already.
        level: the confidence of intervals; a difference is told where its p-value is below one minus this.
        unit: of the values.
        seed: of arrangements that are drawn.

    Raises:
        InvalidInputError: a column, the direction, the level or the test does not fit, or there are fewer than two or
            more than 100 configurations.
        NotEnoughDataError: no run has a finite value, or a configuration has too few for the forced test.

    Example:
        >>> loss = [3.1, 3.2, 3.0, 3.15, 3.05, 3.4, 3.5, 3.3, 3.45, 3.6]
        >>> frame = pl.DataFrame({"lr": [1] * 5 + [2] * 5, "loss": loss})
        >>> found = compare(frame, "loss", by="lr")
        >>> found.best, round(found.p_value, 4)
        ('lr=1', 0.0079)
    """
    check_direction(direction)
    check_level(level)
    runs = runs_of(frame, value, by, pair_by)
    sizes = [sample.n for sample in runs.samples]
    if not any(sizes):
        raise NotEnoughDataError(
            f"no run has a finite {value!r:.100} that can be compared. {' '.join(runs.findings)}".rstrip()
        )
    choice = choose(sizes, paired=runs.is_paired, diverged=runs.n_diverged > 0, level=level, test=test)
    asked = Question(runs, direction, choice, correction, level, seed)
    if test is not None and len(asked.testable) < len(sizes):
        few = next(place for place in range(len(sizes)) if place not in asked.testable)
        raise NotEnoughDataError(
            f"{runs.samples[few].label} has {plural(len(asked.values[few]), 'finite value')}, too few for "
            f"test={test!r}: repeat it with other seeds"
        )
    return _answer(asked, value, unit)


def _answer(asked: Question, value: str, unit: str) -> Comparison:
    runs, contrasts = asked.runs, of_pairs(asked)
    table = _table(asked)
    best, second = table["label"].head(2).to_list()
    pair = next(contrast for contrast in contrasts.pairs if {contrast.first, contrast.second} == {best, second})
    shown = pair if pair.first == best else pair.turned()
    outcome = of_all(asked) if len(runs.samples) > 2 else shown.outcome
    notes = dict.fromkeys((*runs.findings, *outcome.notes, *shown.outcome.notes))
    return Comparison(
        n=len(asked.values[0]) if runs.is_paired else sum(map(len, asked.values)),
        unit=unit,
        method=outcome.method,
        checks=() if asked.is_ranked else _checks(asked),
        interval=shown.outcome.interval,
        notes=tuple(notes),
        value=value,
        direction=asked.direction,
        best=best,
        second=second,
        difference=shown.outcome.estimate,
        p_value=outcome.p_value,
        p_second=shown.p_adjusted,
        p_better=shown.p_first_better,
        effect=shown.effect,
        why=asked.choice.why,
        level=asked.level,
        correction=contrasts.correction,
        is_ranked=asked.is_ranked,
        findings=runs.findings,
        table=table,
        contrasts=contrasts.pairs,
        critical=contrasts.critical,
    )


def _checks(asked: Question) -> tuple[Check, ...]:
    normal = tuple(normality(sample) for sample in asked.runs.checked)
    return normal if asked.runs.is_paired else (*normal, equal_variances(asked.runs.samples))


def _table(asked: Question) -> pl.DataFrame:
    """Return one row a configuration, the best first; those without a value come last."""
    runs, rows = asked.runs, []
    ranks = _mean_ranks(asked)
    for place, sample in enumerate(runs.samples):
        interval = one_sample_t(sample.values, level=asked.level).interval if sample.n > 1 else None
        rows.append(
            {
                "label": sample.label,
                "n": sample.n,
                "n_diverged": int((~np.isfinite(runs.reached[place])).sum()),
                "mean": float(sample.values.mean()) if sample.n else None,
                "std": float(sample.values.std(ddof=1)) if sample.n > 1 else None,
                "low": None if interval is None else interval.low,
                "high": None if interval is None else interval.high,
                "mean_rank": ranks[place],
            }
        )
    key, lower_first = ("mean_rank", True) if asked.is_ranked else ("mean", asked.direction == "min")
    kinds = {"mean": pl.Float64, "std": pl.Float64, "low": pl.Float64, "high": pl.Float64, "mean_rank": pl.Float64}
    table = pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None)
    return table.sort(key, descending=not lower_first, nulls_last=True, maintain_order=True)


def _mean_ranks(asked: Question) -> list[float | None]:
    """Return the mean rank of each configuration, 1 the best, with diverged runs behind all that finished."""
    sign = 1.0 if asked.direction == "min" else -1.0
    values = [sign * ranked for ranked in asked.runs.ranked_last(asked.direction)]
    ranks: list[Floats]
    if asked.runs.is_paired:
        ranks = list(stats.rankdata(np.column_stack(values), axis=1).T)
    else:
        ranks = np.split(stats.rankdata(np.concatenate(values)), np.cumsum([len(each) for each in values])[:-1])
    return [float(each.mean()) if len(each) else None for each in ranks]
