"""However a program ends, its runs end with it, rightly marked and with all their rows."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from scenes import BY_HAND, NOTHING, REPOSITORY, open_lake, run_script, segments, statuses, steps_of, wait_until

import ckptlake
from ckptlake import RequirementError, Settings

START = """
import os, sys, ckptlake
settings = ckptlake.Settings(flush_interval_s=3600, commit_interval_s=3600)
lake = ckptlake.open(sys.argv[1], settings=settings)
capture = ckptlake.Capture.nothing()
"""


def outcome(root: Path, program: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str], list[int], str]:
    ended = run_script(START + textwrap.dedent(program), str(root))
    lake = open_lake(root)
    notes = "\n".join(note or "" for (note,) in lake.sql("SELECT notes FROM runs").fetchall())
    return ended, statuses(lake), steps_of(lake), notes


def test_an_exception_in_the_block_marks_the_run_failed_with_its_traceback(tmp_path: Path) -> None:
    ended, found, steps, notes = outcome(
        tmp_path,
        """
        with lake.run(run_id="r", capture=capture) as run:
            run.log({"loss": 1.0}, step=0)
            raise ZeroDivisionError("over nothing")
        """,
    )
    assert ended.returncode == 1
    assert "ZeroDivisionError: over nothing" in ended.stderr
    assert (found, steps) == ({"r": "failed"}, [0])
    assert "Traceback" in notes
    assert "ZeroDivisionError: over nothing" in notes
    assert not segments(tmp_path)


def test_an_exception_outside_any_block_marks_the_run_failed(tmp_path: Path) -> None:
    ended, found, steps, notes = outcome(
        tmp_path,
        """
        run = lake.run(run_id="r", capture=capture)
        run.log({"loss": 1.0}, step=0)
        raise ZeroDivisionError("over nothing")
        """,
    )
    assert ended.returncode == 1
    assert (found, steps) == ({"r": "failed"}, [0])
    assert "ZeroDivisionError: over nothing" in notes
    assert not segments(tmp_path)


def test_a_program_that_simply_ends_finishes_its_run(tmp_path: Path) -> None:
    ended, found, steps, _ = outcome(
        tmp_path,
        """
        run = lake.run(run_id="r", capture=capture)
        run.log({"loss": 1.0}, step=0)
        """,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (found, steps) == ({"r": "finished"}, [0])


@pytest.mark.parametrize(
    "program",
    [
        "run = ckptlake.open(sys.argv[1]).run(run_id='r', capture=capture); run.log({'loss': 1.0}, step=0)",
        "run = ckptlake.init('p', id='r', dir=sys.argv[1]); ckptlake.log({'loss': 1.0}, step=0)",
        "def f():\n    run = lake.run(run_id='r', capture=capture)\n    run.log({'loss': 1.0}, step=0)\n"
        "f(); del lake; import gc; gc.collect()",
    ],
    ids=["open().run()", "init and log", "all names gone"],
)
def test_a_run_whose_lake_nobody_holds_is_finished_at_the_end(tmp_path: Path, program: str) -> None:
    ended = run_script(START + program, str(tmp_path))
    lake = open_lake(tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (statuses(lake), steps_of(lake)) == ({"r": "finished"}, [0])


def test_sys_exit_with_an_error_in_the_block_marks_the_run_failed(tmp_path: Path) -> None:
    ended, found, steps, notes = outcome(
        tmp_path,
        """
        with lake.run(run_id="r", capture=capture) as run:
            run.log({"loss": 1.0}, step=0)
            sys.exit(3)
        """,
    )
    assert (ended.returncode, found, steps) == (3, {"r": "failed"}, [0])
    assert "SystemExit: 3" in notes


def test_sys_exit_outside_a_block_leaves_no_run_open(tmp_path: Path) -> None:
    ended, found, steps, _ = outcome(
        tmp_path,
        """
        run = lake.run(run_id="r", capture=capture)
        run.log({"loss": 1.0}, step=0)
        sys.exit(3)
        """,
    )
    assert (ended.returncode, steps) == (3, [0])
    assert found["r"] in {"finished", "failed"}


def test_ctrl_c_marks_the_run_failed_and_keeps_its_rows(tmp_path: Path) -> None:
    ended, found, steps, notes = outcome(
        tmp_path,
        """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background
        with lake.run(run_id="r", capture=capture) as run:
            for step in range(1000):
                run.log({"loss": 1.0}, step=step)
                if step == 500:
                    signal.raise_signal(signal.SIGINT)
        """,
    )
    assert ended.returncode == -signal.SIGINT
    assert (found, steps) == ({"r": "failed"}, list(range(501)))
    assert "KeyboardInterrupt" in notes


def test_sigterm_is_a_kill_that_recovery_tells(tmp_path: Path) -> None:
    program = START + textwrap.dedent(
        """
        run = lake.run(run_id="r", capture=capture)
        run.log({"loss": 1.0}, step=0)
        run.flush()
        print("ready", flush=True)
        import time
        time.sleep(60)
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        process.wait(30)
    lake = open_lake(tmp_path)
    assert steps_of(lake) == [0]
    assert lake.recover().killed_runs == ("r",)
    assert (statuses(lake), steps_of(lake)) == ({"r": "killed"}, [0])


def test_one_run_that_cannot_finish_does_not_keep_others_open(tmp_path: Path) -> None:
    lake = open_lake(tmp_path)
    lake.experiment("strict").require(metrics=["acc"])
    first = lake.run("strict", run_id="a", capture=NOTHING)
    second = lake.run("lax", run_id="b", capture=NOTHING)
    first.log({"loss": 1.0}, step=0)
    second.log({"loss": 1.0}, step=1)
    with pytest.raises(RequirementError):
        lake.close()
    reader = open_lake(tmp_path)
    reader.recover()
    assert statuses(reader) == {"a": "failed", "b": "finished"}
    assert steps_of(reader) == [0, 1]


def test_a_lake_that_was_closed_logs_again_or_says_that_it_cannot(tmp_path: Path) -> None:
    lake = open_lake(tmp_path, Settings(flush_interval_s=0.02, commit_interval_s=3600))
    with lake.run(capture=NOTHING) as run:
        run.log({"loss": 1.0}, step=0)
    lake.close()
    try:
        run = lake.run(capture=NOTHING)
    except ckptlake.CkptlakeError:
        return
    run.log({"loss": 1.0}, step=1)
    wait_until(lambda: steps_of(lake) == [0, 1], timeout_s=5, what="the flush every 20 ms")
    run.finish()


def test_a_finish_that_returned_is_never_taken_back(tmp_path: Path) -> None:
    """The header of a segment begun while a run was ending still names it as open."""
    program = START + textwrap.dedent(
        """
        ending, other = (lake.run(run_id=name, capture=capture) for name in ("ending", "other"))
        event = ending._event
        def seal_behind_it(*arguments, **columns):
            event(*arguments, **columns)
            if columns.get("status") == "finished":
                lake.commit()
        ending._event = seal_behind_it
        ending.finish()
        os.kill(os.getpid(), 9)
        """
    )
    assert run_script(program, str(tmp_path)).returncode == -signal.SIGKILL
    lake = open_lake(tmp_path)
    lake.recover()
    assert statuses(lake) == {"ending": "finished", "other": "killed"}


def test_intervals_that_mean_never_are_accepted_or_refused_at_once(tmp_path: Path) -> None:
    for seconds in (float("inf"), 1e12):
        try:
            settings = Settings(flush_interval_s=seconds, commit_interval_s=seconds)
        except ckptlake.InvalidInputError:
            continue
        with open_lake(tmp_path / str(seconds), settings) as lake, lake.run(capture=NOTHING) as run:
            run.log({"loss": 1.0}, step=0)
        assert steps_of(lake) == [0]


def test_a_row_that_cannot_be_packed_does_not_take_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong while a batch is made, the calls it was made of are still there."""
    from ckptlake.runs import writer as writing

    lake = open_lake(tmp_path, BY_HAND)
    run = lake.run(capture=NOTHING)
    run.flush()
    for step in range(10):
        run.log({"loss": 1.0}, step=step)
    real = writing.pack_calls

    def no_memory(*_: object) -> object:
        raise MemoryError("for a moment")

    monkeypatch.setattr(writing, "pack_calls", no_memory)
    with contextlib.suppress(MemoryError):
        run.flush()
    monkeypatch.setattr(writing, "pack_calls", real)
    with contextlib.suppress(MemoryError):
        run.flush()
    run.finish()
    assert steps_of(lake) == list(range(10))


def test_steps_past_the_last_one_are_refused_and_cost_nothing(tmp_path: Path) -> None:
    lake = open_lake(tmp_path, BY_HAND)
    run = lake.run(capture=NOTHING)
    run.log({"loss": 1.0}, step=1)
    run.log({"loss": 1.0}, step=2**63 - 1)
    with pytest.raises(ckptlake.InvalidInputError):
        run.log({"loss": 2.0})
    with pytest.raises(ckptlake.InvalidInputError):
        run.log_frame({"loss": [1.0, 2.0]})
    run.finish()
    assert steps_of(lake) == [1, 2**63 - 1]
