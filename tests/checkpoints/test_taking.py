"""Taking a state at a call, and apart later, compared with taking it apart at once."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from state_values import infos, states

from ckptlake.checkpoints import taking
from ckptlake.checkpoints.rng import collect_rng
from ckptlake.checkpoints.taking import Taken, take
from ckptlake.checkpoints.tree import Flat, flatten, read_bytes
from ckptlake.errors import InvalidInputError

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")

MATRIX = torch.arange(12.0).reshape(3, 4)
ARRAY = np.arange(12.0).reshape(3, 4)
EMPTY = torch.zeros(0, 3)
COMPLEX = torch.tensor([1 + 2j, 3 - 1j])
SHARED: list[object] = [
    MATRIX,
    MATRIX.T,
    MATRIX[1:],
    MATRIX[:, ::2],
    MATRIX.view(torch.int32),
    MATRIX.clone(),
    torch.from_numpy(ARRAY),
    torch.nn.Parameter(MATRIX),
    MATRIX.clone().requires_grad_(),
    MATRIX.to_sparse(),
    MATRIX.expand(2, 3, 4),
    EMPTY,
    EMPTY.clone(),
    COMPLEX,
    COMPLEX.conj(),
    torch.tensor(1.5),
    torch.tensor(3, dtype=torch.uint16),
    torch.zeros(3, dtype=torch.float8_e4m3fn),
    ARRAY,
    ARRAY.T,
    ARRAY[::-1],
    ARRAY[0:0],
    np.zeros(2, "f4,i8"),
    np.float32(2),
    torch.nn.Linear(2, 2),
    torch.nn.BatchNorm1d(2),
    torch.Size([1]),
    torch.float32,
]
"""Values that share memory with each other in every way, and some that only `flatten` knows how to keep."""


def contents(flat: Flat) -> tuple[Any, ...]:
    return json.dumps(flat.tree), infos(flat), [bytes(read_bytes(leaf)) for leaf in flat.leaves]


def assert_taken(state: object) -> None:
    expected = flatten(state)
    taken = take(state)
    flat, sources = taken.apart()
    assert contents(flat) == contents(expected)
    assert [source.leaf for source in sources] == list(flat.leaves)
    for source, leaf in zip(sources, flat.leaves, strict=True):
        with source.read().piece(0, leaf.nbytes) as view:
            assert view == read_bytes(leaf)
    assert all(source.is_live == (source in sources) for source in taken.sources)


@settings(max_examples=200)
@given(states)
def test_any_state_of_python_and_numpy(state: object) -> None:
    assert_taken(state)


@settings(max_examples=300)
@given(st.recursive(st.sampled_from(SHARED), lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside)))
def test_whatever_shares_memory(state: object) -> None:
    assert_taken(state)


def training() -> dict[str, Any]:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    return {"model": model, "optimizer": optimizer, "schedule": schedule, "rng": collect_rng(), "best": np.float64(1)}


def test_a_training_state_is_not_taken_apart_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    state = training()
    expected = contents(flatten(state))
    calls: list[object] = []
    monkeypatch.setattr(taking, "flatten", lambda value: calls.append(value) or flatten(value))
    taken = take(state)
    assert calls == []
    assert contents(taken.apart()[0]) == expected
    assert len(calls) == 1


@pytest.mark.parametrize("beside", [None, {1.5}, np.zeros(2, "f4,i8")])
def test_parts_are_asked_for_what_they_stand_for_once(beside: object) -> None:
    asked: list[object] = []

    class Part:
        def state_dict(self) -> dict[str, Any]:
            asked.append(self)
            return {"w": torch.ones(2)}

    flat, _ = take({"part": Part(), "beside": beside}).apart()
    assert len(asked) == 1
    assert "part/w" in [leaf.path for leaf in flat.leaves]


def swap(state: dict[str, Any]) -> None:
    state["weight"].data = torch.zeros(7)


def shrink(state: dict[str, Any]) -> None:
    state["weight"].resize_(1)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a value is put": lambda state: state.update(lr=2.0),
    "a tensor is put": lambda state: state.update(weight=torch.zeros(1)),
    "a list grows": lambda state: state["steps"].append(4),
    "a group is changed": lambda state: state["groups"][0].update(lr=1.0),
    "metadata is put": lambda state: vars(state["ordered"])["_metadata"].update(x=1),
    "all is gone": lambda state: state.clear(),
    "its memory is swapped": swap,
    "its shape is changed": shrink,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_becomes_of_the_containers_later_is_not_taken(change: Callable[[dict[str, Any]], object]) -> None:
    ordered = OrderedDict(w=torch.ones(2))
    ordered._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
    state: dict[str, Any] = {
        "lr": 1.0,
        "weight": torch.ones(3),
        "steps": [1, 2, 3],
        "groups": ({"lr": 0.1},),
        "ordered": ordered,
    }
    expected = contents(flatten(state))
    taken: Taken = take(state)
    change(state)
    assert contents(taken.apart()[0]) == expected


def test_a_tensor_given_other_memory_is_told() -> None:
    weight = torch.ones(3)
    taken = take({"w": weight})
    weight.resize_(1_000_000)
    with pytest.raises(InvalidInputError, match="'w' was changed"):
        taken.apart()


@pytest.mark.parametrize("value", [object(), {1.5: {object()}}, torch.zeros(2, device="meta"), open, [[{open}]]])
def test_what_cannot_be_kept_is_refused_at_the_call(value: object) -> None:
    with pytest.raises(InvalidInputError, match="cannot be kept"):
        take({"a": {"b": value}})


def test_what_contains_itself_is_refused_at_the_call() -> None:
    state: dict[str, Any] = {}
    state["again"] = state
    with pytest.raises(InvalidInputError, match="contains itself"):
        take(state)
