"""The tables in the eyes of other readers, with none of our code: delta-rs, Polars, DuckDB."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import polars as pl
import pyarrow as pa
import pytest

import ckptlake
from ckptlake.config import Capture, Settings
from ckptlake.tables.schemas import TABLES

EXPERIMENTS = [
    "plain",
    "a/b/c",
    "two words",
    "100%",
    "%41",
    "ü/日本 語",
    "a=b",
    "[a]*?",
    "q'u\"ote",
    "back\\slash",
    "😀",
    "NULL",
    "1e5",
    "true",
    "2026-01-01",
    "a+b&c;d",
    "dot.",
    "~",
]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
VALUES = [0.1, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e308, 1.0]


def checkpoint_rows(index: int, experiment: str, run_id: str) -> dict[str, list[dict[str, Any]]]:
    """Return rows of every table of checkpoints with every class of number, of nothing and of nesting."""
    ident = {"experiment": experiment, "run_id": run_id, "checkpoint_id": f"{run_id}-ü'\"", "ts": MOMENT}
    value, shape = VALUES[index % len(VALUES)], [[], [3], [2, 2**40, 0], None][index % 4]
    metrics = [{"val/loss é": value, "": None}, {}, None, [("a\"'\\", 1e300), ("b", -0.0)]][index % 4]
    return {
        "tensors": [
            {**ident, "path": path, "step": index * 10**15, "shape": shape, "min": value, "l2_norm": 0.1 * index,
             "exponent_histogram": list(range(index)), "exponent_min": -1074}
            for path in ("model.näme", "m\"'\\.[0]")
        ],
        "checkpoints": [
            {**ident, "event": "saved", "step": index, "metrics": metrics, "packs": ["a", "ü"][:index % 3]},
            {**ident, "event": "aliased", "alias": "best 'ü'"},
        ],
        "verifications": [{**ident, "verdict": "damaged", "tensors_lost": [None, [], ["a", "ü\n"]][index % 3]}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lake with rows in every table, some merged and some not, and odd names everywhere."""
    root = tmp_path_factory.mktemp("lakes") / "lake"
    with ckptlake.open(root, settings=Settings(auto_compact=False)) as lake:
        for index, experiment in enumerate(EXPERIMENTS):
            params = {"lr": 0.1 * index, "nested": {"näme": experiment}, "list": [1, None], "big": 2**70}
            run = lake.run(experiment, f"run {index} 'ü'", params, ["tag", experiment], capture=Capture.nothing())
            run.define("val/loss é", direction="min", step_metric="epoch")
            for step, value in enumerate(VALUES):
                run.log({"val/loss é": value, "m\"'\\": float(index)}, step=step * 10**15)
            run.note("a note\nwith 'lines'")
            for name, rows in checkpoint_rows(index, experiment, run.id).items():
                lake._get_writer().add_rows(name, rows)
            run.finish()
            if index == 9:
                for table in lake.tables():
                    table.compact()
        lake.experiment("ü").describe("plain – and not")
    return root / "tables"


def by_delta(path: Path) -> list[dict[str, Any]]:
    return deltalake.DeltaTable(path).to_pyarrow_table().to_pylist()


def by_polars(path: Path) -> list[dict[str, Any]]:
    return pl.scan_delta(str(path)).collect().to_dicts()


def by_duckdb(path: Path) -> list[dict[str, Any]]:
    files = [str(path / add) for add in live_files(path)]
    escaped = ["".join(f"[{c}]" if c in "*?[" else c for c in file) for file in files]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        query = "SELECT * FROM read_parquet($1, hive_partitioning=true, hive_types_autocast=false)"
        rows = connection.sql(query, params=[escaped]).to_arrow_table()
    wanted = deltalake.DeltaTable(path).schema().to_arrow()
    return pa.table(rows).select([field.name for field in wanted]).to_pylist()


def live_files(path: Path) -> list[str]:
    from urllib.parse import unquote

    return [unquote(file) for file in pa.table(deltalake.DeltaTable(path).get_add_actions()).column("path").to_pylist()]


def by_ckptlake(path: Path) -> list[dict[str, Any]]:
    with ckptlake.open(path.parents[1], create=False) as lake, lake.connect() as connection:
        view = {"metrics": "metrics_raw", "tensors": "tensors"}.get(path.name, f"{path.name}_rows")
        return connection.sql(f"FROM {view}").to_arrow_table().to_pylist()


def comparable(rows: list[dict[str, Any]]) -> list[str]:
    """Return rows as sorted texts that tell every float and moment apart; maps are pairs, however a reader has them."""

    def shown(value: object) -> str:
        if isinstance(value, dict):
            return repr(list(value.items()))
        return repr(value.astimezone(UTC).replace(tzinfo=None)) if isinstance(value, datetime) else repr(value)

    return sorted(repr({name: shown(value) for name, value in sorted(row.items())}) for row in rows)


READERS: list[Callable[[Path], list[dict[str, Any]]]] = [by_polars, by_duckdb, by_ckptlake]


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("table", sorted(set(TABLES) - {"summaries"}))
def test_every_reader_sees_the_same_rows(tables: Path, table: str, read: Any) -> None:
    expected = by_delta(tables / table)
    assert expected
    assert comparable(read(tables / table)) == comparable(expected)


@pytest.mark.parametrize("read", [by_polars, by_duckdb], ids=lambda read: read.__name__)
def test_and_of_summaries(tables: Path, read: Any) -> None:
    assert comparable(read(tables / "summaries")) == comparable(by_delta(tables / "summaries"))


def test_points_are_what_was_logged(tables: Path) -> None:
    rows = [row for row in by_delta(tables / "metrics") if row["metric"] == "val/loss é"]
    expected = [(e, step * 10**15, repr(value)) for e in EXPERIMENTS for step, value in enumerate(VALUES)]
    assert sorted((row["experiment"], row["step"], repr(row["value"])) for row in rows) == sorted(expected)


def test_checkpoints_are_what_was_recorded(tables: Path) -> None:
    expected = [checkpoint_rows(index, experiment, "r") for index, experiment in enumerate(EXPERIMENTS)]
    saved = [row for row in by_delta(tables / "checkpoints") if row["event"] == "saved"]
    for found, index in zip(sorted(saved, key=lambda row: row["step"]), range(len(EXPERIMENTS)), strict=True):
        metrics = expected[index]["checkpoints"][0]["metrics"]
        assert repr(found["metrics"]) == repr(None if metrics is None else list(dict(metrics).items()))
        assert found["packs"] == ["a", "ü"][: index % 3]
    tensors = by_delta(tables / "tensors")
    for index, experiment in enumerate(EXPERIMENTS):
        rows = [row for row in tensors if row["experiment"] == experiment]
        assert [row["path"] for row in sorted(rows, key=lambda row: row["path"])] == ["m\"'\\.[0]", "model.näme"]
        for row in rows:
            assert row["shape"] == expected[index]["tensors"][0]["shape"]
            assert row["exponent_histogram"] == list(range(index))
            assert repr(row["min"]) == repr(VALUES[index % len(VALUES)])


def test_filters_of_other_readers_use_our_statistics_rightly(tables: Path) -> None:
    frame = pl.scan_delta(str(tables / "metrics"))
    for experiment in EXPERIMENTS:
        assert frame.filter(pl.col("experiment") == experiment).collect().height == 2 * len(VALUES), experiment
    assert frame.filter(pl.col("value") == math.inf).collect().height == len(EXPERIMENTS)
    assert frame.filter(pl.col("step") == 7 * 10**15).collect().height == 2 * len(EXPERIMENTS)
    tensors = pl.scan_delta(str(tables / "tensors"))
    for index, experiment in enumerate(EXPERIMENTS):
        assert tensors.filter(pl.col("experiment") == experiment).collect().height == 2, experiment
        assert tensors.filter(pl.col("step") == index * 10**15).collect().height == 2, experiment
    assert tensors.filter(pl.col("path") == "model.näme").collect().height == len(EXPERIMENTS)


def test_the_tables_ask_little_of_a_reader(tables: Path) -> None:
    for path in tables.iterdir():
        protocol = deltalake.DeltaTable(path).protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) <= (1, 2), path.name
        assert not protocol.reader_features


def test_the_directory_of_the_lake_is_not_taken_for_a_partition(tmp_path: Path) -> None:
    root = tmp_path / "step=3" / "run_id=x" / "experiment=y" / "value=7"
    with ckptlake.open(root) as lake:
        with lake.run("pose", run_id="r", capture=Capture.nothing()) as run:
            run.log({"loss": 0.5}, step=1)
        assert lake.sql("SELECT experiment, run_id, step, value FROM metrics").fetchall() == [("pose", "r", 1, 0.5)]
        assert lake.connect().execute("SELECT step, value FROM metrics").fetchall() == [(1, 0.5)]


def test_the_name_hive_gives_to_nothing_is_a_name_or_refused(tmp_path: Path) -> None:
    name = "__HIVE_DEFAULT_PARTITION__"
    with ckptlake.open(tmp_path) as lake:
        try:
            run = lake.run(name, capture=Capture.nothing())
        except ckptlake.InvalidInputError:
            return
        run.log({"loss": 0.5}, step=1)
        run.finish()
        assert lake.sql("SELECT experiment FROM metrics").fetchall() == [(name,)]
