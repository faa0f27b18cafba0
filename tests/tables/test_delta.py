"""The transaction log: creation, durability, conflicts, and the past."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pytest

from ckptlake.errors import CommitConflictError, VersionNotFoundError
from ckptlake.tables.delta import DeltaLog
from ckptlake.tables.schemas import METRICS, TAGS
from ckptlake.tables.store import Batch, TableStore

_APPENDING = """
import sys, time
from pathlib import Path
import pyarrow as pa
from ckptlake.config import Settings
from ckptlake.tables.schemas import TAGS
from ckptlake.tables.store import Batch, TableStore
root, me = Path(sys.argv[1]), sys.argv[2]
store = TableStore(root, TAGS, Settings())
rows = pa.Table.from_pylist([{"run_id": me, "key": "k"}], schema=TAGS.schema)
print("ready", flush=True)
sys.stdin.readline()
for number in range(3):
    store.append([Batch(me, number, rows), Batch("everybody", number, rows)])
"""

_LOOKING_BACK = """
import sys
from pathlib import Path
from ckptlake.config import Settings
from ckptlake.errors import VersionNotFoundError
from ckptlake.tables.schemas import METRICS
from ckptlake.tables.store import TableStore
try:
    TableStore(Path(sys.argv[1]), METRICS, Settings()).snapshot(int(sys.argv[2]))
except VersionNotFoundError as error:
    print(error)
"""


def test_processes_that_create_a_table_at_once_lose_nothing(tmp_path: Path) -> None:
    root = tmp_path / "tags"
    command = [sys.executable, "-c", _APPENDING, str(root)]
    workers = [
        subprocess.Popen([*command, f"w{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    rows = deltalake.DeltaTable(root).to_pyarrow_table()
    assert rows.num_rows == 3 * 3 + 3, "each worker's own three batches, and three that all of them brought"
    history = deltalake.DeltaTable(root).history()
    assert [entry["operation"] for entry in history].count("CREATE TABLE") == 1


def test_a_creation_cut_short_is_completed(make_store: Any, make_points: Any) -> None:
    store = make_store()
    (store.path / "_delta_log").mkdir(parents=True)
    assert store.version() == -1
    store.append([Batch("w", 1, make_points(2))])
    assert deltalake.DeltaTable(store.path).to_pyarrow_table().num_rows == 2


class Disk:
    """Notes what was forced to the disk, and what the log held at that moment."""

    def __init__(self, log: Path) -> None:
        self.synced: list[tuple[tuple[int, int], frozenset[str]]] = []
        self._log = log
        self._fsync = os.fsync

    def fsync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        entries = frozenset(path.name for path in self._log.glob("*.json")) if self._log.is_dir() else frozenset()
        self.synced.append(((status.st_dev, status.st_ino), entries))
        self._fsync(descriptor)

    def times(self, path: Path) -> list[int]:
        """Return at which points of the sequence `path` was synced."""
        status = path.stat()
        return [i for i, (file, _) in enumerate(self.synced) if file == (status.st_dev, status.st_ino)]

    def entries_at(self, place: int) -> frozenset[str]:
        return self.synced[place][1]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(tmp_path / "tables" / "metrics" / "_delta_log")
    monkeypatch.setattr(os, "fsync", disk.fsync)
    return disk


class TestDurability:
    def test_data_is_on_disk_before_the_log_names_it(self, disk: Disk, make_store: Any, make_points: Any) -> None:
        store = make_store()
        store.append([Batch("w", 1, make_points())])
        data = next(store.path.glob("experiment=*/*.parquet"))
        first, partition, root = disk.times(data), disk.times(data.parent), disk.times(store.path)
        assert first, "the data file was never synced"
        assert partition, "the name of the data file was never synced"
        assert root, "the name of the partition was never synced"
        assert "00000000000000000001.json" not in disk.entries_at(first[0])
        assert "00000000000000000001.json" not in disk.entries_at(partition[0])

    def test_every_log_entry_is_synced_then_its_name(self, disk: Disk, make_store: Any, make_points: Any) -> None:
        store = make_store()
        for number in range(3):
            store.append([Batch("w", number, make_points(start=number))])
        log = store.path / "_delta_log"
        for entry in sorted(log.glob("*.json")):
            assert disk.times(entry), f"{entry.name} was never synced: after a power cut the table could not be read"
            assert any(time > disk.times(entry)[0] for time in disk.times(log)), f"the name of {entry.name} was not"

    def test_entries_of_others_below_ours_are_synced_too(self, disk: Disk, make_store: Any, make_points: Any) -> None:
        store = make_store()
        store.append([Batch("w", 1, make_points())])
        handle = deltalake.DeltaTable(store.path)
        handle.alter.set_table_properties({"delta.checkpointInterval": "100"})
        store.append([Batch("w", 2, make_points(start=5))])
        foreign = store.path / "_delta_log" / "00000000000000000002.json"
        assert disk.times(foreign), "an entry that this one builds on was never synced"

    def test_entries_of_a_vacuum_are_synced(self, disk: Disk, make_store: Any, make_points: Any) -> None:
        store = make_store()
        for number in range(2):
            store.append([Batch("w", number, make_points(start=number))])
        before = {path.name for path in (store.path / "_delta_log").glob("*.json")}
        store.replace(
            store.snapshot().files(),
            store.stage(make_points()),
            guard=store.replacements(),
            operation="compact",
            data_change=False,
        )
        store.log.expired_files(0, dry_run=False)
        fresh = [path for path in (store.path / "_delta_log").glob("*.json") if path.name not in before]
        assert len(fresh) > 1
        assert [path.name for path in fresh if not disk.times(path)] == []

    def test_the_names_of_a_new_table_are_synced(self, disk: Disk, make_store: Any, make_points: Any) -> None:
        store = make_store()
        store.append([Batch("w", 1, make_points())])
        assert disk.times(store.path), "the name of the log's directory was not synced"
        assert disk.times(store.path.parent), "the name of the table's directory was not synced"


class TestConflicts:
    def test_one_transaction_is_committed_once(self, make_store: Any, make_points: Any) -> None:
        first, second = make_store(), make_store()
        first.append([Batch("w", 1, make_points(2))])
        second.version()
        staged = [store.stage(make_points(2, start=10)) for store in (first, second)]
        for store, files in zip((first, second), staged, strict=True):
            for file in files:
                (store.path / "_staging" / Path(file.path).name).replace(store.path / file.path)
        first.log.commit(staged[0], (), {"w": 2}, operation="append", data_change=True)
        with pytest.raises(CommitConflictError, match="metrics"):
            second.log.commit(staged[1], (), {"w": 2}, operation="append", data_change=True)
        assert deltalake.DeltaTable(first.path).to_pyarrow_table().num_rows == 4

    def test_other_transactions_pass_on_a_stale_snapshot(self, make_store: Any, make_points: Any) -> None:
        first, second = make_store(), make_store()
        first.append([Batch("w", 1, make_points(2))])
        second.version()
        first.append([Batch("w", 2, make_points(2, start=2))])
        version = second.log.commit((), (), {"x": 1}, operation="append", data_change=True)
        assert version == 3
        assert (first.log.refresh(), first.log.transaction_version("x"), first.log.transaction_version("w")) == (
            3,
            1,
            2,
        )

    def test_refreshing_follows_commits_and_checkpoints_of_others(self, make_store: Any, make_points: Any) -> None:
        writer, reader = make_store(), make_store()
        assert reader.version() == -1
        for number in range(3):
            writer.append([Batch("w", number, make_points(1, start=number))])
            assert reader.version() == writer.version() == number + 1
        deltalake.DeltaTable(writer.path).create_checkpoint()
        writer.append([Batch("w", 3, make_points(1, start=3))])
        assert reader.version() == 4
        assert reader.snapshot().num_files == 4


def committed(store: TableStore, points: Any, count: int) -> list[datetime]:
    """Append `count` files of one row, some milliseconds apart, and return a moment after each."""
    moments = []
    for number in range(count):
        store.append([Batch("w", number, points(1, start=number))])
        time.sleep(0.004)
        moments.append(datetime.now(UTC))
        time.sleep(0.004)
    return moments


class TestPast:
    def test_history_tells_every_commit(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        before = datetime.now(UTC) - timedelta(seconds=1)
        committed(store, make_points, 2)
        entries = store.log.history()
        assert [entry["version"] for entry in entries] == [2, 1, 0]
        assert [entry.get("ckptlake.operation") for entry in entries] == ["append", "append", None]
        stamps = [datetime.fromtimestamp(entry["timestamp"] / 1000, UTC) for entry in entries]
        assert stamps == sorted(stamps, reverse=True)
        assert before < stamps[-1] <= stamps[0] <= datetime.now(UTC)
        assert [entry["version"] for entry in store.log.history(1)] == [2]

    def test_a_version_has_the_files_it_had(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        committed(store, make_points, 3)
        assert [store.snapshot(version).num_files for version in range(4)] == [0, 1, 2, 3]
        assert store.version() == 3, "looking back does not move the table"

    @pytest.mark.parametrize("version", [4, 10**5, 2**70])
    def test_a_version_to_come_is_refused(self, make_store: Any, make_points: Any, version: int) -> None:
        store = make_store()
        committed(store, make_points, 3)
        with pytest.raises(VersionNotFoundError, match="newest is 3, the oldest kept is 0"):
            store.snapshot(version)

    def test_a_version_far_off_is_refused_at_once(self, make_store: Any, make_points: Any) -> None:
        """Seconds since 1970 given by mistake; in a process of its own, as nothing interrupts delta-rs."""
        store = make_store()
        committed(store, make_points, 1)
        command = [sys.executable, "-c", _LOOKING_BACK, str(store.path), "1700000000"]
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
        assert "newest is 1, the oldest kept is 0" in answer

    @pytest.mark.parametrize("directory", ["", "_delta_log"])
    def test_a_version_of_no_table_is_refused(self, make_store: Any, directory: str) -> None:
        store = make_store()
        (store.path / directory).mkdir(parents=True)
        with pytest.raises(VersionNotFoundError, match="metrics"):
            store.snapshot(0)

    def test_a_version_of_a_table_without_directory_is_refused(self, make_store: Any) -> None:
        with pytest.raises(VersionNotFoundError, match="tags"):
            make_store(TAGS).snapshot(0)

    def test_a_moment_shows_what_was_there(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        moments = committed(store, make_points, 3)
        assert [store.snapshot(moment).num_files for moment in moments] == [1, 2, 3]
        assert store.snapshot(datetime.now(UTC) + timedelta(days=400)).num_files == 3

    def test_before_its_creation_a_table_is_empty(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        assert store.snapshot(datetime.now(UTC)).version == -1
        committed(store, make_points, 1)
        snapshot = store.snapshot(datetime.now(UTC) - timedelta(days=1))
        assert (snapshot.version, snapshot.num_files) == (-1, 0)

    def test_a_log_cut_off_reads_as_far_as_its_checkpoint(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        moments = committed(store, make_points, 4)
        deltalake.DeltaTable(store.path, version=2).create_checkpoint()
        for version in (0, 1):
            (store.path / "_delta_log" / f"{version:020}.json").unlink()
        fresh = make_store()
        assert (fresh.log.oldest_version(), fresh.log.entry_versions()) == (2, [2, 3, 4])
        assert [fresh.snapshot(version).num_files for version in (2, 3, 4)] == [2, 3, 4]
        assert [fresh.snapshot(moment).num_files for moment in moments[1:]] == [2, 3, 4]
        with pytest.raises(VersionNotFoundError, match="oldest kept is 2"):
            fresh.snapshot(1)
        with pytest.raises(VersionNotFoundError, match="reaches back to version 2"):
            fresh.snapshot(moments[0])

    def test_a_handle_used_before_it_found_a_table_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match="before `refresh` found it"):
            DeltaLog(tmp_path, METRICS).transaction_version("w")
