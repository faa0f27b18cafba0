"""Named queries: the comment they begin with, their names, and the values they take."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptlake
from ckptlake import InvalidInputError, Lake, QueryNotFoundError
from ckptlake.query.front_matter import parse_query
from ckptlake.query.library import get_query, list_queries
from ckptlake.query.named import PARAMETER_TYPES, NamedQuery, Parameter

LINES = [
    "-- title: One",
    "-- description: The first",
    "--   of all.",
    "-- parameter metric text required: the metric",
    "-- parameter days integer = 3: how old",
    '-- parameter prefix text = "a: b": how it begins',
    "-- parameter most number = null: at most",
    "-- column n: one",
    "SELECT $metric AS n -- column m: no entry",
]


def parse(*lines: str) -> NamedQuery:
    return parse_query("\n".join(lines), "one", "one.sql")


class TestFrontMatter:
    def test_is_read(self) -> None:
        query = parse(*LINES[:5], *LINES[6:])
        assert (query.name, query.title, query.description) == ("one", "One", "The first of all.")
        assert query.parameters == (
            Parameter("metric", "text", "the metric"),
            Parameter("days", "integer", "how old", required=False, default=3),
            Parameter("most", "number", "at most", required=False, default=None),
        )
        assert [(column.name, column.meaning) for column in query.columns] == [("n", "one")]
        assert query.text.endswith("no entry")

    @pytest.mark.parametrize(
        ("changed", "line", "message"),
        [
            ({0: None}, 1, "no title"),
            ({1: None, 2: None}, 1, "no description"),
            ({7: None}, 1, "no column"),
            ({0: "-- title: One\n-- title: Two"}, 2, "a second title"),
            ({0: "-- title of it: One"}, 1, "has no name"),
            ({0: "-- heading: One"}, 1, "is no entry"),
            ({0: "-- title:"}, 1, "is no entry"),
            ({2: "-- of all."}, 3, "is no entry"),
            ({3: "-- parameter metric txt required: m"}, 4, "no type; did you mean 'text'"),
            ({3: "-- parameter metric text: m"}, 4, "NAME TYPE required"),
            ({3: "-- parameter Metric text required: m"}, 4, "NAME TYPE required"),
            ({3: "-- parameter json text required: m"}, 4, "cannot be called 'json'"),
            ({4: "-- parameter metric integer = 3: m"}, 5, "'metric' is there twice"),
            ({4: "-- parameter days integer = 3.5: m"}, 5, "must be an integer, not 3.5"),
            ({4: "-- parameter days integer = three: m"}, 5, "is no JSON"),
            ({4: "-- parameter days boolean = 1: m"}, 5, "must be a boolean, not 1"),
            ({4: "-- parameter days text = [1]: m"}, 5, "must be text"),
            ({4: "-- parameter days number = NaN: m"}, 5, "finite number"),
            ({7: "-- column n: one\n-- column n: two"}, 9, "'n' is there twice"),
            ({7: "-- column a b: one"}, 8, "no name of a column"),
            ({7: "-- column n: one\n-- title: late"}, 9, "a title after a column"),
        ],
    )
    def test_what_is_not_so_is_refused_with_its_line(
        self, changed: dict[int, str | None], line: int, message: str
    ) -> None:
        kept = [number for number in range(len(LINES)) if number != 5 and changed.get(number, "") is not None]
        lines = [changed.get(number) or LINES[number] for number in kept]
        numbered = line - (line > 6)
        with pytest.raises(InvalidInputError, match=message) as caught:
            parse(*lines)
        assert str(caught.value).startswith(f"one.sql, line {numbered}: ")

    @given(
        st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
        st.sampled_from(PARAMETER_TYPES),
        st.from_regex(r"[^\s:][^\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]{0,20}[^\s:]", fullmatch=True),
    )
    def test_any_name_and_meaning_is_kept(self, name: str, kind: str, meaning: str) -> None:
        column = f"-- column {name}: {meaning}"
        parameter = f"-- parameter p_{name} {kind} required: {meaning}"
        query = parse("-- title: t", "-- description: d", parameter, column, "SELECT 1")
        (found,) = query.parameters
        assert (found.name, found.type, found.meaning) == (f"p_{name}", kind, meaning)
        assert [(one.name, one.meaning) for one in query.columns] == [(name, meaning)]


class TestNames:
    def test_all_are_listed_by_name(self, lake: Lake) -> None:
        names = [query.name for query in lake.queries()]
        assert names == sorted(names)
        assert {"leaderboard", "seed_summary", "stale_runs", "what_changed"} <= set(names)
        assert [get_query(name).name for name in names] == names

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("leaderbord", "did you mean 'leaderboard'?"),
            ("storage", "'storage_by_experiment' or 'storage_by_run'"),
            ("qqq", "there are best_checkpoint"),
            ("", "there are best_checkpoint"),
        ],
    )
    def test_an_unknown_one_has_a_hint(self, lake: Lake, name: str, hint: str) -> None:
        with pytest.raises(QueryNotFoundError, match="no query is called") as caught:
            lake.query(name)
        assert hint in str(caught.value)

    def test_a_query_cannot_be_changed(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            get_query("leaderboard").title = "Mine"  # type: ignore[misc]
        assert isinstance(get_query("leaderboard"), ckptlake.NamedQuery)


class TestValues:
    query = parse(*LINES)

    def test_defaults_stand_for_what_is_not_given(self) -> None:
        assert self.query.bind(metric="m") == {"metric": "m", "days": 3, "prefix": "a: b", "most": None}

    def test_numbers_of_numpy_are_numbers(self) -> None:
        bound = self.query.bind(metric="m", days=np.int32(4), most=np.float32(0.5))
        assert (bound["days"], bound["most"]) == (4, 0.5)
        assert type(bound["days"]) is int

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({}, "needs metric, the metric: give metric=…"),
            ({"metric": "m", "day": 3}, "no parameter 'day'; did you mean 'days'?"),
            ({"metric": "m", "qqq": 3}, "no parameter 'qqq'; it takes metric, days, prefix, most"),
            ({"metric": 3}, "metric must be text, not 3"),
            ({"metric": None}, "metric must be text, not None"),
            ({"metric": "m", "days": 2.5}, "days must be an integer, not 2.5: how old"),
            ({"metric": "m", "days": True}, "days must be an integer, not True"),
            ({"metric": "m", "days": None}, "days must be an integer, not None"),
            ({"metric": "m", "most": "3"}, "most must be a finite number, not '3'"),
            ({"metric": "m", "most": float("inf")}, "most must be a finite number, not inf"),
        ],
    )
    def test_what_does_not_suit_is_refused(self, values: dict[str, object], message: str) -> None:
        with pytest.raises(InvalidInputError) as caught:
            self.query.bind(**values)
        assert message in str(caught.value)

    def test_a_query_without_parameters_says_so(self) -> None:
        none = parse("-- title: t", "-- description: d", "-- column n: one", "SELECT 1 AS n")
        with pytest.raises(InvalidInputError, match="it takes none"):
            none.bind(metric="m")

    @pytest.mark.parametrize("value", ["it's", "'; drop table runs; --", "$metric", "ü\n\u2028"])
    def test_texts_are_values_and_nothing_else(self, lake: Lake, value: str) -> None:
        assert lake.query("leaderboard", metric=value, experiment=value).fetchall() == []

    def test_every_default_suits_its_own_parameter(self) -> None:
        for query in list_queries():
            for parameter in query.parameters:
                assert parameter.required or parameter.check(parameter.default) == parameter.default
