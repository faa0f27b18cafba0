"""Directories that are no lake, or a damaged one: an error of ours that says so, never a library's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scenes import BY_HAND, NOTHING, check_words, left_by_a_kill, open_lake, run_script, statuses, steps_of

import ckptlake
from ckptlake import CkptlakeError, Lake, LakeFormatError, NotALakeError, ReadOnlyLakeError

GOOD = {"format": "ckptlake", "format_version": 1, "lake_id": "x", "created_at": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0" * 200,
        b"{",
        b"[]",
        b"17",
        b"null",
        b'"lake"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        json.dumps(GOOD | {"format_version": 99}).encode(),
        json.dumps(GOOD | {"format_version": "one"}).encode(),
        json.dumps(GOOD | {"format_version": None}).encode(),
        json.dumps(GOOD | {"format_version": 1}).replace("1", "1e999", 1).encode(),
        json.dumps(GOOD | {"format": "other"}).encode(),
        json.dumps(GOOD | {"created_at": "yesterday"}).encode(),
        json.dumps(GOOD | {"created_at": 7}).encode(),
        json.dumps({k: v for k, v in GOOD.items() if k != "lake_id"}).encode(),
    ],
)
def test_a_damaged_or_newer_lake_json(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "lake.json").write_bytes(text)
    for create in (True, False):
        with pytest.raises(LakeFormatError, match=r"lake\.json|format version"):
            ckptlake.open(tmp_path, create=create)
    assert (tmp_path / "lake.json").read_bytes() == text


def test_a_lake_json_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "lake.json").mkdir()
    with pytest.raises(CkptlakeError):
        ckptlake.open(tmp_path)


def test_directories_that_are_no_lake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("hello")
    for path in (tmp_path / "file", tmp_path / "full", tmp_path / "file" / "below"):
        with pytest.raises((NotALakeError, ckptlake.StorageError)):
            ckptlake.open(path)
    for path in (tmp_path / "file", tmp_path / "full", tmp_path / "absent"):
        with pytest.raises(NotALakeError):
            ckptlake.open(path, create=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "thesis.tex"]


def test_many_threads_create_one_lake(tmp_path: Path) -> None:
    for attempt in range(10):
        errors: list[BaseException] = []
        ids: list[str] = []

        def create(root: Path = tmp_path / str(attempt), ids: list[str] = ids, errors: list = errors) -> None:  # type: ignore[type-arg]
            try:
                ids.append(ckptlake.open(root).id)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=create) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(set(ids)) == 1


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("example")
    with open_lake(root) as lake:
        for name in ("a", "b"):
            with lake.run("pose", run_id=name, params={"lr": 0.1}, tags=["x"], capture=NOTHING) as run:
                run.define("loss", direction="min")
                for step in range(3):
                    run.log({"loss": 1.0}, step=step)
    return root


@pytest.fixture
def filled(example: Path, tmp_path: Path) -> Lake:
    shutil.copytree(example, tmp_path / "lake")
    return open_lake(tmp_path / "lake")


QUESTIONS: dict[str, Callable[[Lake], object]] = {
    "points": lambda lake: lake.sql("SELECT * FROM metrics").fetchall(),
    "runs": lambda lake: lake.sql("SELECT * FROM runs").fetchall(),
    "summaries": lambda lake: lake.sql("SELECT * FROM summaries").fetchall(),
    "wide": lambda lake: lake.sql("SELECT * FROM runs_wide").fetchall(),
    "connection": lambda lake: lake.connect().execute("SELECT count(*) FROM metrics").fetchall(),
    "past": lambda lake: lake.sql("SELECT * FROM metrics", as_of=1).fetchall(),
    "files": lambda lake: [table.files() for table in lake.tables()],
    "history": lambda lake: [table.history() for table in lake.tables()],
    "find": lambda lake: lake.find_run("a"),
    "log": lambda lake: log_and_finish(lake),
    "resume": lambda lake: lake.run(resume="a", capture=NOTHING).finish(),
    "compact": lambda lake: [table.compact() for table in lake.tables()],
    "vacuum": lambda lake: [table.vacuum() for table in lake.tables()],
    "delete": lambda lake: lake.delete_runs("a"),
}


def log_and_finish(lake: Lake) -> None:
    with lake.run("pose", capture=NOTHING) as run:
        run.log({"loss": 1.0}, step=7)


def cut_newest_entry(root: Path) -> None:
    newest = max((root / "_delta_log").glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:40])


def cut_a_file(root: Path) -> None:
    path = min(root.rglob("part-*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])


def garble_a_file(root: Path) -> None:
    path = min(root.rglob("part-*.parquet"))
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(byte ^ 0xFF for byte in data[4:-4]) + data[-4:])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "log deleted": lambda root: shutil.rmtree(root / "_delta_log"),
    "log emptied": lambda root: [path.unlink() for path in (root / "_delta_log").iterdir()],
    "first entry gone": lambda root: (root / "_delta_log" / f"{0:020}.json").unlink(),
    "second entry gone": lambda root: (root / "_delta_log" / f"{1:020}.json").unlink(),
    "newest entry cut": cut_newest_entry,
    "entry of garbage": lambda root: (root / "_delta_log" / f"{1:020}.json").write_bytes(b"\0\xff garbage\n"),
    "log is a file": lambda root: (shutil.rmtree(root / "_delta_log"), (root / "_delta_log").write_text("")),
    "files deleted": lambda root: [path.unlink() for path in root.rglob("part-*.parquet")],
    "file cut": cut_a_file,
    "file garbled": garble_a_file,
    "file empty": lambda root: min(root.rglob("part-*.parquet")).write_bytes(b""),
}


@pytest.mark.parametrize("table", ["metrics", "runs", "summaries"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_table_is_told_in_our_words(filled: Lake, kind: str, table: str) -> None:
    """Each question is answered wholly or refused by an error of ours."""
    DAMAGE[kind](filled.path / "tables" / table)
    foreign, refused = {}, 0
    for name, ask in QUESTIONS.items():
        lake = open_lake(filled.path)
        try:
            ask(lake)
        except CkptlakeError as error:
            check_words(error)
            refused += 1
        except BaseException as error:
            if name == "connection" and type(error).__module__ == "_duckdb":
                refused += 1  # a plain DuckDB connection answers in DuckDB's own words
                continue
            foreign[name] = f"{type(error).__module__}.{type(error).__name__}: {str(error)[:100]}"
        with contextlib.suppress(Exception):
            lake.close()
    assert not foreign, f"errors that are not ours: {foreign}"
    assert refused, "not one question noticed that rows are gone"


@pytest.mark.parametrize("kind", ["log deleted", "log emptied"])
def test_a_table_without_its_log_is_not_taken_for_a_new_one(filled: Lake, kind: str) -> None:
    DAMAGE[kind](filled.path / "tables" / "metrics")
    with pytest.raises(CkptlakeError):
        open_lake(filled.path).sql("SELECT count(*) FROM metrics_raw").fetchall()


def test_a_damaged_file_does_not_stop_the_commits_of_a_live_writer(tmp_path: Path) -> None:
    """Routine merging meets the file; the rows of later commits must still get to the table."""
    program = """
        import sys, time, pathlib, ckptlake
        root = pathlib.Path(sys.argv[1])
        lake = ckptlake.open(root, settings=ckptlake.Settings(flush_interval_s=3600, commit_interval_s=3600))
        run = lake.run(run_id="r", capture=ckptlake.Capture.nothing())
        for step in range(40):
            run.log({"loss": 1.0}, step=step)
            lake.commit()
            if step == 3:
                path = sorted((root / "tables" / "metrics").rglob("part-*.parquet"))[0]
                path.write_bytes(path.read_bytes()[:-20])
        assert sum(file.num_records for file in lake.table("metrics").files()) == 40
        run.finish()
    """
    ended = run_script(program, str(tmp_path))
    assert ended.returncode == 0, ended.stderr[-2000:]


@pytest.fixture
def read_only(filled: Lake, tmp_path: Path) -> Iterator[Path]:
    """The filled lake, with rows not yet committed, through a mount that cannot be written."""
    left_by_a_kill(filled.path, [("loss", 50, 1.0)])
    place = tmp_path / "read-only"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("a read-only mount needs root and mount(8)")
    for options in (["--bind", str(filled.path)], ["-o", "remount,ro,bind"]):
        mounted = subprocess.run([mount, *options, str(place)], capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)
            pytest.skip(f"a read-only mount is refused here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_read_only_lake_answers_questions_and_refuses_writes(read_only: Path) -> None:
    lake = open_lake(read_only)
    assert steps_of(lake) == [0, 0, 1, 1, 2, 2, 50]
    assert statuses(lake) == {"a": "finished", "b": "finished", "victim": "running"}
    for name in ("points", "runs", "summaries", "wide", "connection", "past", "files", "history", "find", "vacuum"):
        QUESTIONS[name](lake)
    writes: list[Callable[[], object]] = [
        lambda: lake.run(capture=NOTHING),
        lambda: lake.run(resume="a", capture=NOTHING),
        lake.recover,
        lambda: lake.delete_runs("a"),
        lambda: lake.experiment("pose").describe("text"),
        lambda: lake.table("metrics").compact(),
        lambda: lake.table("metrics").vacuum(dry_run=False, retention_hours=0),
    ]
    for write in writes:
        with pytest.raises(ReadOnlyLakeError):
            write()
    with pytest.raises(ReadOnlyLakeError):
        ckptlake.open(read_only / "wal" / "new", settings=BY_HAND)
    lake.close()
