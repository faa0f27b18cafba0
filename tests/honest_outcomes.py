"""Whether an outcome is honest: numbers that are finite, or an error of the library that says what to do."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import polars as pl

from ckptlake.analytics.charts import Chart
from ckptlake.analytics.curve import Curve
from ckptlake.analytics.results import Interval, Result
from ckptlake.errors import CkptlakeError

MAY_BE_INFINITE = {
    "low", "high", "at_most", "statistic", "effect_low", "effect_high", "gap", "t", "distance", "penalty", "step",
}  # fmt: skip
"""Bounds that the data do not set, and statistics of values that do not vary."""
AS_GIVEN = {"values", "value", "loss", "lr", "width", "seed", "time", "step", "last"}
"""Columns and arrays that hold the input itself, NaN included."""
_PROBABILITIES = ("p", "p_value", "p_adjusted", "p_holm", "p_second", "p_first_better", "p_same", "p_second_better",
                  "p_better", "probability", "share_of_runs")  # fmt: skip


def faults(call: Callable[[], Any]) -> list[str]:
    """Return what is not honest about the outcome of a call; nothing where all is well."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = call()
            return [*_faults(found, "result"), *_faults_of_words(found)]
        except CkptlakeError as error:
            return [] if len(str(error)) > 20 else [f"an error that says little: {error}"]
        except (Exception, RuntimeWarning) as error:
            return [f"{type(error).__name__}: {str(error)[:160]}"]


def _faults_of_words(found: Any) -> list[str]:
    if not isinstance(found, Result):
        return []
    told = found.sentence()
    assert isinstance(found.chart(), Chart)
    of_numbers = re.sub(r"\w+=nan|runs of nan|\bnan:", "", told)  # a configuration may be called so
    said = ["the sentence says nan: " + told] if re.search(r"\bnan\b", of_numbers) else []
    return said + [f"a row with {name}={value}" for name, value in found.row().items() if _is_nan(value)]


def _faults(found: Any, where: str) -> list[str]:
    name = where.rsplit(".", 1)[-1]
    if isinstance(found, bool | np.bool_ | str | bytes | None):
        return []
    if isinstance(found, int | float | np.number):
        return _faults_of_number(float(found), where, name)
    if isinstance(found, Curve):
        return []
    if isinstance(found, Interval):
        is_ordered = found.low <= found.high
        return [] if is_ordered else [f"{where} is {found.low} to {found.high}"]
    if isinstance(found, np.ndarray):
        return _faults_of_array(found, where, name)
    if isinstance(found, pl.DataFrame):
        return [fault for column in found for fault in _faults_of_column(column, f"{where}.{column.name}")]
    if isinstance(found, pl.Series):
        return _faults_of_column(found, where)
    if isinstance(found, Mapping):
        return [fault for key, value in found.items() for fault in _faults(value, f"{where}.{key}")]
    if is_dataclass(found) and not isinstance(found, type):
        members = [(field.name, getattr(found, field.name)) for field in fields(found)]
        members += [("table", found.table)] if isinstance(getattr(type(found), "table", None), property) else []
        return [fault for key, value in members for fault in _faults(value, f"{where}.{key}")]
    if isinstance(found, Sequence):
        return [fault for value in found for fault in _faults(value, where)]
    return []


def _faults_of_number(value: float, where: str, name: str) -> list[str]:
    if math.isnan(value):
        return [f"{where} is NaN"]
    if math.isinf(value) and name not in MAY_BE_INFINITE:
        return [f"{where} is {value}"]
    if name in _PROBABILITIES and not 0 <= value <= 1:
        return [f"{where} is {value}, no probability"]
    return []


def _faults_of_array(found: np.ndarray, where: str, name: str) -> list[str]:
    if found.dtype.kind not in "fc" or name in AS_GIVEN:
        return []
    kind = np.isnan(found) if name in MAY_BE_INFINITE else ~np.isfinite(found)
    return [f"{where} has {int(kind.sum())} of {found.size} NaN or infinite"] if kind.any() else []


def _faults_of_column(column: pl.Series, where: str) -> list[str]:
    if not column.dtype.is_float():
        return []
    return _faults_of_array(column.drop_nulls().to_numpy(), where, column.name)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
