"""Params and tags with their types, notes, names and definitions."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum, IntEnum
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from ckptlake import InvalidInputError, Lake, ParamChangedError, Run

Start = Callable[..., Run]


class Optimiser(Enum):
    ADAMW = "adamw"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Schedule:
    warmup: int = 100
    kind: str = "cosine"


@dataclass
class Config:
    lr: float = 1e-3
    schedule: Schedule = field(default_factory=Schedule)
    layers: list[int] = field(default_factory=lambda: [64, 32])


Row = tuple[str, float | None, str | None, str | None]


def rows(lake: Lake, run: Run, view: str = "params") -> dict[str, Row]:
    lake.flush()
    found = lake.sql(f"SELECT key, kind, number, text, json FROM {view} WHERE run_id = $run ORDER BY key", run=run.id)
    return {key: tuple(row) for key, *row in found.fetchall()}


HUGE = 123456789012345678901234567890
TYPED: list[tuple[Any, Row]] = [
    (None, ("null", None, None, "null")),
    (True, ("bool", 1.0, None, "true")),
    (False, ("bool", 0.0, None, "false")),
    (0, ("int", 0.0, None, "0")),
    (HUGE, ("int", float(HUGE), None, str(HUGE))),
    (-(10**400), ("int", None, None, str(-(10**400)))),
    (0.1, ("float", 0.1, None, "0.1")),
    (-0.0, ("float", -0.0, None, "-0.0")),
    (math.inf, ("float", math.inf, None, None)),
    (-math.inf, ("float", -math.inf, None, None)),
    (math.nan, ("float", math.nan, None, None)),
    ("adamw", ("str", None, "adamw", '"adamw"')),
    ("", ("str", None, "", '""')),
    ("1", ("str", None, "1", '"1"')),
    (Path("/data/train"), ("str", None, "/data/train", '"/data/train"')),
    (PurePosixPath("a/b"), ("str", None, "a/b", '"a/b"')),
    (date(2026, 1, 2), ("str", None, "2026-01-02", '"2026-01-02"')),
    (datetime(2026, 1, 2, 3, tzinfo=UTC), ("str", None, "2026-01-02T03:00:00+00:00", '"2026-01-02T03:00:00+00:00"')),
    (Optimiser.ADAMW, ("str", None, "adamw", '"adamw"')),
    (Level.HIGH, ("int", 3.0, None, "3")),
    (np.int64(7), ("int", 7.0, None, "7")),
    (np.uint64(2**64 - 1), ("int", float(2**64 - 1), None, str(2**64 - 1))),
    (np.float32(0.1), ("float", 0.10000000149011612, None, "0.10000000149011612")),
    (np.float64(0.1), ("float", 0.1, None, "0.1")),
    (np.bool_(True), ("bool", 1.0, None, "true")),
    (np.str_("x"), ("str", None, "x", '"x"')),
    ([1, "a", None, 2.5], ("json", None, None, '[1, "a", null, 2.5]')),
    ((1, 2), ("json", None, None, "[1, 2]")),
    ([], ("json", None, None, "[]")),
    ({}, ("json", None, None, "{}")),
    ({3, 1, 2}, ("json", None, None, "[1, 2, 3]")),
    (np.array([1, 2]), ("json", None, None, "[1, 2]")),
    (
        [{"name": "flip", "p": 0.5}, [Level.HIGH, Path("x")]],
        ("json", None, None, '[{"name": "flip", "p": 0.5}, [3, "x"]]'),
    ),
    ([HUGE], ("json", None, None, f"[{HUGE}]")),
]
REFUSED: list[Any] = [
    object(),
    1j,
    b"bytes",
    lambda: None,
    np.complex64(1),
    np.datetime64("2026-01-01"),
    np.timedelta64(1, "s"),
    [math.nan],
    {"a": [math.inf]}["a"],
    [object()],
    "lone \ud800",
    "nul \0",
]


class TestParamValues:
    @pytest.mark.parametrize(("value", "row"), TYPED, ids=lambda value: f"{value!r:.30}")
    def test_keep_their_types(self, lake: Lake, start: Start, value: Any, row: Row) -> None:
        run = start(params={"p": value})
        assert repr(rows(lake, run)) == repr({"p": row})
        run.finish()
        assert repr(rows(lake, run)) == repr({"p": row})

    @pytest.mark.parametrize("value", REFUSED, ids=lambda value: f"{value!r:.30}")
    def test_that_cannot_be_kept_are_refused(self, lake: Lake, start: Start, value: Any) -> None:
        with pytest.raises(InvalidInputError, match=r"'optim\.lr'"):
            start(params={"good": 1, "optim": {"lr": value}})
        assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(0,)]
        run = start()
        with pytest.raises(InvalidInputError, match=r"'optim\.lr'"):
            run.log_params({"good": 1, "optim": {"lr": value}})
        assert rows(lake, run) == {}

    @pytest.mark.parametrize(
        "value", [np.longdouble(0.5), 10**5000, [10**5000]], ids=["longdouble", "huge", "huge in a list"]
    )
    def test_of_unusual_numbers_are_kept_or_refused_by_name(self, lake: Lake, start: Start, value: Any) -> None:
        run = start()
        try:
            run.log_params({"p": value})
        except InvalidInputError as error:
            assert "'p'" in str(error)  # noqa: PT017
        else:
            assert set(rows(lake, run)) == {"p"}

    def test_have_a_text_in_the_view(self, lake: Lake, start: Start) -> None:
        start(params={"a": math.nan, "b": "x", "c": [1], "d": 2, "e": math.inf}).finish()
        found = dict(lake.sql("SELECT key, value FROM params").fetchall())
        assert found == {"a": "nan", "b": "x", "c": "[1]", "d": "2", "e": "inf"}


class TestParamNames:
    def test_of_nested_dicts_are_joined_by_dots(self, lake: Lake, start: Start) -> None:
        run = start(params={"optim": {"name": "adamw", "betas": {0: 0.9, 1: 0.95}, "empty": {}}, "a/b": 1})
        assert set(rows(lake, run)) == {"optim.name", "optim.betas.0", "optim.betas.1", "optim.empty", "a/b"}

    def test_of_a_dataclass(self, lake: Lake, start: Start) -> None:
        run = start(params=Config())
        found = rows(lake, run)
        assert {name: json for name, (_, _, _, json) in found.items()} == {
            "lr": "0.001",
            "schedule.warmup": "100",
            "schedule.kind": '"cosine"',
            "layers": "[64, 32]",
        }

    def test_of_a_namespace(self, lake: Lake, start: Start) -> None:
        run = start(params=Namespace(lr=0.1, data=Path("d"), resume=None))
        assert {name: kind for name, (kind, *_) in rows(lake, run).items()} == {
            "lr": "float",
            "data": "str",
            "resume": "null",
        }

    @pytest.mark.parametrize("params", [{"a": {"b": 1}, "a.b": 1}, {1: 1, "1": 1}], ids=repr)
    def test_that_collide_are_refused(self, start: Start, params: Any) -> None:
        with pytest.raises(InvalidInputError, match="given twice"):
            start(params=params)

    @pytest.mark.parametrize("params", [{None: 1}, {"": 1}, {"a": {"": 1}}, {("a", "b"): 1}], ids=repr)
    def test_that_cannot_be_kept_are_refused(self, start: Start, params: Any) -> None:
        with pytest.raises(InvalidInputError, match="param's name"):
            start(params=params)

    @pytest.mark.parametrize("params", [["a"], "a", 1, Config, Start], ids=repr)
    def test_of_something_else_are_refused(self, start: Start, params: Any) -> None:
        with pytest.raises(InvalidInputError, match="params must be a dict, a dataclass"):
            start(params=params)

    def test_none_and_empty_give_no_params(self, lake: Lake, start: Start) -> None:
        assert rows(lake, start(params=None)) == rows(lake, start(params={})) == {}


class TestParamChanges:
    @pytest.mark.parametrize(
        ("before", "after"),
        [(1, 2), (1, 1.0), (1, True), ("1", 1), (None, 0), (0.0, -0.0), ([1], [2]), (math.inf, -math.inf), ("a", "A")],
    )
    def test_are_refused(self, lake: Lake, start: Start, before: Any, after: Any) -> None:
        run = start(params={"p": before, "q": 1})
        kept = rows(lake, run)
        with pytest.raises(ParamChangedError, match=r"'p'.*allow_change=True"):
            run.log_params({"new": 1, "p": after})
        assert repr(rows(lake, run)) == repr(kept)

    @pytest.mark.parametrize("value", [1, 0.1, math.nan, math.inf, None, "a", [1, {"b": None}], HUGE], ids=repr)
    def test_to_the_same_value_are_none(self, lake: Lake, start: Start, value: Any) -> None:
        run = start(params={"p": value})
        run.log_params({"p": value, "q": 1})
        run.log_params({"p": value}, allow_change=True)
        assert set(rows(lake, run)) == {"p", "q"}
        lake.commit()
        files = (lake.path / "tables" / "params").rglob("*.parquet")
        assert sum(parquet.read_metadata(file).num_rows for file in files) == 2

    def test_are_made_where_allowed_and_the_newest_shows(self, lake: Lake, start: Start) -> None:
        run = start(params={"p": 1})
        run.log_params({"p": "two"}, allow_change=True)
        run.log_params({"p": 3.5}, allow_change=True)
        with pytest.raises(ParamChangedError, match=r"is 3\.5 and cannot become two"):
            run.log_params({"p": "two"})
        assert rows(lake, run)["p"] == ("float", 3.5, None, "3.5")
        run.finish()
        assert rows(lake, run)["p"] == ("float", 3.5, None, "3.5")
        assert run.params["p"].number == 3.5

    def test_are_none_where_only_the_order_of_keys_differs(self, start: Start) -> None:
        run = start(params={"augment": [{"name": "flip", "p": 0.5}]})
        run.log_params({"augment": [{"p": 0.5, "name": "flip"}]})

    def test_cannot_be_made_through_the_property(self, start: Start) -> None:
        run = start(params={"p": 1})
        with pytest.raises(TypeError):
            run.params["p"] = run.params["p"]  # type: ignore[index]


class TestTags:
    def test_keep_their_types(self, lake: Lake, start: Start) -> None:
        run = start(
            tags={
                "baseline": True,
                "seed": 3,
                "note": "x",
                "score": math.nan,
                "none": None,
                "list": [1],
                "sub": {"a": 1},
            }
        )
        found = rows(lake, run, "tags")
        assert {name: kind for name, (kind, *_) in found.items()} == {
            "baseline": "bool",
            "seed": "int",
            "note": "str",
            "score": "float",
            "none": "null",
            "list": "json",
            "sub": "json",
        }

    @pytest.mark.parametrize("tags", ["a", ["a"], ("a",), {"a"}, {"a": True}], ids=repr)
    def test_by_name_alone_are_true(self, lake: Lake, start: Start, tags: Any) -> None:
        assert rows(lake, start(tags=tags), "tags") == {"a": ("bool", 1.0, None, "true")}

    def test_from_an_iterator(self, lake: Lake, start: Start) -> None:
        run = start(tags=(name for name in ("a", "b")))
        assert set(rows(lake, run, "tags")) == {"a", "b"}

    def test_removed_and_set_again(self, lake: Lake, start: Start) -> None:
        run = start(tags={"a": 1, "b": 2})
        run.remove_tags("a", "never set")
        assert set(rows(lake, run, "tags")) == {"b"}
        run.set_tags({"a": 3})
        assert rows(lake, run, "tags")["a"] == ("int", 3.0, None, "3")
        run.remove_tags("a", "b")
        run.finish()
        assert rows(lake, run, "tags") == {}

    def test_of_a_resumed_run_win_over_those_before(self, lake: Lake, start: Start) -> None:
        run = start(tags={"a": 1, "b": 1})
        run.finish()
        with start(resume=run.id, tags={"a": 2}) as again:
            again.remove_tags("b")
        assert rows(lake, run, "tags") == {"a": ("int", 2.0, None, "2")}

    @pytest.mark.parametrize("tags", [{"": 1}, {None: 1}, [1], {"a": object()}, 5, {"a": "\0"}], ids=repr)
    def test_that_cannot_be_kept_are_refused(self, lake: Lake, start: Start, tags: Any) -> None:
        with pytest.raises(InvalidInputError, match="tag"):
            start(tags=tags)
        assert lake.sql("SELECT count(*) FROM runs").fetchall() == [(0,)]
        run = start()
        with pytest.raises(InvalidInputError, match="tag"):
            run.set_tags(tags)
        assert rows(lake, run, "tags") == {}


class TestNotesAndNames:
    def test_notes_are_kept_in_order(self, lake: Lake, start: Start) -> None:
        run = start()
        for number in range(20):
            run.note(f"note {number}")
        run.finish()
        with start(resume=run.id) as again:
            again.note("twice\nas long")
        expected = "\n".join([*(f"note {number}" for number in range(20)), "twice\nas long"])
        assert lake.sql("SELECT notes FROM runs").fetchall() == [(expected,)]

    def test_a_note_may_be_long(self, lake: Lake, start: Start) -> None:
        text = "long " * 100_000
        with start() as run:
            run.note(text)
        assert lake.sql("SELECT notes FROM runs").fetchall() == [(text,)]

    @pytest.mark.parametrize("text", [None, 5, "\0", "\udc80"], ids=repr)
    def test_a_note_that_cannot_be_kept_is_refused(self, start: Start, text: Any) -> None:
        with pytest.raises(InvalidInputError, match="note"):
            start().note(text)

    def test_a_run_is_renamed(self, lake: Lake, start: Start) -> None:
        run = start(name="first")
        assert run.name == "first"
        run.rename("second")
        run.rename("third")
        assert run.name == "third"
        with pytest.raises(InvalidInputError, match="name"):
            run.rename("")
        assert run.name == "third"
        run.finish()
        assert lake.sql("SELECT name FROM runs").fetchall() == [("third",)]

    def test_a_resumed_run_keeps_its_name_unless_given_another(self, lake: Lake, start: Start) -> None:
        run = start(name="first")
        run.rename("renamed")
        run.finish()
        start(resume=run.id).finish()
        assert lake.sql("SELECT name FROM runs").fetchall() == [("renamed",)]
        start(resume=run.id, name="another").finish()
        assert lake.sql("SELECT name FROM runs").fetchall() == [("another",)]

    def test_a_run_without_a_name_is_called_by_its_id(self, lake: Lake, start: Start) -> None:
        run = start()
        assert run.name == run.id


class TestDefinitions:
    def test_the_newest_counts(self, lake: Lake, start: Start) -> None:
        with start("defs") as run:
            run.define("loss", direction="max")
            run.define("loss", direction="min", step_metric="epoch")
            run.define("acc", direction="max")
            run.define("acc", step_metric="epoch")
        found = lake.sql(
            "SELECT experiment, metric, direction, step_metric FROM definitions ORDER BY metric"
        ).fetchall()
        assert found == [("defs", "acc", "max", "epoch"), ("defs", "loss", "min", "epoch")]

    def test_of_another_run_of_the_experiment_counts(self, lake: Lake, start: Start) -> None:
        with start("defs") as run:
            run.define("loss", direction="max")
        with start("defs") as run:
            run.define("loss", direction="min")
        with start("other") as run:
            run.define("loss", direction="max")
        found = lake.sql("SELECT experiment, direction FROM definitions ORDER BY experiment").fetchall()
        assert found == [("defs", "min"), ("other", "max")]

    @pytest.mark.parametrize("direction", ["up", "MIN", "", 1, True], ids=repr)
    def test_a_bad_direction_is_refused(self, lake: Lake, start: Start, direction: Any) -> None:
        with start() as run, pytest.raises(InvalidInputError, match="direction must be 'min' or 'max'"):
            run.define("loss", direction=direction)
        assert lake.sql("SELECT count(*) FROM definitions").fetchall() == [(0,)]

    def test_an_empty_name_is_refused(self, start: Start) -> None:
        with start() as run:
            for arguments in ({"metric": ""}, {"metric": "x", "step_metric": ""}):
                with pytest.raises(InvalidInputError, match="metric's name is empty"):
                    run.define(**arguments)
