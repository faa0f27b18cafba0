"""A journal on a disk that refuses: no batch is lost, none is committed twice, order is kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake.errors import StorageError
from ckptlake.runs.frames import pack_rows
from ckptlake.runs.journal import Journal
from ckptlake.runs.wal import SegmentName, read_segment

RUNS = (("r", 1, "w/1"),)


def batch(value: int) -> pa.RecordBatch:
    return pack_rows("tags", [{"run_id": "r", "key": str(value)}])


def committed(directory: Path) -> list[int]:
    """Return what a commit takes of the segments: of each frame number the first, numbers rising."""
    names = sorted(filter(None, map(SegmentName.parse, os.listdir(directory))), key=lambda name: name.sequence)
    reached, taken = 0, []
    for name in names:
        for number, found in read_segment(directory / str(name)).frames:
            if number > reached:
                reached = number
                taken += [int(key) for key in found.column("key").to_pylist()]
    return taken


class Disk:
    """Refuses single operations of the system by plan, then works."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.plan: list[str] = []
        self.refused: list[str] = []
        self.refuse_longer: int | None = None
        self._real = {name: getattr(os, name) for name in ("write", "fdatasync", "ftruncate", "fsync")}
        for name in self._real:
            patch.setattr(os, name, self._guarded(name))

    def _guarded(self, name: str) -> Callable[..., object]:
        def call(descriptor: int, *arguments: object) -> object:
            if name == "write" and self.refuse_longer is not None and len(arguments[0]) > self.refuse_longer:  # type: ignore[arg-type]
                raise OSError(errno.ENOSPC, "refused")
            if self.plan and self.plan[0].split(":")[0] == name:
                kind = self.plan.pop(0)
                self.refused.append(kind)
                if kind == "write:partial":
                    data = arguments[0]
                    self._real["write"](descriptor, memoryview(data)[: max(1, len(data) // 2)])  # type: ignore[call-overload, arg-type]
                raise OSError(errno.EIO if name != "write" else errno.ENOSPC, "refused")
            return self._real[name](descriptor, *arguments)

        return call


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "wal", "lake", "w")
    yield journal
    journal.abandon()


def sync_until_it_works(journal: Journal) -> int:
    refusals = 0
    while True:
        try:
            journal.sync(RUNS)
        except StorageError:
            refusals += 1
        else:
            return refusals


class TestSync:
    def test_puts_batches_into_one_segment(self, journal: Journal, tmp_path: Path) -> None:
        for value in range(5):
            journal.add(batch(value))
            journal.sync(RUNS)
        assert len(os.listdir(tmp_path / "wal")) == 1
        assert committed(tmp_path / "wal") == list(range(5))
        assert not journal.unsynced

    def test_without_batches_makes_no_file(self, journal: Journal, tmp_path: Path) -> None:
        journal.sync(RUNS)
        assert not (tmp_path / "wal").exists()

    def test_names_the_open_runs(self, journal: Journal, tmp_path: Path) -> None:
        journal.add(batch(1))
        journal.sync((("a", 1, "w/1"), ("b", 3, "w/2")))
        (name,) = os.listdir(tmp_path / "wal")
        assert read_segment(tmp_path / "wal" / name).header.open_runs == (("a", 1, "w/1"), ("b", 3, "w/2"))

    @pytest.mark.parametrize(
        "plan",
        [
            ["write"],
            ["write:partial"],
            ["write", "write:partial", "write"],
            ["fdatasync"],
            ["fdatasync", "fdatasync", "fdatasync"],
            ["fdatasync", "ftruncate"],
            ["write:partial", "ftruncate"],
            ["write", "ftruncate", "fdatasync"],
            ["fsync", "write:partial"],
        ],
        ids=" ".join,
    )
    def test_refused_loses_nothing(self, journal: Journal, tmp_path: Path, disk: Disk, plan: list[str]) -> None:
        journal.add(batch(0))
        journal.sync(RUNS)
        for value in (1, 2, 3):
            journal.add(batch(value))
        disk.plan = list(plan)
        if plan[0] == "fsync":
            disk.plan = []
            journal.seal(())
            disk.plan = list(plan)
        assert sync_until_it_works(journal) >= 1
        assert disk.refused == plan
        journal.add(batch(4))
        journal.sync(RUNS)
        assert committed(tmp_path / "wal") == [0, 1, 2, 3, 4]
        assert not journal.unsynced

    def test_refused_says_what_to_do(self, journal: Journal, disk: Disk) -> None:
        journal.add(batch(0))
        disk.plan = ["write"]
        with pytest.raises(StorageError, match="free space on that disk"):
            journal.sync(RUNS)
        assert journal.unsynced

    def test_what_is_acknowledged_was_synced(
        self, journal: Journal, disk: Disk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A frame in a segment that broke before its sync must be synced there or written anew."""
        synced: set[int] = set()
        real = os.fdatasync

        def noting(descriptor: int) -> None:
            real(descriptor)
            synced.add(os.fstat(descriptor).st_ino)

        monkeypatch.setattr(os, "fdatasync", noting)
        journal.add(batch(0))
        journal.sync(RUNS)
        journal.add(batch(1))
        journal.add(batch(2))
        real_write, payloads = os.write, []

        def refuse_the_second_payload(descriptor: int, data: memoryview) -> int:
            payloads.append(len(data))
            if len(payloads) == 4:
                raise OSError(errno.ENOSPC, "refused")
            return real_write(descriptor, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", refuse_the_second_payload)
            disk.plan = ["ftruncate"]
            with pytest.raises(StorageError):
                journal.sync(RUNS)
        synced.clear()
        journal.sync(RUNS)
        directory = journal.sealed[0].path.parent if journal.sealed else None
        assert directory is not None
        holding: dict[int, list[int]] = {}
        for name in os.listdir(directory):
            for _, found in read_segment(directory / name).frames:
                holding.setdefault(int(found.column("key")[0].as_py()), []).append((directory / name).stat().st_ino)
        for value in (1, 2):
            assert set(holding[value]) & synced, f"batch {value} counts as synced but no sync followed its write"


OPERATIONS = st.lists(
    st.sampled_from(["add", "add", "add", "sync", "sync", "seal", "seal all", "drop"])
    | st.sampled_from(["write", "write:partial", "fdatasync", "ftruncate", "fsync"]).map("refuse {}".format),
    max_size=40,
)


@given(operations=OPERATIONS)
@settings(max_examples=60, deadline=None)
def test_any_order_of_work_and_refusals_keeps_every_batch_once(
    tmp_path_factory: pytest.TempPathFactory, operations: list[str]
) -> None:
    """`drop` stands for a commit: it takes the sealed segments in order as the tables would."""
    directory = tmp_path_factory.mktemp("journal") / "wal"
    journal = Journal(directory, "lake", "w")
    given_, taken, reached = 0, [], 0
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)

        def commit() -> None:
            nonlocal reached
            for segment in list(journal.sealed):
                for number, found in read_segment(segment.path).frames:
                    if number > reached:
                        reached = number
                        taken.extend([int(key) for key in found.column("key").to_pylist()])
                journal.drop(segment)

        for operation in operations:
            if operation.startswith("refuse"):
                disk.plan.append(operation.removeprefix("refuse "))
                continue
            try:
                if operation == "add":
                    journal.add(batch(given_))
                    given_ += 1
                elif operation == "sync":
                    journal.sync(RUNS)
                else:
                    journal.sync(RUNS)
                    journal.seal(() if operation == "seal all" else RUNS)
                    if operation == "drop":
                        commit()
            except StorageError:
                pass
        disk.plan.clear()
        journal.sync(())
        journal.seal(())
        commit()
        journal.abandon()
    assert taken == list(range(given_))
    assert [name for name in os.listdir(directory) if name.endswith(".wal")] == [] if directory.exists() else True


class TestSeal:
    def test_begins_another_segment_while_runs_are_open(self, journal: Journal, tmp_path: Path) -> None:
        journal.add(batch(0))
        journal.sync(RUNS)
        journal.seal(RUNS)
        assert (len(journal.sealed), len(os.listdir(tmp_path / "wal"))) == (1, 2)
        journal.seal(RUNS)
        assert (len(journal.sealed), len(os.listdir(tmp_path / "wal"))) == (1, 2)
        journal.seal(())
        assert len(journal.sealed) == 2

    def test_and_drop_removes_the_file(self, journal: Journal, tmp_path: Path) -> None:
        journal.add(batch(0))
        journal.sync(())
        journal.seal(())
        (segment,) = journal.sealed
        journal.drop(segment)
        assert os.listdir(tmp_path / "wal") == []
        assert journal.sealed == []

    def test_numbers_rise_over_segments(self, journal: Journal, tmp_path: Path) -> None:
        for value in range(4):
            journal.add(batch(value))
            journal.add(batch(value + 10))
            journal.sync(RUNS)
            journal.seal(RUNS)
        numbers = [
            number
            for name in sorted(os.listdir(tmp_path / "wal"))
            for number, _ in read_segment(tmp_path / "wal" / name).frames
        ]
        assert numbers == list(range(1, 9))


class TestAllOrNone:
    @pytest.mark.parametrize(
        ("plan", "is_kept"),
        [
            ([], True),
            (["write"], False),
            (["write:partial"], False),
            (["write:second"], False),
            (["fdatasync"], True),
            (["fdatasync", "ftruncate"], True),
            (["write:partial", "ftruncate"], True),
            (["write:second", "fdatasync"], True),
        ],
        ids=lambda plan: " ".join(plan) or "fine" if isinstance(plan, list) else "",
    )
    @pytest.mark.parametrize("begins", [False, True], ids=["live", "beginning"])
    def test_batches_come_together_or_not_at_all(
        self, journal: Journal, tmp_path: Path, disk: Disk, plan: list[str], is_kept: bool, begins: bool
    ) -> None:
        journal.add(batch(0))
        journal.sync(RUNS)
        if begins:
            journal.seal(())
            journal.begin(RUNS)
        together = [batch(value) for value in (1, 2, 3)]
        if plan and plan[0] == "write:second":
            together[1:1] = [pack_rows("tags", [{"run_id": "r", "key": "4", "text": "x" * 2_000_000}])]
            disk.refuse_longer = 1_000_000
            plan = plan[1:]
        disk.plan = list(plan)
        refused = False
        try:
            journal.sync_all_or_none(together, RUNS)
        except StorageError:
            refused = True
        disk.refuse_longer = None
        assert refused or not plan
        assert journal.unsynced == (refused and is_kept)
        if not is_kept:
            assert committed(tmp_path / "wal") == [0]
        journal.add(batch(9))
        sync_until_it_works(journal)
        expected = {1, 2, 3} if is_kept else set()
        found = committed(tmp_path / "wal")
        assert found[0] == 0
        assert found[-1] == 9
        assert set(found[1:-1]) - {4} == expected
        assert len(set(found)) == len(found)

    def test_where_no_segment_can_begin_none_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        journal = Journal(tmp_path / "wal", "lake", "w")
        with monkeypatch.context() as patch:
            disk = Disk(patch)
            disk.plan = ["write"]
            with pytest.raises(StorageError):
                journal.sync_all_or_none([batch(1)], RUNS)
        assert not journal.unsynced
        journal.add(batch(2))
        journal.sync(RUNS)
        assert committed(tmp_path / "wal") == [2]
        journal.abandon()
