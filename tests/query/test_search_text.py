"""What a search's text is read as, and what cannot be read."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckptlake.errors import InvalidInputError
from ckptlake.query.search_text import Field, Filter, Search, Term, parse_search
from ckptlake.query.search_values import Operator
from ckptlake.query.search_words import words


def only(text: str) -> Filter:
    search = parse_search(text)
    assert search.terms == ()
    (found,) = search.filters
    assert found.source == text
    return found


def shown(text: str) -> tuple[Any, ...]:
    found = only(text)
    return (found.field, found.key, found.condition.operator, found.condition.values)


class TestTerms:
    def test_words_prefixes_phrases_and_exclusions(self) -> None:
        assert parse_search(' vit  ablat* "cosine decay" -diverged -"bad run" "warm up"* -old*\t').terms == (
            Term("vit"),
            Term("ablat", is_prefix=True),
            Term("cosine decay"),
            Term("diverged", is_excluded=True),
            Term("bad run", is_excluded=True),
            Term("warm up", is_prefix=True),
            Term("old", is_prefix=True, is_excluded=True),
        )

    @pytest.mark.parametrize(
        "word", ["NEAR", "OR", "AND", "NOT", 'b12"', "a-b", "NEAR(a", "a^2", "{x}", "a+b", "x,y", "(a", "'a"]
    )
    def test_what_means_something_to_other_engines_is_a_word(self, word: str) -> None:
        assert parse_search(word) == Search((Term(word),))

    def test_a_quote_in_quotes_is_written_twice(self) -> None:
        assert parse_search('"say ""hi"" now"').terms == (Term('say "hi" now'),)

    def test_nothing_searches_for_nothing(self) -> None:
        assert parse_search("") == parse_search(" \n") == Search()


class TestFilters:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("tag:baseline", (Field.TAG, "baseline", Operator.EXISTS, ())),
            ("tag:fold=3", (Field.TAG, "fold", Operator.EQUAL, (3,))),
            ('tag:why="too slow"', (Field.TAG, "why", Operator.EQUAL, ("too slow",))),
            ('tag:"two words"', (Field.TAG, "two words", Operator.EXISTS, ())),
            ("tag:base*", (Field.TAG, "base", Operator.KEY_PREFIX, ())),
            ("tag:owner=an*", (Field.TAG, "owner", Operator.PREFIX, ("an",))),
            ("status:Finished", (Field.STATUS, "", Operator.EQUAL, ("finished",))),
            ("experiment:pose/vit/", (Field.EXPERIMENT, "", Operator.SUBTREE, ("pose/vit",))),
            ("experiment:pose/v*", (Field.EXPERIMENT, "", Operator.PREFIX, ("pose/v",))),
            ("name:12", (Field.NAME, "", Operator.EQUAL, ("12",))),
            ("id:2026*", (Field.ID, "", Operator.PREFIX, ("2026",))),
            ("host:*", (Field.HOST, "", Operator.EXISTS, ())),
            ("lr:<1e-3", (Field.PARAM, "lr", Operator.LESS, (0.001,))),
            ("lr:>=.5", (Field.PARAM, "lr", Operator.AT_LEAST, (0.5,))),
            ("lr:1e-4..1e-2", (Field.PARAM, "lr", Operator.BETWEEN, (1e-4, 1e-2))),
            ("model.depth:12", (Field.PARAM, "model.depth", Operator.EQUAL, (12,))),
            ('model.depth:"12"', (Field.PARAM, "model.depth", Operator.EQUAL, ("12",))),
            ("x:-3..-1", (Field.PARAM, "x", Operator.BETWEEN, (-3, -1))),
            ("param.status:fast", (Field.PARAM, "status", Operator.EQUAL, ("fast",))),
            ('"odd: key":x', (Field.PARAM, "odd: key", Operator.EQUAL, ("x",))),
            ("best.val/loss:<0.1", (Field.BEST, "val/loss", Operator.LESS, (0.1,))),
            ("last.val/loss:*", (Field.LAST, "val/loss", Operator.EXISTS, ())),
            ("sched:cosine*", (Field.PARAM, "sched", Operator.PREFIX, ("cosine",))),
            ('path:"../data"', (Field.PARAM, "path", Operator.EQUAL, ("../data",))),
        ],
    )
    def test_each_kind(self, text: str, expected: tuple[Any, ...]) -> None:
        assert shown(text) == expected
        negated = only(f"-{text}")
        assert negated.is_negated
        assert shown(f"-{text}") == expected

    def test_a_number_keeps_how_it_was_written(self) -> None:
        assert only("seed:007").condition.written == "007"
        assert only("seed:=1e3").condition.written == "1e3"
        assert isinstance(only("seed:7").condition.values[0], int)
        assert only("big:" + "9" * 30).condition.values == (1e30,)

    @pytest.mark.parametrize(
        ("text", "operator", "values"),
        [
            ("started:2026-01-31", Operator.WITHIN, ((2026, 1, 31), (2026, 2, 1))),
            ("started:>2026-01-01", Operator.AT_LEAST, ((2026, 1, 2),)),
            ("started:>=2026-01-01", Operator.AT_LEAST, ((2026, 1, 1),)),
            ("started:<2026-01-01", Operator.LESS, ((2026, 1, 1),)),
            ("started:<=2026-01-01T12:30", Operator.LESS, ((2026, 1, 1, 12, 31),)),
            ("started:2026-01-01..2026-02-01", Operator.WITHIN, ((2026, 1, 1), (2026, 2, 2))),
            ("started:>=2026-01-01T01:00:30+02:00", Operator.AT_LEAST, ((2025, 12, 31, 23, 0, 30),)),
        ],
    )
    def test_a_day_counts_as_a_whole(self, text: str, operator: Operator, values: tuple[tuple[int, ...], ...]) -> None:
        moments = tuple(datetime(*value, tzinfo=UTC) for value in values)  # type: ignore[misc,arg-type]
        assert shown(text) == (Field.STARTED, "", operator, moments)


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "place", "remedy"),
        [
            ('vit "cosine decay', 5, "never closed"),
            ('-"x', 2, "never closed"),
            ('"a"b', 1, "put a space"),
            ("vit -", 5, "right after it"),
            ("- a", 1, "right after it"),
            ("a ++", 3, "letter or digit"),
            ('""', 1, "letter or digit"),
            ("*", 1, "letter or digit"),
            ("lr:", 1, "no value"),
            ('lr:""', 1, "empty"),
            (":x", 1, "no field"),
            ("best.:1", 1, "best.loss"),
            ("a lr:1..", 3, ">=1"),
            ("lr:..2", 1, "<=2"),
            ("lr:..", 1, "two ends"),
            ("lr:a..b", 1, "both sides"),
            ("lr:2..1", 1, "smaller number first"),
            ("lr:<fast", 1, "number"),
            ("lr:<", 1, "number"),
            ("lr:1e999", 1, "too large"),
            ('lr:"a', 1, "pair up"),
            ('lr:"a"b', 1, "pair up"),
            ('lr:a"b', 1, "quote the whole value"),
            ("name:<3", 1, "not compared"),
            ("status:done", 1, "running, finished, failed, killed"),
            ("status:x*", 1, "running, finished, failed, killed"),
            ("tag:=3", 1, "tag:fold=3"),
            ("tag:fold=", 1, "tag:fold for any"),
            ('tag:a"b', 1, "quote the whole name"),
            ("experiment:/", 1, "experiment:pose/vit"),
            ("best.loss:low", 1, "compared with numbers"),
            ("started:yesterday", 1, "2026-01-31"),
            ("started:2026-02-30", 1, "2026-01-31"),
            ("started:2026-02-01..2026-01-01", 1, "earlier day first"),
            ("started:0001-01-01T00:00+10:00", 1, "2026-01-31"),
            ("a\0", 2, "NUL"),
            ("a \ud800", 3, "lone surrogate"),
        ],
    )
    def test_the_place_and_the_remedy_are_named(self, text: str, place: int, remedy: str) -> None:
        with pytest.raises(InvalidInputError, match=f"at character {place},") as error:
            parse_search(text)
        assert remedy in str(error.value)

    def test_what_is_no_text_is_refused(self) -> None:
        with pytest.raises(InvalidInputError, match="got int 3"):
            parse_search(3)  # type: ignore[arg-type]


_FIELDS = ("tag", "lr", "best.", "started", "status", "experiment", "name")
_SIGNS = ('"', "-", ":", "*", "..", "<", ">=", "=", *_FIELDS, "a", "1e-3", "1e999", "T12:00", "+23:59")
_pieces = st.sampled_from([*_SIGNS, " ", "2026-01-01", "9999-12-31", "9" * 5000, "é", "姿", "\0", "\u2028", "．"])


@given(st.one_of(st.text(), st.lists(_pieces).map("".join)))
@example('"' * 10_000)
@example("x:" * 5_000)
@example("-" * 5_000 + '"')
def test_anything_is_read_or_refused(text: str) -> None:
    with suppress(InvalidInputError):
        search = parse_search(text)
        assert parse_search(text) == search
        assert all(words(term.text) for term in search.terms)


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
_found = st.builds(Term, _texts.filter(words), st.booleans(), st.booleans())


@given(st.lists(_found))
def test_every_phrase_can_be_written(terms: list[Term]) -> None:
    written = [
        f'{"-" if term.is_excluded else ""}"{term.text.replace(chr(34), chr(34) * 2)}"{"*" if term.is_prefix else ""}'
        for term in terms
    ]
    assert parse_search(" ".join(written)).terms == tuple(terms)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["<", "<=", ">", ">=", "="]))
def test_every_number_can_be_compared_with(number: float, sign: str) -> None:
    assert only(f"lr:{sign}{number!r}").condition.values == (number,)


@given(_texts, _texts)
def test_every_param_and_value_can_be_written(key: str, value: str) -> None:
    written = ["param." + key, value]
    quoted = ['"' + text.replace('"', '""') + '"' for text in written]
    found = only(":".join(quoted))
    assert (found.field, found.key, found.condition.values) == (Field.PARAM, key, (value,))


class TestWords:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("lr_decay=Cosine/2.5-x", ["lr", "decay", "cosine", "2", "5", "x"]),
            ("Größe ﬁne Ｗｉｄｅ", ["grosse", "fine", "wide"]),
            ("e\u0301te\u0301", ["ete"]),
            ("姿态估计vit", ["姿", "态", "估", "计", "vit"]),
            ("Привет мир", ["привет", "мир"]),
            ("हिन्दी", ["हिन्दी"]),
            ("🚀run", ["🚀", "run"]),
            ("한국어", ["한국어"]),
            ("a\u00a0b\0c", ["a", "b", "c"]),
        ],
    )
    def test_any_script(self, text: str, expected: list[str]) -> None:
        assert words(text) == expected

    @given(st.text(), st.text())
    def test_texts_apart_have_the_words_of_both(self, one: str, other: str) -> None:
        assert words(f"{one} {other}") == words(one) + words(other)
