"""What is said of training curves: verdicts with their evidence, and how often they are alarms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from ckptlake.analytics.charts import Axis, Chart, bar_chart, line_chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.results import Result
from ckptlake.analytics.trends.slopes import blocks
from ckptlake.analytics.wording import listing, number, percent, plural

Kind = Literal[
    "not finite", "diverged", "oscillating", "recovered", "improving", "plateau", "worsening", "undecided"
]  # fmt: skip
KINDS: tuple[Kind, ...] = (
    "not finite", "diverged", "oscillating", "recovered", "improving", "plateau", "worsening", "undecided",
)  # fmt: skip
ALARMS: tuple[Kind, ...] = ("not finite", "diverged")
"""The kinds that say a run is lost."""
_DRAWN_POINTS = 1_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing seen in a curve.

    Attributes:
        seen: what.
        step: where; None where it is about the whole.
        value: its figure, in the unit of the values unless `seen` names another.
    """

    seen: str
    step: float | None
    value: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict(Result):
    """How one curve ended.

    Attributes:
        label: the run.
        kind: the verdict, the gravest that the data support.
        step: since when: the onset of divergence or of NaN, the begin of a plateau, the peak of a spike; None where a
            kind has no begin.
        tail: what the last quarter does; None for a run that is lost or has too few points.
        confidence: one less the p-value of the test behind the kind, which `method` names; 1 for what is plainly seen
            and None where undecided. It is not the probability that the verdict is right.
        evidence: what was seen, the most telling first.
        curve: the curve itself.
    """

    label: str
    kind: Kind
    step: float | None
    tail: str | None
    confidence: float | None
    evidence: tuple[Evidence, ...]
    curve: Curve

    @property
    def table(self) -> pl.DataFrame:
        """One row a piece of evidence: ``seen``, ``step`` and ``value``."""
        rows = [{"seen": found.seen, "step": found.step, "value": found.value} for found in self.evidence]
        return pl.DataFrame(rows, schema={"seen": pl.String, "step": pl.Float64, "value": pl.Float64})

    def sentence(self) -> str:
        at = "" if self.step is None else f" {_SINCE[self.kind]} step {number(self.step, 6)}"
        sure = "" if self.confidence is None else f" (confidence {_confidence(self.confidence)})"
        why = "; ".join(f"{found.seen} {number(found.value)}" for found in self.evidence[:2]) or listing(self.notes)
        return f"{self.label}: {_TOLD[self.kind]}{at}{sure}: {why}."

    def chart(self) -> Chart:
        finite = self.curve.finite()
        steps, values = blocks(finite.steps, finite.values, _DRAWN_POINTS)
        rows = [{"x": float(x), "value": float(y)} for x, y in zip(steps, values, strict=True)]
        title = f"{self.label}: {_TOLD[self.kind]}" + (" (medians of blocks)" if len(steps) < finite.n else "")
        marks = [] if self.step is None else [self.step]
        return line_chart(title, rows, x=Axis("x", "step"), y=Axis("value", self.unit or "value"), marks=marks)


_TOLD = {
    "not finite": "became NaN or infinite", "diverged": "diverged", "oscillating": "oscillates",
    "recovered": "spiked and recovered", "improving": "still improves", "plateau": "is on a plateau",
    "worsening": "gets worse", "undecided": "undecided",
}  # fmt: skip
_SINCE = dict.fromkeys(KINDS, "since") | {"recovered": "at", "not finite": "at", "diverged": "from"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts(Result):
    """How many curves ended.

    Attributes:
        verdicts: one a curve, in the order in which runs first appear.
    """

    verdicts: tuple[Verdict, ...]

    @property
    def table(self) -> pl.DataFrame:
        """One row a run: ``run``, ``verdict``, ``step``, ``tail``, ``confidence``, ``points`` and ``evidence``."""
        rows = [
            {
                "run": found.label, "verdict": found.kind, "step": found.step, "tail": found.tail,
                "confidence": found.confidence, "points": found.n, "evidence": found.sentence(),
            }
            for found in self.verdicts
        ]  # fmt: skip
        schema = {
            "run": pl.String, "verdict": pl.String, "step": pl.Float64, "tail": pl.String, "confidence": pl.Float64,
            "points": pl.Int64, "evidence": pl.String,
        }  # fmt: skip
        return pl.DataFrame(rows, schema=schema)

    @property
    def counts(self) -> dict[Kind, int]:
        """How many curves got each verdict, the gravest first; kinds that did not occur are left out."""
        kinds = [found.kind for found in self.verdicts]
        return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}

    @property
    def alarms(self) -> tuple[Verdict, ...]:
        """The verdicts that say a run is lost."""
        return tuple(found for found in self.verdicts if found.kind in ALARMS)

    def sentence(self) -> str:
        told = listing((f"{count:,} {kind}" for kind, count in self.counts.items()), most=len(KINDS))
        lost = f" Lost: {listing(found.label for found in self.alarms)}." if self.alarms else ""
        return f"Of {plural(self.n, 'curve')}: {told}.{lost}"

    def chart(self) -> Chart:
        rows = [{"verdict": kind, "runs": count} for kind, count in self.counts.items()]
        return bar_chart(f"Verdicts on {plural(self.n, 'curve')}", rows, label="verdict", value=Axis("runs", "curves"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlarmRate(Result):
    """How often curves are called lost.

    Attributes:
        share: the share of curves called diverged or not finite; its interval is Clopper and Pearson's.
        n_alarms: how many they are.
        alarms: the verdicts behind them.
    """

    share: float
    n_alarms: int
    alarms: tuple[Verdict, ...]

    def sentence(self) -> str:
        return f"{self.n_alarms} of {plural(self.n, 'curve')} are called lost, {percent(self.share)} ({self.interval})."

    def chart(self) -> Chart:
        assert self.interval is not None
        row = {"what": "called lost", "share": self.share, "low": self.interval.low, "high": self.interval.high}
        value = Axis("share", "share of curves")
        return bar_chart("Alarms", [row], label="what", value=value, low="low", high="high")


def _confidence(share: float) -> str:
    return "above 0.999" if share > 0.999 else f"{share:.3g}"
