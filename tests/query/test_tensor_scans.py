"""Tensors are read from as few files as a question allows, live rows beside them, each once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import ckptlake
from ckptlake.config import Capture, Settings
from ckptlake.errors import DamagedTableError, StorageError
from ckptlake.lake import Lake
from ckptlake.query.sources import Sources
from ckptlake.tables.compaction import compact

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Put = Callable[..., None]
Opened = Callable[[Lake], list[Sources]]
Row = dict[str, Any]
RUNS = {"r-a": "pose", "r-b": "pose/vit", "r-c": "posey", "r-d": 'it\'s "q"/ü', "r-e": "pose"}
STEPS, PATHS = (0, 100, 200, 300), ("enc.w", "enc.b", "head['x'].w")


def at(us: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us)


def checkpoint_of(run_id: str, step: int | None) -> str:
    return f"{run_id}@{step}"


def tensor(run_id: str, step: int | None, path: str, ts: int = 1, **more: Any) -> Row:
    known = {"experiment": RUNS.get(run_id, "pose"), "run_id": run_id, "checkpoint_id": checkpoint_of(run_id, step)}
    known |= {"step": step, "path": path, "ts": at(ts), "dtype": "float32", "shape": [2, 3], "codec": "raw"}
    return {**known, "l2_norm": float(step or 0), "exponent_histogram": [1, 2], "stored_bytes": 24, **more}


def saved(run_id: str, step: int | None, ts: int = 1, event: str = "saved", **more: Any) -> Row:
    known = {"experiment": RUNS.get(run_id, "pose"), "run_id": run_id, "checkpoint_id": checkpoint_of(run_id, step)}
    return {**known, "event": event, "step": step, "ts": at(ts), "digest": "d", "metrics": {"loss": 0.5}, **more}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Twenty checkpoints in twenty files, beside points; two recorded again, one of them live; one without a step."""
    settings = Settings(auto_compact=False, commit_interval_s=3600, flush_interval_s=3600)
    with ckptlake.open(tmp_path_factory.mktemp("weights") / "lake", settings=settings) as lake:
        writer = lake._get_writer()
        for step in STEPS:
            for run_id in RUNS:
                writer.add_rows("tensors", [tensor(run_id, step, path) for path in PATHS])
                writer.add_rows("checkpoints", [saved(run_id, step)])
                lake.commit()
        runs = [lake.run(RUNS[run_id], run_id=run_id, capture=Capture.nothing()) for run_id in ("r-a", "r-b")]
        for run in runs:
            for step in STEPS:
                run.log({"loss": step / 2}, step=step)
                lake.commit()
        for step, kind in ((100, "compacted"), (200, "trimmed")):
            writer.add_rows("checkpoints", [saved("r-b", step, 5, kind)])
            writer.add_rows("tensors", [tensor("r-b", step, path, 5, codec="planes") for path in PATHS[:2]])
            if step == 100:
                lake.commit()
        writer.add_rows("tensors", [tensor("r-a", None, "enc.w"), tensor("new", 7, "enc.w")])
        lake.flush()
        yield lake


@pytest.fixture(scope="module")
def unpruned(weights: Lake) -> Iterator[DuckDBPyConnection]:
    with weights.connect() as connection:
        yield connection


def shown(relation: Any) -> list[str]:
    return sorted(map(repr, relation.to_arrow_table().to_pylist()))


ALL = "experiment, run_id, checkpoint_id, step, path, codec, shape"
CORPUS: list[tuple[str, dict[str, Any]]] = [
    (f"SELECT {ALL} FROM tensors", {}),
    (f"SELECT {ALL} FROM tensors WHERE run_id = 'r-b'", {}),
    (f"SELECT {ALL} FROM tensors WHERE checkpoint_id = $id", {"id": "r-b@100"}),
    (f"SELECT {ALL} FROM tensors WHERE checkpoint_id = 'absent'", {}),
    (f"SELECT {ALL} FROM tensors WHERE checkpoint_id = 'r-a@None'", {}),
    (f"SELECT {ALL} FROM tensors WHERE checkpoint_id IN ('r-a@0', 'r-d@300')", {}),
    (f"SELECT {ALL} FROM tensors WHERE checkpoint_id IN $ids AND path = 'enc.b'", {"ids": ["r-b@100", "r-b@200"]}),
    (f"SELECT {ALL} FROM tensors WHERE checkpoint_id = 'r-b@100' AND run_id = 'r-a'", {}),
    (f"SELECT {ALL} FROM tensors WHERE step BETWEEN 50 AND 150 AND experiment = 'pose'", {}),
    (f"SELECT {ALL} FROM tensors WHERE step IS NULL", {}),
    (f"SELECT {ALL} FROM tensors WHERE step < 100 OR step > 200", {}),
    (f"SELECT {ALL} FROM tensors WHERE path > 'enc.b' AND path < 'f'", {}),
    (f"SELECT {ALL} FROM tensors WHERE path LIKE 'enc%' AND in_subtree(experiment, 'pose')", {}),
    (f"SELECT {ALL} FROM tensors WHERE codec = 'raw' AND run_id = 'r-b'", {}),
    (f"SELECT {ALL} FROM tensors t WHERE T.PATH = $path AND t.step = 300", {"path": "head['x'].w"}),
    ("SELECT path AS run_id FROM tensors WHERE run_id = 'r-c' ORDER BY run_id", {}),
    ("SELECT t.path, m.value FROM tensors t JOIN metrics m ON t.run_id = m.run_id AND t.step = m.step "
     "AND t.path = 'enc.w' WHERE m.metric = 'loss' AND m.run_id = 'r-a'", {}),
    ("SELECT t.path, m.value FROM metrics m LEFT JOIN tensors t ON t.run_id = m.run_id AND t.step = 100", {}),
    ("SELECT count(*), (SELECT count(*) FROM metrics WHERE step = 100) FROM tensors WHERE run_id = 'r-c'", {}),
    ("SELECT a.path, b.l2_norm / a.l2_norm FROM tensors a JOIN tensors b USING (run_id, path) "
     "WHERE a.step = 100 AND b.step = 300 AND run_id = 'r-b'", {}),
    ("SELECT c.step, t.path FROM checkpoints c JOIN tensors t USING (checkpoint_id) WHERE c.run_id = 'r-d'", {}),
    ("SELECT c.step FROM checkpoints c ANTI JOIN tensors t ON t.checkpoint_id = c.checkpoint_id AND t.step = 100", {}),
    ("WITH tensors AS (SELECT 'r-a' AS run_id) SELECT * FROM tensors WHERE run_id = 'r-a'", {}),
    ("WITH metrics AS (SELECT * FROM tensors WHERE step = 100) SELECT path FROM metrics WHERE run_id = 'r-b'", {}),
    ("SELECT path, max(l2_norm) FROM tensors WHERE run_id IN (SELECT run_id FROM runs) GROUP BY path", {}),
    ("SELECT count(*) FROM query_table('tensors')", {}),
    ("DESCRIBE tensors", {}),
]  # fmt: skip


@pytest.mark.parametrize(("query", "values"), CORPUS, ids=[str(number) for number in range(len(CORPUS))])
def test_the_answer_is_that_of_all_files(
    weights: Lake, unpruned: DuckDBPyConnection, query: str, values: dict[str, Any]
) -> None:
    assert shown(weights.sql(query, **values)) == shown(unpruned.sql(query, params=values or None))


class TestHowManyFiles:
    def of(self, lake: Lake, opened: Opened, query: str, **values: Any) -> dict[str, int]:
        seen = opened(lake)
        lake.sql(query, **values)
        return {name: len(scan.files) for name, scan in seen[-1].scans.items()}

    @pytest.mark.parametrize(
        ("condition", "files"),
        [
            ("true", 21),
            ("experiment = 'pose'", 8),
            ("run_id = 'r-a'", 4),
            ("run_id = 'r-b'", 5),
            ("run_id IN ('r-a', 'r-c') AND step > 150", 4),
            ("run_id = 'r-a' AND step = 100", 1),
            ("run_id = 'absent'", 0),
            ("checkpoint_id = 'r-a@200'", 1),
            ("checkpoint_id = 'absent'", 0),
            ("checkpoint_id = 'r-b@100'", 2),
            ("checkpoint_id = 'r-b@100' AND path = 'head[''x''].w'", 1),
            ("step BETWEEN 90 AND 110", 6),
            ("in_subtree(experiment, 'pose')", 13),
            ("path = 'no such path'", 0),
            ("codec = 'planes'", 21),
        ],
    )
    def test_are_opened(self, weights: Lake, opened: Opened, condition: str, files: int) -> None:
        assert self.of(weights, opened, f"SELECT path FROM tensors WHERE {condition}") == {"tensors": files}

    def test_each_table_is_narrowed_by_its_own_conditions(self, weights: Lake, opened: Opened) -> None:
        joined = "SELECT count(*) FROM tensors t JOIN metrics m USING (run_id)"
        assert self.of(weights, opened, joined) == {"tensors": 21, "metrics": 8}
        assert self.of(weights, opened, f"{joined} WHERE t.step = 100") == {"tensors": 6, "metrics": 8}
        assert self.of(weights, opened, f"{joined} WHERE m.step = 100") == {"tensors": 21, "metrics": 2}
        assert self.of(weights, opened, f"{joined} WHERE m.run_id = 'r-a' AND t.run_id = 'r-c'") == {
            "tensors": 4,
            "metrics": 4,
        }
        apart = "SELECT (SELECT count(*) FROM metrics WHERE step = 0), count(*) FROM tensors WHERE step = 0"
        assert self.of(weights, opened, apart) == {"tensors": 5, "metrics": 2}

    def test_what_mentions_no_tensors_reads_none(self, weights: Lake, opened: Opened) -> None:
        for query in ("FROM checkpoints", "FROM checkpoint_events", "FROM verifications", "FROM runs"):
            assert self.of(weights, opened, query) == {}
        assert self.of(weights, opened, "SELECT count(*) FROM metrics WHERE step = 0") == {"metrics": 2}

    def test_a_checkpoint_is_found_by_its_run_in_merged_files(self, lake: Lake, put: Put, opened: Opened) -> None:
        """Ids of many runs interleave in merged files of several experiments; the checkpoint's own tells which."""
        for run_id in RUNS:
            put(lake, "tensors", *[tensor(run_id, step, "w") for step in STEPS])
            put(lake, "checkpoints", *[saved(run_id, step) for step in STEPS])
        put(
            lake,
            "tensors",
            *[tensor(run_id, 150, "w", checkpoint_id=f"{'a' if run_id < 'r-c' else 'z'}") for run_id in RUNS],
        )
        compact(lake._store("tensors"), everything=True)
        assert len(lake.table("tensors").files()) == 4
        assert self.of(lake, opened, "FROM tensors WHERE checkpoint_id = 'r-c@100'") == {"tensors": 1}
        assert self.of(lake, opened, "FROM tensors WHERE checkpoint_id = 'z'") == {"tensors": 3}


class TestNewest:
    def test_of_tensors_recorded_again_the_newest_row_counts(self, weights: Lake) -> None:
        query = "SELECT path, codec FROM tensors WHERE checkpoint_id = $id ORDER BY path"
        assert weights.sql(query, id="r-b@100").fetchall() == [
            ("enc.b", "planes"), ("enc.w", "planes"), ("head['x'].w", "raw"),
        ]  # fmt: skip
        assert weights.sql(query, id="r-b@200").fetchall()[0] == ("enc.b", "planes"), "also where that is live"
        assert weights.sql("SELECT count(*) FROM tensors").fetchall() == [(20 * 3 + 2,)]

    @pytest.mark.parametrize("first", ["saved", "sealed"])
    def test_of_a_checkpoint_adopted_again_too(self, lake: Lake, put: Put, first: str) -> None:
        put(lake, "checkpoints", saved("r-a", 1, 1, first), saved("r-a", 2, 1, first))
        put(lake, "tensors", tensor("r-a", 1, "w"), tensor("r-a", 2, "w"))
        put(lake, "checkpoints", saved("r-a", 1, 5))
        put(lake, "tensors", tensor("r-a", 1, "w", 5, codec="planes"))
        rows = lake.sql("SELECT step, codec FROM tensors ORDER BY step").fetchall()
        assert rows == [(1, "planes"), (2, "raw")]

    def test_a_checkpoint_sealed_later_is_recorded_once(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved("r-a", 1, digest=None), saved("r-a", 1, 2, "sealed"))
        put(lake, "tensors", tensor("r-a", 1, "w"))
        assert not searches_for_repeats(lake)
        assert lake.sql("SELECT count(*) FROM tensors").fetchall() == [(1,)]

    def test_rows_recorded_once_are_not_searched(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved("r-a", 1))
        put(lake, "tensors", tensor("r-a", 1, "w"))
        assert not searches_for_repeats(lake)
        put(lake, "checkpoints", saved("r-a", 1, 2, "compacted"))
        assert searches_for_repeats(lake)

    def test_rows_of_deleted_checkpoints_stay(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved("r-a", 1), saved("r-a", 2), saved("r-a", 1, 9, "deleted"))
        put(lake, "tensors", tensor("r-a", 1, "w"), tensor("r-a", 2, "w"))
        assert lake.sql("SELECT step FROM tensors ORDER BY step").fetchall() == [(1,), (2,)]
        live = "SELECT t.step FROM tensors t SEMI JOIN checkpoints USING (checkpoint_id)"
        assert lake.sql(live).fetchall() == [(2,)]

    def test_every_column_comes_back(self, lake: Lake) -> None:
        full = tensor(
            "r-a", 3, "w", nbytes=24, num_elements=6, digest="d", pack="p", min=-1.0, max=2.0, mean=0.5, std=0.25,
            n_nan=0, n_inf=1, zero_fraction=0.0, exponent_min=-3, sample_size=6, l2_distance=0.1,
            cosine_similarity=1.0, previous_checkpoint_id="r-a@2",
        )  # fmt: skip
        lake._get_writer().add_rows("tensors", [full])
        lake.flush()
        for _ in range(2):
            (row,) = lake.sql("FROM tensors").to_arrow_table().to_pylist()
            assert row == full
            lake.commit()


def searches_for_repeats(lake: Lake) -> bool:
    with lake.connect() as connection:
        plan = "".join(str(row) for row in connection.sql("EXPLAIN SELECT path, codec FROM tensors").fetchall())
    return "JOIN" in plan.upper()


class TestMoments:
    def test_live_rows_are_seen_by_others_and_counted_once(self, lake: Lake) -> None:
        with ckptlake.open(lake.path, create=False) as other:
            for step in range(3):
                lake._get_writer().add_rows("tensors", [tensor("r-a", step, path) for path in PATHS])
                lake.flush()
                for _ in range(2):
                    found = other.sql("SELECT step, count(*) FROM tensors GROUP BY step ORDER BY step").fetchall()
                    assert found == [(i, 3) for i in range(step + 1)]
                    lake.commit()

    def test_the_past_shows_what_was_committed(self, lake: Lake, put: Put) -> None:
        moments = [datetime.now(UTC)]
        for step in range(3):
            time.sleep(0.01)
            put(lake, "checkpoints", saved("r-a", step))
            put(lake, "tensors", tensor("r-a", step, "w"))
            time.sleep(0.01)
            moments.append(datetime.now(UTC))
        put(lake, "checkpoints", saved("r-a", 0, 9, "compacted"))
        put(lake, "tensors", tensor("r-a", 0, "w", 9, codec="planes"))
        lake._get_writer().add_rows("tensors", [tensor("r-a", 9, "w")])
        lake.flush()
        for number, moment in enumerate(moments):
            rows = lake.sql("SELECT step, codec FROM tensors ORDER BY step", as_of=moment).fetchall()
            assert rows == [(step, "raw") for step in range(number)]
        assert lake.sql("SELECT step, codec FROM tensors ORDER BY step").fetchall() == [
            (0, "planes"), (1, "raw"), (2, "raw"), (9, "raw"),
        ]  # fmt: skip

    def test_the_past_has_no_row_twice_though_the_event_came_later(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved("r-a", 0))
        put(lake, "tensors", tensor("r-a", 0, "w"))
        put(lake, "tensors", tensor("r-a", 0, "w", 9, codec="planes"))
        time.sleep(0.01)
        between = datetime.now(UTC)
        time.sleep(0.01)
        put(lake, "checkpoints", saved("r-a", 0, 9, "compacted"))
        assert lake.sql("SELECT codec FROM tensors", as_of=between).fetchall() == [("planes",)]

    @pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "half"])
    def test_a_commit_between_the_snapshots_shows_no_row_twice(
        self, lake: Lake, monkeypatch: pytest.MonkeyPatch, is_whole: bool
    ) -> None:
        """Tensors are committed before the event that tells that they are there again."""
        writer = lake._get_writer()
        writer.add_rows("tensors", [tensor("r-a", 0, path) for path in PATHS])
        writer.add_rows("checkpoints", [saved("r-a", 0)])
        lake.commit()
        with ckptlake.open(lake.path, create=False) as other:
            store, commits = other._store("tensors"), []
            snapshot = store.snapshot

            def refuse(*_: object) -> None:
                raise StorageError("the disk is full")

            def commit_first(*args: Any, **kwargs: Any) -> Any:
                if not commits:
                    commits.append(1)
                    writer.add_rows("checkpoints", [saved("r-a", 0, 5, "compacted")])
                    writer.add_rows("tensors", [tensor("r-a", 0, path, 5, codec="planes") for path in PATHS])
                    if is_whole:
                        lake.commit()
                    else:
                        with monkeypatch.context() as patch:
                            patch.setattr(lake._store("checkpoints"), "append", refuse)
                            with pytest.raises(StorageError, match="full"):
                                lake.commit()
                return snapshot(*args, **kwargs)

            monkeypatch.setattr(store, "snapshot", commit_first)
            assert other.sql("SELECT path, codec FROM tensors ORDER BY path").fetchall() == [
                (path, "planes") for path in sorted(PATHS)
            ]
            assert commits
        if not is_whole:
            with pytest.raises(StorageError):
                writer.raise_alarm()


def test_a_damaged_file_is_told_by_its_table(lake: Lake, put: Put) -> None:
    put(lake, "tensors", tensor("r-a", 0, "w"))
    put(lake, "checkpoints", saved("r-a", 0))
    (path,) = (lake.path / "tables" / "tensors").glob("experiment=*/*.parquet")
    path.write_bytes(b"PAR1 no longer")
    with pytest.raises(DamagedTableError, match="table 'tensors'"):
        lake.sql("FROM tensors")
    path.unlink()
    with pytest.raises(DamagedTableError, match="table 'tensors'"):
        lake.sql("FROM tensors")
    assert lake.sql("SELECT count(*) FROM checkpoints").fetchall() == [(1,)]


def test_a_lake_in_a_directory_that_looks_like_a_partition(tmp_path: Any, put: Put) -> None:
    with ckptlake.open(tmp_path / "step=3" / "path=x" / "experiment=y") as lake:
        put(lake, "tensors", tensor("r-d", 1, "w"))
        lake._get_writer().add_rows("tensors", [tensor("r-d", 2, "v")])
        lake.flush()
        found = lake.sql("SELECT experiment, run_id, step, path, shape FROM tensors ORDER BY step").fetchall()
        assert found == [(RUNS["r-d"], "r-d", 1, "w", [2, 3]), (RUNS["r-d"], "r-d", 2, "v", [2, 3])]
