"""Searches of a lake: current with every row, whatever happens to the index."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptlake
from ckptlake.config import Capture
from ckptlake.errors import InvalidInputError
from ckptlake.lake import Lake
from ckptlake.query import search_index
from ckptlake.query.search import Searcher
from ckptlake.query.search_index import SearchIndex
from ckptlake.tables.compaction import compact
from tests.query.conftest import quiet

NOTHING = Capture.nothing()


def searcher_of(lake: Lake) -> Searcher:
    return Searcher(lake._reader, lake.path / "cache" / "search.sqlite")


def found(searcher: Searcher, text: str) -> list[str]:
    ranks = searcher.ranks(text)[1]
    assert ranks is not None
    return [run_id for run_id, _ in ranks]


@pytest.fixture
def filled(lake: Lake) -> Lake:
    for number in range(6):
        run = lake.run("pose/vit", f"vit-{number}", {"lr": 0.1, "seed": f"s{number}"}, ["tagged"], run_id=f"r{number}")
        run.note("even note" if number % 2 == 0 else "odd note")
        run.finish()
    lake.commit()
    return lake


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every run whose document is put into an index, and every one that is taken out."""
    noted: list[str] = []
    update = SearchIndex.update

    def updating(self: SearchIndex, changed: Any, removed: Any, stamp: str) -> None:
        documents, gone = list(changed), list(removed)
        noted.extend(one.run_id for one in documents)
        noted.extend(f"-{run_id}" for run_id in gone)
        update(self, documents, gone, stamp)

    monkeypatch.setattr(SearchIndex, "update", updating)
    return noted


class TestFinding:
    def test_every_text_of_a_run_is_found(self, lake: Lake) -> None:
        run = lake.run(
            "pose/vit", "vit-b16", {"optim": {"name": "adamw"}}, {"owner": "ann", "baseline": True}, run_id="r"
        )
        run.note("first thought")
        run.note("second thought")
        run.finish()
        row = lake.sql("SELECT host, git_branch, git_commit, command FROM runs").fetchall()[0]
        searcher = searcher_of(lake)
        for text in (
            "vit-b16",
            "pose/vit",
            "optim.name=adamw",
            "owner=ann",
            "baseline",
            '"second thought"',
            "first",
            "r",
        ):
            assert found(searcher, text) == ["r"], text
        for value in filter(None, row):
            assert found(searcher, '"' + value.replace('"', '""') + '"') == ["r"], value

    def test_the_newest_value_counts_as_in_the_views(self, lake: Lake) -> None:
        run = lake.run("e", "old", {"p": "one"}, {"kept": "red", "gone": "grey"}, run_id="r", capture=NOTHING)
        run.set_tags({"kept": "blue"})
        run.remove_tags("gone")
        run.finish()
        again = lake.run(name="renamed", resume="r", params={"p": "two"}, allow_change=True, capture=NOTHING)
        again.finish()
        searcher = searcher_of(lake)
        name = lake.sql("SELECT name FROM runs").fetchall()[0][0]
        for text in (name, "blue", "two"):
            assert found(searcher, text) == ["r"], text
        for text in ("red", "gone", "grey", "one"):
            assert found(searcher, text) == [], text

    def test_filters_alone_rank_nothing(self, filled: Lake) -> None:
        search, ranks = searcher_of(filled).ranks("lr:<1 tag:tagged")
        assert ranks is None
        assert len(search.filters) == 2
        assert searcher_of(filled).ranks("")[1] is None

    def test_filters_do_not_narrow_the_words(self, filled: Lake) -> None:
        assert len(found(searcher_of(filled), "odd lr:>100")) == 3

    def test_what_cannot_be_read_touches_no_index(self, filled: Lake) -> None:
        with pytest.raises(InvalidInputError, match="never closed"):
            searcher_of(filled).ranks('"odd')
        assert not (filled.path / "cache" / "search.sqlite").exists()

    def test_an_empty_lake_has_nothing(self, lake: Lake) -> None:
        assert found(searcher_of(lake), "x") == []


class TestStayingCurrent:
    def test_live_rows_are_found_before_any_commit(self, lake: Lake, indexed: list[str]) -> None:
        run = lake.run("e", "running-one", run_id="r", capture=NOTHING)
        lake.flush()
        with ckptlake.open(lake.path, create=False) as other:
            searcher = searcher_of(other)
            assert found(searcher, "running-one") == ["r"]
            run.note("surprise")
            lake.flush()
            assert found(searcher, "surprise") == ["r"]
            assert indexed == ["r", "r"]
            lake.commit()
            assert found(searcher, "surprise") == ["r"]
            assert indexed == ["r", "r"], "a commit changes no text"
        run.finish()

    def test_only_runs_with_news_are_indexed_again(self, filled: Lake, indexed: list[str]) -> None:
        searcher = searcher_of(filled)
        assert len(found(searcher, "vit")) == 6
        assert sorted(indexed) == [f"r{number}" for number in range(6)]
        indexed.clear()
        again = filled.run(resume="r3", capture=NOTHING)
        again.note("news")
        filled.flush()
        assert found(searcher, "news") == ["r3"]
        again.finish()
        filled.commit()
        assert found(searcher, "news") == ["r3"]
        assert set(indexed) == {"r3"}
        assert found(searcher_of(filled), "news") == ["r3"]
        assert set(indexed) == {"r3"}, "another process takes the index over as it is"

    def test_points_are_no_news(self, lake: Lake, indexed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        searcher = searcher_of(lake)
        run = lake.run("e", run_id="r", capture=NOTHING)
        lake.flush()
        assert found(searcher, "r") == ["r"]
        monkeypatch.setattr(lake._reader, "rows_by_file", None)
        for step in range(3):
            run.log({"m": 1.0}, step=step)
            lake.flush()
            assert found(searcher, "r") == ["r"]
        monkeypatch.undo()
        run.finish()

    def test_compaction_indexes_nothing_again(self, filled: Lake, indexed: list[str]) -> None:
        searcher = searcher_of(filled)
        before = searcher.ranks("odd")
        indexed.clear()
        for name in ("runs", "params", "tags"):
            compact(filled._store(name), everything=True)
        assert searcher.ranks("odd") == before
        assert searcher_of(filled).ranks("odd") == before
        assert indexed == []

    def test_so_does_a_compaction_seen_by_a_fresh_process(self, filled: Lake, indexed: list[str]) -> None:
        before = searcher_of(filled).ranks("odd")
        indexed.clear()
        compact(filled._store("runs"), everything=True)
        with ckptlake.open(filled.path, create=False) as other:
            assert searcher_of(other).ranks("odd") == before
        assert indexed == []

    @pytest.mark.parametrize("is_fresh", [False, True])
    def test_deleted_runs_vanish(self, filled: Lake, indexed: list[str], is_fresh: bool) -> None:
        searcher = searcher_of(filled)
        assert len(found(searcher, "odd")) == 3
        indexed.clear()
        filled.delete_runs("r1", "r2")
        if is_fresh:
            searcher = searcher_of(ckptlake.open(filled.path, create=False))
        assert sorted(found(searcher, "odd")) == ["r3", "r5"]
        assert sorted(found(searcher, "vit")) == ["r0", "r3", "r4", "r5"]
        assert sorted(indexed) == ["-r1", "-r2"]
        filled.run("e", "reborn", run_id="r1", capture=NOTHING).finish()
        assert found(searcher, "reborn") == ["r1"]
        assert "r1" not in found(searcher, "odd")

    def test_runs_of_an_index_of_more_than_one_batch(self, filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        before = searcher_of(filled).ranks("odd note")
        monkeypatch.setattr("ckptlake.query.search._RUNS_AT_ONCE", 2)
        monkeypatch.setattr("ckptlake.query.search_rows._FEW", 1)
        monkeypatch.setattr("ckptlake.query.search_rows._FEW_ROWS", 1)
        (filled.path / "cache" / "search.sqlite").unlink()
        assert searcher_of(filled).ranks("odd note") == before


_STEPS = ("start", "note", "tag", "finish", "commit", "compact", "delete", "forget")


@given(st.lists(st.sampled_from(_STEPS), max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=8)
def test_whatever_happens_it_finds_what_an_index_made_anew_finds(steps: list[str], chance: Random) -> None:
    with tempfile.TemporaryDirectory() as root, ckptlake.open(Path(root) / "lake", settings=quiet()) as lake:
        searcher, open_runs, ended = searcher_of(lake), dict[str, Any](), list[str]()
        for number, step in enumerate(steps):
            if step == "start":
                open_runs[f"r{number}"] = lake.run("e", f"one {number}", run_id=f"r{number}", capture=NOTHING)
            elif step in {"note", "tag", "finish"} and open_runs:
                run_id = chance.choice(list(open_runs))
                if step == "note":
                    open_runs[run_id].note(f"seen note{number}")
                elif step == "tag":
                    open_runs[run_id].set_tags([f"tag{number % 3}"])
                else:
                    open_runs.pop(run_id).finish()
                    ended.append(run_id)
            elif step == "commit":
                lake.commit()
            elif step == "compact":
                for name in ("runs", "params", "tags"):
                    compact(lake._store(name), everything=True)
            elif step == "delete" and ended:
                lake.delete_runs(ended.pop(chance.randrange(len(ended))))
            elif step == "forget":
                searcher = searcher_of(lake)
            lake.flush()
            anew = Searcher(lake._reader, Path(root) / f"anew-{number}.sqlite")
            for text in ("one", "seen", "tag1", "one -seen", "note*"):
                assert searcher.ranks(text) == anew.ranks(text)
            assert set(found(anew, "one")) == {*open_runs, *ended}


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def another_format(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()


def without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE stamps")
    connection.close()


def with_a_stamp_of_nonsense(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE stamps SET stamp = '[1'")
    connection.close()


def something_else(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (x)")
    connection.close()


def page_of_zeros(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(size - 4096))


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            Path.unlink, garbage, truncated, emptied, another_format, without_a_table, with_a_stamp_of_nonsense,
            something_else, page_of_zeros,
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("is_fresh", [False, True])
    def test_it_is_made_anew(self, filled: Lake, damage: Callable[[Path], None], is_fresh: bool) -> None:
        path = filled.path / "cache" / "search.sqlite"
        searcher = searcher_of(filled)
        before = searcher.ranks("odd note")
        damage(path)
        if is_fresh:
            searcher = searcher_of(filled)
        assert searcher.ranks("odd note") == before
        assert searcher._file._memory is None, "the file is used again"
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (search_index.FORMAT,)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT count(*) FROM runs").fetchone() == (6,)
        connection.close()

    def test_a_file_deleted_while_it_is_asked_is_made_anew(self, filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        path = filled.path / "cache" / "search.sqlite"
        searcher = searcher_of(filled)
        before = searcher.ranks("odd")
        find = SearchIndex.find

        def deleting(self: SearchIndex, search: Any) -> Any:
            path.unlink(missing_ok=True)
            return find(self, search)

        monkeypatch.setattr(SearchIndex, "find", deleting)
        assert searcher.ranks("odd") == before
        monkeypatch.undo()
        assert searcher.ranks("odd") == before
        assert path.exists()

    def test_the_cache_may_be_deleted_whole(self, filled: Lake) -> None:
        searcher = searcher_of(filled)
        before = searcher.ranks("odd")
        shutil.rmtree(filled.path / "cache")
        assert searcher.ranks("odd") == before

    def test_an_update_cut_short_leaves_the_index_as_it_was(
        self, filled: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        searcher = searcher_of(filled)
        assert len(found(searcher, "odd")) == 3
        filled.run("e", "odd one out", run_id="new", capture=NOTHING).finish()
        update = SearchIndex.update

        def interrupted(self: SearchIndex, *what: Any) -> None:
            update(self, *what)
            raise KeyboardInterrupt

        monkeypatch.setattr(SearchIndex, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            searcher.ranks("odd")
        monkeypatch.undo()
        assert len(found(searcher, "odd")) == 4


class TestWithoutAFile:
    def test_a_cache_that_cannot_be_a_directory(self, filled: Lake) -> None:
        (filled.path / "cache").write_text("in the way")
        searcher = searcher_of(filled)
        assert len(found(searcher, "odd")) == 3
        filled.run("e", "odd one out", run_id="new", capture=NOTHING).finish()
        assert len(found(searcher, "odd")) == 4
        assert searcher._file._memory is not None

    def test_a_file_that_may_only_be_read_is_taken_over(
        self, filled: Lake, indexed: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert len(found(searcher_of(filled), "odd")) == 3
        filled.run("e", "odd one out", run_id="new", capture=NOTHING).finish()
        indexed.clear()
        refuse_writing(monkeypatch)
        searcher = searcher_of(filled)
        assert len(found(searcher, "odd")) == 4
        assert set(indexed) == {"new"}, "the rest came from the file"
        indexed.clear()
        assert len(found(searcher, "odd")) == 4
        assert indexed == []

    def test_a_file_that_stays_locked(self, filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        path = filled.path / "cache" / "search.sqlite"
        assert len(found(searcher_of(filled), "odd")) == 3
        filled.run("e", "odd one out", run_id="new", capture=NOTHING).finish()
        monkeypatch.setattr("ckptlake.query.search_file._TIMEOUT_S", 0.05)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        assert len(found(searcher_of(filled), "odd")) == 4
        holder.execute("ROLLBACK")
        holder.close()


def refuse_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have SQLite open files for reading alone, as it does where a process may not write; root always may."""
    from ckptlake.query import search_file

    connect = search_file._connect

    def read_only(name: str, timeout_s: float) -> sqlite3.Connection:
        is_file = not name.startswith((":", "file:"))
        return connect(f"file:{name}?mode=ro" if is_file else name, timeout_s)

    monkeypatch.setattr(search_file, "_connect", read_only)


_SEARCH = """
import sys, ckptlake
from pathlib import Path
from ckptlake.query.search import Searcher
lake = ckptlake.open(sys.argv[1], create=False)
searcher = Searcher(lake._reader, lake.path / "cache" / "search.sqlite")
for turn in range(int(sys.argv[2])):
    seen = len(searcher.ranks("common")[1])
    print(seen, flush=True)
"""


class TestManyAtOnce:
    def test_processes_search_while_another_logs(self, lake: Lake) -> None:
        command = [sys.executable, "-c", _SEARCH, str(lake.path), "30"]
        others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for number in range(20):
            lake.run("e", f"common {number}", run_id=f"r{number}", capture=NOTHING).finish()
        for other in others:
            output, _ = other.communicate(timeout=120)
            assert other.returncode == 0
            seen = [int(line) for line in output.split()]
            assert len(seen) == 30
            assert seen == sorted(seen), "what was found once stays found"
        assert len(found(searcher_of(lake), "common")) == 20

    def test_threads_share_a_searcher(self, lake: Lake) -> None:
        searcher, seen = searcher_of(lake), dict[int, list[int]]()

        def search(at: int) -> None:
            seen[at] = [len(found(searcher, "common")) for _ in range(10)]

        threads = [threading.Thread(target=search, args=(at,)) for at in range(3)]
        for thread in threads:
            thread.start()
        for number in range(10):
            lake.run("e", f"common {number}", run_id=f"r{number}", capture=NOTHING).finish()
        for thread in threads:
            thread.join()
        assert len(seen) == 3
        assert all(counts == sorted(counts) for counts in seen.values())
        assert len(found(searcher, "common")) == 10

    @pytest.mark.parametrize("in_memory", [False, True])
    def test_a_forked_child_searches_for_itself(self, filled: Lake, in_memory: bool) -> None:
        if in_memory:
            (filled.path / "cache").write_text("in the way")
        searcher = searcher_of(filled)
        assert len(found(searcher, "odd")) == 3
        context = get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=lambda: sender.send(found(searcher, "odd")))
        child.start()
        assert receiver.poll(60)
        assert sorted(receiver.recv()) == ["r1", "r3", "r5"]
        child.join()
        assert len(found(searcher, "odd")) == 3
