"""What may be a name, and how nested dicts become names."""

from __future__ import annotations

from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptlake._internal.names import (
    MAX_NAME_BYTES,
    as_directory,
    check_experiment,
    check_name,
    check_text,
    flatten,
)
from ckptlake.errors import InvalidInputError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
FLAT = st.dictionaries(st.text("abc.", min_size=1, max_size=3), st.integers(), max_size=5)


class TestText:
    @given(TEXT)
    def test_that_utf8_holds_is_kept(self, text: str) -> None:
        assert check_text("a note", text) == text

    @pytest.mark.parametrize("value", [None, 5, b"a", ["a"], 1.5], ids=repr)
    def test_of_another_type_is_named(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match=f"a name must be a string, got {type(value).__name__}"):
            check_text("a name", value)

    def test_with_a_lone_surrogate_tells_where(self) -> None:
        with pytest.raises(InvalidInputError, match="position 2"):
            check_text("a name", "ab\ud800")

    def test_with_a_nul(self) -> None:
        with pytest.raises(InvalidInputError, match="NUL"):
            check_text("a name", "a\0b")

    def test_has_a_largest_size_in_bytes(self) -> None:
        assert check_name("a name", "é" * (MAX_NAME_BYTES // 2))
        with pytest.raises(InvalidInputError, match=f"at most {MAX_NAME_BYTES}"):
            check_name("a name", "é" * (MAX_NAME_BYTES // 2) + "x")
        assert check_text("the text of a note", "x" * (MAX_NAME_BYTES + 1))

    def test_a_name_is_not_empty(self) -> None:
        with pytest.raises(InvalidInputError, match="a name is empty"):
            check_name("a name", "")
        assert check_text("a note", "") == ""


class TestExperiments:
    @given(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=6),
            min_size=1,
            max_size=4,
        )
    )
    def test_as_directories_are_told_apart_and_safe(self, parts: list[str]) -> None:
        from urllib.parse import unquote

        name = "/".join(parts)
        if any(part in {".", ".."} for part in parts) or len(as_directory(name).encode()) > 240:
            with pytest.raises(InvalidInputError):
                check_experiment(name)
            return
        assert check_experiment(name) == name
        directory = as_directory(name)
        assert unquote(directory) == name
        assert not set("/\\=*?[]{}:\"'<>|") & set(directory)

    def test_the_size_that_fits_is_that_of_the_directory(self) -> None:
        assert check_experiment("a" * 240)
        for name in ("a" * 241, "é" * 121, "*" * 81):
            with pytest.raises(InvalidInputError, match=r"takes \d+ bytes as a directory"):
                check_experiment(name)


class TestFlatten:
    def test_joins_keys(self) -> None:
        nested = {"a": {"b": {"c": 1}, "d": None}, "e": [1, {"f": 2}], "g": {}}
        assert flatten(nested, "/", "metric") == {"a/b/c": 1, "a/d": None, "e": [1, {"f": 2}], "g": {}}

    @pytest.mark.parametrize("kind", [dict, OrderedDict, lambda items: MappingProxyType(dict(items))])
    def test_any_mapping(self, kind: Any) -> None:
        assert flatten(kind([("a", kind([("b", 1)]))]), ".", "param") == {"a.b": 1}

    def test_numbers_become_text(self) -> None:
        assert flatten({1: {2.5: "x"}}, ".", "param") == {"1.2.5": "x"}

    @given(FLAT)
    def test_flat_dicts_stay(self, flat: dict[str, int]) -> None:
        assert flatten(flat, "/", "metric") == flat

    @given(
        st.recursive(
            st.integers(),
            lambda inner: st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, min_size=1, max_size=3),
            max_leaves=12,
        )
    )
    def test_loses_no_leaf(self, nested: Any) -> None:
        if not isinstance(nested, dict):
            nested = {"x": nested}

        def leaves(value: Any) -> list[int]:
            return [leaf for item in value.values() for leaf in leaves(item)] if isinstance(value, dict) else [value]

        assert list(flatten(nested, "/", "metric").values()) == leaves(nested)

    @pytest.mark.parametrize(
        "nested",
        [{"a": {"b": 1}, "a/b": 2}, {"a/b": 2, "a": {"b": 1}}, {"1": 1, 1: 2}, {"a": {"1": 1, 1.0: 2, "1.0": 3}}],
        ids=repr,
    )
    def test_a_collision_is_refused(self, nested: dict[Any, Any]) -> None:
        with pytest.raises(InvalidInputError, match="is given twice"):
            flatten(nested, "/", "metric")

    @pytest.mark.parametrize("key", [None, ("a",), b"a", "", "\0", "\ud800", frozenset()], ids=repr)
    def test_a_bad_key_is_refused_at_any_depth(self, key: Any) -> None:
        for nested in ({key: 1}, {"a": {key: 1}}, {"a": {"b": {key: 1}}}):
            with pytest.raises(InvalidInputError, match="a metric's name"):
                flatten(nested, "/", "metric")
