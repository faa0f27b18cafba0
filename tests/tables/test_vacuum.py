"""Vacuum and deletion: only what nobody needs, and only when asked in so many words."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from ckptlake.errors import InvalidInputError
from ckptlake.tables.compaction import compact
from ckptlake.tables.deletion import delete_runs
from ckptlake.tables.schemas import CHECKPOINTS, METRICS, TAGS, TENSORS
from ckptlake.tables.store import Batch, TableStore
from ckptlake.tables.table import Table
from ckptlake.tables.vacuum import vacuum

ODD_EXPERIMENTS = ["plain", "a/b", "x y", "100%", "%2F", "ü/日本", "a=b", "[a]*?", "q'u\"o", "😀"]


def parquet_files(store: TableStore) -> set[str]:
    return {
        str(path.relative_to(store.path)) for path in store.path.rglob("*.parquet") if "_delta_log" not in str(path)
    }


def compacted(store: TableStore, make_points: Any) -> tuple[set[str], set[str]]:
    """Fill the table, merge its files, and return the paths that were replaced and those that are live."""
    for number in range(2):
        rows = pa.concat_tables([make_points(2, experiment=name, start=2 * number) for name in ODD_EXPERIMENTS])
        store.append([Batch("w", number, rows)])
    before = {file.path for file in store.snapshot().files()}
    compact(store, everything=True)
    return before, {file.path for file in store.snapshot().files()}


class TestVacuum:
    def test_by_default_nothing_is_deleted(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        replaced, live = compacted(store, make_points)
        version = store.version()
        found = Table(store).vacuum(retention_hours=0)
        assert not found.deleted
        assert set(found.paths) == replaced
        assert found.size_bytes == sum((store.path / path).stat().st_size for path in replaced)
        assert parquet_files(store) == replaced | live
        assert store.version() == version, "a look leaves no trace in the log"

    def test_replaced_files_go_and_live_ones_stay(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        replaced, live = compacted(store, make_points)
        done = Table(store).vacuum(dry_run=False, retention_hours=0)
        assert done.deleted
        assert set(done.paths) == replaced
        assert parquet_files(store) == live
        rows = deltalake.DeltaTable(store.path).to_pyarrow_table()
        assert rows.num_rows == 4 * len(ODD_EXPERIMENTS)
        assert set(rows.column("experiment").to_pylist()) == set(ODD_EXPERIMENTS)
        assert Table(store).vacuum(retention_hours=0).paths == ()

    @pytest.mark.parametrize("retention_hours", [None, 24, 1, 0.5, 0.01])
    def test_what_was_live_within_the_retention_stays(
        self, make_store: Any, make_points: Any, retention_hours: float | None
    ) -> None:
        store = make_store()
        replaced, live = compacted(store, make_points)
        given = {} if retention_hours is None else {"retention_hours": retention_hours}
        assert Table(store).vacuum(dry_run=False, **given).paths == ()
        assert parquet_files(store) == replaced | live
        assert len(deltalake.DeltaTable(store.path, version=2).to_pyarrow_table()) == 4 * len(ODD_EXPERIMENTS)

    def test_rows_being_written_are_not_touched(self, make_store: Any, make_points: Any) -> None:
        writer, store = make_store(), make_store()
        store.append([Batch("w", 1, make_points(1))])
        staged = writer.stage(make_points(1, start=1))

        def prepare(pending: Any) -> pa.Table:
            vacuum(store, dry_run=False, retention_hours=0)
            return pa.concat_tables(batch.rows for batch in pending)

        writer.append([Batch("w", 2, make_points(1, start=1))], prepare)
        assert vacuum(store, dry_run=False, retention_hours=0).paths == ()
        assert (store.path / "_staging" / Path(staged[0].path).name).exists()
        assert deltalake.DeltaTable(store.path).to_pyarrow_table().num_rows == 2

    def test_leftovers_of_a_crash_go_after_an_hour(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        store.append([Batch("w", 1, make_points(1))])
        staged = store.stage(make_points(1, start=1))
        offer = store.path / "_staging" / "20260101-000000-abcdefghjk.offer.json"
        offer.write_text("{}")
        left = [store.path / "_staging" / Path(staged[0].path).name, offer]
        assert vacuum(store, dry_run=True, retention_hours=24).paths == ()
        for path in left:
            os.utime(path, (time.time() - 3700, time.time() - 3700))
        found = vacuum(store, dry_run=True, retention_hours=24)
        assert set(found.paths) == {f"_staging/{path.name}" for path in left}
        assert all(path.exists() for path in left)
        vacuum(store, dry_run=False, retention_hours=24)
        assert not any(path.exists() for path in left)

    @pytest.mark.parametrize("dry_run", [True, False])
    def test_files_that_their_writers_take_away_meanwhile_are_passed_over(
        self, make_store: Any, make_points: Any, monkeypatch: pytest.MonkeyPatch, dry_run: bool
    ) -> None:
        store = make_store()
        store.append([Batch("w", 1, make_points(1))])
        left, taken = (store.path / "_staging" / f"{name}.offer.json" for name in ("left", "taken"))
        glob = Path.glob

        def listed_before_one_goes(folder: Path, pattern: str) -> Any:
            found = list(glob(folder, pattern))
            taken.unlink(missing_ok=True)
            return iter(found)

        for path in (left, taken):
            path.write_text("{}")
            os.utime(path, (0, 0))
        monkeypatch.setattr(Path, "glob", listed_before_one_goes)
        assert vacuum(store, dry_run=dry_run, retention_hours=24).paths == ("_staging/left.offer.json",)
        assert left.exists() == dry_run

    def test_a_negative_retention_is_refused(self, make_store: Any) -> None:
        for hours in (-1, float("nan")):
            with pytest.raises(InvalidInputError, match="retention_hours"):
                vacuum(make_store(), dry_run=False, retention_hours=hours)

    def test_of_nothing_finds_nothing(self, make_store: Any) -> None:
        assert vacuum(make_store(), dry_run=False, retention_hours=0).paths == ()


class TestDeletion:
    def test_exactly_the_rows_of_the_runs_go(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        mixed = pa.concat_tables([make_points(3, run_id=run) for run in ("a", "b", "c")])
        store.append([Batch("w", 1, mixed)])
        store.append([Batch("w", 2, make_points(2, run_id="b", start=9))])
        store.append([Batch("w", 3, make_points(2, run_id="d", experiment="other"))])
        kept = {file.path for file in store.snapshot().files() if file.partition == "other"}
        assert delete_runs(store, ["b", "absent"]) == 5
        rows = deltalake.DeltaTable(store.path).to_pyarrow_table()
        assert sorted(rows.column("run_id").to_pylist()) == ["a"] * 3 + ["c"] * 3 + ["d"] * 2
        assert kept <= {file.path for file in store.snapshot().files()}, "files without such rows are not rewritten"
        assert deltalake.DeltaTable(store.path, version=3).to_pyarrow_table().num_rows == 13
        version = store.version()
        assert delete_runs(store, ["b"]) == 0
        assert store.version() == version

    def test_the_last_rows_of_a_file_take_it_along(self, make_store: Any) -> None:
        store = make_store(TAGS)
        rows = pa.Table.from_pylist([{"run_id": "a", "key": "k"}], schema=TAGS.schema)
        store.append([Batch("w", 1, rows)])
        assert delete_runs(store, ["a"]) == 1
        assert store.snapshot().num_files == 0
        assert delete_runs(make_store(METRICS), ["a"]) == 0

    def test_rows_with_lists_and_maps_go_alike(self, make_store: Any) -> None:
        rows = [{"experiment": "e", "run_id": run, "shape": [1, 2], "metrics": {"x": 1.0}} for run in "aab"]
        for spec in (TENSORS, CHECKPOINTS):
            store = make_store(spec)
            known = [{name: value for name, value in row.items() if name in spec.schema.names} for row in rows]
            store.append([Batch("w", 1, pa.Table.from_pylist(known, schema=spec.schema))])
            before = deltalake.DeltaTable(store.path).to_pyarrow_table().to_pylist()
            assert delete_runs(store, ["a"]) == 2
            assert deltalake.DeltaTable(store.path).to_pyarrow_table().to_pylist() == before[2:]

    def test_a_compaction_in_between_is_waited_out(
        self, make_store: Any, make_points: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, other = make_store(), make_store()
        for number, run in enumerate("ab"):
            store.append([Batch("w", number, make_points(3, run_id=run))])
        stage, calls = TableStore.stage, []

        def staging(self: TableStore, rows: pa.Table) -> Any:
            if self is store and not calls:
                calls.append(compact(other, everything=True))
            return stage(self, rows)

        monkeypatch.setattr(TableStore, "stage", staging)
        assert delete_runs(store, ["a"]) == 3
        assert calls[0].files_before == 2
        assert deltalake.DeltaTable(store.path).to_pyarrow_table().column("run_id").to_pylist() == ["b"] * 3
