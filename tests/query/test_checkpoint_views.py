"""The views of checkpoints and verifications, against a small model of what their events mean."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckptlake
from ckptlake.config import Capture, Settings
from ckptlake.errors import QueryError
from ckptlake.lake import Lake
from ckptlake.query import folded, history
from ckptlake.query.history import Events
from ckptlake.tables.schemas import CHECKPOINTS

Put = Callable[..., None]
Row = dict[str, Any]
NAN = math.nan
ORDER = (
    "saved", "sealed", "compacted", "trimmed", "unpinned", "pinned", "unaliased", "aliased", "released",
    "quarantined", "deleted",
)  # fmt: skip
TOLD_LATER = ("digest", "logical_bytes", "stored_bytes", "num_tensors", "packs")


def at(us: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us)


def event(kind: str, ts: int, checkpoint_id: str = "c", run_id: str = "r", **more: Any) -> Row:
    ident = {"checkpoint_id": checkpoint_id, "run_id": run_id, "experiment": f"of {run_id}", "attempt": 1}
    return {**ident, "ts": at(ts), "event": kind, **more}


def saved(ts: int = 0, checkpoint_id: str = "c", run_id: str = "r", **more: Any) -> Row:
    known = {"step": ts, "format": "packed", "location": f"checkpoints/{checkpoint_id}.json", "metrics": {"loss": 0.5}}
    return event("saved", ts, checkpoint_id, run_id, **{**known, **more})


def rows_of(lake: Lake, query: str = "FROM checkpoints ORDER BY checkpoint_id", **values: Any) -> list[Row]:
    rows = lake.sql(query, **values).to_arrow_table().to_pylist()
    return [{n: v.astimezone(UTC) if isinstance(v, datetime) else v for n, v in row.items()} for row in rows]


def the_row(lake: Lake) -> Row:
    (row,) = rows_of(lake)
    return row


def model(events: Sequence[Row], verifications: Sequence[Row] = ()) -> list[Row]:
    """Return what the view should say, worked out one checkpoint at a time."""

    def place(row: Row) -> tuple[datetime, int]:
        return row["ts"], ORDER.index(row["event"])

    def newest(rows: Sequence[Row]) -> Row | None:
        return max(rows, key=place, default=None)

    found = []
    for checkpoint_id in sorted({row["checkpoint_id"] for row in events}):
        own = [row for row in events if row["checkpoint_id"] == checkpoint_id]
        kept = newest([row for row in own if row["event"] == "saved"])
        if kept is None or any(row["event"] == "deleted" for row in own):
            continue
        row = {name: kept.get(name) for name in CHECKPOINTS.schema.names if name not in ("ts", "event", "alias")}
        row["saved_at"] = kept["ts"]
        for name in TOLD_LATER:
            kinds = ("sealed", "trimmed") if name == "packs" else ("sealed", "compacted", "trimmed")
            last = newest([r for r in own if r["event"] in kinds and r.get(name) is not None])
            if last is not None and (row[name] is None or place(last) > place(kept)):
                row[name] = last[name]
        health = newest([r for r in own if r["event"] in ("quarantined", "released")])
        row["status"] = "quarantined" if health and health["event"] == "quarantined" else "good"
        pin = newest([r for r in own if r["event"] in ("pinned", "unpinned")])
        row["pinned"] = pin is not None and pin["event"] == "pinned"
        row["aliases"] = sorted(
            alias for alias, holder in holders(events, kept["run_id"]).items() if holder == checkpoint_id
        )
        checks = [v for v in verifications if v["checkpoint_id"] == checkpoint_id]
        check = max(checks, key=lambda v: v["ts"], default={})
        row |= {"verified_at": check.get("ts"), "verified_level": check.get("level"), "verdict": check.get("verdict")}
        row["metrics"] = None if row["metrics"] is None else list(row["metrics"].items())
        found.append(row)
    return found


def holders(events: Sequence[Row], run_id: str) -> dict[str, str]:
    """Return which checkpoint of a run has each alias."""
    found: dict[str, str] = {}
    own = [row for row in events if row["run_id"] == run_id and row["event"] in ("aliased", "unaliased")]
    given_at: dict[str, tuple[Any, ...]] = {}
    for row in own:
        key = (row["ts"], row["checkpoint_id"])
        if row["event"] == "aliased" and key >= given_at.get(row["alias"], key):
            given_at[row["alias"]] = key
            found[row["alias"]] = row["checkpoint_id"]
    for row in own:
        is_taken = row["event"] == "unaliased" and found.get(row["alias"]) == row["checkpoint_id"]
        if is_taken and row["ts"] > given_at[row["alias"]][0]:
            del found[row["alias"]]
    return found


class TestMeaning:
    def test_a_checkpoint_as_it_was_saved(self, lake: Lake, put: Put) -> None:
        full = saved(
            7, epoch=2, digest="d", logical_bytes=10, stored_bytes=4, num_tensors=3, metrics={"a": 1.5, "b": NAN},
            packs=["p"], note="a note", duration_s=0.25,
        )  # fmt: skip
        put(lake, "checkpoints", full)
        relation = lake.sql("FROM checkpoints")
        assert relation.columns == [
            "checkpoint_id", "run_id", "experiment", "attempt", "step", "epoch", "saved_at", "format", "status",
            "digest", "logical_bytes", "stored_bytes", "num_tensors", "metrics", "aliases", "pinned", "note",
            "duration_s", "location", "packs", "verified_at", "verified_level", "verdict",
        ]  # fmt: skip
        kinds = dict(zip(relation.columns, map(str, relation.types), strict=True))
        assert (kinds["metrics"], kinds["aliases"], kinds["pinned"]) == ("MAP(VARCHAR, DOUBLE)", "VARCHAR[]", "BOOLEAN")
        row = the_row(lake)
        assert repr(row.pop("metrics")) == repr([("a", 1.5), ("b", NAN)])
        expected = {name: full[name] for name in full if name not in ("ts", "event", "metrics")}
        nothing = dict.fromkeys(("verified_at", "verified_level", "verdict"))
        assert row == expected | nothing | {"saved_at": at(7), "status": "good", "aliases": [], "pinned": False}

    def test_events_alone_are_no_checkpoint(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", event("pinned", 1), event("sealed", 2, digest="d"), event("aliased", 3, alias="best"))
        assert rows_of(lake) == []
        assert len(rows_of(lake, "FROM checkpoint_events")) == 3

    def test_a_digest_is_filled_in_later(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved(1, digest=None, stored_bytes=9), event("sealed", 5, digest="d"))
        assert (the_row(lake)["digest"], the_row(lake)["stored_bytes"]) == ("d", 9)

    def test_compaction_and_trimming_tell_new_sizes(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved(1, digest="d", logical_bytes=30, stored_bytes=30, num_tensors=3, packs=["a"]))
        put(lake, "checkpoints", event("compacted", 2, stored_bytes=20, location="a", packs=["the base of a"]))
        row = the_row(lake)
        assert [row[name] for name in TOLD_LATER] == ["d", 30, 20, 3, ["a"]]
        assert row["location"] == "checkpoints/c.json"
        put(lake, "checkpoints", event("trimmed", 3, digest="e", logical_bytes=10, num_tensors=1, packs=[]))
        row = the_row(lake)
        assert [row[name] for name in TOLD_LATER] == ["e", 10, 20, 1, []]

    def test_of_two_saves_of_one_id_the_newest_counts(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved(5, stored_bytes=5, note="adopted", digest="d"), event("pinned", 2))
        put(lake, "checkpoints", saved(1, stored_bytes=1, note="first"), event("compacted", 3, stored_bytes=3))
        row = the_row(lake)
        assert (row["note"], row["step"], row["stored_bytes"]) == ("adopted", 5, 5)
        assert row["pinned"], "a pin is the user's and stays"
        put(lake, "checkpoints", event("compacted", 9, stored_bytes=9))
        assert the_row(lake)["stored_bytes"] == 9

    def test_what_is_deleted_is_gone_for_good(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved(1), saved(1, "other"), event("deleted", 5), event("pinned", 6))
        assert [row["checkpoint_id"] for row in rows_of(lake)] == ["other"]
        put(lake, "checkpoints", saved(9, note="a segment found late"))
        assert [row["checkpoint_id"] for row in rows_of(lake)] == ["other"]

    def test_a_quarantine_is_lifted_by_a_release(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved(1, note="own"), event("quarantined", 2, note="a tensor is lost"))
        assert (the_row(lake)["status"], the_row(lake)["note"]) == ("quarantined", "own")
        put(lake, "checkpoints", event("released", 3))
        assert the_row(lake)["status"] == "good"
        put(lake, "checkpoints", event("quarantined", 4))
        assert the_row(lake)["status"] == "quarantined"

    def test_pins_come_and_go(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved(1), event("pinned", 2))
        assert the_row(lake)["pinned"] is True
        put(lake, "checkpoints", event("unpinned", 3))
        assert the_row(lake)["pinned"] is False

    def test_an_alias_belongs_to_one_checkpoint_of_its_run(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", *[saved(i, f"c{i}", run) for run, i in (("r", 0), ("r", 1), ("s", 2))])
        put(lake, "checkpoints", event("aliased", 5, "c0", alias="best"), event("aliased", 5, "c2", "s", alias="best"))
        put(lake, "checkpoints", event("aliased", 6, "c0", alias="a first"), event("aliased", 6, "c0", alias="Ä"))

        def aliases() -> list[list[str]]:
            return [row["aliases"] for row in rows_of(lake)]

        assert aliases() == [["a first", "best", "Ä"], [], ["best"]]
        put(lake, "checkpoints", event("aliased", 7, "c1", alias="best"))
        assert aliases() == [["a first", "Ä"], ["best"], ["best"]]
        put(lake, "checkpoints", event("unaliased", 8, "c0", alias="best"))
        assert aliases()[1] == ["best"], "it was c0's no longer"
        put(lake, "checkpoints", event("unaliased", 9, "c1", alias="best"))
        assert aliases() == [["a first", "Ä"], [], ["best"]], "and does not fall back to c0"
        put(lake, "checkpoints", event("aliased", 10, "c1", alias="best"), event("deleted", 11, "c1"))
        assert aliases() == [["a first", "Ä"], ["best"]]

    def test_the_newest_verification_is_told(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved(1), saved(1, "other"))
        ident = {"checkpoint_id": "c", "run_id": "r", "experiment": "e", "level": "fast"}
        put(lake, "verifications", {**ident, "ts": at(9), "verdict": "damaged", "tensors_lost": ["w"], "finding": "x"})
        put(lake, "verifications", {**ident, "ts": at(3), "verdict": "good", "level": "digest"})
        told = [(row["verified_at"], row["verified_level"], row["verdict"]) for row in rows_of(lake)]
        assert told == [(at(9), "fast", "damaged"), (None, None, None)]
        rows = rows_of(lake, "SELECT verdict, tensors_lost FROM verifications ORDER BY ts")
        assert rows == [{"verdict": "good", "tensors_lost": None}, {"verdict": "damaged", "tensors_lost": ["w"]}]

    def test_the_best_by_a_metric_leaves_nan_out(self, lake: Lake, put: Put) -> None:
        values: list[Mapping[str, float | None] | None] = [
            {"val/loss": 0.5}, {"val/loss": NAN}, {"val/loss": 0.25, "acc": 1.0}, {"acc": 2.0}, {}, None,
            {"val/loss": None}, {"val/loss": -math.inf},
        ]  # fmt: skip
        put(lake, "checkpoints", *[saved(i, f"c{i}", metrics=metrics) for i, metrics in enumerate(values)])
        query = """
            SELECT checkpoint_id FROM checkpoints WHERE NOT isnan(metrics[$metric])
            ORDER BY metrics[$metric], saved_at LIMIT 2"""
        assert lake.sql(query, metric="val/loss").fetchall() == [("c7",), ("c2",)]
        names = "SELECT DISTINCT unnest(map_keys(metrics)) AS name FROM checkpoints ORDER BY name"
        assert lake.sql(names).fetchall() == [("acc",), ("val/loss",)]

    def test_an_event_of_a_kind_to_come_is_passed_over(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved(1, digest="d"), event("signed", 2, digest="x", stored_bytes=1))
        assert (the_row(lake)["digest"], the_row(lake)["stored_bytes"]) == ("d", None)

    def test_a_map_that_another_program_has_spoilt_is_told(self, lake: Lake, put: Put) -> None:
        put(lake, "checkpoints", saved(1, metrics=[("a", 1.0), ("a", 2.0)]))
        with pytest.raises(QueryError, match="duplicate key"):
            lake.sql("FROM checkpoints")
        with pytest.raises(QueryError, match="duplicate key"):
            lake.connect()


IDS = {"c0": "r", "c1": "r", "c2": "r", "d0": "s", "d1": "s"}
TIMES = st.integers(0, 9)


@st.composite
def histories(draw: st.DrawFn) -> list[Row]:
    """Return events of some checkpoints in any order, no two of one kind and checkpoint at the same moment."""
    found: dict[tuple[Any, ...], Row] = {}
    for _ in range(draw(st.integers(0, 24))):
        checkpoint_id, kind, ts = draw(st.sampled_from(sorted(IDS))), draw(st.sampled_from(ORDER)), draw(TIMES)
        row = event(kind, ts, checkpoint_id, IDS[checkpoint_id])
        if kind in ("aliased", "unaliased"):
            row["alias"] = draw(st.sampled_from(["best", "mine"]))
        if kind == "saved":
            row |= {
                "step": draw(TIMES),
                "metrics": draw(st.none() | st.dictionaries(st.sampled_from("ab"), st.floats(0))),
            }
        if kind in ("saved", "sealed", "compacted", "trimmed"):
            row |= {"digest": draw(st.none() | st.sampled_from("xyz")), "stored_bytes": draw(st.none() | TIMES)}
            row["packs"] = draw(st.none() | st.lists(st.sampled_from("pq"), max_size=2))
        found[checkpoint_id, kind, ts, row.get("alias")] = row
    return draw(st.permutations(list(found.values())))


CHECKS = st.lists(st.tuples(st.sampled_from(sorted(IDS)), TIMES, st.sampled_from(["good", "damaged"])), max_size=4)


def as_verifications(checks: list[tuple[str, int, str]]) -> list[Row]:
    unique = {(checkpoint_id, ts): verdict for checkpoint_id, ts, verdict in checks}
    return [
        {
            "checkpoint_id": i,
            "run_id": IDS[i],
            "experiment": f"of {IDS[i]}",
            "ts": at(ts),
            "verdict": v,
            "level": "fast",
        }
        for (i, ts), v in unique.items()
    ]


def agree(lake: Lake, events: Sequence[Row], verifications: Sequence[Row]) -> None:
    expected = [dict(sorted(row.items())) for row in model(events, verifications)]
    assert list(map(repr, (dict(sorted(row.items())) for row in rows_of(lake)))) == list(map(repr, expected))
    for run_id in ("r", "s"):
        own = rows_of(lake, "FROM checkpoints WHERE run_id = $run ORDER BY checkpoint_id", run=run_id)
        assert repr([row["step"] for row in own]) == repr([r["step"] for r in expected if r["run_id"] == run_id])


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    events=histories(), checks=CHECKS, cuts=st.tuples(st.integers(0, 24), st.integers(0, 24)), fewest=st.integers(0, 12)
)
def test_any_history_is_told_as_the_model_tells_it(
    tmp_path_factory: pytest.TempPathFactory, events: list[Row], checks: list[tuple[str, int, str]],
    cuts: tuple[int, int], fewest: int,
) -> None:  # fmt: skip
    """Rows committed in two parts and live ones, however many of them are settled, and again after compaction."""
    verifications = as_verifications(checks)
    first, second = sorted(cuts)
    parts = [(events[:first], verifications[:1]), (events[first:second], []), (events[second:], verifications[1:])]
    quiet = Settings(auto_compact=False, commit_interval_s=3600, flush_interval_s=3600)
    with (
        pytest.MonkeyPatch.context() as patch,
        ckptlake.open(tmp_path_factory.mktemp("lakes") / "lake", settings=quiet) as lake,
    ):
        patch.setattr(history, "FEWEST_SETTLED_ROWS", fewest)
        told: tuple[list[Row], list[Row]] = ([], [])
        for number, part in enumerate(parts):
            for table, rows, known in zip(("checkpoints", "verifications"), part, told, strict=True):
                lake._get_writer().add_rows(table, rows)
                known.extend(rows)
            lake.flush()
            agree(lake, *told)
            if number < 2:
                lake.commit()
                agree(lake, *told)
        with ckptlake.open(lake.path, create=False) as other:
            agree(other, *told)
        lake.commit()
        for name in ("checkpoints", "verifications"):
            lake.table(name).compact()
        agree(lake, *told)


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Note which rows are folded: into which kind of table, and how many."""
    found: list[tuple[str, int]] = []
    create = folded.create_folded

    def creating(cursor: Any, table: str, events: Events) -> None:
        found.append((table.split(".")[1].rstrip("_0123456789"), events.num_rows))
        create(cursor, table, events)

    monkeypatch.setattr(folded, "create_folded", creating)
    return found


class TestWhatIsFolded:
    @pytest.fixture
    def many(self, lake: Lake, put: Put, monkeypatch: pytest.MonkeyPatch) -> Lake:
        """A lake of sixty checkpoints of three runs, of which a hundred rows would be settled."""
        monkeypatch.setattr(history, "FEWEST_SETTLED_ROWS", 100)
        for run in "rst":
            put(lake, "checkpoints", *[saved(i, f"{run}{i}", run) for i in range(20)])
            put(lake, "checkpoints", *[event("sealed", i, f"{run}{i}", run, digest="d") for i in range(20)])
        return lake

    def test_rows_are_folded_once_for_all_questions(self, many: Lake, folds: list[tuple[str, int]]) -> None:
        for _ in range(3):
            assert len(rows_of(many)) == 60
            assert len(rows_of(many, "FROM checkpoints WHERE run_id = 'r'")) == 20
        assert folds == [("settled", 120), ("recent", 0)]

    def test_a_new_row_has_the_rows_of_its_run_folded_again(
        self, many: Lake, put: Put, folds: list[tuple[str, int]]
    ) -> None:
        assert len(rows_of(many)) == 60
        folds.clear()
        many._get_writer().add_rows("checkpoints", [saved(99, "r99"), event("aliased", 100, "r3", alias="best")])
        many.flush()
        assert len(rows_of(many)) == 61
        assert folds == [("recent", 42)], "live rows, of one run"
        many.commit()
        assert [row["aliases"] for row in rows_of(many) if row["checkpoint_id"] == "r3"] == [["best"]]
        assert len(rows_of(many)) == 61
        put(many, "verifications", {"checkpoint_id": "s1", "run_id": "s", "ts": 5, "verdict": "good"})
        assert [row["checkpoint_id"] for row in rows_of(many) if row["verdict"]] == ["s1"]
        assert folds == [("recent", 42), ("recent", 42), ("recent", 42 + 41)]
        put(many, "checkpoints", event("pinned", 9, "t1", "t"))
        assert [row["checkpoint_id"] for row in rows_of(many) if row["pinned"]] == ["t1"]
        assert folds[3:] == [("settled", 124), ("recent", 0)], "they have become too many"

    def test_points_and_flushes_have_nothing_folded(self, many: Lake, folds: list[tuple[str, int]]) -> None:
        with many.run("e", capture=Capture.nothing()) as run:
            assert len(rows_of(many)) == 60
            folds.clear()
            for step in range(3):
                run.log({"loss": 0.5}, step=step)
                many.flush()
                assert len(rows_of(many)) == 60
            many.commit()
            assert len(rows_of(many)) == 60
        assert folds == []

    def test_rows_that_go_take_the_fold_along(self, many: Lake, folds: list[tuple[str, int]]) -> None:
        from ckptlake.tables.deletion import delete_runs

        assert len(rows_of(many)) == 60
        delete_runs(many._store("checkpoints"), ["s"])
        assert {row["run_id"] for row in rows_of(many)} == {"r", "t"}

    def test_tables_of_old_folds_are_dropped(self, many: Lake, put: Put) -> None:
        for number in range(4):
            put(many, "checkpoints", *[saved(i, f"n{number}-{i}", f"n{number}") for i in range(110)])
            assert len(rows_of(many)) == 60 + 110 * (number + 1)
        place = many._engine._workplace()
        query = "SELECT table_name FROM duckdb_tables() WHERE schema_name = $1"
        tables = place.connection.cursor().execute(query, [place.schema]).fetchall()
        assert sorted(name.rstrip("0123456789") for (name,) in tables) == ["recent_", "settled_"]

    def test_questions_beside_a_writer_never_miss_a_checkpoint(self, many: Lake, put: Put) -> None:
        """Folds come and go under the readers; each sees at least what was there when it asked."""
        done, failures, saves = threading.Event(), [], [60]

        def read() -> None:
            try:
                while not done.is_set():
                    before = saves[0]
                    ((count,),) = many.sql("SELECT count(*) FROM checkpoints").fetchall()
                    if not before <= count <= saves[0] + 60:
                        failures.append((before, count))
            except BaseException as error:
                failures.append(error)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for number in range(12):
            put(many, "checkpoints", *[saved(i, f"w{number}-{i}", f"w{number % 3}") for i in range(60)])
            saves[0] += 60
        done.set()
        for reader in readers:
            reader.join()
        assert failures == []
        assert len(rows_of(many)) == 60 + 12 * 60


class TestPast:
    def test_each_moment_shows_what_was_known_then(self, lake: Lake, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "FEWEST_SETTLED_ROWS", 0)
        moments = []
        for rows in ([saved(1)], [event("pinned", 2)], [saved(3, "other")], [event("deleted", 4)]):
            put(lake, "checkpoints", *rows)
            time.sleep(0.01)
            moments.append(datetime.now(UTC))
            time.sleep(0.01)
        put(lake, "verifications", {"checkpoint_id": "other", "run_id": "r", "ts": 5, "verdict": "good"})
        lake._get_writer().add_rows("checkpoints", [saved(9, "live")])
        lake.flush()
        query = "SELECT checkpoint_id, pinned, verdict FROM checkpoints ORDER BY checkpoint_id"
        expected: list[list[Any]] = [
            [("c", False, None)],
            [("c", True, None)],
            [("c", True, None), ("other", False, None)],
            [("other", False, None)],
        ]
        for _ in range(2):
            for moment, rows in zip(moments, expected, strict=True):
                assert lake.sql(query, as_of=moment).fetchall() == rows
                with lake.connect(as_of=moment) as connection:
                    assert connection.sql(query).fetchall() == rows
            assert lake.sql(query).fetchall() == [("live", False, None), ("other", False, "good")]
        assert lake.sql("SELECT count(*) FROM checkpoint_events", as_of=moments[1]).fetchall() == [(2,)]


def test_a_connection_has_the_views_of_its_moment(lake: Lake, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FEWEST_SETTLED_ROWS", 3)
    put(lake, "checkpoints", *[saved(i, f"c{i}") for i in range(4)])
    assert len(rows_of(lake)) == 4
    put(lake, "checkpoints", saved(9, "x", "other run"))
    with lake.connect() as connection:
        put(lake, "checkpoints", saved(10, "later"))
        found = connection.sql("SELECT checkpoint_id FROM checkpoints ORDER BY 1").fetchall()
        assert found == [("c0",), ("c1",), ("c2",), ("c3",), ("x",)]
        assert connection.sql("SELECT count(*) FROM checkpoint_events").fetchall() == [(5,)]


def test_deleting_runs_takes_what_is_known_of_their_checkpoints(lake: Lake) -> None:
    for run_id in ("kept", "gone"):
        with lake.run("e", run_id=run_id, capture=Capture.nothing()):
            writer, ident = lake._get_writer(), {"run_id": run_id, "experiment": "e", "checkpoint_id": f"of {run_id}"}
            writer.add_rows("checkpoints", [saved(1, f"of {run_id}", run_id)])
            writer.add_rows("tensors", [{**ident, "path": f"p{i}", "ts": at(1)} for i in range(3)])
            writer.add_rows("verifications", [{**ident, "verdict": "good", "ts": at(1)}])
    assert lake.delete_runs("gone") == len(("created", "finished")) + 5
    for view, count in (("checkpoints", 1), ("checkpoint_events", 1), ("tensors", 3), ("verifications", 1)):
        assert lake.sql(f"SELECT run_id, count(*) FROM {view} GROUP BY ALL").fetchall() == [("kept", count)], view


@pytest.fixture
def two_lakes(lake: Lake) -> Iterator[tuple[Lake, Lake]]:
    with ckptlake.open(lake.path, create=False) as other:
        yield lake, other


def test_rows_are_seen_by_others_before_and_after_a_commit(two_lakes: tuple[Lake, Lake]) -> None:
    lake, other = two_lakes
    ident = {"checkpoint_id": "c", "run_id": "r", "experiment": "e", "ts": at(1)}
    lake._get_writer().add_rows("checkpoints", [saved(1)])
    lake._get_writer().add_rows("verifications", [{**ident, "verdict": "good"}])
    lake.flush()
    assert not Path(lake.path / "tables" / "checkpoints").exists()
    assert [row["verdict"] for row in rows_of(other)] == ["good"]
    lake.commit()
    assert [row["verdict"] for row in rows_of(other)] == ["good"]
