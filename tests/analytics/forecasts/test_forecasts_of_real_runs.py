"""Ends of real training runs, forecast from the first half of their curves."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from benchmarks.real_forecasts import forecasts_of_halves

LOGS = Path(__file__).resolve().parents[3] / "../shared/data/speedrun.parquet"


@pytest.mark.skipif(not LOGS.exists(), reason="the public logs are not beside the repository")
def test_forecasts_beat_the_baselines_and_their_intervals_hold() -> None:
    table = pl.DataFrame(forecasts_of_halves(pl.read_parquet(LOGS)))
    assert dict(table["curve"].value_counts().iter_rows()) == {"val_loss": 12, "train_loss": 78}
    for _, part in [(None, table), *table.group_by("curve")]:
        errors = {
            name: (part[name] - part["truth"]).abs().median() for name in ("forecast", "last_value", "best_so_far")
        }
        assert errors["forecast"] < 0.02
        assert errors["forecast"] < min(errors["last_value"], errors["best_so_far"]) / 3
    inside = table.select(pl.col("truth").is_between("low", "high").mean()).item()
    assert 0.85 <= inside <= 0.95
