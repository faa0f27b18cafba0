"""Compaction, deletion and vacuum beside each other and beside writers: the rows stay exactly what they are."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from scenes import BY_HAND, NOTHING, join, open_lake, points_of, start, steps_of, wait_until

import ckptlake
from ckptlake import CkptlakeError, CommitConflictError, Settings

BUSY = Settings(flush_interval_s=0.01, commit_interval_s=0.02, auto_compact=False)


def fill(root: Path, files: int, run_id: str = "old") -> None:
    with open_lake(root, Settings(flush_interval_s=3600, commit_interval_s=3600, auto_compact=False)) as lake:
        run = lake.run(run_id=run_id, capture=NOTHING)
        for step in range(files):
            run.log({"loss": float(step)}, step=step)
            lake.commit()
        run.finish()


def compact_many_times(root: str, times: int) -> None:
    lake = ckptlake.open(root, settings=BY_HAND)
    for _ in range(times):
        for table in lake.tables():
            table.compact()


def append_many_times(root: str, run_id: str, steps: int) -> None:
    lake = ckptlake.open(root, settings=BUSY)
    with lake.run(run_id=run_id, capture=NOTHING) as run:
        for step in range(steps):
            run.log({"loss": float(step)}, step=step)
            time.sleep(0.002)
    lake.close()


def vacuum_many_times(root: str, stop: str) -> None:
    lake = ckptlake.open(root, settings=BY_HAND)
    while not Path(stop).exists():
        for table in lake.tables():
            table.vacuum(dry_run=False, retention_hours=0)


def delete_one(root: str, run_id: str) -> None:
    lake = ckptlake.open(root, settings=BY_HAND)
    for _ in range(20):
        try:
            lake.delete_runs(run_id)
        except CommitConflictError:
            continue
        return


def test_two_compactions_at_once(tmp_path: Path) -> None:
    fill(tmp_path, 12)
    before = points_of(open_lake(tmp_path))
    join([start(compact_many_times, str(tmp_path), 3) for _ in range(2)])
    lake = open_lake(tmp_path)
    assert points_of(lake) == before
    assert len(lake.table("metrics").files()) == 1
    assert lake.sql("SELECT n FROM summaries").fetchall() == [(12,)]


def test_two_compactions_of_one_snapshot_past_the_lock(tmp_path: Path) -> None:
    """Were the lock files to fail, the guard in the log still refuses the second."""
    fill(tmp_path, 6)
    first, second = open_lake(tmp_path)._store("metrics"), open_lake(tmp_path)._store("metrics")
    from ckptlake.tables.reading import read_files

    prepared = []
    for store in (first, second):
        guard, files = store.replacements(), store.snapshot().files()
        prepared.append((store, guard, files, store.stage(read_files(store.path, store.spec, files))))
    store, guard, files, staged = prepared[0]
    store.replace(files, staged, guard=guard, operation="compact", data_change=False)
    store, guard, files, staged = prepared[1]
    with pytest.raises(CommitConflictError):
        store.replace(files, staged, guard=guard, operation="compact", data_change=False)
    assert steps_of(open_lake(tmp_path)) == list(range(6))


def test_compaction_beside_appends(tmp_path: Path) -> None:
    fill(tmp_path, 8)
    workers = [start(append_many_times, str(tmp_path), f"new{number}", 150) for number in range(2)]
    workers.append(start(compact_many_times, str(tmp_path), 6))
    join(workers)
    lake = open_lake(tmp_path)
    for run_id, steps in (("old", 8), ("new0", 150), ("new1", 150)):
        assert steps_of(lake, run_id) == list(range(steps))
        assert lake.sql("SELECT n FROM summaries WHERE run_id = $r", r=run_id).fetchall() == [(steps,)]


def test_delete_beside_compaction_and_appends(tmp_path: Path) -> None:
    fill(tmp_path, 6, "kept")
    fill(tmp_path, 6, "doomed")
    join(
        [
            start(compact_many_times, str(tmp_path), 4),
            start(append_many_times, str(tmp_path), "new", 100),
            start(delete_one, str(tmp_path), "doomed"),
        ]
    )
    lake = open_lake(tmp_path)
    assert steps_of(lake, "doomed") == []
    assert steps_of(lake, "kept") == list(range(6))
    assert steps_of(lake, "new") == list(range(100))
    for table in ("runs", "summaries", "params", "tags"):
        assert lake.sql(f"SELECT count(*) FROM {table} WHERE run_id = 'doomed'").fetchall() == [(0,)]


def test_two_deletions_of_one_run(tmp_path: Path) -> None:
    fill(tmp_path, 6, "kept")
    fill(tmp_path, 6, "doomed")
    errors: list[BaseException] = []

    def delete() -> None:
        try:
            open_lake(tmp_path).delete_runs("doomed")
        except ckptlake.RunNotFoundError:
            pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=delete) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    lake = open_lake(tmp_path)
    assert (steps_of(lake, "doomed"), steps_of(lake, "kept")) == ([], list(range(6)))


def test_vacuum_beside_writers(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    stop = tmp_path.parent / "stop"
    vacuuming = start(vacuum_many_times, str(tmp_path), str(stop))
    join([start(append_many_times, str(tmp_path), f"new{number}", 100) for number in range(2)])
    open_lake(tmp_path).table("metrics").compact()
    stop.touch()
    join([vacuuming])
    lake = open_lake(tmp_path)
    for run_id, steps in (("old", 4), ("new0", 100), ("new1", 100)):
        assert steps_of(lake, run_id) == list(range(steps))
    assert lake.table("metrics").vacuum(retention_hours=0).paths == () or lake.table("metrics").vacuum(
        dry_run=False, retention_hours=0
    )
    assert len(steps_of(open_lake(tmp_path))) == 204


def test_vacuum_keeps_what_is_younger_than_the_retention(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    table = open_lake(tmp_path).table("metrics")
    version = table.version()
    table.compact()
    for hours in (24, 1, 0.5, 0.001):
        assert table.vacuum(dry_run=False, retention_hours=hours).paths == ()
    assert open_lake(tmp_path).sql("SELECT count(*) FROM metrics_raw", as_of=version).fetchall() == [(4,)]
    assert len(table.vacuum(dry_run=False, retention_hours=0).paths) == 4
    for refused in (-1, float("nan"), float("inf")):
        with pytest.raises(CkptlakeError):
            table.vacuum(retention_hours=refused)


def test_the_past_after_a_deletion_is_of_one_piece(tmp_path: Path) -> None:
    """At each version of `metrics` the summaries tell of the points of that version."""
    fill(tmp_path, 3, "kept")
    fill(tmp_path, 3, "doomed")
    lake = open_lake(tmp_path)
    moment = datetime.now(UTC)
    time.sleep(0.005)
    lake.delete_runs("doomed")
    for version in range(1, lake.table("metrics").version() + 1):
        counted = "SELECT run_id, count(*) FROM metrics GROUP BY run_id ORDER BY run_id"
        told = "SELECT run_id, n FROM summaries ORDER BY run_id"
        assert lake.sql(counted, as_of=version).fetchall() == lake.sql(told, as_of=version).fetchall(), (
            f"at version {version}"
        )
    assert lake.sql("SELECT count(*) FROM metrics_raw", as_of=moment).fetchall() == [(6,)]


def test_deleted_rows_do_not_come_back(tmp_path: Path) -> None:
    """A finished run whose rows lie in the segment of a process that is still alive."""
    first, second = open_lake(tmp_path), open_lake(tmp_path)
    leader = first.run(run_id="shared", capture=NOTHING)
    leader.flush()
    joined = second.run(run_id="shared", capture=NOTHING)
    other = second.run(run_id="other", capture=NOTHING)
    other.log({"loss": 1.0}, step=7)
    joined.log({"loss": 1.0}, step=1)
    store = second._store("metrics")

    def refuse(*_: object, **__: object) -> int:
        raise ckptlake.StorageError("not now")

    store.append = refuse  # type: ignore[method-assign]
    with pytest.raises(ckptlake.StorageError):
        joined.finish()
    del store.append
    leader.finish()
    try:
        first.delete_runs("shared")
    except CkptlakeError:
        return
    other.finish()
    assert steps_of(open_lake(tmp_path), "shared") == [], "rows of a deleted run came back with a later commit"


def test_readers_in_many_threads_agree(tmp_path: Path) -> None:
    """One lake asked by many threads while it is written and compacted."""
    lake = open_lake(tmp_path, Settings(flush_interval_s=0.01, commit_interval_s=0.02))
    stop = threading.Event()
    errors: list[str] = []
    run = lake.run(run_id="r", capture=NOTHING)
    run.log({"loss": 0.0, "twice": 0.0}, step=0)
    run.flush()

    def ask() -> None:
        while not stop.is_set():
            try:
                rows = lake.sql("SELECT metric, n FROM summaries").fetchall()
                steps = [step for (step,) in lake.sql("SELECT step FROM metrics WHERE metric = 'loss'").fetchall()]
            except BaseException as error:
                errors.append(repr(error))
                return
            if len(rows) != 2:
                errors.append(f"summaries {rows}")
            if sorted(steps) != list(range(len(steps))):
                errors.append(f"{len(steps)} steps, {len(set(steps))} distinct")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for step in range(1, 400):
        run.log({"loss": 1.0, "twice": 1.0}, step=step)
        run.log({"twice": 2.0}, step=step)
        time.sleep(0.005)
    stop.set()
    for thread in threads:
        thread.join()
    run.finish()
    assert not errors, errors[:3]
    assert dict(lake.sql("SELECT metric, n FROM summaries").fetchall()) == {"loss": 400, "twice": 400}
    wait_until(lambda: steps_of(lake, "r").count(399) == 3, what="all rows of the last step")
