"""`lake.sql`: values of every kind, errors that help, many threads, results read again and again."""

from __future__ import annotations

import datetime as dt
import enum
import math
import os
import subprocess
import sys
import threading
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

import ckptlake
from ckptlake.errors import QueryError
from ckptlake.lake import Lake
from ckptlake.types import RunStatus


class Level(enum.IntEnum):
    LOW = 3


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -5, 2**62, 2**64, 1.5, -0.0, math.inf, "", "it's \"q\" $x ü 😀", b"\x00\xff",
        dt.date(2020, 2, 29), dt.datetime(2020, 1, 2, 3, 4, 5, 6), dt.time(1, 2, 3, 4),
        dt.timedelta(days=2, microseconds=3), Decimal("1.25"), [1, 2], [], ["a", None], {"a": 1, "b": [2]},
    ],
    ids=repr,
)  # fmt: skip
def test_values_come_back_as_they_went_in(busy_lake: Lake, value: Any) -> None:
    ((found,),) = busy_lake.sql("SELECT $value", value=value).fetchall()
    assert found == value
    assert repr(float(found)) == repr(float(value)) if isinstance(value, float) else True


def test_values_that_change_their_type(busy_lake: Lake) -> None:
    ((found,),) = busy_lake.sql("SELECT $v", v=math.nan).fetchall()
    assert math.isnan(found)
    moment = dt.datetime(2020, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=9)))
    assert busy_lake.sql("SELECT $v", v=moment).fetchall()[0][0] == moment
    identity = uuid.uuid4()
    assert str(busy_lake.sql("SELECT $v", v=identity).fetchall()[0][0]) == str(identity)
    assert busy_lake.sql("SELECT $v", v=RunStatus.FAILED).fetchall() == [("failed",)]
    assert busy_lake.sql("SELECT $v", v=Level.LOW).fetchall() == [(3,)]


@pytest.mark.parametrize("value", [RunStatus.FAILED, Level.LOW, 3, 3.0, "3", True, None, [3], b"3", Decimal(3)])
@pytest.mark.parametrize("column", ["step", "run_id"])
def test_any_value_may_stand_beside_a_column_that_decides_on_files(busy_lake: Lake, column: str, value: Any) -> None:
    def ask(text: str) -> Any:
        try:
            return busy_lake.sql(text, v=value).fetchall()
        except QueryError:
            return "refused"

    pruned = ask(f"SELECT count(*) FROM metrics WHERE {column} = $v")
    assert pruned == ask(f"SELECT count(*) FROM metrics WHERE {column} = $v OR ({column} = $v AND false)")


@pytest.mark.parametrize("value", [{1, 2}, object(), 1j, range(3), 2**130, "\ud800"], ids=ascii)
def test_a_value_that_cannot_be_bound_is_a_query_error(busy_lake: Lake, value: Any) -> None:
    for query in ("SELECT $v", "SELECT count(*) FROM metrics WHERE run_id = $v"):
        with pytest.raises(QueryError):
            busy_lake.sql(query, v=value)


@pytest.mark.parametrize("value", [np.int64(4), np.float32(0.5), np.bool_(True)], ids=repr)
def test_numpy_scalars_are_bound_or_refused_in_words(busy_lake: Lake, value: Any) -> None:
    try:
        found = busy_lake.sql("SELECT $v", v=value).fetchall()
    except QueryError as error:
        found = str(error)
    assert found == [(value.item(),)] or "numpy" in found


class TestErrors:
    @pytest.mark.parametrize(
        ("query", "values"),
        [
            ("SELECT * FROM metrics WHERE run_id = $run", {}),
            ("SELECT * FROM metrics WHERE run_id = $run AND step = $step", {"run": "a"}),
            ("SELECT * FROM metrics", {"run": "a"}),
            ("SELECT * FROM metrics WHERE run_id = $run", {"run": "a", "more": 1}),
            ("SELECT * FROM metrics WHERE run_id = ?", {}),
        ],
    )
    def test_missing_and_extra_values_say_how_to_bind(
        self, busy_lake: Lake, query: str, values: dict[str, Any]
    ) -> None:
        with pytest.raises(QueryError, match=r"Bind values by name: lake\.sql"):
            busy_lake.sql(query, **values)

    @pytest.mark.parametrize(
        "query",
        [
            "SELEC 1",
            "SELECT nothing FROM metrics",
            "SELECT * FROM no_such_table",
            "SELECT * FROM metrics WHERE no_such(run_id)",
            "SELECT 'x'::INTEGER",
            "SELECT step FROM metrics WHERE run_id = 5::STRUCT(a INT)",
            "SELECT error('on purpose')",
            "SELECT (SELECT step FROM metrics)",
            "SELECT * FROM read_parquet('/nowhere/*.parquet')",
            "INSERT INTO metrics VALUES (1)",
            "SELECT 1 +",
            "SELECT '\ud800'",
            "SELECT " + "+".join(["1"] * 900),
            "SELECT " + "(" * 2000 + "1" + ")" * 2000,
        ],
        ids=range(14),
    )
    def test_what_duckdb_refuses_is_a_query_error_in_its_words(self, busy_lake: Lake, query: str) -> None:
        try:
            found = busy_lake.sql(query).fetchall()
        except QueryError as error:
            found = str(error).strip()
        assert found in ([(900,)], [(1,)]) or "Error" in found

    def test_a_lake_works_on_after_an_error(self, busy_lake: Lake) -> None:
        with pytest.raises(QueryError):
            busy_lake.sql("SELECT error('x') FROM metrics")
        assert busy_lake.sql("SELECT count(*) > 0 FROM metrics").fetchall() == [(True,)]

    @pytest.mark.parametrize("query", ["", ";", "-- nothing"])
    def test_no_question_has_no_answer(self, busy_lake: Lake, query: str) -> None:
        try:
            found = busy_lake.sql(query).fetchall()
        except QueryError as error:
            found = str(error)
        assert found == [] or len(found) > 10

    @pytest.mark.parametrize("query", ["SHOW TABLES", "SELECT view_name FROM duckdb_views() WHERE NOT internal"])
    def test_the_views_can_be_listed(self, busy_lake: Lake, query: str) -> None:
        names = {row[0] for row in busy_lake.sql(query).fetchall()}
        assert {"runs", "metrics", "summaries", "runs_wide", "experiments"} <= names

    @pytest.mark.parametrize("query", ["SHOW metrics", "DESCRIBE metrics", "DESCRIBE FROM metrics"])
    def test_a_view_can_be_described(self, busy_lake: Lake, query: str) -> None:
        assert [row[0] for row in busy_lake.sql(query).fetchall()][:4] == ["experiment", "run_id", "metric", "step"]


class TestResults:
    def test_can_be_read_many_times_and_in_every_form(self, busy_lake: Lake) -> None:
        result = busy_lake.sql("SELECT run_id, step, value FROM metrics WHERE metric = 'val/loss' ORDER BY ALL")
        first = result.fetchall()
        assert len(first) > 20
        assert result.fetchall() == first
        frame = result.pl()
        assert isinstance(frame, pl.DataFrame)
        assert frame.rows() == first
        assert list(map(tuple, result.df().to_numpy().tolist())) == first
        assert result.to_arrow_table().num_rows == len(first)
        assert result.filter("step = 4").aggregate("count(*)").fetchall() == [(7,)]
        assert result.columns == ["run_id", "step", "value"]

    def test_outlive_later_questions_and_commits(self, lake: Lake, put: Any, point: Any) -> None:
        put(lake, "metrics", point(0, 1.0))
        result = lake.sql("SELECT value FROM metrics")
        put(lake, "metrics", point(1, 2.0))
        assert lake.sql("SELECT count(*) FROM metrics").fetchall() == [(2,)]
        lake.table("metrics").compact()
        lake.table("metrics").vacuum(dry_run=False, retention_hours=0)
        assert result.fetchall() == [(1.0,)]

    def test_sums_of_integers_are_integers(self, busy_lake: Lake) -> None:
        ((total,),) = busy_lake.sql("SELECT sum(step) FROM metrics WHERE run_id = 'r-d1'").fetchall()
        assert isinstance(total, int)

    def test_columns_of_one_name_are_kept(self, busy_lake: Lake) -> None:
        assert busy_lake.sql("SELECT 1 AS a, 2 AS a").fetchall() == [(1, 2)]

    def test_an_answer_without_rows_has_its_columns(self, busy_lake: Lake) -> None:
        result = busy_lake.sql("SELECT run_id, step FROM metrics WHERE run_id = 'absent'")
        assert (result.fetchall(), result.columns) == ([], ["run_id", "step"])

    def test_times_are_utc_whatever_the_machine_says(self, busy_lake: Lake) -> None:
        code = (
            "import sys, ckptlake\n"
            "lake = ckptlake.open(sys.argv[1], create=False)\n"
            "query = \"SELECT TIMESTAMPTZ '2026-01-01 00:30:00+00' AS t, t::VARCHAR, t::DATE::VARCHAR, "
            "current_setting('disabled_optimizers')\"\n"
            "print(lake.sql(query).fetchall()[0][1:] == lake.connect().execute(query).fetchall()[0][1:])\n"
            "print(lake.sql(query).fetchall()[0][2], lake.sql(query).fetchall()[0][0].utcoffset())\n"
        )
        found = subprocess.run(
            [sys.executable, "-c", code, str(busy_lake.path)],
            env=os.environ | {"TZ": "America/New_York"}, check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert found.stdout.splitlines() == ["True", "2026-01-01 0:00:00"]


class TestThreads:
    def test_eight_threads_ask_one_lake(self, busy_lake: Lake) -> None:
        queries = {
            "SELECT count(*) FROM metrics WHERE run_id = $r": {"r": "r-a1"},
            "SELECT count(*) FROM metrics_raw": {},
            "SELECT sum(n) FROM summaries": {},
            "SELECT count(*) FROM runs_wide": {},
            "SELECT max(value) FROM metrics WHERE run_id = 'r-a2' AND metric = 'train/loss'": {},
        }
        expected = {query: busy_lake.sql(query, **values).fetchall() for query, values in queries.items()}
        failures: list[object] = []
        barrier = threading.Barrier(8)

        def ask(offset: int) -> None:
            barrier.wait()
            try:
                for number in range(6):
                    query = list(queries)[(number + offset) % len(queries)]
                    found = busy_lake.sql(query, **queries[query]).fetchall()
                    if found != expected[query]:
                        failures.append((query, found))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    def test_the_first_question_may_come_from_many_threads_at_once(self, busy_lake: Lake) -> None:
        fresh = ckptlake.open(busy_lake.path, create=False)
        expected = busy_lake.sql("SELECT count(*), sum(value) FROM metrics_raw WHERE metric = 'val/loss'").fetchall()
        barrier, found = threading.Barrier(8), []

        def ask() -> None:
            barrier.wait()
            try:
                found.append(
                    fresh.sql("SELECT count(*), sum(value) FROM metrics_raw WHERE metric = 'val/loss'").fetchall()
                )
            except BaseException as error:
                found.append(error)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [expected] * 8


class TestConnect:
    def test_has_every_view_and_keeps_to_its_moment(self, lake: Lake, put: Any, point: Any) -> None:
        from ckptlake.query.views import ALL_VIEWS

        put(lake, "metrics", point(0, 1.0), point(0, 2.0, ts=9000))
        with lake.connect() as connection:
            for view in ALL_VIEWS:
                connection.execute(f"FROM {view}").fetchall()
            put(lake, "metrics", point(1, 2.0))
            assert connection.execute("SELECT value FROM metrics").fetchall() == [(2.0,)]
            assert connection.execute("SELECT in_subtree('a/b', 'a')").fetchall() == [(True,)]
        with lake.connect() as connection:
            assert connection.execute("SELECT count(*) FROM metrics").fetchall() == [(2,)]

    def test_connections_are_apart(self, lake: Lake) -> None:
        with lake.connect() as one, lake.connect() as other:
            one.execute("CREATE TABLE mine AS SELECT 1 AS x")
            assert "mine" not in {name for (name,) in other.execute("SHOW TABLES").fetchall()}
        with pytest.raises(QueryError):
            lake.sql("FROM mine")
