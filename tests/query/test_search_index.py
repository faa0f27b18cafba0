"""The full-text index: what it finds, in which order, and what other engines' operators mean to it."""

from __future__ import annotations

import sqlite3
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlake.query.search_documents import RunDocument
from ckptlake.query.search_index import SearchIndex
from ckptlake.query.search_text import Search, Term, parse_search
from ckptlake.query.search_words import words

TEXTS = [field.name for field in fields(RunDocument) if field.name != "mark"]


def new_index(*documents: RunDocument) -> SearchIndex:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    SearchIndex.create(connection)
    index = SearchIndex(connection)
    index.update(documents, [], "1")
    return index


def document(run_id: str, **texts: str) -> RunDocument:
    return RunDocument(run_id, "m", **texts)


def found(index: SearchIndex, text: str) -> list[str]:
    return [run_id for run_id, _ in index.find(parse_search(text))]


def has(found_in: RunDocument, term: Term) -> bool:
    """Return whether a document has a term, by going over all its words."""
    *whole, last = words(term.text)
    for name in TEXTS:
        text = words(getattr(found_in, name))
        for at in range(len(text) - len(whole)):
            end = text[at + len(whole)]
            if text[at : at + len(whole)] == whole and (end.startswith(last) if term.is_prefix else end == last):
                return True
    return False


def expected(documents: dict[str, RunDocument], search: Search) -> set[str]:
    return {
        run_id
        for run_id, one in documents.items()
        if all(has(one, term) is not term.is_excluded for term in search.terms)
    }


class TestRanking:
    def test_places_rank_by_their_weights(self) -> None:
        filler = {"notes": "some other note", "params": "lr=0.1", "command": "train now", "host": "node"}
        places = ("name", "tags", "experiment", "params", "notes", "command")
        documents = []
        for place in places:
            texts = {"name": "plain", "tags": "plain", "experiment": "plain", **filler}
            texts[place] = "zebra " + " ".join(texts[place].split()[1:])
            documents.append(document(f"r-{place}", **texts))
        documents += [document(f"other-{number}", name="plain", **filler) for number in range(20)]
        index = new_index(*documents)
        assert found(index, "zebra") == [f"r-{place}" for place in places]
        scores = [score for _, score in index.find(parse_search("zebra"))]
        assert all(score > 0 for score in scores)

    def test_equal_scores_go_by_run(self) -> None:
        index = new_index(*(document(run_id, name="same") for run_id in ("b", "c", "a")))
        assert found(index, "same") == ["a", "b", "c"]

    def test_exclusions_alone_leave_every_other_run_with_no_score(self) -> None:
        index = new_index(document("a", name="x"), document("b", name="y"), document("c"))
        assert index.find(parse_search("-x")) == [("b", 0.0), ("c", 0.0)]


class TestMatching:
    @pytest.fixture
    def index(self) -> SearchIndex:
        return new_index(
            document("a", name="vit-b16_lr3e-4", notes="cosine decay, then constant", tags="fold=3\nbaseline"),
            document("b", name="VIT large", notes="decay cosine NEAR the end OR not", params="optim.name=adamw"),
            document("c", name="姿态估计 Größe", experiment="pose/vit/ablation", command="train.py --seed 12"),
        )

    @pytest.mark.parametrize(
        ("text", "runs"),
        [
            ("vit", "abc"),
            ("vit large", "b"),
            ("vit-b16_lr3e-4", "a"),
            ("b16", "a"),
            ("b1", ""),
            ("b1*", "a"),
            ("vit-b1*", "a"),
            ('"cosine decay"', "a"),
            ('"decay cos"*', "b"),
            ("decay -cosine", ""),
            ("vit -baseline", "bc"),
            ('-"cosine decay" -ablation', "b"),
            ("fold=3", "a"),
            ("optim.name=adamw", "b"),
            ("pose/vit", "c"),
            ("--seed=12", None),
            ('"--seed 12"', "c"),
            ("估计", "c"),
            ("态计", ""),
            ("grosse", "c"),
            ("GRÖSSE", "c"),
            ("NEAR OR", "b"),
            ('"NEAR(vit large)"', ""),
            ("name*", "b"),
            ('large"', "b"),
            ("NOT", "b"),
            ("AND", ""),
            ("the* ^end", "b"),
        ],
    )
    def test_examples(self, index: SearchIndex, text: str, runs: str | None) -> None:
        if runs is None:
            text, runs = f'"{text}"', "c"
        assert sorted(found(index, text)) == list(runs)

    def test_a_phrase_lies_in_one_text(self) -> None:
        assert found(new_index(document("a", name="x", experiment="y")), '"x y"') == []


class TestUpdating:
    def test_a_changed_run_is_found_by_its_new_texts_alone(self) -> None:
        index = new_index(document("a", name="old"), document("b", name="old"))
        index.update([document("a", name="new")], ["b", "never there"], "2")
        assert found(index, "old") == []
        assert found(index, "new") == ["a"]
        assert index.stamp() == "2"
        assert index.marks() == {"a": "m"}

    def test_marks_of_many_runs_are_read_at_once(self) -> None:
        index = new_index(*(document(f"r{number}") for number in range(1200)))
        assert len(index.marks([f"r{number}" for number in range(0, 2400, 2)])) == 600


_word = st.sampled_from(["vit", "vi", "a_b", "b", "ö", "O", "姿态", "NEAR", "*", '"', "3e-4", "4"])
_text = st.lists(_word, max_size=5).map(" ".join)
_document = st.builds(RunDocument, st.sampled_from("abcdef"), st.just("m"), *[_text] * (len(TEXTS) - 1))
_term = st.builds(Term, _text.filter(words), st.booleans(), st.booleans())
_updates = st.lists(
    st.tuples(st.lists(_document, max_size=4, unique_by=lambda one: one.run_id), st.sets(st.sampled_from("abcdef")))
)


@given(_updates, st.lists(st.lists(_term, min_size=1, max_size=3), min_size=1, max_size=5))
def test_it_finds_what_going_over_all_words_finds(
    updates: list[tuple[list[RunDocument], set[str]]], searches: list[list[Term]]
) -> None:
    index, documents = new_index(), dict[str, RunDocument]()
    for changed, removed in updates:
        index.update(changed, removed, "s")
        documents = {run_id: one for run_id, one in documents.items() if run_id not in removed}
        documents |= {one.run_id: one for one in changed}
    anew = new_index(*sorted(documents.values(), key=lambda one: one.run_id))
    for terms in searches:
        search = Search(tuple(terms))
        ranks = index.find(search)
        assert {run_id for run_id, _ in ranks} == expected(documents, search)
        assert dict(ranks) == pytest.approx(dict(anew.find(search)))
    assert index.marks() == dict.fromkeys(documents, "m")


def test_the_model_can_fail() -> None:
    one = document("a", name="x y")
    assert has(one, Term("x y"))
    assert not has(replace(one, name="y x"), Term("x y"))
