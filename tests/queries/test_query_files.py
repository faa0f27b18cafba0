"""The SQL files in queries/ on a lake whose answers are known."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckptlake
from ckptlake import Capture, Lake

QUERIES = Path(__file__).parents[2] / "queries"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with ckptlake.open(tmp_path_factory.mktemp("queries") / "lake") as lake:
        for lr in (0.1, 0.2):
            for seed in range(3):
                params = {"lr": lr, "seed": seed}
                with lake.run("pose/vit", f"{lr}-{seed}", params, capture=Capture.nothing()) as run:
                    run.define("acc", direction="max")
                    run.log({"acc": lr + seed / 100}, step=0)
                    run.log({"acc": lr}, step=1)
        lake.run("other", "alive", capture=Capture.nothing()).log({"acc": 9.0}, step=0)
        lake.flush()
        yield lake


def answer(lake: Lake, name: str, **values: object) -> list[dict[str, object]]:
    return lake.sql((QUERIES / f"{name}.sql").read_text(), **values).to_arrow_table().to_pylist()


def test_every_file_is_listed() -> None:
    listed = (QUERIES / "README.md").read_text()
    assert all(f"[{path.name}]({path.name})" in listed for path in QUERIES.glob("*.sql"))


def test_leaderboard(lake: Lake) -> None:
    rows = answer(lake, "leaderboard", experiment="pose", metric="acc")
    assert [row["name"] for row in rows] == ["0.2-2", "0.2-1", "0.2-0", "0.1-2", "0.1-1", "0.1-0"]
    assert (rows[0]["best"], rows[0]["at_step"], rows[0]["last"]) == (0.22, 0, 0.2)


def test_seed_summary(lake: Lake) -> None:
    rows = answer(lake, "seed_summary", experiment="pose/vit", metric="acc")
    assert [(row["configuration"], row["n"]) for row in rows] == [("lr=0.1", 3), ("lr=0.2", 3)]
    assert rows[1]["mean"] == pytest.approx(statistics.mean([0.2] * 3))
    assert rows[1]["std"] == pytest.approx(0.0)


def test_stale_runs(lake: Lake) -> None:
    assert answer(lake, "stale_runs", minutes=60) == []
    assert [row["name"] for row in answer(lake, "stale_runs", minutes=-1)] == ["alive"]
