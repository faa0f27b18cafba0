"""Threads, forked workers and other processes that log to one run: every point is there once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from scenes import HURRIED, NOTHING, join, open_lake, run_script, segments, start, statuses, steps_of

import ckptlake
from ckptlake import Run
from ckptlake._internal.locks import exclusive, exclusive_if_free


def in_fork(work: Callable[[], None], *, leave: Callable[[int], None] = os._exit) -> int:
    """Run `work` in a fork of this process and return the child's id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(30)
        work()
        code = 0
    finally:
        leave(code)
    raise AssertionError


def wait_for(child: int, timeout_s: float = 40) -> int:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"a forked child was still at it after {timeout_s} s")


def test_eight_threads_log_a_thousand_times_each(tmp_path: Path) -> None:
    lake = open_lake(tmp_path, HURRIED)
    run = lake.run(run_id="r", capture=NOTHING)

    def work(number: int) -> None:
        for step in range(1000):
            run.log({f"loss{number}": float(step)}, step=step)
            if step % 250 == 249:
                run.flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()
    assert lake.sql("SELECT metric, n, first_step, last_step FROM summaries ORDER BY metric").fetchall() == [
        (f"loss{number}", 1000, 0, 999) for number in range(8)
    ]
    assert steps_of(lake) == [step for step in range(1000) for _ in range(8)]
    assert statuses(lake) == {"r": "finished"}
    stamps = lake.sql("SELECT count(*), count(DISTINCT ts) FROM metrics_raw").fetchall()
    assert stamps == [(8000, 8000)], "two log calls of one run share a timestamp"


def test_counted_steps_of_many_threads_are_all_different(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    run = lake.run(capture=NOTHING)
    threads = [
        threading.Thread(target=lambda: [run.log({"loss": 1.0}) for _ in range(500)])  # type: ignore[func-returns-value]
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()
    assert steps_of(lake) == list(range(4000))


def test_forks_while_other_threads_log_and_commit(tmp_path: Path) -> None:
    lake = open_lake(tmp_path, HURRIED)
    run = lake.run(run_id="r", capture=NOTHING)
    stop = threading.Event()
    logged = [0, 0]

    def work(number: int) -> None:
        while not stop.is_set():
            run.log({"parent": 1.0}, step=number * 1_000_000 + logged[number])
            logged[number] += 1
            if logged[number] % 20 == 0:
                time.sleep(0.001)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()

    def child(number: int) -> None:
        for step in range(20):
            run.log({"child": float(number)}, step=number * 1000 + step)
        run.flush()

    children = []
    for number in range(25):
        children.append(in_fork(lambda number=number: child(number)))  # type: ignore[misc]
        time.sleep(0.01)
    assert [wait_for(pid) for pid in children] == [0] * 25
    stop.set()
    for thread in threads:
        thread.join()
    run.finish()
    lake.recover()
    query = "SELECT step FROM metrics_raw WHERE metric = $m ORDER BY step"
    found = [step for (step,) in lake.sql(query, m="child").fetchall()]
    assert found == [number * 1000 + step for number in range(25) for step in range(20)]
    expected = [number * 1_000_000 + step for number in range(2) for step in range(logged[number])]
    assert [step for (step,) in lake.sql(query, m="parent").fetchall()] == expected
    assert statuses(lake) == {"r": "finished"}
    lake.close()
    assert not segments(tmp_path)


def log_as_worker(run: Run, number: int) -> None:
    for step in range(50):
        run.log({"worker": float(number)}, step=number * 100 + step)


def test_workers_of_multiprocessing_leave_all_their_points(tmp_path: Path) -> None:
    """As the workers of a DataLoader do: no flush of their own, they just end."""
    lake = open_lake(tmp_path, HURRIED)
    with lake.run(run_id="r", capture=NOTHING) as run:
        run.log({"parent": 1.0}, step=7)
        workers = [
            multiprocessing.get_context("fork").Process(target=log_as_worker, args=(run, number)) for number in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0] * 4
        run.log({"parent": 1.0}, step=8)
    lake.recover()
    assert steps_of(lake) == sorted([7, 8, *(number * 100 + step for number in range(4) for step in range(50))])
    assert statuses(lake) == {"r": "finished"}


def test_a_forked_child_that_is_killed_keeps_what_it_flushed(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    run = lake.run(run_id="r", capture=NOTHING)
    run.log({"parent": 1.0}, step=0)

    def child() -> None:
        for step in range(100, 110):
            run.log({"child": 1.0}, step=step)
        run.flush()
        run.log({"child": 1.0}, step=200)
        os.kill(os.getpid(), signal.SIGKILL)

    assert wait_for(in_fork(child)) == -signal.SIGKILL
    run.flush()
    assert statuses(lake) == {"r": "running"}
    assert lake.recover().killed_runs == ()
    assert statuses(lake) == {"r": "running"}
    run.finish()
    assert steps_of(lake) == [0, *range(100, 110)]
    assert statuses(lake) == {"r": "finished"}


def test_a_fork_takes_no_pending_rows_and_ends_no_run(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    run = lake.run(run_id="r", capture=NOTHING)
    run.log({"loss": 1.0}, step=0)

    def child() -> None:
        run.flush()
        run.finish()
        with contextlib.suppress(ckptlake.RunClosedError):
            run.log({"loss": 1.0}, step=1)
        lake.close()

    assert wait_for(in_fork(child)) == 0
    run.log({"loss": 1.0}, step=2)
    run.finish()
    lake.recover()
    assert steps_of(lake) == [0, 2]
    assert statuses(lake) == {"r": "finished"}


def test_a_fork_that_leaves_by_sys_exit_ends_no_run(tmp_path: Path) -> None:
    program = """
        import os, sys, ckptlake
        lake = ckptlake.open(sys.argv[1])
        run = lake.run(capture=ckptlake.Capture.nothing())  # DuckDB, once open, does not survive a fork and an exit
        run.log({"parent": 1.0}, step=0)
        child = os.fork()
        if child == 0:
            run.log({"child": 1.0}, step=1)
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert lake.sql("SELECT status FROM runs").fetchall() in ([("running",)], [])
        run.log({"parent": 1.0}, step=2)
        run.finish()
        lake.recover()
    """
    ended = run_script(program, str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    lake = open_lake(tmp_path)
    assert (steps_of(lake), list(statuses(lake).values())) == ([0, 1, 2], ["finished"])


def test_a_fork_holds_no_lock_of_its_parent(tmp_path: Path) -> None:
    children = []
    with exclusive(tmp_path / "lock", 1):
        children.append(in_fork(lambda: time.sleep(5)))
    try:
        with exclusive_if_free(tmp_path / "lock") as free:
            assert free, "a forked child keeps its parent's lock alive"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_segments_of_a_killed_parent_are_adopted_though_its_children_live(tmp_path: Path) -> None:
    program = """
        import os, sys, time, ckptlake
        settings = ckptlake.Settings(flush_interval_s=3600, commit_interval_s=3600)
        lake = ckptlake.open(sys.argv[1], settings=settings)
        run = lake.run(run_id="r", capture=ckptlake.Capture.nothing())
        run.log({"parent": 1.0}, step=0)
        run.flush()
        if os.fork() == 0:
            os.close(1); os.close(2)
            time.sleep(20)
            os._exit(0)
        os.kill(os.getpid(), 9)
    """
    assert run_script(program, str(tmp_path)).returncode == -signal.SIGKILL
    lake = open_lake(tmp_path)
    assert lake.recover().killed_runs == ("r",)
    assert steps_of(lake) == [0]
    assert not segments(tmp_path)


def test_a_run_started_in_a_fork(tmp_path: Path) -> None:
    """The parent has used every part of the library before."""
    lake = open_lake(tmp_path, HURRIED)
    with lake.run(run_id="first", capture=NOTHING) as run:
        run.log({"loss": 1.0}, step=0)
    assert steps_of(lake) == [0]

    def child() -> None:
        with lake.run(run_id="second", capture=NOTHING) as run:
            run.log({"loss": 1.0}, step=1)

    assert wait_for(in_fork(child)) == 0
    lake.recover()
    assert steps_of(lake) == [0, 1]
    assert statuses(lake) == {"first": "finished", "second": "finished"}


def rank(root: str, number: int, steps: int) -> None:
    lake = ckptlake.open(root, settings=HURRIED)
    with lake.run("joint", run_id="shared", capture=NOTHING) as run:
        for step in range(steps):
            run.log({f"rank{number}": 1.0, "all": float(number)}, step=step)
    lake.close()


def test_processes_that_join_one_run(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    leader = lake.run("joint", run_id="shared", capture=NOTHING)
    leader.flush()
    join([start(rank, str(tmp_path), number, 100) for number in range(3)])
    assert statuses(lake) == {"shared": "running"}
    leader.finish()
    assert statuses(lake) == {"shared": "finished"}
    assert dict(lake.sql("SELECT metric, n FROM summaries").fetchall()) == {
        "all": 100,
        "rank0": 100,
        "rank1": 100,
        "rank2": 100,
    }
    raw = "SELECT count(*) FROM metrics_raw WHERE metric = 'all'"
    assert lake.sql(raw).fetchall() == [(300,)]


def die_as_rank(root: str) -> None:
    lake = ckptlake.open(root, settings=HURRIED)
    run = lake.run("joint", run_id="shared", capture=NOTHING)
    run.log({"dead": 1.0}, step=0)
    run.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_rank_that_is_killed_marks_the_run_killed_and_loses_nothing(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    with lake.run("joint", run_id="shared", capture=NOTHING) as leader:
        leader.flush()
        dying = start(die_as_rank, str(tmp_path))
        dying.join()
        assert dying.exitcode == -signal.SIGKILL
        lake.recover()
        assert statuses(lake) == {"shared": "running"}
        leader.log({"alive": 1.0}, step=1)
    assert statuses(lake) == {"shared": "killed"}
    assert steps_of(lake) == [0, 1]


def start_at_once(root: str, number: int) -> None:
    lake = ckptlake.open(root, settings=HURRIED)
    with lake.run(capture=NOTHING) as run:
        run.log({"loss": 1.0}, step=number)
    lake.close()


def test_processes_that_make_the_first_commits_of_a_lake_together(tmp_path: Path) -> None:
    join([start(start_at_once, str(tmp_path / "lake"), number) for number in range(4)])
    assert steps_of(open_lake(tmp_path / "lake")) == list(range(4))


def test_threads_that_make_the_first_commits_of_a_lake_together(tmp_path: Path) -> None:
    for attempt in range(4):
        root, errors, barrier = tmp_path / str(attempt), [], threading.Barrier(6)
        lakes = [open_lake(root) for _ in range(6)]
        runs = [lake.run(capture=NOTHING) for lake in lakes]

        def finish(number: int, runs=runs, errors=errors, barrier=barrier) -> None:  # type: ignore[no-untyped-def]
            try:
                runs[number].log({"loss": 1.0}, step=number)
                barrier.wait()
                runs[number].finish()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=finish, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert steps_of(open_lake(root)) == list(range(6))
