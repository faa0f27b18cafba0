"""What every analysis returns: a frozen value that tells how it was obtained, as a row, a sentence and a chart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ckptlake.analytics.wording import digits_apart, number

if TYPE_CHECKING:
    from ckptlake.analytics.charts import Chart


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a quantity lies, with a stated confidence.

    Attributes:
        low: the lower end, in the unit of the quantity; -inf where only an upper bound is claimed.
        high: the upper end; inf where only a lower bound is claimed.
        level: the confidence, between 0 and 1.
        method: how the ends were found, such as ``"Student t"``.
    """

    low: float
    high: float
    level: float
    method: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def digits(self) -> int:
        """How many significant digits tell its ends apart."""
        return digits_apart(self.low, self.high)

    def __str__(self) -> str:
        return f"{100 * self.level:g} % interval {number(self.low, self.digits)} to {number(self.high, self.digits)}"


@dataclass(frozen=True, slots=True)
class Check:
    """One assumption of a method, looked at in the data.

    Attributes:
        assumption: what the method takes for granted, such as ``"normal values in 'lr=0.1'"``.
        holds: whether the data agree; None where there are too few to tell.
        evidence: the test and its figures, in words.
    """

    assumption: str
    holds: bool | None
    evidence: str

    def __str__(self) -> str:
        verdict = {True: "agrees", False: "does not hold", None: "cannot be told"}[self.holds]
        return f"{self.assumption}: {verdict} ({self.evidence})"


def doubt(checks: Iterable[Check]) -> str:
    """Return the first assumption that the data deny, as a clause; empty where they deny none.

    >>> doubt([Check("values are normal", True, "p = 0.4"), Check("spreads are equal", False, "p = 0.01")])
    'it does not hold that spreads are equal (p = 0.01)'
    """
    denied = (check for check in checks if check.holds is False)
    return next((f"it does not hold that {check.assumption} ({check.evidence})" for check in denied), "")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result(ABC):
    """What one analysis found.

    Attributes:
        n: how many values it rests on.
        unit: the unit of the values, empty where none is known.
        method: how it was found, in words that name the procedure.
        checks: the assumptions of that method, as the data show them.
        interval: where the estimate lies, or None where the method has none.
        notes: what a reader must know before relying on it, such as values that were left out and why.
    """

    n: int
    method: str
    unit: str = ""
    checks: tuple[Check, ...] = ()
    interval: Interval | None = None
    notes: tuple[str, ...] = ()

    @abstractmethod
    def sentence(self) -> str:
        """Return what was found, with its figures, in one or two plain sentences."""

    @abstractmethod
    def chart(self) -> Chart:
        """Return a chart of what was found."""

    def row(self) -> dict[str, Any]:
        """Return what was found as one row: its plain attributes, the interval as `low`, `high` and `level`."""
        row: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "interval":
                if value is not None:
                    row |= {"low": value.low, "high": value.high, "level": value.level}
            elif field.name == "checks":
                row["doubts"] = "; ".join(str(check) for check in value if check.holds is False)
            elif field.name == "notes":
                row["notes"] = "; ".join(value)
            elif value is None or isinstance(value, bool | int | float | str):
                row[field.name] = value
        return row

    def __str__(self) -> str:
        return self.sentence()

    def _repr_mimebundle_(self, **_: object) -> Mapping[str, Any]:
        return {**self.chart()._repr_mimebundle_(), "text/plain": self.sentence()}
