"""All lakes of a process answer in one DuckDB, and none notices the others."""

from __future__ import annotations

import gc
import multiprocessing
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from quiet_lakes import quiet

import ckptlake
from ckptlake import Capture, Lake, QueryError
from ckptlake.query import duck
from ckptlake.query.desks import Desk

put = Desk._put


def new_lake(path: Path, run_id: str) -> Lake:
    lake = ckptlake.open(path, settings=quiet(result_cache_bytes=0))
    with lake.run("pose", run_id=run_id, params={"lr": 0.1}, capture=Capture.nothing()) as run:
        run.log({"loss": 1.0}, step=1)
    lake.commit()
    return lake


@pytest.fixture
def lakes(tmp_path: Path) -> Iterator[tuple[Lake, Lake]]:
    with new_lake(tmp_path / "one", "first") as one, new_lake(tmp_path / "two", "second") as two:
        yield one, two


def schemas() -> set[str]:
    with duck._database_of_process().connection.cursor() as cursor:
        rows = cursor.execute("SELECT schema_name FROM duckdb_schemas() WHERE NOT internal").fetchall()
    return {name for (name,) in rows}


def test_only_one_is_started(lakes: tuple[Lake, Lake], monkeypatch: pytest.MonkeyPatch) -> None:
    lakes[0].runs.to_dicts()
    monkeypatch.setattr(duck, "new_connection", lambda: pytest.fail("another DuckDB was started"))
    assert [row["run_id"] for row in lakes[1].runs.to_dicts()] == ["second"]


def test_views_made_for_one_lake_serve_the_next(lakes: tuple[Lake, Lake], monkeypatch: pytest.MonkeyPatch) -> None:
    query = "SELECT run_id FROM runs JOIN tags USING (run_id) RIGHT JOIN runs AS again USING (run_id)"
    assert lakes[0].sql(query).fetchall() == [("first",)]
    monkeypatch.setattr(Desk, "_create_views", lambda desk: pytest.fail("the views were made again"))
    assert lakes[1].sql(query).fetchall() == [("second",)]


def test_the_rows_of_a_lake_that_nobody_uses_any_more_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(Desk, "_put", lambda desk, name, rows: asked.append(weakref.ref(rows)) or put(desk, name, rows))
    with new_lake(tmp_path / "lake", "only") as lake:
        assert lake.sql("SELECT run_id FROM runs JOIN params USING (run_id)").fetchall() == [("only",)]
    assert any(rows() is not None for rows in asked)
    del lake
    gc.collect()
    assert all(rows() is None for rows in asked)


def test_each_lake_sees_its_own_rows_however_often_they_ask_in_turn(lakes: tuple[Lake, Lake]) -> None:
    for _ in range(6):
        for lake, run_id in zip(lakes, ("first", "second"), strict=True):
            assert lake.sql("SELECT run_id, number FROM runs JOIN params USING (run_id)").fetchall() == [(run_id, 0.1)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine AS SELECT 1 AS x",
        "CREATE MACRO mine(a) AS TABLE SELECT 1 AS x",
        "CREATE VIEW mine AS SELECT 1",
    ],
)
def test_what_one_makes_is_its_own(lakes: tuple[Lake, Lake], statement: str) -> None:
    one, two = lakes
    name = "mine(1)" if "MACRO" in statement else "mine"
    one.sql(statement)
    assert one.sql(f"FROM {name}").fetchall() == [(1,)]
    with pytest.raises(QueryError):
        two.sql(f"FROM {name}")
    two.sql(statement)
    assert one.sql("SELECT count(*) FROM runs").fetchall() == two.sql("SELECT count(*) FROM runs").fetchall() == [(1,)]


def test_settings_of_one_leave_the_other_alone(lakes: tuple[Lake, Lake]) -> None:
    one, two = lakes
    query = "SELECT current_setting('default_null_order'), current_setting('threads')::INT"
    before = two.sql(query).fetchall()
    one.sql("SET GLOBAL default_null_order = 'nulls_first'")
    one.sql("SET threads = 7")
    assert one.sql(query).fetchall() == [("NULLS_FIRST", 7)]
    assert two.sql(query).fetchall() == before != [("NULLS_FIRST", 7)]


def test_tables_made_of_answers_are_not_shared(lakes: tuple[Lake, Lake]) -> None:
    one, two = lakes
    one.sql("SELECT run_id FROM runs").create("found")
    two.sql("SELECT run_id FROM runs").create("found")
    with pytest.raises(QueryError):
        two.sql("FROM found, runs")


def test_nothing_stays_of_a_lake_that_nobody_uses_any_more(tmp_path: Path) -> None:
    before = schemas()
    with new_lake(tmp_path / "lake", "only") as lake:
        for _ in range(5):
            lake.sql("FROM runs").fetchall()
        made = schemas() - before
        assert len(made) == 1
    del lake
    gc.collect()
    assert not made & schemas()


def _ask(found: multiprocessing.SimpleQueue[bool]) -> None:
    found.put(duck.Engine().is_repeatable("SELECT 1"))


def test_a_forked_child_starts_its_own(lakes: tuple[Lake, Lake]) -> None:
    lakes[0].runs.to_dicts()
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    child = context.Process(target=_ask, args=(found,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert found.get()
