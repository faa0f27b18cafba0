"""Answers kept by `lake.sql`: what a hit costs, when there is none, what it returns, and how much is kept."""

from __future__ import annotations

import datetime as dt
import json
import os
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from quiet_lakes import Put, quiet

import ckptlake
from ckptlake import InvalidInputError, Settings
from ckptlake.config import Capture
from ckptlake.errors import QueryError
from ckptlake.lake import Lake
from ckptlake.query.answers import Answer, Key, key_of
from ckptlake.query.cache import ResultCache
from ckptlake.query.moments import Moment
from ckptlake.types import RunStatus

Point = Callable[..., dict[str, Any]]
LEADERS = "SELECT r.name, s.min FROM summaries s JOIN runs r USING (run_id) WHERE metric = $m ORDER BY ALL"
CURVE = "SELECT step, value FROM metrics WHERE run_id = $run AND metric = $m ORDER BY step"


class Work:
    """What lakes do to compute answers."""

    def __init__(self) -> None:
        self.reads = self.queries = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Count how often rows are decoded or chosen, and how often DuckDB runs SQL, for all lakes of the test."""
    from ckptlake.query import duck
    from ckptlake.query.sources import SourceReader

    counted = Work()
    read_at, fetch = SourceReader.read_at, duck._fetch

    def reading(*args: Any) -> Any:
        counted.reads += 1
        return read_at(*args)

    def fetching(*args: Any) -> Any:
        counted.queries += 1
        return fetch(*args)

    monkeypatch.setattr(SourceReader, "read_at", reading)
    monkeypatch.setattr(duck, "_fetch", fetching)
    return counted


@contextmanager
def opened(path: Path, **settings: Any) -> Iterator[Lake]:
    with ckptlake.open(path, settings=quiet(**settings)) as lake:
        yield lake


@pytest.fixture
def filled(lake: Lake, put: Put, point: Point) -> Lake:
    for run_id in ("a", "b"):
        put(lake, "metrics", *(point(step, step / 7, run_id=run_id) for step in range(20)))
    return lake


class TestHits:
    @pytest.mark.parametrize(
        ("query", "values"),
        [(LEADERS, {"m": "m"}), (CURVE, {"run": "a", "m": "m"}), ("FROM runs_wide", {}), ("FROM checkpoints", {}),
         ("FROM tensors", {}), ("SELECT $a + 1", {"a": 1})],
        ids=lambda value: str(value)[:20],
    )  # fmt: skip
    def test_do_no_work_after_the_moment_is_found(
        self, filled: Lake, work: Work, query: str, values: dict[str, Any]
    ) -> None:
        first = filled.sql(query, **values).fetchall()
        reads, queries = work.reads, work.queries
        assert reads > 0
        assert queries > 0
        assert filled.sql(query, **values).fetchall() == first
        assert (work.reads, work.queries) == (reads, queries)
        info = filled.cache.info()
        assert (info.hits, info.misses, info.uncacheable, info.entries) == (1, 1, 0, 1)

    def test_open_no_data_file(self, filled: Lake, work: Work) -> None:
        expected = filled.sql(CURVE, run="a", m="m").fetchall()
        files = list((filled.path / "tables").rglob("*.parquet"))
        for path in files:
            path.rename(path.with_suffix(".away"))
        assert files
        assert filled.sql(CURVE, run="a", m="m").fetchall() == expected

    def test_tell_texts_and_values_apart(self, filled: Lake, work: Work) -> None:
        asked = [
            (CURVE, {"run": "a", "m": "m"}),
            (CURVE, {"run": "b", "m": "m"}),
            (f"{CURVE} ", {"run": "a", "m": "m"}),
            (CURVE, {"run": "m", "m": "a"}),
        ]
        for query, values in asked:
            filled.sql(query, **values)
        assert work.queries == len(asked)
        assert filled.cache.info().misses == len(asked)

    def test_are_shared_by_what_looks_at_one_moment(self, filled: Lake, work: Work) -> None:
        version = filled.table("metrics").version()
        past = filled.sql(CURVE, run="a", m="m", as_of=version).fetchall()
        assert filled.sql(CURVE, run="a", m="m", as_of=version).fetchall() == past
        moment = dt.datetime.now(dt.UTC)
        assert filled.sql(CURVE, run="a", m="m", as_of=moment).fetchall() == past
        assert work.queries == 1

    def test_of_the_past_are_not_those_of_now(self, filled: Lake, put: Put, point: Point) -> None:
        version = filled.table("metrics").version()
        query = "SELECT count(*) FROM metrics"
        assert filled.sql(query).fetchall() == filled.sql(query, as_of=version).fetchall() == [(40,)]
        put(filled, "metrics", point(100, 1.0))
        assert filled.sql(query).fetchall() == [(41,)]
        assert filled.sql(query, as_of=version).fetchall() == [(40,)]
        assert filled.sql(query, as_of=0).fetchall() == [(0,)]

    def test_survive_a_commit_to_tables_they_do_not_read(self, filled: Lake, work: Work, put: Put) -> None:
        filled.sql(CURVE, run="a", m="m")
        put(filled, "experiments", {"experiment": "e", "ts": 1, "description": "text"})
        filled.sql(CURVE, run="a", m="m")
        assert filled.cache.info().hits == 1

    def test_a_cache_switched_off_keeps_nothing(self, tmp_path: Path, work: Work) -> None:
        with opened(tmp_path / "off", result_cache_bytes=0, result_cache_on_disk=True) as lake:
            for _ in range(3):
                lake.sql("FROM runs")
            lake.sql("SELECT random()")
            assert work.queries == 4
            assert set(vars_of(lake.cache.info()).values()) == {0}
            assert not (lake.path / "cache" / "results").exists()


def vars_of(info: Any) -> dict[str, int]:
    return {name: getattr(info, name) for name in type(info).__slots__}


class TestQuestionsThatAreNotKept:
    @pytest.mark.parametrize("query", ["SELECT random()", "SELECT uuid()", "FROM duckdb_views()", "SHOW TABLES"])
    def test_are_counted_and_computed_each_time(self, lake: Lake, work: Work, query: str) -> None:
        lake.sql(query)
        lake.sql(query)
        info = lake.cache.info()
        assert (info.hits, info.misses, info.uncacheable, info.entries, work.queries) == (0, 0, 2, 0, 2)

    def test_files_beside_the_lake_are_read_again(self, lake: Lake, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        path.write_text("a\n1\n")
        assert lake.sql(f"SELECT a FROM '{path}'").fetchall() == [(1,)]
        path.write_text("a\n2\n")
        assert lake.sql(f"SELECT a FROM '{path}'").fetchall() == [(2,)]

    @pytest.mark.parametrize("value", [object(), {1}, np.float32(1), RunStatus.FAILED, [[object()]]], ids=ascii)
    def test_nor_are_values_without_a_text(self, lake: Lake, value: Any) -> None:
        with suppress(QueryError):
            lake.sql("SELECT $v", v=value)
        assert lake.cache.info().uncacheable == 1
        assert lake.cache.info().entries == 0

    def test_nor_are_errors(self, lake: Lake) -> None:
        for _ in range(2):
            with pytest.raises(QueryError):
                lake.sql("SELECT 'x'::INTEGER")
        assert lake.cache.info().entries == 0

    def test_nothing_is_after_a_statement_that_may_change_what_texts_mean(self, lake: Lake) -> None:
        query = "SELECT date_part('hour', TIMESTAMPTZ '2026-01-01 00:30:00+00')"
        assert lake.sql(query).fetchall() == [(0,)]
        lake.sql("SET GLOBAL TimeZone = 'Asia/Tokyo'")
        assert lake.sql(query).fetchall() == [(9,)]
        lake.sql("SET GLOBAL TimeZone = 'UTC'")
        assert lake.sql(query).fetchall() == [(0,)]
        lake.sql("CREATE MACRO abs(x) AS random()")
        assert lake.sql("SELECT abs(1)").fetchall() != lake.sql("SELECT abs(1)").fetchall()
        assert lake.cache.info().hits == 0

    @pytest.mark.parametrize("query", ["EXPLAIN FROM runs", "DESCRIBE runs", "SHOW TABLES", "FROM duckdb_views()"])
    def test_looking_changes_nothing(self, lake: Lake, query: str) -> None:
        lake.sql("FROM runs")
        lake.sql(query)
        lake.sql("FROM runs")
        assert lake.cache.info().hits == 1


KINDS = """
    SELECT 1::HUGEINT AS h, sum(i) AS s, 2::UHUGEINT AS u, '4b7a5e3c-0000-4000-8000-000000000001'::UUID AS g,
        '{"a": 1}'::JSON AS j, '101'::BIT AS b, TIMETZ '01:02:03+02' AS tz, INTERVAL '1 month 2 days' AS i,
        'a'::ENUM('a', 'b') AS e, [1, NULL] AS l, {'a': 1, 'b': [2]} AS st, map {'a': 1} AS m,
        1.5::DECIMAL(38, 10) AS d, '\\xFF'::BLOB AS bl, union_value(a := 1) AS un,
        DATE '2020-01-01' AS da, TIMESTAMPTZ '2020-01-01' AS ts,
        TIMESTAMP_NS '2020-01-01 00:00:00.123456789' AS ns, NULL AS nu, [1, 2]::INTEGER[2] AS arr, 3::BIGNUM AS vi,
        'nan'::DOUBLE AS nan, '-inf'::FLOAT AS inf, -0.0::DOUBLE AS zero, 'ü'::VARCHAR AS t, 1::UTINYINT AS ut
    FROM range(5) AS t(i)"""
SHAPES = {
    "kinds": KINDS,
    "no rows": f"FROM ({KINDS}) WHERE false",
    "equal names": "SELECT 1 AS a, 2::HUGEINT AS a, 'x' AS a",
    "equal but for case": "SELECT 1::HUGEINT AS a, 2::HUGEINT AS A",
    "odd names": 'SELECT 1::HUGEINT AS "a""b ü", 2 AS " "',
    "many rows": "SELECT i, i::HUGEINT AS h, i / 7 AS x, i::VARCHAR AS t FROM range(5000) AS t(i) ORDER BY i",
}


def seen(relation: Any) -> tuple[object, ...]:
    """Return all that can be told of an answer, values bit for bit."""
    rows = [
        tuple(struct.pack("<d", value) if isinstance(value, float) else value for value in row)
        for row in relation.fetchall()
    ]
    return relation.columns, [str(kind) for kind in relation.types], rows, relation.to_arrow_table().schema


class TestWhatComesBack:
    @pytest.mark.parametrize("name", SHAPES)
    def test_is_the_same_from_memory_and_from_disk(self, tmp_path: Path, work: Work, name: str) -> None:
        query = SHAPES[name]
        with opened(tmp_path / "lake", result_cache_bytes=0) as lake:
            expected = seen(lake.sql(query))
        with opened(tmp_path / "lake", result_cache_on_disk=True) as lake:
            assert seen(lake.sql(query)) == seen(lake.sql(query)) == expected
            assert lake.cache.info().disk_entries == 1
        before = work.queries
        with opened(tmp_path / "lake", result_cache_on_disk=True) as lake:
            assert seen(lake.sql(query)) == seen(lake.sql(query)) == expected
            assert lake.cache.info().hits == 2
        assert work.queries == before

    @pytest.mark.parametrize("on_disk", [False, True])
    def test_keeps_the_bits_of_nan(self, tmp_path: Path, put: Put, point: Point, on_disk: bool) -> None:
        (odd,) = struct.unpack("<d", bytes.fromhex("efbeadde0000f8ff"))
        values = [odd, float("nan"), -float("nan"), -0.0]
        for _ in range(2):
            with opened(tmp_path / "lake", result_cache_on_disk=on_disk) as lake:
                if lake.table("metrics").version() < 0:
                    put(lake, "metrics", *(point(step, value) for step, value in enumerate(values)))
                for _ in range(2):
                    column = lake.sql("SELECT value FROM metrics ORDER BY step").to_arrow_table().column("value")
                    assert column.to_numpy().tobytes() == struct.pack("<4d", *values)

    def test_cannot_be_changed_by_a_caller(self, filled: Lake) -> None:
        query = "SELECT step, value, metric FROM metrics ORDER BY ALL"
        expected = filled.sql(query).fetchall()
        for _ in range(2):
            frame = filled.sql(query).df()
            frame.loc[:, "value"] = -1.0
            for column in filled.sql(query).fetchnumpy().values():
                column[:] = column[-1]
            for chunk in filled.sql(query).to_arrow_table().column("value").chunks:
                address, size = chunk.buffers()[1].address, chunk.buffers()[1].size
                kept = [entry.rows for entry, _ in filled.cache._entries.values()]
                buffers = [b for rows in kept for c in rows.columns for k in c.chunks for b in k.buffers() if b]
                assert all(address + size <= b.address or b.address + b.size <= address for b in buffers)
        assert filled.sql(query).fetchall() == expected

    def test_is_read_many_times_and_outlives_the_cache(self, filled: Lake) -> None:
        filled.sql(CURVE, run="a", m="m")
        first, second = filled.sql(CURVE, run="a", m="m"), filled.sql(CURVE, run="a", m="m")
        filled.cache.clear()
        assert first.fetchall() == first.fetchall() == second.fetchall()
        assert first.filter("step > 3").aggregate("count(*)").fetchall() == [(16,)]
        assert len(second.pl()) == 20


class TestKeys:
    EQUAL_IN_PYTHON_OR_TEXT = (
        1, True, 1.0, "1", b"1", Decimal(1), Decimal("1.0"), 0.0, -0.0, "", None, "None", [], (), {}, [1], (1,), ["1"],
        [[1]], [1, None], {"a": 1}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, "a", dt.date(2020, 1, 1),
        dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.time(1),
        dt.time(1, tzinfo=dt.UTC), dt.timedelta(1), "2020-01-01",
        uuid.UUID(int=1), str(uuid.UUID(int=1)), 2**64, -(2**64), 10**5000, "\ud800", float("inf"), "inf",
    )  # fmt: skip

    def key(self, query: str = "q", **values: object) -> Key | None:
        return key_of(query, values, Moment({}, None), {})

    def test_differ_for_all_values_that_duckdb_may_tell_apart(self) -> None:
        keys = [self.key(v=value) for value in self.EQUAL_IN_PYTHON_OR_TEXT]
        assert len({key.digest for key in keys if key is not None}) == len(keys)

    def test_do_not_depend_on_the_order_of_values(self) -> None:
        one, other = self.key(a=1, b="x"), self.key(b="x", a=1)
        assert one is not None
        assert other is not None
        assert one.digest == other.digest

    def test_a_value_changed_later_is_another_value(self, lake: Lake) -> None:
        values = [1, 2]
        assert lake.sql("SELECT len($v)", v=values).fetchall() == [(2,)]
        values.append(3)
        assert lake.sql("SELECT len($v)", v=values).fetchall() == [(3,)]

    def test_there_is_none_for_what_has_no_end(self) -> None:
        endless: list[object] = []
        endless.append(endless)
        assert self.key(v=endless) is None


def answer(size: int) -> Answer:
    return Answer(pa.table({"a": pa.array(np.zeros(size // 8))}), ("DOUBLE",))


def key(name: str) -> Key:
    found = key_of(name, {}, Moment({}, None), {})
    assert found is not None
    return found


class TestBounds:
    def test_what_was_not_asked_for_longest_makes_room(self) -> None:
        size = answer(8000).size_bytes
        cache = ResultCache(5 * size)
        for name in "abcde":
            cache.keep(key(name), answer(8000))
        assert cache.find(key("a")) is not None
        cache.keep(key("f"), answer(8000))
        assert [name for name in "abcdef" if cache.find(key(name)) is not None] == list("acdef")
        assert cache.info().size_bytes == 5 * size == cache.info().max_bytes

    def test_a_large_answer_makes_room_of_many(self) -> None:
        cache = ResultCache(100_000)
        for number in range(60):
            cache.keep(key(str(number)), answer(800))
        cache.keep(key("large"), answer(20_000))
        info = cache.info()
        assert cache.find(key("large")) is not None
        assert info.size_bytes <= 100_000
        assert info.size_bytes == sum(size for _, size in cache._entries.values())

    def test_an_answer_larger_than_a_quarter_is_not_kept(self) -> None:
        cache = ResultCache(100_000)
        cache.keep(key("small"), answer(800))
        cache.keep(key("large"), answer(26_000))
        assert cache.find(key("large")) is None
        assert cache.find(key("small")) is not None

    def test_an_answer_kept_twice_counts_once(self) -> None:
        cache = ResultCache(100_000)
        cache.keep(key("a"), answer(800))
        once = cache.info()
        cache.keep(key("a"), answer(800))
        assert cache.info() == once

    def test_answers_without_rows_take_room(self) -> None:
        cache = ResultCache(100_000)
        for number in range(1000):
            cache.keep(key(str(number)), answer(0))
        assert cache.info().entries < 100

    def test_clear_forgets_answers_and_keeps_counts(self, filled: Lake, work: Work) -> None:
        filled.sql("FROM runs")
        filled.sql("FROM runs")
        filled.cache.clear()
        info = filled.cache.info()
        assert (info.entries, info.size_bytes, info.hits, info.misses) == (0, 0, 1, 1)
        filled.sql("FROM runs")
        assert work.queries == 2

    @pytest.mark.parametrize("name", ["result_cache_bytes", "result_cache_disk_bytes"])
    def test_sizes_are_checked(self, name: str) -> None:
        assert getattr(Settings(**{name: 0}), name) == 0
        with pytest.raises(InvalidInputError, match=f"{name} must lie between 0 and"):
            Settings(**{name: -1})


class TestLiveRows:
    def test_show_as_they_are_flushed(self, tmp_path: Path, work: Work) -> None:
        query = "SELECT count(*), sum(value) FROM metrics"
        with opened(tmp_path / "lake") as writer, opened(tmp_path / "lake") as reader:
            assert reader.sql(query).fetchall() == [(0, None)]
            run = writer.run("e", capture=Capture.nothing())
            for step in range(4):
                run.log({"m": 1.0}, step=step)
                writer.flush()
                assert reader.sql(query).fetchall() == [(step + 1, step + 1.0)]
                before = work.queries
                assert reader.sql(query).fetchall() == [(step + 1, step + 1.0)]
                assert work.queries == before
            writer.commit()
            assert reader.sql(query).fetchall() == [(4, 4.0)]


class TestThreadsAndForks:
    def test_many_threads_ask_while_rows_come(self, tmp_path: Path) -> None:
        queries = ["SELECT count(*) FROM metrics", "SELECT coalesce(sum(n), 0)::BIGINT FROM summaries",
                   "SELECT count(DISTINCT step) FROM metrics_raw"]  # fmt: skip
        failures: list[object] = []
        done = threading.Event()
        with opened(tmp_path / "lake", result_cache_bytes=40_000) as lake:
            run = lake.run("e", capture=Capture.nothing())

            def ask(query: str) -> None:
                last = 0
                try:
                    while not done.is_set():
                        ((count,),) = lake.sql(query).fetchall()
                        if count < last:
                            failures.append((query, count, last))
                        last = count
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=ask, args=(query,)) for query in queries * 2]
            for thread in threads:
                thread.start()
            for step in range(12):
                run.log({"m": float(step)}, step=step)
                lake.flush()
                for query in queries:
                    assert lake.sql(query).fetchall() == [(step + 1,)]
                if step % 5 == 4:
                    lake.commit()
            done.set()
            for thread in threads:
                thread.join()
        assert failures == []

    def test_a_forked_child_asks_on_although_a_thread_held_the_lock(self) -> None:
        cache = ResultCache(100_000)
        cache.keep(key("a"), answer(800))
        size_bytes = cache.info().size_bytes
        cache._lock.acquire()
        cache._size_bytes += 17
        child = os.fork()
        if child == 0:
            ok = False
            try:
                ok = cache.find(key("a")) is not None and cache.info().size_bytes == size_bytes
            finally:
                os._exit(0 if ok else 1)
        cache._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_another_process_finds_what_was_kept_on_disk(filled: Lake) -> None:
    code = (
        "import sys, json, ckptlake\n"
        "lake = ckptlake.open(sys.argv[1], create=False, settings=ckptlake.Settings(result_cache_on_disk=True))\n"
        f"rows = lake.sql({CURVE!r}, run='a', m='m').fetchall()\n"
        "print(json.dumps([rows, lake.cache.info().hits]))\n"
    )
    found = [
        json.loads(
            subprocess.run([sys.executable, "-c", code, str(filled.path)], check=True, capture_output=True).stdout
        )
        for _ in range(2)
    ]
    assert found[0][0] == found[1][0] == [list(row) for row in filled.sql(CURVE, run="a", m="m").fetchall()]
    assert [hits for _, hits in found] == [0, 1]
