"""What a rule says of an experiment: an insight, or why it is silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import polars as pl

from ckptlake.analytics.charts import Chart
from ckptlake.analytics.results import Result

ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Insight(Result):
    """Something about an experiment that matters.

    Attributes:
        rule: the rule that found it.
        text: what was found, with its figures.
        action: what to do about it.
        weight: how much it matters: a whole number from 1 (good to know) to 5 (results are lost), plus the share of the
            experiment, below 1, that it speaks of.
        evidence: the rows it rests on.
        drawing: a chart of these.
    """

    rule: str
    text: str
    action: str
    weight: float
    evidence: pl.DataFrame
    drawing: Chart

    def sentence(self) -> str:
        return f"{self.text} {self.action}"

    def chart(self) -> Chart:
        return self.drawing


@dataclass(frozen=True, slots=True)
class Silence:
    """A rule that has nothing to say.

    Attributes:
        rule: its name.
        reason: what it looked at and found in order, or what it lacks.
    """

    rule: str
    reason: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


Finding: TypeAlias = Insight | Silence


def weight(importance: int, share: float) -> float:
    """Return a weight: importance from 1 to 5, and the share of the experiment concerned behind the point.

    >>> weight(5, 0.25), weight(1, 1.0)
    (5.25, 1.99)
    """
    return importance + min(share, 0.99)
