"""Rows of views that are kept for questions asked often: they are those of the view, and follow every change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quiet_lakes import quiet

import ckptlake
from ckptlake import Capture, Lake
from ckptlake.query import folded
from ckptlake.query.folded import KEPT_VIEWS

NOTHING = Capture.nothing()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with ckptlake.open(tmp_path / "lake", settings=quiet(result_cache_bytes=0)) as lake:
        for number in range(4):
            params, tags = {"lr": 0.1 * number, "arch": "vit"}, {"stage": f"s{number % 2}"}
            with lake.run("pose", f"n{number}", params, tags, run_id=f"r{number}", capture=NOTHING) as run:
                run.define("loss", direction="min")
                run.log({"loss": float(number)}, step=1)
        lake.commit()
        yield lake


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note of which views the rows are kept."""
    found: list[str] = []
    real = folded._Maker.create

    def create(maker: Any, cursor: Any, table: str) -> None:
        found.append(maker.view)
        real(maker, cursor, table)

    monkeypatch.setattr(folded._Maker, "create", create)
    return found


@pytest.mark.parametrize("view", KEPT_VIEWS)
def test_they_are_those_of_the_view_and_made_once(lake: Lake, made: list[str], view: str) -> None:
    with lake.connect() as connection:
        expected = connection.sql(f"FROM {view} ORDER BY ALL")
        for _ in range(6):
            found = lake.sql(f"FROM {view} ORDER BY ALL")
            assert (found.columns, list(map(str, found.types))) == (expected.columns, list(map(str, expected.types)))
            assert found.fetchall() == expected.fetchall()
    assert made == [view]


def test_they_are_not_made_for_what_is_asked_seldom_or_always_changes(lake: Lake, made: list[str]) -> None:
    for _ in range(2):
        lake.sql("FROM runs").fetchall()
    with lake.run("pose", run_id="live", capture=NOTHING) as run:
        for step in range(5):
            run.set_tags({"at": step})
            run.log({"loss": 1.0}, step=step)
            lake.flush()
            assert lake.sql("SELECT value FROM tags WHERE key = 'at'").fetchall() == [(str(step),)]
            assert lake.sql("SELECT n FROM summaries WHERE run_id = 'live'").fetchall() == [(step + 1,)]
    assert "tags" not in made
    assert "summaries" not in made


def test_a_change_is_seen_at_once_and_so_is_the_past(lake: Lake, made: list[str]) -> None:
    version = lake.table("metrics").version()
    ask = "SELECT count(*), max(attempt) FROM runs"
    for number in range(3):
        for _ in range(4):
            assert lake.sql(ask).fetchall() == [(4 + number, 1)]
        lake.run("pose", run_id=f"more{number}", capture=NOTHING).finish()
    for _ in range(4):
        assert lake.sql(ask, as_of=version).fetchall() == [(4, 1)]
        assert lake.runs.where(ckptlake.col("name") == "n1").count() == 1
    assert made.count("runs") == 3, "past and present ask by turns"


def test_views_beside_kept_ones_are_as_they_were(lake: Lake) -> None:
    for _ in range(5):
        assert lake.sql("SELECT runs FROM experiments").fetchall() == [(4,)]
        assert lake.sql('SELECT "params.lr" FROM runs_wide ORDER BY 1 LIMIT 1').fetchall() == [(0.0,)]
        assert lake.sql("SELECT count(*) FROM runs JOIN metrics USING (run_id)").fetchall() == [(4,)]
        joined = "SELECT count(*) FROM runs JOIN params USING (run_id) JOIN tags USING (run_id)"
        assert lake.sql(joined).fetchall() == [(8,)]


def test_many_threads_ask_while_runs_come_and_go(lake: Lake) -> None:
    errors: list[BaseException] = []
    over = threading.Event()

    def ask() -> None:
        seen = 0
        try:
            while not over.is_set():
                runs = lake.sql("SELECT count(*) FROM runs").fetchall()[0][0]
                params = lake.sql("SELECT count(DISTINCT run_id) FROM params JOIN runs USING (run_id)").fetchall()[0][0]
                assert runs >= seen
                assert params >= seen
                seen = runs
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(12):
        lake.run("pose", params={"lr": 1.0}, run_id=f"new{number}", capture=NOTHING).finish()
        lake.sql("SELECT 1").fetchall()
    over.set()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(16,)]
