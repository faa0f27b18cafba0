"""Everything that can be asked about the results of runs."""

from __future__ import annotations

from ckptlake.query.analysis.params import ParamQuestions
from ckptlake.query.analysis.results import ResultQuestions
from ckptlake.query.analysis.trends import TrendQuestions


class Analysis(ResultQuestions, TrendQuestions, ParamQuestions):
    """Questions about the results of runs, one call each: ``lake.analysis``, or ``query.analyze()`` for some runs.

    Each call reads what it needs as a frame and gives it to a function of `ckptlake.analytics`, which takes frames from
    elsewhere too. What comes back is a frozen value: `print` it for a sentence, ``.row()`` is a row, ``.chart()`` a
    chart; it tells how many values it rests on, the method, which assumptions the data keep, and the interval.
    """

    def __repr__(self) -> str:
        return f"<Analysis of {self.runs.count():,} runs>"
