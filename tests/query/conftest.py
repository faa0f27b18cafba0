"""Lakes to ask: one with many small files, and a way to put chosen rows into any table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from query_corpus import made_lake
from quiet_lakes import Put, quiet

import ckptlake
from ckptlake.config import Capture
from ckptlake.lake import Lake
from ckptlake.query.sources import Sources
from ckptlake.tables.schemas import METRICS, SUMMARIES, get_spec
from ckptlake.tables.sorting import sort_points
from ckptlake.tables.store import Batch
from ckptlake.tables.summaries import summarise

RUNS = {
    "r-a1": "pose",
    "r-a2": "pose",
    "r-b1": "pose/vit",
    "r-c1": "pose/vit/ablation",
    "r-d1": "posey",
    "r-e1": 'it\'s "q"/ü',
    "r-f1": "pose/vit/\U0010ffff",
}


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with ckptlake.open(tmp_path / "lake", settings=quiet()) as lake:
        yield lake


@pytest.fixture(scope="session")
def corpus_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Yield the lake that the queries of the corpus are asked of; nothing may be written to it."""
    with made_lake(tmp_path_factory.mktemp("corpus")) as lake:
        yield lake


_numbers = itertools.count(1)


def put_rows(lake: Lake, table: str, *rows: Mapping[str, Any]) -> None:
    batch = pa.Table.from_pylist([dict(row) for row in rows], schema=get_spec(table).schema)
    number = next(_numbers)
    if table == METRICS.name:
        lake._store(SUMMARIES.name).append([Batch("put", number, summarise(sort_points(batch)))])
    lake._store(table).append([Batch("put", number, batch)])


@pytest.fixture
def put() -> Put:
    """Commit rows, given as dicts, to a table; points get their summaries, as a writer's commit gives them."""
    return put_rows


@pytest.fixture
def point() -> Callable[..., dict[str, Any]]:
    def make(step: int, value: float, **more: Any) -> dict[str, Any]:
        row = {"experiment": "e", "run_id": "r", "metric": "m", "ts": 1000 + step, "attempt": 1}
        return row | {"step": step, "value": value} | more

    return make


@pytest.fixture(scope="session")
def busy_lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Seven runs in sixty files of few points, one run resumed over its own steps, one still logging."""
    with ckptlake.open(tmp_path_factory.mktemp("busy") / "lake", settings=quiet()) as lake:
        runs = {
            run_id: lake.run(experiment, run_id=run_id, params={"lr": 0.1 * i}, capture=Capture.nothing())
            for i, (run_id, experiment) in enumerate(RUNS.items())
        }
        runs["r-a1"].define("val/loss", direction="min")
        for part in range(8):
            for i, (run_id, run) in enumerate(runs.items()):
                if run_id == "r-d1" and part > 3:
                    continue
                for step in range(5 * part, 5 * part + 5):
                    run.log({"train/loss": 1 / (step + i + 1)}, step=step)
                run.log({"val/loss": float((7 * part + i) % 5), "n'a\"me ü": float("nan")}, step=5 * part + 4)
                lake.commit()
        for run_id in ("r-a2", "r-b1", "r-d1", "r-e1", "r-f1"):
            runs[run_id].finish()
        again = lake.run(resume="r-a2", capture=Capture.nothing())
        for step in range(3, 9):
            again.log({"train/loss": 100.0 + step}, step=step)
        again.finish()
        runs["r-c1"].log({"train/loss": -1.0}, step=40)
        runs["r-c1"].log({"only/live": 2.0}, step=2)
        lake.flush()
        yield lake


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Lake], list[Sources]]:
    """Note what each further question to a lake reads."""

    def watch(lake: Lake) -> list[Sources]:
        found: list[Sources] = []
        read = lake._reader.read_at

        def reading(*args: Any, **kwargs: Any) -> Sources:
            found.append(read(*args, **kwargs))
            return found[-1]

        monkeypatch.setattr(lake._reader, "read_at", reading)
        return found

    return watch
