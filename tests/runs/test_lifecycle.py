"""A run's life: how it starts, ends, goes on, and what it is called and belongs to meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from own_threads import own_threads

import ckptlake
from ckptlake import (
    Capture,
    InvalidInputError,
    Lake,
    ParamChangedError,
    Run,
    RunClosedError,
    RunExistsError,
    RunNotFoundError,
    RunStatus,
)
from ckptlake.runs import wal

Start = Callable[..., Run]
Points = Callable[..., list[tuple[str, int, float]]]


def row(lake: Lake, run: Run | str, *columns: str) -> tuple[Any, ...]:
    lake.flush()
    run_id = run if isinstance(run, str) else run.id
    (found,) = lake.sql(f"SELECT {', '.join(columns)} FROM runs WHERE run_id = $run", run=run_id).fetchall()
    return found if len(columns) > 1 else found[0]


class TestEnds:
    def test_a_block_that_ends_is_finished(self, lake: Lake, start: Start) -> None:
        with start() as run:
            assert row(lake, run, "status", "ended_at", "attempt") == ("running", None, 1)
        assert run.status == RunStatus.FINISHED
        status, started, ended, duration = row(
            lake, run, "status", "epoch_us(started_at)", "epoch_us(ended_at)", "duration_s"
        )
        assert status == "finished"
        assert ended > started
        assert duration == pytest.approx((ended - started) / 1e6)

    def test_a_block_that_raises_is_failed_and_keeps_the_traceback(self, lake: Lake, start: Start) -> None:
        with pytest.raises(ZeroDivisionError), start() as run:  # noqa: PT012
            run.log({"x": 1.0})
            1 / 0  # noqa: B018
        status, notes = row(lake, run, "status", "notes")
        assert status == "failed"
        assert run.status == RunStatus.FAILED
        assert notes.startswith("Traceback (most recent call last)")
        assert "1 / 0" in notes
        assert notes.endswith("ZeroDivisionError: division by zero")
        assert lake.sql("SELECT value FROM metrics").fetchall() == [(1.0,)]

    @pytest.mark.parametrize("text", ["a NUL \0", "a name that is no UTF-8: \udcff"], ids=ascii)
    def test_a_block_that_raises_with_text_no_table_can_hold(self, lake: Lake, start: Start, text: str) -> None:
        with pytest.raises(FileNotFoundError), start() as run:
            raise FileNotFoundError(text)
        status, notes = row(lake, run, "status", "notes")
        assert status == "failed"
        assert "FileNotFoundError: a N" in notes or "FileNotFoundError: a n" in notes

    def test_a_keyboard_interrupt_fails_the_run(self, lake: Lake, start: Start) -> None:
        with pytest.raises(KeyboardInterrupt), start() as run:
            raise KeyboardInterrupt
        assert row(lake, run, "status") == "failed"

    def test_fail(self, lake: Lake, start: Start) -> None:
        run = start()
        run.fail(ValueError("diverged"))
        run.fail(ValueError("again"))
        run.finish()
        assert row(lake, run, "status", "notes") == ("failed", "ValueError: diverged")

    @pytest.mark.parametrize("status", [RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED, "failed", "killed"])
    def test_finish_with_a_status(self, lake: Lake, start: Start, status: RunStatus | str) -> None:
        run = start()
        run.finish(status)
        assert row(lake, run, "status") == str(status)
        assert run.status == status

    @pytest.mark.parametrize("status", ["done", "running", RunStatus.RUNNING, "", None, 1], ids=repr)
    def test_finish_with_what_is_no_end_is_refused(self, lake: Lake, start: Start, status: Any) -> None:
        run = start()
        with pytest.raises(InvalidInputError, match="finished"):
            run.finish(status)
        run.log({"x": 1.0})
        run.finish()
        assert row(lake, run, "status") == "finished"

    def test_finish_twice_does_nothing(self, lake: Lake, start: Start) -> None:
        run = start()
        run.finish()
        ended = row(lake, run, "ended_at", "updated_at")
        run.finish(RunStatus.FAILED)
        assert row(lake, run, "ended_at", "updated_at") == ended
        assert row(lake, run, "status") == "finished"

    def test_finish_inside_the_block(self, lake: Lake, start: Start) -> None:
        with start() as run:
            run.finish(RunStatus.KILLED)
        assert row(lake, run, "status") == "killed"

    @pytest.mark.parametrize(
        "call",
        [
            lambda run: run.log({"x": 1.0}),
            lambda run: run.log_frame({"x": [1.0]}),
            lambda run: run.log_params({"x": 1}),
            lambda run: run.set_tags("x"),
            lambda run: run.remove_tags("x"),
            lambda run: run.note("x"),
            lambda run: run.rename("x"),
            lambda run: run.define("x", direction="min"),
        ],
        ids=["log", "log_frame", "log_params", "set_tags", "remove_tags", "note", "rename", "define"],
    )
    def test_a_call_after_the_end_names_the_remedy(self, lake: Lake, start: Start, call: Callable[[Run], None]) -> None:
        run = start()
        run.finish()
        before = row(lake, run, "name", "updated_at")
        with pytest.raises(
            RunClosedError, match=rf"run {run.id} has ended \(finished\).*lake.run\(resume='{run.id}'\)"
        ):
            call(run)
        lake.commit()
        assert row(lake, run, "name", "updated_at") == before

    def test_its_rows_are_in_the_tables(self, lake: Lake, start: Start) -> None:
        with start(params={"lr": 0.1}, tags="a") as run:
            run.log({"x": 1.0})
        assert list((lake.path / "wal").glob("*.wal")) == []
        for table in ("runs", "params", "tags", "metrics", "summaries"):
            assert lake.table(table).version() >= 0

    def test_repr_tells_what_it_is(self, start: Start) -> None:
        run = start("pose/vit", name="first")
        assert repr(run) == f"Run({run.id!r}, experiment='pose/vit', name='first', status=running)"
        run.finish()
        assert repr(run).endswith("status=finished)")


class TestResume:
    def test_is_another_attempt_that_goes_on(self, lake: Lake, start: Start, points: Points) -> None:
        with start("exp", name="n", params={"lr": 0.1}) as run:
            run.log({"x": 1.0}, step=4)
        started = row(lake, run, "started_at")
        with lake.run(resume=run.id, capture=Capture.nothing()) as again:
            assert (again.id, again.attempt, again.experiment, again.name) == (run.id, 2, "exp", "n")
            assert row(lake, run, "status", "attempt", "ended_at") == ("running", 2, None)
            again.log({"x": 2.0})
        assert points(run) == [("x", 4, 1.0), ("x", 5, 2.0)]
        assert row(lake, run, "status", "attempt", "started_at") == ("finished", 2, started)
        with lake.run(resume=again, capture=Capture.nothing()) as third:
            assert third.attempt == 3

    def test_of_a_failed_run_ends_with_its_own_status(self, lake: Lake, start: Start) -> None:
        run = start()
        run.fail(ValueError("first"))
        start(resume=run.id, experiment=None).finish()
        assert row(lake, run, "status", "notes") == ("finished", "ValueError: first")

    def test_keeps_the_params_and_compares_them(self, lake: Lake, start: Start) -> None:
        params = {
            "lr": 0.1,
            "huge": 2**70,
            "nan": float("nan"),
            "inf": float("inf"),
            "aug": [1, {"p": None}],
            "none": None,
        }
        start(run_id="r", params=params).finish()
        with start(resume="r", params={**params, "new": 1}) as again:
            assert again.params["lr"].number == 0.1
            with pytest.raises(ParamChangedError, match="'lr'"):
                again.log_params({"lr": 0.2})
        assert lake.sql("SELECT count(*) FROM params").fetchall() == [(7,)]

    def test_with_a_changed_param_leaves_the_run_as_it_was(self, lake: Lake, start: Start) -> None:
        start(run_id="r", params={"lr": 0.1}).finish()
        before = row(lake, "r", "status", "attempt", "updated_at", "notes")
        with pytest.raises(ParamChangedError, match=r"'lr' of run r is 0\.1 and cannot become 0\.2"):
            start(resume="r", params={"lr": 0.2})
        assert row(lake, "r", "status", "attempt", "updated_at", "notes") == before

    def test_with_a_changed_param_where_that_is_allowed(self, lake: Lake, start: Start) -> None:
        start(run_id="r", params={"lr": 0.1}).finish()
        start(resume="r", params={"lr": 0.2}, allow_change=True).finish()
        assert lake.sql("SELECT number FROM params").fetchall() == [(0.2,)]

    def test_of_a_missing_run(self, lake: Lake, start: Start) -> None:
        with pytest.raises(RunNotFoundError, match="resume='nope': the lake has no such run"):
            start(resume="nope")
        with pytest.raises(InvalidInputError, match="run id"):
            start(resume="../nope")
        assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(0,)]

    def test_refuses_what_contradicts_it(self, start: Start) -> None:
        start("exp", run_id="r").finish()
        start("exp", run_id="s").finish()
        with pytest.raises(InvalidInputError, match="belongs to experiment 'exp', not 'other'"):
            start("other", resume="r")
        with pytest.raises(InvalidInputError, match="name two runs"):
            start("exp", resume="r", run_id="s")
        with pytest.raises(InvalidInputError, match="not both"):
            start("exp", resume="r", fork_from=("s", 0))
        start("exp", resume="r", run_id="r").finish()

    def test_from_another_lake_object(self, lake: Lake, start: Start, points: Points) -> None:
        start(run_id="r").finish()
        with ckptlake.open(lake.path) as other, other.run(resume="r", capture=Capture.nothing()) as again:
            again.log({"x": 1.0})
            other.flush()
            assert row(lake, "r", "status", "attempt") == ("running", 2)
        assert row(lake, "r", "status", "attempt") == ("finished", 2)


class TestJoin:
    def test_while_the_run_is_open(self, lake: Lake, start: Start) -> None:
        first = start("exp", run_id="shared", name="n", params={"lr": 0.1})
        lake.flush()
        with ckptlake.open(lake.path) as other:
            second = other.run("exp", run_id="shared", params={"lr": 0.1}, capture=Capture.nothing())
            assert (second.attempt, second.name) == (1, "n")
            with pytest.raises(ParamChangedError):
                second.log_params({"lr": 0.2})
            second.log({"rank1": 1.0}, step=0)
            first.log({"rank0": 1.0}, step=0)
            first.finish()
            assert row(lake, "shared", "status", "ended_at") == ("running", None)
            second.finish()
        assert row(lake, "shared", "status", "attempt") == ("finished", 1)
        assert lake.sql("SELECT metric FROM metrics ORDER BY metric").fetchall() == [("rank0",), ("rank1",)]

    def test_one_failure_fails_the_run(self, lake: Lake, start: Start) -> None:
        first = start(run_id="shared")
        lake.flush()
        with ckptlake.open(lake.path) as other:
            other.run(run_id="shared", capture=Capture.nothing()).fail(ValueError("rank 1"))
        first.finish()
        assert row(lake, "shared", "status") == "failed"

    def test_with_a_changed_param_does_not_fail_the_others(self, lake: Lake, start: Start) -> None:
        first = start(run_id="shared", params={"lr": 0.1})
        lake.flush()
        with ckptlake.open(lake.path) as other, pytest.raises(ParamChangedError):
            other.run(run_id="shared", params={"lr": 0.2}, capture=Capture.nothing())
        first.finish()
        assert row(lake, "shared", "status", "notes") == ("finished", None)

    def test_twice_in_one_lake_lasts_until_both_have_ended(self, lake: Lake, start: Start) -> None:
        first = start(run_id="shared")
        lake.flush()
        second = start(run_id="shared")
        assert second.attempt == 1
        first.finish()
        assert row(lake, "shared", "status") == "running"
        second.log({"x": 1.0})
        second.finish()
        assert row(lake, "shared", "status") == "finished"

    def test_of_an_ended_run_is_refused(self, lake: Lake, start: Start) -> None:
        start(run_id="taken").finish()
        with pytest.raises(RunExistsError, match="'taken' exists and is finished: continue it with resume='taken'"):
            start(run_id="taken")
        assert row(lake, "taken", "attempt") == 1

    def test_resuming_an_open_run_joins_it(self, lake: Lake, start: Start) -> None:
        start(run_id="shared")
        lake.flush()
        with ckptlake.open(lake.path) as other, other.run(resume="shared", capture=Capture.nothing()) as again:
            assert again.attempt == 1

    @pytest.mark.parametrize("run_id", ["", "-a", "a b", "a/b", "é", "a" * 129, 5, "a\n", ".hidden"], ids=repr)
    def test_ids_that_cannot_be_kept_are_refused(self, start: Start, run_id: Any) -> None:
        with pytest.raises(InvalidInputError, match="run id"):
            start(run_id=run_id)

    @pytest.mark.parametrize("run_id", ["a", "0", "A.b_c-d", "a" * 128])
    def test_ids_that_can(self, lake: Lake, start: Start, run_id: str) -> None:
        with start(run_id=run_id) as run:
            run.log({"x": 1.0})
        assert lake.sql("SELECT run_id FROM metrics").fetchall() == [(run_id,)]


class TestFamily:
    def test_a_parent_by_id_and_by_object(self, lake: Lake, start: Start) -> None:
        parent = start()
        lake.flush()
        by_object, by_id = start(parent=parent), start(parent=parent.id)
        assert row(lake, by_object, "parent_run_id") == row(lake, by_id, "parent_run_id") == parent.id
        assert row(lake, parent, "parent_run_id") is None

    def test_a_missing_parent(self, lake: Lake, start: Start) -> None:
        with pytest.raises(RunNotFoundError, match="parent='nope'"):
            start(parent="nope")
        for wrong in (5, object(), ""):
            with pytest.raises(InvalidInputError, match="run id"):
                start(parent=wrong)
        assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(0,)]

    @pytest.mark.parametrize("role", ["parent", "fork_from", "run_id", "resume"])
    def test_a_run_just_started_is_found_however_slow_the_disk(
        self, lake: Lake, start: Start, monkeypatch: pytest.MonkeyPatch, role: str
    ) -> None:
        real_sync = wal.sync_data

        def slow_sync(descriptor: int) -> None:
            time.sleep(0.4)
            real_sync(descriptor)

        monkeypatch.setattr(wal, "sync_data", slow_sync)
        first = start(run_id="first")
        relation = {"fork_from": (first, 0), "parent": first}.get(role, "first")
        second = start(**{role: relation})
        assert row(lake, first, "count(*)") == 1
        if role in {"run_id", "resume"}:
            events = lake.sql("SELECT attempt, status FROM runs").fetchall()
            assert events == [(1, "running")]
            assert second.attempt == 1
            lake.commit()
            assert "joined" in {event for (event,) in _events(lake)}

    def test_nested_fifty_deep(self, lake: Lake, start: Start) -> None:
        chain = [start()]
        for _ in range(50):
            chain.append(start(parent=chain[-1]))
        lake.flush()
        found = lake.sql(
            "WITH RECURSIVE up(run_id, depth) AS (SELECT $leaf, 0 UNION ALL "
            "SELECT parent_run_id, depth + 1 FROM up JOIN runs USING (run_id) WHERE parent_run_id IS NOT NULL) "
            "SELECT run_id FROM up ORDER BY depth DESC",
            leaf=chain[-1].id,
        ).fetchall()
        assert [run_id for (run_id,) in found] == [run.id for run in chain]

    def test_a_fork_is_recorded(self, lake: Lake, start: Start, points: Points) -> None:
        with start() as origin:
            origin.log({"x": 1.0}, step=10)
        fork = start(fork_from=(origin, 7))
        again = start(fork_from=[origin.id, 0])
        assert row(lake, fork, "forked_from_run_id", "forked_from_step") == (origin.id, 7)
        assert row(lake, again, "forked_from_run_id", "forked_from_step") == (origin.id, 0)
        assert points(fork) == []

    @pytest.mark.parametrize(
        "fork_from", ["r", ("r",), ("r", 1, 2), ("r", 1.5), ("r", "1"), ("r", True), ("r", 2**63), 5], ids=repr
    )
    def test_a_fork_that_makes_no_sense_is_refused(self, lake: Lake, start: Start, fork_from: Any) -> None:
        start(run_id="r")
        lake.flush()
        with pytest.raises(InvalidInputError):
            start(fork_from=fork_from)
        assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(1,)]

    def test_a_fork_of_a_missing_run(self, start: Start) -> None:
        with pytest.raises(RunNotFoundError, match="fork_from='nope'"):
            start(fork_from=("nope", 0))


def _events(lake: Lake) -> list[tuple[str]]:
    import pyarrow.parquet as parquet

    files = (lake.path / "tables" / "runs").rglob("*.parquet")
    return [(event,) for file in files for event in parquet.read_table(file).column("event").to_pylist()]


EXPERIMENTS = [
    "a",
    "pose/vit/ablation",
    "a b",
    " a",
    "a ",
    "a=b",
    "a%2Fb",
    "100%",
    "é",
    "e\u0301",
    "姿态/估计",
    "\N{ROCKET}",
    "it's",
    'quo"te',
    "*",
    "[x]",
    "?",
    "back\\slash",
    "a:b",
    "#1",
    "$x",
    "~",
    "...",
    "-",
    "1",
    "01",
    "1e5",
    "true",
    "NULL",
    "null",
    "nan",
    "2026-01-01",
    "__HIVE_DEFAULT_PARTITION__",
    "a" * 240,
]


class TestExperimentNames:
    def test_of_many_kinds_are_kept(self, lake: Lake, start: Start) -> None:
        for name in EXPERIMENTS:
            with start(name) as run:
                run.log({"x": 1.0})
                run.log_frame({"x": [2.0]})
        for view in ("runs", "metrics", "summaries"):
            found = lake.sql(f"SELECT DISTINCT experiment FROM {view}").fetchall()
            assert {name for (name,) in found} == set(EXPERIMENTS)
        for name in EXPERIMENTS:
            found = lake.sql("SELECT step, value FROM metrics WHERE experiment = $name ORDER BY step", name=name)
            assert found.fetchall() == [(0, 1.0), (1, 2.0)], name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".",
            "..",
            "a/../b",
            "./a",
            "a\nb",
            "\x7f",
            "a\0",
            "\ud800",
            "a" * 241,
            "/".join("a" * 90),
            5,
            b"a",
        ],
        ids=lambda name: f"{name!r:.20}",
    )
    def test_that_cannot_be_kept_are_refused(self, lake: Lake, start: Start, name: Any) -> None:
        with pytest.raises(InvalidInputError, match="experiment's name"):
            start(name)
        with pytest.raises(InvalidInputError, match="experiment's name"):
            lake.experiment(name)
        assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(0,)]

    def test_none_is_default(self, start: Start) -> None:
        assert start(None).experiment == "default"


class TestManyAtOnce:
    def test_runs_of_one_lake_share_a_writer(self, lake: Lake, start: Start, points: Points) -> None:
        runs = [start(f"e{index % 3}") for index in range(12)]
        for step in range(20):
            for index, run in enumerate(runs):
                run.log({"x": float(index * 100 + step)}, step=step)
        assert len(list((lake.path / "wal").glob("*.wal"))) <= 2
        for index, run in enumerate(runs):
            assert points(run) == [("x", step, float(index * 100 + step)) for step in range(20)]
            run.finish()
        assert lake.sql("SELECT count(*) FROM metrics_raw").fetchall() == [(240,)]

    def test_threads_log_to_one_run(self, start: Start, points: Points) -> None:
        import threading

        run = start()

        def work(number: int) -> None:
            for step in range(500):
                run.log({f"t{number}": float(step)}, step=step)
                if step % 100 == 0:
                    run.note(f"{number}:{step}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.finish()
        assert points(run) == [(f"t{number}", step, float(step)) for number in range(4) for step in range(500)]

    def test_counted_steps_of_threads_are_never_the_same(self, start: Start, points: Points) -> None:
        import threading

        run = start()
        threads = [threading.Thread(target=lambda: [run.log({"x": 1.0}) for _ in range(500)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.finish()
        assert [step for _, step, _ in points(run)] == list(range(2000))

    def test_a_forked_worker_logs_to_its_parents_run(self, start: Start, points: Points) -> None:
        import multiprocessing

        run = start()
        run.log({"parent": 1.0}, step=0)
        context = multiprocessing.get_context("fork")

        def work(rank: int) -> None:
            for step in range(3):
                run.log({f"worker{rank}": float(step)}, step=step)

        workers = [context.Process(target=work, args=(rank,)) for rank in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
        assert [worker.exitcode for worker in workers] == [0, 0]
        run.finish()
        assert points(run) == [
            ("parent", 0, 1.0),
            *(("worker0", step, float(step)) for step in range(3)),
            *(("worker1", step, float(step)) for step in range(3)),
        ]


class TestThreads:
    def test_end_with_their_run(self, lake: Lake, start: Start) -> None:
        before = own_threads()
        for _ in range(5):
            start(capture=Capture(git=False, packages=False)).finish()
        assert sorted(thread.name for thread in own_threads() - before) == ["ckptlake-commit", "ckptlake-flush"]
