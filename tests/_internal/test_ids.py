"""Identifiers that sort by time, never meet, and name files safely."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ckptlake._internal.ids import check_run_id, new_id
from ckptlake.errors import InvalidInputError
from ckptlake.runs.wal import SegmentName


def test_are_unique_among_many() -> None:
    assert len({new_id() for _ in range(100_000)}) == 100_000


def test_sort_by_the_second_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    real, moments = time.gmtime, [0, 59, 3600, 86_399, 1_700_000_000, 1_700_000_001, 4_000_000_000]
    made = []
    for moment in moments:
        monkeypatch.setattr(time, "gmtime", lambda moment=moment: real(moment))
        made.append(new_id())
    assert made == sorted(made)
    assert made[0].startswith("19700101-000000-")
    assert made[4].startswith("20231114-221320-")


def test_are_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        assert new_id()[:13] == time.strftime("%Y%m%d-%H%M", time.gmtime())
    finally:
        monkeypatch.undo()
        time.tzset()


def test_can_name_runs_and_segments() -> None:
    for _ in range(100):
        made = new_id()
        assert check_run_id(made) == made
        assert SegmentName.parse(str(SegmentName(made, 0))) == SegmentName(made, 0)


@pytest.mark.parametrize("run_id", ["a", "0", "Z", "a.b_c-d", "x" * 128, "20260102-030405-abc"])
def test_accepted(run_id: str) -> None:
    assert check_run_id(run_id) == run_id


@pytest.mark.parametrize(
    "run_id",
    ["", ".", "..", ".a", "-a", "_a", "a b", "a/b", "a\\b", "a\n", "\na", "é", "a:b", "x" * 129, None, 5, b"a"],
)
def test_refused(run_id: Any) -> None:
    with pytest.raises(InvalidInputError, match="1 to 128 letters, digits"):
        check_run_id(run_id)
