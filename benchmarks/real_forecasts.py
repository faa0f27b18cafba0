"""Forecasts of the final validation loss of real runs from the first half of their curves, with nothing of the record.

A run is forecast from runs of other records alone: of a record with subfolders none of them counts, nor does any record
that holds the same run once more. Nothing past the half of the forecast curve is looked at.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import polars as pl

from ckptlake.analytics.curve import Curve, curves_of
from ckptlake.analytics.forecasts import Calibration, calibrate, forecast

# Curves of these many points are long enough for a forecast from their half.
FEWEST_POINTS = {"val_loss": 50, "train_loss": 1000}
LEVEL = 0.9
Run: TypeAlias = tuple[str, str]
Curves: TypeAlias = dict[Run, Curve]


def forecasts_of_halves(logs: pl.DataFrame) -> list[dict[str, Any]]:
    """Return one row a curve: record, run, curve, truth, forecast, low, high, last_value, best_so_far.

    Args:
        logs: columns record, run, metric, step, total_steps, value.
    """
    finals = _finals(logs)
    return [
        row
        for metric, fewest in FEWEST_POINTS.items()
        for row in _forecasts(metric, _curves(logs, metric), finals, fewest)
    ]


def _curves(logs: pl.DataFrame, metric: str) -> Curves:
    runs = logs.filter(metric=metric).partition_by("record", "run", maintain_order=True, as_dict=True)
    return {(str(record), str(run)): curves_of(frame, run="run")[0] for (record, run), frame in runs.items()}


def _finals(logs: pl.DataFrame) -> dict[Run, tuple[float, float]]:
    """Return the last step and validation loss of each run that went to its planned end."""
    planned = {
        (record, run): total
        for record, run, total in logs.group_by("record", "run").agg(pl.col("total_steps").max()).iter_rows()
    }
    validation = _curves(logs, "val_loss")
    return {
        run: (float(curve.steps[-1]), float(curve.values[-1]))
        for run, curve in validation.items()
        if curve.steps[-1] >= planned[run]
    }


def _forecasts(
    metric: str, curves: Curves, finals: dict[Run, tuple[float, float]], fewest: int
) -> list[dict[str, Any]]:
    finished = {run: curve for run, curve in curves.items() if run in finals}
    families: dict[str, set[str]] = {}
    for record, run in curves:
        families.setdefault(run, set()).add(_family(record))
    known: dict[frozenset[str], Calibration] = {}
    rows = []
    for (record, run), curve in finished.items():
        if curve.n < fewest:
            continue
        held_out = frozenset(families[run])
        if held_out not in known:
            known[held_out] = _calibration(finished, finals, held_out)
        horizon, truth = finals[record, run]
        found = forecast(curve.until(horizon / 2), horizon, calibration=known[held_out], level=LEVEL)
        low, high = (None, None) if found.interval is None else (found.interval.low, found.interval.high)
        rows.append(
            {
                "record": record, "run": run, "curve": metric, "truth": truth, "forecast": found.value,
                "low": low, "high": high, "last_value": found.last_value, "best_so_far": found.best_so_far,
            }
        )  # fmt: skip
    return rows


def _calibration(finished: Curves, finals: dict[Run, tuple[float, float]], held_out: frozenset[str]) -> Calibration:
    """Return what all other records teach, each run counted once."""
    once = {run: record for record, run in finished if _family(record) not in held_out}
    runs = [(record, run) for run, record in once.items()]
    return calibrate(
        [finished[run] for run in runs],
        outcomes=[finals[run][1] for run in runs],
        groups=[_family(record) for record, _ in runs],
    )


def _family(record: str) -> str:
    """Return the record that a folder belongs to: its subfolders are variants of one configuration."""
    return record.split("/")[0]
