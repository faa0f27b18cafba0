"""Files of a table known from an earlier look: as the log says, for as long as the log says the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlake._internal.sealed import read_sealed, sealed, write_sealed
from ckptlake.config import Settings
from ckptlake.errors import CkptlakeError
from ckptlake.tables import delta, kept_files
from ckptlake.tables.compaction import compact
from ckptlake.tables.deletion import delete_runs
from ckptlake.tables.kept_files import read_kept
from ckptlake.tables.schemas import METRICS
from ckptlake.tables.snapshot import OneOf, Snapshot
from ckptlake.tables.store import Batch, TableStore

Store = Callable[[], TableStore]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return what makes a store that keeps what it reads."""
    return lambda: TableStore(tmp_path / "tables" / "metrics", METRICS, Settings(), tmp_path / "cache" / "metrics")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note which logs are opened."""
    found: list[Path] = []
    real = delta.DeltaLog._open

    def noted(log: delta.DeltaLog) -> Any:
        found.append(log.root)
        return real(log)

    monkeypatch.setattr(delta.DeltaLog, "_open", noted)
    return found


def told(snapshot: Snapshot) -> tuple[Any, ...]:
    """Return all that a snapshot says of its files."""
    pruned = snapshot.prune([{"run_id": OneOf(frozenset({"b"}))}])
    return snapshot.version, snapshot.actions, snapshot.paths(), snapshot.files(), snapshot.digest, pruned


def filled(store: Store, make_points: Any, times: int = 3) -> Path:
    """Commit to the table, look at it often, and return where what was seen is kept."""
    for number in range(times):
        store().append([Batch("w", number, make_points(2, run_id="abc"[number % 3], experiment=f"e/{number % 2}"))])
    return look_often(store())


def look_often(reader: TableStore) -> Path:
    for _ in range(12):
        reader.snapshot()
    assert reader._kept_files is not None
    return reader._kept_files


def test_a_look_leaves_nothing_behind(store: Store, make_points: Any) -> None:
    store().append([Batch("w", 1, make_points(2))])
    reader = store()
    for _ in range(5):
        reader.snapshot()
    assert reader._kept_files is not None
    assert not reader._kept_files.parent.exists()


def test_the_next_store_reads_no_log(store: Store, make_points: Any, opened: list[Path]) -> None:
    filled(store, make_points)
    expected = told(TableStore(store().path, METRICS, Settings()).snapshot())
    opened.clear()
    reader = store()
    for _ in range(3):
        assert told(reader.snapshot()) == expected
    assert opened == []
    assert reader.snapshot() is reader.snapshot()


def test_what_is_committed_later_is_seen(store: Store, make_points: Any) -> None:
    filled(store, make_points)
    reader, writer = store(), store()
    assert reader.snapshot().num_files == 3
    for number in range(3, 6):
        writer.append([Batch("w", number, make_points(1, run_id="d"))])
        assert reader.snapshot().version == number + 1
        assert reader.snapshot().num_files == number + 1
        assert store().snapshot().num_files == number + 1


def test_merging_and_deletion_are_seen(store: Store, make_points: Any) -> None:
    filled(store, make_points)
    for change in (lambda: compact(store(), everything=True), lambda: delete_runs(store(), ["a"])):
        reader = store()
        before = reader.snapshot().version
        change()
        for seen in (reader.snapshot(), store().snapshot()):
            assert told(seen) == told(TableStore(seen.root, METRICS, Settings()).snapshot())
            assert seen.version > before


def test_who_asks_for_writers_gets_the_word_of_the_log(store: Store, make_points: Any, opened: list[Path]) -> None:
    filled(store, make_points)
    opened.clear()
    reader = store()
    assert reader.snapshot().transactions == {}
    assert reader.snapshot(writers=["w", "x"]).transactions == {"w": 2, "x": -1}
    assert len(opened) == 1


def test_the_past_and_the_next_commit_are_read_of_the_log(store: Store, make_points: Any) -> None:
    filled(store, make_points)
    reader = store()
    reader.snapshot()
    assert reader.snapshot(2).num_files == 2
    assert reader.append([Batch("w", 2, make_points(1))]) == 3, "it is there already"
    assert reader.append([Batch("w", 3, make_points(1))]) == 4
    assert reader.snapshot().num_files == 4


def test_another_table_at_the_same_place_is_not_taken_for_it(store: Store, make_points: Any) -> None:
    filled(store, make_points)
    reader = store()
    reader.snapshot()
    elsewhere = reader.path.with_name("elsewhere")
    other = TableStore(elsewhere, METRICS, Settings())
    for number in range(3):
        other.append([Batch("v", number, make_points(1, run_id="z"))])
    shutil.rmtree(reader.path)
    assert reader.snapshot().version == -1
    elsewhere.rename(reader.path)
    for seen in (reader.snapshot(), store().snapshot()):
        assert told(seen) == told(TableStore(reader.path, METRICS, Settings()).snapshot())


def test_a_table_put_back_from_a_copy_is_known_again(store: Store, make_points: Any, opened: list[Path]) -> None:
    kept = filled(store, make_points)
    copy = store().path.with_name("copy")
    shutil.copytree(store().path, copy)
    store().append([Batch("w", 3, make_points(1))])
    assert read_kept(kept, store().log.directory, METRICS) is None
    shutil.rmtree(store().path)
    copy.rename(store().path)
    opened.clear()
    assert store().snapshot().num_files == 3
    assert opened == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.data())
def test_no_damage_is_believed(tmp_path_factory: pytest.TempPathFactory, make_points: Any, data: st.DataObject) -> None:
    root = tmp_path_factory.mktemp("lake")

    def store() -> TableStore:
        return TableStore(root / "metrics", METRICS, Settings(), root / "kept")

    kept = filled(store, make_points, 1)
    whole = kept.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    for damaged in (whole[:at], changed, b"", b"CKPTLOG1"):
        kept.write_bytes(damaged)
        assert read_kept(kept, store().log.directory, METRICS) is None
        assert store().snapshot().num_files == 1
    look_often(store())
    assert kept.read_bytes() == whole


def test_another_version_of_the_library_reads_the_log(
    store: Store, make_points: Any, opened: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store, make_points)
    opened.clear()
    monkeypatch.setattr(kept_files, "LIBRARY_VERSION", "99.0")
    assert store().snapshot().num_files == 3
    assert len(opened) == 1


@pytest.mark.parametrize("error", [13, 28, 30])
def test_a_disk_that_refuses_costs_nothing_but_time(
    store: Store, make_points: Any, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(kept_files, "write_sealed", refuse)
    kept = filled(store, make_points)
    assert not kept.exists()
    assert store().snapshot().num_files == 3


def test_a_log_that_is_lost_is_told(store: Store, make_points: Any) -> None:
    filled(store, make_points)
    (store().path / "_delta_log").rename(store().path / "elsewhere")
    with pytest.raises(CkptlakeError, match="restore"):
        store().snapshot()


def test_what_is_no_list_of_files_is_not_believed(store: Store, make_points: Any) -> None:
    """The checksum tells damage from what was written, not who wrote it."""
    kept = filled(store, make_points)
    found = read_sealed(kept, b"CKPTLOG1", {})
    assert found is not None
    actions, about = found
    others = [
        (actions.drop_columns(["path"]), about),
        (
            actions.set_column(at := actions.column_names.index("min.step"), "min.step", actions[at].cast(pa.string())),
            about,
        ),
        (pa.table({}), about),
        (actions, {}),
        (actions, {**about, "version": "3"}),
        (actions, {**about, "version": 2}),
        (actions, {**about, "version": 10**30}),
    ]
    for rows, told in others:
        write_sealed(kept, sealed(b"CKPTLOG1", rows, told))
        assert read_kept(kept, store().log.directory, METRICS) is None
        assert store().snapshot().num_files == 3
