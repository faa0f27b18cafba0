"""Names from hell: refused in clear words or kept exactly, and nothing is ever written outside the lake."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from scenes import NOTHING, check_words, left_by_a_kill, open_lake, points_of, statuses, steps_of

from ckptlake import InvalidInputError, Lake

NAMES = [
    "",
    ".",
    "..",
    "../../escaped",
    "/etc/escaped",
    "a/../../escaped",
    "a//b",
    "/a",
    "a/",
    "it's",
    'say "hello"',
    "a\\b",
    "a\0b",
    "\0",
    "line\nbreak",
    "tab\tbell\a",
    "\x7f",
    "\ud800",
    "ok\udfff",
    "😀🛩️",
    "e\u0301 is not \u00e9",
    "\u202egnp.exe",
    "\u2028",
    "\ufeff",
    "n" * 10_240,
    "😀" * 2_560,
    "n" * 70_000,
    "'; DROP TABLE runs; --",
    '"; DROP VIEW metrics; --',
    "1' OR '1'='1",
    "$run_id",
    "?",
    "{}",
    "%s %d %%",
    "a%2Fb",
    "%00",
    "a=b",
    "experiment=x",
    "[x]*?",
    "~",
    "$HOME",
    "`id`",
    "NULL",
    "__HIVE_DEFAULT_PARTITION__",
    "nan",
    "1",
    "1.5",
    "true",
    "2026-01-01",
    " ",
    " lead and trail ",
    "CON",
    ".hidden",
    "_underscore",
    "-dash",
    "value",
    "run_id",
    "step",
    "system/cpu",
    "Loss",
    "loss",
]


def files_outside(root: Path) -> list[str]:
    """Return what lies beside the lake below the test's directory."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.relative_to(root).parts[0] != "lake")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    (tmp_path / "beside").mkdir()
    return open_lake(tmp_path / "lake")


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path: Path) -> object:
    yield
    assert [name for name in files_outside(tmp_path) if name != "beside"] == []
    assert not Path("/etc/escaped").exists()


def test_experiments(lake: Lake) -> None:
    kept, refused = {}, []
    for name in NAMES:
        try:
            run = lake.run(name, capture=NOTHING)
        except InvalidInputError as error:
            check_words(error)
            refused.append(name)
            continue
        run.log({"loss": 1.0}, step=len(kept))
        kept[run.id] = name
    lake.commit()
    for name in ("", ".", "..", "../../escaped", "/etc/escaped", "a//b", "a\0b", "\ud800", "n" * 10_240):
        assert name in refused
    for name in ("it's", "😀🛩️", "'; DROP TABLE runs; --", "a%2Fb", "a=b", "NULL", "__HIVE_DEFAULT_PARTITION__", "1"):
        assert name in kept.values()
    for _ in range(2):
        reader = open_lake(lake.path)
        for view in ("runs", "metrics_raw", "metrics", "summaries"):
            assert dict(reader.sql(f"SELECT run_id, experiment FROM {view}").fetchall()) == kept, view
        for run_id, name in kept.items():
            found = reader.sql("SELECT run_id FROM metrics WHERE experiment = $e", e=name).fetchall()
            assert found == [(run_id,)], name
        for table in reader.tables():
            table.compact()
            table.vacuum(dry_run=False, retention_hours=0)


def test_metrics(lake: Lake) -> None:
    kept = {}
    run = lake.run("e", run_id="r", capture=NOTHING)
    for number, name in enumerate(NAMES):
        try:
            run.log({name: float(number)}, step=number)
        except InvalidInputError as error:
            check_words(error)
            continue
        kept[name] = float(number)
        run.log_frame({"step": [number], name: [0.5]}) if name != "step" else None
        run.define(name, direction="min")
    run.finish()
    assert {"it's", "../../escaped", "😀" * 2_560, "line\nbreak", "$run_id", "loss", "Loss"} <= kept.keys()
    assert not {"", "a\0b", "\ud800", "n" * 70_000} & kept.keys()
    reader = open_lake(lake.path)
    found = dict(reader.sql("SELECT metric, max(value) FROM metrics_raw GROUP BY metric").fetchall())
    assert {name: max(value, 0.5) for name, value in kept.items() if name != "step"} | (
        {"step": kept["step"]} if "step" in kept else {}
    ) == found
    assert {name for (name,) in reader.sql("SELECT metric FROM summaries").fetchall()} == kept.keys()
    for name in kept:
        rows = reader.sql("SELECT count(*) FROM metrics_raw WHERE metric = $m", m=name).fetchall()
        assert rows == [(1 if name == "step" else 2,)], name
    assert reader.sql("SELECT * FROM runs_wide").fetchall()


def test_params_tags_names_and_notes(lake: Lake) -> None:
    run = lake.run("e", run_id="r", capture=NOTHING)
    params, tags, notes = {}, {}, []
    for number, name in enumerate(NAMES):
        for record, given in ((run.log_params, params), (run.set_tags, tags)):
            try:
                record({name: number})
                given[name] = number
            except InvalidInputError as error:
                check_words(error)
        try:
            run.log_params({f"text{number}": name})
            params[f"text{number}"] = name
            run.set_tags({f"text{number}": name})
            tags[f"text{number}"] = name
            run.note(name)
            notes.append(name)
        except InvalidInputError as error:
            check_words(error)
    run.finish()
    reader = open_lake(lake.path)
    for view, expected in (("params", params), ("tags", tags)):
        rows = reader.sql(f"SELECT key, kind, number, text FROM {view}").fetchall()
        assert {key: text if kind == "str" else int(value) for key, kind, value, text in rows} == expected
    assert "n" * 70_000 in params.values()
    assert "" not in params
    assert reader.sql("SELECT notes FROM runs").fetchall() == [("\n".join(notes),)]
    wide = reader.sql("SELECT * FROM runs_wide").to_arrow_table()
    assert len({name.lower() for name in wide.column_names}) == len(wide.column_names)


def test_run_names_and_ids(lake: Lake) -> None:
    kept = {}
    for name in NAMES:
        try:
            run = lake.run("e", name, capture=NOTHING)
        except InvalidInputError as error:
            check_words(error)
        else:
            run.rename(name)
            kept[run.id] = name
        try:
            lake.run("e", run_id=name, capture=NOTHING)
        except InvalidInputError as error:
            check_words(error)
        else:
            kept[name] = name
        for call in (lambda n=name: lake.run(resume=n), lambda n=name: lake.run(parent=n)):  # type: ignore[misc]
            if name not in kept:
                with pytest.raises((InvalidInputError, LookupError)):
                    call()
    lake.commit()
    reader = open_lake(lake.path)
    assert dict(reader.sql("SELECT run_id, name FROM runs").fetchall()) == kept


def test_values_bound_to_a_query_are_never_read_as_sql(lake: Lake) -> None:
    with lake.run("e", run_id="r", capture=NOTHING) as run:
        run.log({"loss": 1.0}, step=0)
    for name in NAMES:
        if "\ud800" in name or "\udfff" in name:
            continue
        for column in ("run_id", "metric", "experiment"):
            rows = lake.sql(f"SELECT * FROM metrics WHERE {column} = $v", v=name).fetchall()
            assert len(rows) == (column == "metric" and name == "loss")
    assert statuses(lake) == {"r": "finished"}


DIRECTORIES = [
    "with space",
    "it's",
    'say "hello"',
    "ünïcødé 😀",
    "[x]*?",
    "[!a]",
    "a=b",
    "experiment=other",
    "run_id=5",
    "step=9",
    "hash#tag&amp;",
    "semi;colon,comma",
    "{brace}",
    "$HOME ~",
    "-dash",
    "trailing ",
    "plus+",
    "colon:",
]


@pytest.mark.parametrize("part", DIRECTORIES)
def test_a_lake_in_an_odd_directory(tmp_path: Path, part: str) -> None:
    place = tmp_path / "lake" / part / "deeper"
    check_lake_at(place, place)


@pytest.mark.parametrize("part", ["100%", "per%20cent", "%2e%2e", "back\\slash", "line\nbreak", "bell\a"])
def test_a_lake_in_a_directory_that_delta_cannot_take_is_refused_at_once(tmp_path: Path, part: str) -> None:
    """Or it works; in no case are rows written elsewhere or refused later."""
    place = tmp_path / "lake" / part / "deeper"
    try:
        open_lake(place)
    except InvalidInputError:
        return
    check_lake_at(place, place)
    assert os.listdir(tmp_path / "lake") == [part]


def test_a_lake_behind_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "lake" / "real").mkdir(parents=True)
    link = tmp_path / "lake" / "link"
    link.symlink_to(tmp_path / "lake" / "real")
    check_lake_at(link, tmp_path / "lake" / "real")


def test_a_lake_named_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lake").mkdir()
    monkeypatch.chdir(tmp_path / "lake")
    lake = open_lake("inner [x]")
    run = lake.run("e", run_id="r", capture=NOTHING)
    run.log({"loss": 1.0}, step=0)
    (tmp_path / "lake" / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "lake" / "elsewhere")
    run.finish()
    assert steps_of(lake) == [0]
    assert os.listdir(tmp_path / "lake" / "elsewhere") == []


def check_lake_at(place: Path, same: Path) -> None:
    with open_lake(place) as lake:
        for experiment in ("e", "f/g h"):
            run = lake.run(experiment, run_id=experiment[0], capture=NOTHING)
            run.log({"loss": math.nan, "it's": -0.0}, step=3)
            lake.commit()
            run.log({"loss": 2.0}, step=4)
            run.finish()
        lake.table("metrics").compact()
        for table in lake.tables():
            table.vacuum(dry_run=False, retention_hours=0)
    left_by_a_kill(place, [("loss", 9, 1.0)])
    first, second = open_lake(place), open_lake(same)
    assert points_of(first) == points_of(second)
    second.recover()
    for lake in (first, second):
        assert steps_of(lake, "e") == [3, 3, 4]
        groups = "SELECT DISTINCT run_id, experiment FROM metrics WHERE run_id <> 'victim' ORDER BY 1"
        assert lake.sql(groups).fetchall() == [("e", "e"), ("f", "f/g h")]
        assert lake.sql("SELECT count(*) FROM metrics WHERE experiment = 'f/g h'").fetchall() == [(3,)]
        assert statuses(lake) == {"e": "finished", "f": "finished", "victim": "killed"}
    second.delete_runs("e", "victim")
    assert steps_of(first) == [3, 3, 4]
