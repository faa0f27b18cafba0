"""Every benchmark runs, scaled down, and each of its rows can be read; how fast it was is not judged here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAST = (
    "imports", "log_call", "sustained", "storage", "opening", "best_values", "one_curve", "cached", "search", "queries",
    "checkpoints", "writers", "analytics",
)  # fmt: skip


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "benchmarks", *FAST, "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, out


@pytest.mark.parametrize("name", FAST)
def test_every_row_has_a_figure_a_reference_and_a_ratio(printed: tuple[str, Path], name: str) -> None:
    text, out = printed
    result = json.loads((out / f"{name}.json").read_text())
    assert result["quick"] is True
    assert result["machine"]["cores"] >= 1
    assert {"ckptlake", "duckdb", "deltalake"} <= set(result["versions"])
    assert result["rows"]
    for row in result["rows"]:
        assert math.isfinite(row["figure"])
        assert row["reference"] > 0
        assert row["against"]
        assert math.isfinite(row["ratio"])
        assert row["verdict"] in ("pass", "MISS", "watch")
        assert row["what"] in text


def test_the_files_of_one_curve_are_counted(printed: tuple[str, Path]) -> None:
    rows = json.loads((printed[1] / "one_curve.json").read_text())["rows"]
    opened = [row for row in rows if row["unit"] == "files"]
    assert len(opened) == 2
    assert all(row["figure"] >= 1 for row in opened)


def test_rows_of_many_writers_are_all_there(printed: tuple[str, Path]) -> None:
    rows = json.loads((printed[1] / "writers.json").read_text())["rows"]
    assert [row["verdict"] for row in rows if row["unit"] == "rows"] == ["pass"]


def test_an_unknown_name_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "nothing"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no benchmark is called nothing" in done.stderr
