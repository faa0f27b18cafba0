"""The queries that engines are compared on, answered by DuckDB, and in the text of every dialect."""

from __future__ import annotations

import pytest
from query_corpus import CORPUS, QUICK, rows_of

from ckptlake import Lake


@pytest.mark.parametrize("name", CORPUS)
def test_written_values_mean_what_bound_ones_do(corpus_lake: Lake, name: str) -> None:
    query = CORPUS[name](corpus_lake)
    bound = query.to_arrow()
    written = query._session.run(query.to_sql()).rows
    assert bound.column_names == written.column_names
    assert rows_of(bound, ordered=False) == rows_of(written, ordered=False)


def test_the_corpus_asks_enough_of_a_lake_with_rows(corpus_lake: Lake) -> None:
    assert len(CORPUS) >= 40
    assert set(QUICK) <= CORPUS.keys()
    empty = {name for name, ask in CORPUS.items() if ask(corpus_lake).count() == 0}
    assert empty == {"all of verifications"}
