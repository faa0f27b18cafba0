"""What the analysis says of real training runs, the public logs of a speed run, whose ends are known.

``SPEEDRUN_LOGS`` names the file; without it that is looked for beside the clone, and there are no rows where it is not.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

import ckptlake
from benchmarks.harness import Context, Row, Target
from benchmarks.real_forecasts import forecasts_of_halves
from ckptlake.analytics.comparison import against
from ckptlake.analytics.statistics import readings
from ckptlake.analytics.trends import alarm_rate, verdicts

LOGS = Path(os.environ.get("SPEEDRUN_LOGS", Path(ckptlake.__file__).parents[1] / "../shared/data/speedrun.parquet"))
_TARGET = 3.28
_FEWEST_RUNS = 5
_FORECASTS = ("forecast", "last_value", "best_so_far")


def run(_context: Context) -> list[Row]:
    """Return the rows of this benchmark, and print those of each record."""
    if not LOGS.exists():
        print(f"no real runs: {LOGS} is not there; SPEEDRUN_LOGS=<file> names it")
        return []
    logs = pl.read_parquet(LOGS)
    return [_records(logs), *_false_alarms(logs), *_forecasts(logs)]


def _records(logs: pl.DataFrame) -> Row:
    """Test of each record with enough runs whether its mean final loss is under the target, as its rules ask."""
    ends = readings(logs.filter(metric="val_loss"), run=["record", "run"])
    table = []
    for (record,), runs in ends.partition_by("record", maintain_order=True, as_dict=True).items():
        if runs.height >= _FEWEST_RUNS:
            found = against(runs, _TARGET, value="value", level=0.99, unit="nats")
            row = {"record": record, "n": found.n, "mean": found.mean, "p": found.p_value, "under": found.is_reached}
            table.append(row | {"at most": found.interval.high if found.interval else None, "test": found.method})
    frame = pl.DataFrame(table)
    _print(
        f"mean final val_loss under {_TARGET} nats at p < 0.01, records of at least {_FEWEST_RUNS} runs",
        frame.with_columns(pl.col("mean", "p", "at most").round(5)),
    )
    return Row(
        what=f"records whose mean final val_loss is under {_TARGET} at p < 0.01",
        figure=int(frame["under"].sum()),
        unit="records",
        reference=frame.height,
        against=f"records with at least {_FEWEST_RUNS} runs",
        details={"records": table},
    )


def _false_alarms(logs: pl.DataFrame) -> list[Row]:
    rows = []
    for metric in ("val_loss", "train_loss"):
        rate = alarm_rate(verdicts(logs.filter(metric=metric), "min", run=["record", "run"]))
        rows.append(
            Row(
                what=f"runs that ended well, called lost by their {metric}",
                figure=rate.n_alarms,
                unit="runs",
                reference=rate.n,
                against="runs",
                target=Target("at most", 0.01, "ratio"),
                details=rate.row(),
            )
        )
    return rows


def _forecasts(logs: pl.DataFrame) -> list[Row]:
    table = pl.DataFrame(forecasts_of_halves(logs))
    table = table.with_columns(
        *((pl.col(name) - pl.col("truth")).abs().alias(f"error of {name}") for name in _FORECASTS),
        pl.col("truth").is_between("low", "high").alias("is inside"),
    )
    errors = {name: float(np.median(table[f"error of {name}"].to_numpy())) for name in _FORECASTS}
    by_record = table.group_by("record", "curve", maintain_order=True).agg(
        pl.len().alias("runs"),
        *(pl.col(f"error of {name}").median().round(4) for name in _FORECASTS),
        pl.col("is inside").sum(),
    )
    _print("final val_loss from the first half of a curve: median absolute errors, and ends inside 90 %", by_record)
    what = "final val_loss from the first half of a curve, median absolute error"
    rows = [
        Row(
            what=f"{what}, {table.height} runs",
            figure=errors["forecast"],
            unit="nats",
            reference=errors[baseline],
            against=f"nats: {baseline.replace('_', ' ')}",
            target=Target("at most", 1, "ratio"),
            details={"forecasts": table.to_dicts()},
        )
        for baseline in ("last_value", "best_so_far")
    ]
    inside = int(table["is inside"].sum())
    share = {"figure": inside, "unit": "runs", "reference": table.height, "against": "runs"}
    what = "ends inside the 90 % interval"
    return [
        *rows,
        Row(what=f"{what}, at least", target=Target("at least", 0.85, "ratio"), **share),
        Row(what=f"{what}, at most", target=Target("at most", 0.95, "ratio"), **share),
    ]


def _print(title: str, table: pl.DataFrame) -> None:
    with pl.Config(tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=48, tbl_hide_dataframe_shape=True, tbl_width_chars=160):
        print(f"{title}\n{table}\n")
