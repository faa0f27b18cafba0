"""Rows kept on disk for lakes opened later: the same rows of the same types, never those of another moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from quiet_lakes import quiet

import ckptlake
from ckptlake import Capture, Lake
from ckptlake.query import curves, row_files
from ckptlake.query.folded import KEPT_VIEWS
from ckptlake.query.row_files import RowFiles

NOTHING = Capture.nothing()
FOLDED = [view for view in KEPT_VIEWS if view != "summaries"]
UNCACHED = quiet(result_cache_bytes=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a lake of a few runs with every kind of value."""
    odd = {"flag": True, "n": 2**60, "nan": float("nan"), "none": None, "deep": {"a": [1, "é"]}, "s p/'\"": "日本"}
    with ckptlake.open(tmp_path / "lake", settings=UNCACHED) as lake:
        for number in range(4):
            params, tags = {"lr": 0.1 * number, **odd}, {"stage": f"s{number % 2}", "gone": 1}
            with lake.run("pose/vit", f"n{number}", params, tags, run_id=f"r{number}", capture=NOTHING) as run:
                run.define("loss", direction="min")
                run.log({"loss": float(number), "acc": float("inf")}, step=1)
                run.note("a")
                run.note("b")
                run.remove_tags("gone")
        with lake.run(resume="r1", capture=NOTHING) as run:
            run.log({"loss": 9.0}, step=2)
        lake.commit()
    return tmp_path / "lake"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which rows were looked for and not found on disk."""
    found: list[str] = []
    real = RowFiles.read

    def read(files: RowFiles, name: str, origin: tuple[object, ...]) -> pa.Table | None:
        rows = real(files, name, origin)
        found.extend([name] if rows is None else [])
        return rows

    monkeypatch.setattr(RowFiles, "read", read)
    return found


def ask(lake: Lake, view: str) -> tuple[list[str], list[str], list[Any]]:
    found = lake.sql(f"FROM {view} ORDER BY ALL")
    return found.columns, list(map(str, found.types)), list(map(repr, found.fetchall()))


def ask_often(path: Path, settings: Any = UNCACHED) -> None:
    with ckptlake.open(path, settings=settings) as lake:
        for view in (*FOLDED, "summaries"):
            for _ in range(8):
                lake.sql(f"FROM {view}").fetchall()


@pytest.mark.parametrize("view", [*FOLDED, "summaries", "runs_wide", "experiments"])
def test_the_next_lake_has_the_same_and_makes_nothing(path: Path, made: list[str], view: str) -> None:
    ask_often(path)
    with ckptlake.open(path).connect() as connection:
        expected = connection.sql(f"FROM {view} ORDER BY ALL")
        columns, kinds, rows = expected.columns, list(map(str, expected.types)), list(map(repr, expected.fetchall()))
    made.clear()
    for _ in range(2):
        assert ask(ckptlake.open(path, settings=UNCACHED), view) == (columns, kinds, rows)
    assert made == []


def test_queries_of_the_next_lake_join_them(path: Path) -> None:
    ask_often(path)
    query = "SELECT run_id, p.number, t.value FROM runs JOIN params p USING (run_id) JOIN tags t USING (run_id)"
    query += " WHERE p.key = 'lr' ORDER BY 1"
    for _ in range(2):
        lake = ckptlake.open(path, settings=UNCACHED)
        assert lake.sql(query).fetchall() == [(f"r{n}", 0.1 * n, f"s{n % 2}") for n in range(4)]
        assert lake.runs.where(ckptlake.param("lr") > 0.15).best("loss", n=1).to_dicts()[0]["run_id"] == "r2"


def test_what_is_committed_later_is_seen(path: Path) -> None:
    for number in range(3):
        ask_often(path)
        with ckptlake.open(path, settings=UNCACHED) as lake:
            lake.run("pose", run_id=f"new{number}", params={"lr": 1.0}, capture=NOTHING).finish()
            lake.commit()
        lake = ckptlake.open(path, settings=UNCACHED)
        assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(5 + number,)]
        assert lake.sql("SELECT count(*) FROM params WHERE key = 'lr'").fetchall() == [(5 + number,)]


def test_rows_on_their_way_are_seen_and_not_kept(path: Path) -> None:
    ask_often(path)
    rows = path / "cache" / "kept" / "tags.rows"
    before = rows.read_bytes()
    writer = ckptlake.open(path, settings=UNCACHED)
    run = writer.run("pose", run_id="live", tags={"stage": "now"}, capture=NOTHING)
    writer.flush()
    reader = ckptlake.open(path, settings=UNCACHED)
    for _ in range(5):
        assert reader.sql("SELECT value FROM tags WHERE run_id = 'live'").fetchall() == [("now",)]
    assert rows.read_bytes() == before
    run.finish()
    writer.close()


def test_the_past_is_not_mixed_with_the_present(path: Path) -> None:
    version = ckptlake.open(path).table("metrics").version()
    with ckptlake.open(path, settings=UNCACHED) as lake:
        with lake.run("pose", run_id="later", capture=NOTHING) as run:
            run.log({"loss": 1.0}, step=1)
        lake.commit()
    for _ in range(2):
        lake = ckptlake.open(path, settings=UNCACHED)
        for as_of, expected in ((version, 4), (None, 5)):
            for _ in range(4):
                assert lake.sql("SELECT count(*) FROM runs", as_of=as_of).fetchall() == [(expected,)]
                curves_of = lake.sql("SELECT count(DISTINCT run_id) FROM summaries", as_of=as_of)
                assert curves_of.fetchall() == [(expected,)]


@pytest.mark.parametrize("name", ["runs", "merged_summaries"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "directory"])
def test_damage_is_a_miss_and_is_mended(path: Path, name: str, damage: str) -> None:
    ask_often(path)
    file = path / "cache" / "kept" / f"{name}.rows"
    whole = file.read_bytes()
    file.unlink()
    if damage == "directory":
        file.mkdir()
    else:
        flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        file.write_bytes({"cut": whole[:-1], "flipped": flipped, "empty": b""}[damage])
    lake = ckptlake.open(path, settings=UNCACHED)
    with lake.connect() as connection:
        view = name.removeprefix("merged_")
        for _ in range(8):
            assert ask(lake, view)[2] == list(map(repr, connection.sql(f"FROM {view} ORDER BY ALL").fetchall()))
    assert file.is_dir() or len(file.read_bytes()) == len(whole)


def test_settings_of_the_user_leave_the_files_alone(path: Path) -> None:
    lake = ckptlake.open(path, settings=UNCACHED)
    lake.sql("SET GLOBAL default_null_order = 'nulls_first'")
    for view in FOLDED:
        for _ in range(6):
            ask(lake, view)
    assert not list((path / "cache" / "kept").glob("*.rows"))


@pytest.mark.parametrize("error", [13, 28, 30])
def test_a_disk_that_refuses_costs_nothing_but_time(path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(row_files, "write_sealed", refuse)
    ask_often(path)
    assert not list((path / "cache" / "kept").glob("*.rows"))


def test_nothing_is_written_for_what_is_asked_seldom(path: Path) -> None:
    with ckptlake.open(path, settings=UNCACHED) as lake:
        for view in (*FOLDED, "summaries"):
            ask(lake, view)
    assert not list((path / "cache" / "kept").glob("*.rows"))


def test_they_go_with_the_cache(path: Path) -> None:
    ask_often(path)
    kept = path / "cache" / "kept"
    assert {"runs.rows", "summaries.files", "merged_summaries.rows"} <= {file.name for file in kept.iterdir()}
    for settings in (UNCACHED, quiet()):
        lake = ckptlake.open(path, settings=settings)
        lake.cache.clear()
        assert list(kept.iterdir()) == []
        assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(4,)]


def test_rows_of_another_origin_or_version_are_not_taken(tmp_path: Path) -> None:
    files, rows = RowFiles(tmp_path, {"version": "1"}), pa.table({"a": [1, None]})
    files.write("some", ("origin", 1), rows)
    assert files.read("some", ("origin", 1)) == rows
    assert files.read("some", ("origin", 2)) is None
    assert files.read("other", ("origin", 1)) is None
    assert RowFiles(tmp_path, {"version": "2"}).read("some", ("origin", 1)) is None


def test_many_summaries_are_merged_once_for_all_lakes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_often(path)
    monkeypatch.setattr(curves, "merge_summaries", lambda rows: pytest.fail("merged again"))
    monkeypatch.setattr(curves, "read_file", lambda *_: pytest.fail("read again"))
    lake = ckptlake.open(path, settings=UNCACHED)
    assert lake.sql("SELECT n FROM summaries WHERE run_id = 'r1' AND metric = 'loss'").fetchall() == [(2,)]
