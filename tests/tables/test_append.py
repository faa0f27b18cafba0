"""Appends: every batch once, whoever brings it, however often, beside whomever."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from ckptlake.errors import StorageError
from ckptlake.tables.schemas import METRICS, TAGS
from ckptlake.tables.store import Batch, TableStore


def steps(store: TableStore) -> list[int]:
    """Return all steps in the table, as another reader sees them."""
    return sorted(deltalake.DeltaTable(store.path).to_pyarrow_table().column("step").to_pylist())


def staged(store: TableStore) -> list[str]:
    return sorted(path.name for path in (store.path / "_staging").iterdir())


@contextmanager
def lock_taken(store: TableStore) -> Iterator[None]:
    """Hold the table's commit lock as another process would."""
    descriptor = os.open(store.path / ".commit.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


class TestOnce:
    def test_the_same_batches_again_add_nothing(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        batches = [Batch("w", n, make_points(1, start=n)) for n in range(1, 4)]
        assert store.append(batches) == 1
        assert store.append(batches) == 1
        assert make_store().append(batches[1:]) == 1, "nor do they from another process"
        assert steps(store) == [1, 2, 3]
        assert staged(store) == []

    def test_of_old_and_new_batches_only_the_new_are_added(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        batches = [Batch(w, n, make_points(1, start=100 * i + n)) for i, w in enumerate("ab") for n in range(4)]
        store.append([batch for batch in batches if batch.number < 2])
        seen: list[tuple[str, int]] = []

        def prepare(pending: Any) -> pa.Table:
            seen.extend((batch.writer, batch.number) for batch in pending)
            return pa.concat_tables(batch.rows for batch in pending)

        store.append(batches, prepare)
        assert seen == [("a", 2), ("a", 3), ("b", 2), ("b", 3)]
        assert steps(store) == [0, 1, 2, 3, 100, 101, 102, 103]

    def test_one_number_given_twice_counts_once(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        store.append([Batch("w", 1, make_points(1, start=1)), Batch("w", 1, make_points(1, start=1))])
        assert steps(store) == [1]

    def test_batches_without_rows_are_remembered(self, make_store: Any) -> None:
        store = make_store()
        store.append([Batch("w", 7, METRICS.schema.empty_table())])
        assert store.log.transaction_version("w") == 7
        assert store.snapshot().num_files == 0
        assert store.snapshot(writers=["w", "x"]).transactions == {"w": 7, "x": -1}

    def test_one_commit_holds_all_partitions(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        rows = pa.concat_tables([make_points(2, experiment=name) for name in ("a", "b/c", "d")])
        store.append([Batch("w", 1, rows)])
        assert [store.snapshot(version).num_files for version in (0, 1)] == [0, 3]
        assert sorted(file.partition for file in store.snapshot().files()) == ["a", "b/c", "d"]

    def test_rows_are_sorted_in_the_file(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        store.append([Batch("w", 1, make_points(3, start=10)), Batch("w", 2, make_points(3, start=0))])
        (file,) = store.snapshot().paths()
        assert pa.parquet.read_table(file).column("step").to_pylist() == [0, 1, 2, 10, 11, 12]

    def test_rows_committed_by_another_while_ours_were_written_count_once(
        self, make_store: Any, make_points: Any
    ) -> None:
        ours, theirs = make_store(), make_store()
        batches = [Batch("w", n, make_points(1, start=n)) for n in range(4)]
        rounds = []

        def prepare(pending: Any) -> pa.Table:
            if not rounds:
                theirs.append(batches[:2])
            rounds.append(len(pending))
            return pa.concat_tables(batch.rows for batch in pending)

        ours.append(batches, prepare)
        assert rounds == [4, 2]
        assert steps(ours) == [0, 1, 2, 3]
        assert staged(ours) == []


class TestManyWriters:
    def test_all_rows_of_all_writers_arrive_once(self, make_store: Any, make_points: Any) -> None:
        barrier = threading.Barrier(6)
        failures: list[BaseException] = []

        def work(number: int) -> None:
            store = make_store()
            barrier.wait()
            try:
                for frame in range(4):
                    own = Batch(f"w{number}", frame, make_points(1, start=1000 * (number + 1) + frame))
                    both = Batch("recovered", frame, make_points(1, start=frame))
                    store.append([own])
                    store.append([both])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        store = make_store()
        assert steps(store) == sorted([*range(4), *(1000 * n + f for n in range(1, 7) for f in range(4))])
        assert staged(store) == []

    def test_waiting_writers_share_a_commit(self, make_store: Any, make_points: Any) -> None:
        store = make_store()
        store.append([Batch("first", 1, make_points(1))])
        with lock_taken(store):
            threads = [
                threading.Thread(
                    target=make_store().append, args=([Batch(f"w{n}", 1, make_points(1, start=n))],), daemon=True
                )
                for n in range(1, 6)
            ]
            for thread in threads:
                thread.start()
            deadline = threading.Event()
            while len([name for name in staged(store) if name.endswith(".offer.json")]) < 5:
                assert not deadline.wait(0.01)
        for thread in threads:
            thread.join()
        assert steps(store) == [0, 1, 2, 3, 4, 5]
        assert store.version() < 1 + 5, "five commits were made where one or two would do"
        assert staged(store) == []

    def test_an_offer_of_a_dead_writer_counts_once(self, make_store: Any, make_points: Any) -> None:
        from ckptlake.tables.offers import Offer, post

        store = make_store()
        store.append([Batch("first", 1, make_points(1))])
        batch = Batch("dead", 1, make_points(1, start=50))
        post(Offer(tuple(store.stage(batch.rows)), {"dead": -1}, {"dead": 1}), store.path)
        store.append([Batch("first", 2, make_points(1, start=1))])
        assert steps(store) == [0, 1, 50]
        assert store.append([batch]) == store.version() == 2, "its recovery finds the rows there"
        assert steps(store) == [0, 1, 50]

    def test_an_offer_that_came_otherwise_is_never_committed(self, make_store: Any, make_points: Any) -> None:
        from ckptlake.tables.offers import Offer, post

        store = make_store()
        batch = Batch("dead", 1, make_points(1, start=50))
        store.append([Batch("first", 1, make_points(1))])
        offer = Offer(tuple(store.stage(batch.rows)), {"dead": -1}, {"dead": 1})
        make_store().append([batch])
        post(offer, store.path)
        store.append([Batch("first", 2, make_points(1, start=1))])
        assert steps(store) == [0, 1, 50]

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": [{}]}', b"\xff\xfe"])
    def test_a_broken_offer_is_passed_over(self, make_store: Any, make_points: Any, content: bytes) -> None:
        store = make_store()
        store.append([Batch("first", 1, make_points(1))])
        (store.path / "_staging" / "x.offer.json").write_bytes(content)
        store.append([Batch("first", 2, make_points(1, start=1))])
        assert steps(store) == [0, 1]


class TestRefusals:
    def test_a_lock_that_stays_taken_is_told_and_nothing_stays(self, make_store: Any, make_points: Any) -> None:
        store = make_store(lock_timeout_s=0.05)
        store.append([Batch("w", 1, make_points(1))])
        with lock_taken(store), pytest.raises(StorageError, match=r"commit\.lock"):
            store.append([Batch("w", 2, make_points(1, start=1))])
        assert staged(store) == []
        store.append([Batch("w", 2, make_points(1, start=1))])
        assert steps(store) == [0, 1]

    def test_a_rewrite_that_gets_no_lock_leaves_nothing(self, make_store: Any, make_points: Any) -> None:
        store = make_store(lock_timeout_s=0.05)
        store.append([Batch("w", 1, make_points(2))])
        files = store.snapshot().files()
        adds = store.stage(make_points(2))
        with lock_taken(store), pytest.raises(StorageError, match=r"commit\.lock"):
            store.replace(files, adds, guard=store.replacements(), operation="compact", data_change=False)
        assert staged(store) == []
        assert steps(store) == [0, 1]

    def test_a_full_disk_leaves_the_table_as_it_was(
        self, make_store: Any, make_points: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = make_store()
        store.append([Batch("w", 1, make_points(1))])

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("ckptlake.tables.parquet.pq.write_table", full)
            with pytest.raises(StorageError, match="free space"):
                store.append([Batch("w", 2, make_points(1, start=1))])
        assert (steps(store), staged(store)) == ([0], [])
        store.append([Batch("w", 2, make_points(1, start=1))])
        assert steps(store) == [0, 1]

    def test_a_table_without_partitions_works_alike(self, make_store: Any) -> None:
        store = make_store(TAGS)
        rows = pa.Table.from_pylist([{"run_id": "a", "key": "k", "removed": False}], schema=TAGS.schema)
        for _ in range(2):
            store.append([Batch("w", 1, rows)])
        assert deltalake.DeltaTable(store.path).to_pyarrow_table().num_rows == 1
        assert {Path(path).parent for path in store.snapshot().paths()} == {store.path}
