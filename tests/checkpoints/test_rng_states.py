"""Random generators go on where they were, and nothing is set by halves."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from state_values import again, put_together

from ckptlake.checkpoints.rng import collect_rng, restore_rng
from ckptlake.checkpoints.tree import flatten
from ckptlake.errors import InvalidInputError


@pytest.fixture(autouse=True)
def _leave_generators_alone() -> Iterator[None]:
    state = collect_rng()
    yield
    restore_rng(state)


def draw() -> list[float]:
    """Return numbers of every global generator; numpy's and Python's keep a second normal number for later."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),  # noqa: NPY002
        float(np.random.randn()),  # noqa: NPY002
        float(torch.rand(())),
        float(torch.randn(())),
    ]


def test_every_generator_goes_on() -> None:
    draw()
    state = collect_rng()
    expected = [draw(), draw()]
    restore_rng(state)
    assert [draw(), draw()] == expected


def test_after_a_checkpoint() -> None:
    draw()
    state = again(collect_rng())
    expected = draw()
    restore_rng(state)
    assert draw() == expected


def test_after_a_checkpoint_moved_between_devices() -> None:
    state = put_together(flatten(collect_rng()), "cpu")
    expected = draw()
    restore_rng(state)
    assert draw() == expected


def test_a_state_is_a_copy() -> None:
    state = collect_rng()
    expected = draw()
    draw()
    restore_rng(state)
    restore_rng(state)
    assert draw() == expected


@pytest.mark.parametrize("name", ["python", "numpy", "torch"])
def test_one_generator_alone(name: str) -> None:
    state = collect_rng()
    first = draw()
    restore_rng({name: state[name]})
    second = draw()
    places = {"python": (0, 2), "numpy": (2, 4), "torch": (4, 6)}
    for other, (start, stop) in places.items():
        assert (first[start:stop] == second[start:stop]) is (other == name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_devices_that_are_not_here() -> None:
    state: dict[str, Any] = collect_rng()
    assert set(state) == {"python", "numpy", "torch"}
    with pytest.raises(InvalidInputError, match=r"2 CUDA devices, 0 are here: `del state\['cuda'\]`"):
        restore_rng({**state, "cuda": [state["torch"], state["torch"]]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("python", None), ("python", (3, (1, 2), None)), ("python", (9, (), None)), ("python", (3, ("a",) * 625, None)),
        ("numpy", {}), ("numpy", ("MT19937", [1, 2], 0, 0, 0.0)), ("numpy", 5), ("numpy", {"bit_generator": "PCG64"}),
        ("torch", None), ("torch", torch.zeros(3)), ("torch", torch.zeros(5056, dtype=torch.uint8)), ("cuda", 1),
    ],
)  # fmt: skip
def test_damaged_states_set_nothing(name: str, value: object) -> None:
    other = collect_rng()
    draw()
    before = collect_rng()
    with pytest.raises(InvalidInputError, match=rf"state\['{name}'\]"):
        restore_rng({**other, name: value})
    expected = draw()
    restore_rng(before)
    assert draw() == expected


@pytest.mark.parametrize("state", [{"jax": 1}, [1], None])
def test_what_is_no_state(state: Any) -> None:
    with pytest.raises(InvalidInputError, match="give what collect_rng"):
        restore_rng(state)


def test_without_torch() -> None:
    code = """
import sys; sys.modules["torch"] = None
import random
import numpy as np
from ckptlake.checkpoints.rng import collect_rng, restore_rng
from ckptlake.errors import MissingDependencyError
state = collect_rng()
assert set(state) == {"python", "numpy"}
first = random.random(), np.random.rand()
restore_rng(state)
assert first == (random.random(), np.random.rand())
try:
    restore_rng({**state, "torch": b""})
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'ckptlake[torch]'" in done.stdout, done.stderr
