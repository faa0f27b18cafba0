"""What a comparison of configurations found, as a table, a sentence and charts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from ckptlake.analytics.charts import Axis, Chart, interval_chart
from ckptlake.analytics.comparison.effects import Effect
from ckptlake.analytics.comparison.outcome import Outcome
from ckptlake.analytics.comparison.posterior import chance
from ckptlake.analytics.comparison.posthoc import CriticalDifference
from ckptlake.analytics.results import Interval, Result
from ckptlake.analytics.wording import digits_apart, listing, number, p_value
from ckptlake.types import Direction


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """Two of the configurations.

    Attributes:
        first: the name of one.
        second: the name of the other.
        outcome: what the test says of them; its estimate is the mean of the first minus that of the second.
        p_adjusted: the p-value corrected for the number of pairs; None where it cannot be told.
        effect: how large the difference is, or None where that cannot be told.
        p_first_better: the posterior probability that the first has the better mean, or None.
    """

    first: str
    second: str
    outcome: Outcome
    p_adjusted: float | None
    effect: Effect | None
    p_first_better: float | None

    def turned(self) -> Contrast:
        """Return the same with first and second changed."""
        outcome = replace(
            self.outcome,
            estimate=None if self.outcome.estimate is None else -self.outcome.estimate,
            interval=None if self.outcome.interval is None else _mirrored(self.outcome.interval, 0.0),
        )
        effect = self.effect
        if effect is not None:
            interval = None if effect.interval is None else _mirrored(effect.interval, effect.none)
            effect = replace(effect, value=2 * effect.none - effect.value, interval=interval)
        chance = None if self.p_first_better is None else 1 - self.p_first_better
        return Contrast(self.second, self.first, outcome, self.p_adjusted, effect, chance)

    def row(self) -> dict[str, Any]:
        """Return both names, the difference and effect size with their intervals, and the p-values."""
        interval, effect = self.outcome.interval, self.effect
        within = None if effect is None else effect.interval
        return {
            "first": self.first,
            "second": self.second,
            "difference": self.outcome.estimate,
            "low": None if interval is None else interval.low,
            "high": None if interval is None else interval.high,
            "method": self.outcome.method,
            "statistic": self.outcome.statistic,
            "p_value": self.outcome.p_value,
            "p_adjusted": self.p_adjusted,
            "effect": None if effect is None else effect.name,
            "effect_value": None if effect is None else effect.value,
            "effect_low": None if within is None else within.low,
            "effect_high": None if within is None else within.high,
            "p_first_better": self.p_first_better,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison(Result):
    """Which of two or more configurations is best, and how sure that is.

    Attributes:
        value: the column that is compared.
        direction: whether lower or higher is better.
        best: the name of the configuration with the best mean; where ranks are tested, with the best mean rank.
        second: the next best; with two configurations, the other one.
        difference: the mean of the best minus that of the second; None where one has no finite run.
        p_value: with two configurations of their difference, with more of all of them; None where it cannot be told.
        p_second: the p-value of the best against the second, corrected for the number of pairs; None as above.
        p_better: the posterior probability that the best has a better mean than the second, or None.
        effect: how large the difference of the best from the second is, or None.
        why: why this test was taken.
        level: the confidence of intervals, and one minus the p-value below which a difference is told.
        correction: how p-values of pairs are corrected; empty with two configurations.
        is_ranked: whether ranks are tested, with diverged runs behind all that finished, and not means.
        findings: sentences about diverged and missing runs, told first.
        table: one row a configuration, the best first: `label`, `n`, `n_diverged`, `mean`, `std`, `low`, `high`,
            `mean_rank`; means are of the runs that finished.
        contrasts: every pair, with its own test.
        critical: mean ranks and critical difference after Friedman's test, else None.
    """

    value: str
    direction: Direction
    best: str
    second: str
    difference: float | None
    p_value: float | None
    p_second: float | None
    p_better: float | None
    effect: Effect | None
    why: str
    level: float
    correction: str
    is_ranked: bool
    findings: tuple[str, ...]
    table: pl.DataFrame
    contrasts: tuple[Contrast, ...]
    critical: CriticalDifference | None = None

    @property
    def pairs(self) -> pl.DataFrame:
        """One row a pair: its difference, interval, p-values and effect size; differences are first minus second."""
        rows = [contrast.row() for contrast in self.contrasts]
        words = {"first", "second", "method", "effect"}
        kinds = {name: pl.String if name in words else pl.Float64 for name in rows[0]}
        return pl.DataFrame(rows, schema=kinds)

    @property
    def told_apart(self) -> tuple[str, ...]:
        """The configurations that the best one is told from."""
        return tuple(other for other, p in self._against_best() if p is not None and p < 1 - self.level)

    def sentence(self) -> str:
        found = self._of_two() if len(self.table) == 2 else self._of_many()
        return " ".join([*self.findings, found])

    def row(self) -> dict[str, Any]:
        row = Result.row(self)
        if self.effect is not None:
            row |= {"effect": self.effect.name, "effect_value": self.effect.value}
            if self.effect.interval is not None:
                row |= {"effect_low": self.effect.interval.low, "effect_high": self.effect.interval.high}
        return row

    def chart(self) -> Chart:
        """Return the mean of each configuration with its own interval."""
        axis = Axis("mean", f"mean {self._named}")
        title = f"{self.value}: mean and {100 * self.level:g} % interval"
        return interval_chart(title, self.table.to_dicts(), label="label", value=axis, low="low", high="high")

    def chart_of_differences(self) -> Chart:
        """Return the difference of each pair with its interval, or of mean ranks after Friedman's test."""
        if self.critical is not None:
            half = self.critical.difference / 2
            labels = self.table["label"].to_list()
            ranks = dict(zip(self.critical_labels, self.critical.mean_ranks.tolist(), strict=True))
            rows = [
                {"who": who, "rank": ranks[who], "low": ranks[who] - half, "high": ranks[who] + half} for who in labels
            ]
            title = f"{self.value}: mean ranks; told apart where bars do not overlap"
            return interval_chart(title, rows, label="who", value=Axis("rank", "mean rank"), low="low", high="high")
        rows = [{**contrast.row(), "pair": f"{contrast.first} − {contrast.second}"} for contrast in self.contrasts]
        axis = Axis("difference", f"difference of {self._named}")
        title = f"{self.value}: differences{'' if len(rows) == 1 else ', joint intervals'}"
        return interval_chart(title, rows, label="pair", value=axis, low="low", high="high", reference=0.0)

    @property
    def critical_labels(self) -> tuple[str, ...]:
        """The configurations in the order of `critical.mean_ranks`."""
        return tuple(dict.fromkeys(name for contrast in self.contrasts for name in (contrast.first, contrast.second)))

    @property
    def _named(self) -> str:
        return f"{self.value} ({self.unit})" if self.unit else self.value

    @property
    def _of_finished(self) -> str:
        return " (means of runs that finished)" if self.table["n_diverged"].sum() else ""

    def _against_best(self) -> list[tuple[str, float | None]]:
        pairs = [(contrast.first, contrast.second, contrast.p_adjusted) for contrast in self.contrasts]
        return [(b if a == self.best else a, p) for a, b, p in pairs if self.best in (a, b)]

    def _of_two(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        own, other = (self._mean_of(label) for label in (self.best, self.second))
        if own is None or other is None:
            figures = f"the mean of its finished runs is {number(own, 4)}{unit}, {self.second} has none"
        else:
            digits = digits_apart(own, other)
            figures = f"{number(own, digits)} against {number(other, digits)}{unit}{self._of_finished}, "
            figures += f"a difference of {self._difference()}"
        if self.p_value is None:
            why = "; ".join(self.notes[len(self.findings) :])
            return f"Whether {self.best} or {self.second} is better in {self.value} cannot be told: {figures} ({why})."
        if self.p_value >= 1 - self.level:
            head = f"No difference in {self.value} can be told between {self.best} and {self.second}"
        elif self.is_ranked:
            head = f"{self.best} ranks better in {self.value}"
        else:
            head = f"{self.best} has the {'lower' if self.direction == 'min' else 'higher'} {self.value}"
        return f"{head}: {figures}, {self._certainty()}."

    def _of_many(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        own, apart = self._mean_of(self.best), self.told_apart
        word = "mean rank" if self.is_ranked else "mean"
        head = f"{self.best} has the best {word} in {self.value} of {len(self.table)} configurations"
        if own is not None:
            head += f", {'mean ' if self.is_ranked else ''}{number(own, 5)}{unit}{self._of_finished}"
        rest = [name for name, _ in self._against_best() if name not in apart]
        told = f"it is told from {listing(apart)}" if apart else "it is told from none of the others"
        if apart and rest:
            told += f", not from {listing(rest)}"
        next_best = (
            f"; against {self.second} the difference is {self._difference()}" if self.difference is not None else ""
        )
        corrected = f"p-values by {self.correction.title() if self.correction.islower() else self.correction}"
        over_all = "cannot be told" if self.p_value is None else p_value(self.p_value)
        return f"{head}; {told} ({corrected}){next_best}. Over all: {self.method}, {over_all}."

    def _difference(self) -> str:
        assert self.difference is not None
        unit = f" {self.unit}" if self.unit else ""
        text = f"{number(abs(self.difference), 3)}{unit}"
        if self.interval is None:
            return text
        return f"{text} ({_mirrored(self.interval, 0.0) if self.difference < 0 else self.interval})"

    def _certainty(self) -> str:
        told = [self.method, "cannot be told" if self.p_value is None else p_value(self.p_value)]
        if self.effect is not None:
            told.append(str(self.effect))
        if self.p_better is not None:
            told.append(f"probability of the better mean {chance(self.p_better)}")
        return ", ".join(told)

    def _mean_of(self, label: str) -> float | None:
        found: float | None = self.table.filter(pl.col("label") == label)["mean"][0]
        return found


def _mirrored(interval: Interval, around: float) -> Interval:
    return replace(interval, low=2 * around - interval.high, high=2 * around - interval.low)
