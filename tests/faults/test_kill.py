"""kill -9 at any moment: nothing acknowledged is lost, nothing is doubled, readers never notice."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import traceback
from pathlib import Path

import pytest
from scenes import (
    BY_HAND,
    HURRIED,
    NOTHING,
    join,
    left_by_a_kill,
    open_lake,
    run_script,
    segments,
    start,
    statuses,
    steps_of,
    wait_until,
)

import ckptlake
from ckptlake import RunNotFoundError

ROUND = 1_000_000


def write_until_killed(root: str, run_id: str, first: int, acknowledged: str, ready: str) -> None:
    Path(ready).touch()
    lake = ckptlake.open(root, settings=HURRIED)
    try:
        run = lake.run(resume=run_id, capture=NOTHING)
    except RunNotFoundError:
        run = lake.run(run_id=run_id, capture=NOTHING)
    book = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for step in range(first, first + ROUND):
        run.log({"loss": float(step)}, step=step)
        if step % 7 == 6:
            run.flush()
            os.write(book, f"{step}\n".encode())


def read_until_told(root: str, run_ids: list[str], books: list[str], stop: str, report: str) -> None:
    """Read on and on; each answer holds what was acknowledged before the question, each row once."""
    reads = 0
    try:
        lake = ckptlake.open(root, settings=BY_HAND)
        while not Path(stop).exists():
            for run_id, book in zip(run_ids, books, strict=True):
                expected = acknowledged_steps(book)
                steps = steps_of(lake, run_id)
                seen = set(steps)
                assert len(seen) == len(steps), f"{run_id}: {len(steps) - len(seen)} rows seen twice"
                assert expected <= seen, f"{run_id}: acknowledged and not seen: {sorted(expected - seen)[:5]}"
                shown = lake.sql("SELECT n FROM summaries WHERE run_id = $r", r=run_id).fetchall()
                assert len(shown) <= 1, f"{run_id} has {len(shown)} summaries of one curve"
                assert not expected or shown[0][0] >= len(expected), f"{run_id}: the summary counts too few"
            reads += 1
        assert reads > 3
    except BaseException:
        Path(report).write_text(traceback.format_exc())
        raise


def acknowledged_steps(book: str) -> set[int]:
    """Return all steps up to the last acknowledged one of each round."""
    found: set[int] = set()
    last: dict[int, int] = {}
    if Path(book).exists():
        for line in Path(book).read_text().splitlines():
            last[int(line) // ROUND] = int(line)
    for number, step in last.items():
        found.update(range(number * ROUND, step + 1))
    return found


def is_cut_short(place: Path) -> bool:
    """Tell whether what was set aside is the one frame a kill cut short, which nobody was told is safe."""
    return " of a frame's " in json.loads(place.with_name(f"{place.name}.json").read_text())["damage"]


def rounds_of_kills(root: Path, rounds: int, longest_s: float, seed: int) -> None:
    chance = random.Random(seed)
    lake_path = root / "lake"
    run_ids, books = ["first", "second"], [str(root / "first.book"), str(root / "second.book")]
    stop, report = root / "stop", root / "report"
    open_lake(lake_path).close()
    reader = start(read_until_told, str(lake_path), run_ids, books, str(stop), str(report))
    for number in range(1, rounds + 1):
        ready = [root / f"{run_id}-{number}" for run_id in run_ids]
        writers = [
            start(write_until_killed, str(lake_path), run_id, number * ROUND, book, str(sign))
            for run_id, book, sign in zip(run_ids, books, ready, strict=True)
        ]
        wait_until(lambda signs=ready: all(sign.exists() for sign in signs), what="the start of both writers")
        if chance.random() < 0.4:
            wait_until(lambda n=number: any(n * ROUND in acknowledged_steps(book) for book in books), what="a flush")
        for writer in chance.sample(writers, 2):
            time.sleep(chance.uniform(0, longest_s))
            assert writer.exitcode is None, f"a writer ended by itself with {writer.exitcode}"
            writer.kill()
            writer.join()
        assert reader.exitcode is None, report.read_text()
    stop.touch()
    join([reader])
    lake = open_lake(lake_path)
    before = {run_id: steps_of(lake, run_id) for run_id in run_ids}
    found = lake.recover()
    assert not segments(lake_path)
    assert all(is_cut_short(place) for place in found.quarantined)
    for run_id, book in zip(run_ids, books, strict=True):
        steps = steps_of(lake, run_id)
        assert steps == before[run_id], "recovery changed which rows there are"
        assert len(set(steps)) == len(steps)
        assert acknowledged_steps(book) <= set(steps)
        assert acknowledged_steps(book), "no round ever acknowledged a row"
        for number in {step // ROUND for step in steps}:
            of_round = [step for step in steps if step // ROUND == number]
            assert of_round == list(range(number * ROUND, number * ROUND + len(of_round))), "a hole among the rows"
        assert lake.sql("SELECT n FROM summaries WHERE run_id = $r", r=run_id).fetchall() == [(len(steps),)]
    assert statuses(lake) == {"first": "killed", "second": "killed"}
    lake.table("metrics").compact()
    assert {run_id: steps_of(lake, run_id) for run_id in run_ids} == before


@pytest.mark.timeout(240)
def test_fifty_rounds_of_kills_with_two_writers_and_a_reader(tmp_path: Path) -> None:
    rounds_of_kills(tmp_path, rounds=50, longest_s=0.25, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_rounds_of_kills(tmp_path: Path) -> None:
    rounds_of_kills(tmp_path, rounds=600, longest_s=1.2, seed=int(os.environ.get("CKPTLAKE_SEED", "2")))


def test_a_run_killed_right_after_its_start_is_marked_killed(tmp_path: Path) -> None:
    left_by_a_kill(tmp_path, [])
    lake = open_lake(tmp_path)
    assert statuses(lake) == {"victim": "running"}
    assert lake.recover().killed_runs == ("victim",)
    assert statuses(lake) == {"victim": "killed"}


def test_a_kill_while_a_table_is_created_is_healed(tmp_path: Path) -> None:
    """The folder of the log is there before its first entry is."""
    for name in ("metrics", "runs", "summaries"):
        (tmp_path / "lake" / "tables" / name / "_delta_log").mkdir(parents=True)
    (tmp_path / "whole").mkdir()
    identity = open_lake(tmp_path / "whole")
    (tmp_path / "lake" / "lake.json").write_bytes((identity.path / "lake.json").read_bytes())
    lake = open_lake(tmp_path / "lake")
    with lake.run(capture=NOTHING) as run:
        run.log({"loss": 1.0}, step=3)
    assert steps_of(lake) == [3]
    assert not segments(lake.path)


def test_a_kill_between_the_commits_of_two_tables_shows_every_curve_once(tmp_path: Path) -> None:
    """Interleaved steps of two writers look like repeated ones until they are summarised together."""
    program = """
        import os, sys, ckptlake
        settings = ckptlake.Settings(flush_interval_s=3600, commit_interval_s=3600)
        lakes = [ckptlake.open(sys.argv[1], settings=settings) for _ in range(2)]
        runs = [lake.run(run_id="victim", capture=ckptlake.Capture.nothing()) for lake in lakes]
        for step in range(4):
            runs[step % 2].log({"loss": 1.0}, step=step)
        for _ in range(2):
            runs[0].log({"twice": 1.0}, step=5)
        for run in runs:
            run.flush()
        os.kill(os.getpid(), 9)
    """
    assert run_script(program, str(tmp_path)).returncode == -signal.SIGKILL
    reader, lake = open_lake(tmp_path), open_lake(tmp_path)
    query = "SELECT metric, n, first_step, last_step FROM summaries ORDER BY metric"
    expected, steps = [("loss", 4, 0, 3), ("twice", 1, 5, 5)], [0, 1, 2, 3, 5, 5]
    assert reader.sql(query).fetchall() == expected
    store = lake._store("metrics")

    def refuse(*_: object, **__: object) -> int:
        raise ckptlake.StorageError("cut off here")

    store.append = refuse  # type: ignore[method-assign]
    with pytest.raises(ckptlake.StorageError):
        lake.recover()
    assert reader.sql(query).fetchall() == expected
    assert steps_of(reader) == steps
    del store.append
    lake.recover()
    assert reader.sql(query).fetchall() == expected
    assert steps_of(reader) == steps


def test_sigkill_of_a_real_process_loses_only_what_was_not_flushed(tmp_path: Path) -> None:
    left_by_a_kill(tmp_path, [("loss", step, step / 3) for step in range(10)], flush_every=4)
    lake = open_lake(tmp_path)
    assert steps_of(lake) == list(range(8))
    assert lake.recover().segments == 1
    assert steps_of(lake) == list(range(8))
    assert signal.SIGKILL == 9
