"""Libraries are recognised without being loaded."""

from __future__ import annotations

import sys

import pytest

from ckptlake._internal.optional import if_imported


def test_a_module_that_is_loaded() -> None:
    assert if_imported("sys") is sys


def test_a_module_that_is_not_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    assert if_imported("this") is None
    assert "this" not in sys.modules
