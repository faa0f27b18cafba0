"""The examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import ckptlake

MODULES = ["ckptlake", *sorted(found.name for found in pkgutil.walk_packages(ckptlake.__path__, "ckptlake."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name.endswith("__main__"):
        pytest.skip("importing it would run it")
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS, raise_on_error=False)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples in {name} fail; see above"


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [
        test for name in ("ckptlake.lake", "ckptlake.runs.run") for test in finder.find(importlib.import_module(name))
    ]
    assert sum(len(test.examples) for test in found) > 5
