"""Checkpoints compared with each other, against torch as the judge."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptlake
from ckptlake import Lake, Run
from ckptlake.config import Capture
from ckptlake.errors import InvalidInputError


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with ckptlake.open(tmp_path / "lake") as opened:
        yield opened


@pytest.fixture
def run(lake: Lake) -> Iterator[Run]:
    with lake.run(experiment="tests", capture=Capture.nothing()) as started:
        yield started


def row(frame: Any, path: str) -> dict[str, Any]:
    (found,) = frame.filter(path=path).to_dicts()
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("format", ["packed", "torch"])
def test_figures_are_torchs(lake: Lake, run: Run, dtype: torch.dtype, format: str) -> None:
    torch.manual_seed(0)
    a = torch.randn(1500, 1300, dtype=torch.complex128 if dtype.is_complex else torch.float64).to(dtype)
    b = (a + torch.randn(1500, 1300) * 0.1).to(dtype)
    first = run.save_checkpoint({"w": a, "same": torch.ones(3)}, format=format)
    second = run.save_checkpoint({"w": b, "same": torch.ones(3)}, format=format)
    frame = lake.checkpoints.diff(first.id, second.id)
    found = row(frame, "w")
    wide_a, wide_b = (torch.view_as_real(t.to(torch.complex128)).flatten() for t in (a, b))
    distance = torch.linalg.vector_norm(wide_a - wide_b).item()
    assert found["l2_distance"] == pytest.approx(distance, rel=1e-5)
    assert found["norm_a"] == pytest.approx(torch.linalg.vector_norm(wide_a).item(), rel=1e-5)
    assert found["norm_b"] == pytest.approx(torch.linalg.vector_norm(wide_b).item(), rel=1e-5)
    cosine = torch.nn.functional.cosine_similarity(wide_a, wide_b, dim=0).item()
    assert found["cosine_similarity"] == pytest.approx(cosine, rel=1e-6)
    assert found["relative_change"] == pytest.approx(distance / found["norm_a"], rel=1e-5)
    assert not found["is_same"]
    same = row(frame, "same")
    assert (same["is_same"], same["l2_distance"], same["cosine_similarity"]) == (True, 0.0, 1.0)
    assert same["norm_a"] == same["norm_b"] == pytest.approx(math.sqrt(3))


def test_what_is_in_one_alone_or_has_changed_its_kind(lake: Lake, run: Run) -> None:
    run.save_checkpoint({"old": torch.ones(2), "kind": torch.ones(3), "shape": torch.ones(4)}, step=1)
    run.save_checkpoint({"new": torch.ones(2), "kind": torch.ones(3).half(), "shape": torch.ones(2, 2)}, step=2)
    frame = lake.checkpoints.diff(1, 2, run)
    assert (row(frame, "old")["in_a"], row(frame, "old")["in_b"]) == (True, False)
    assert (row(frame, "new")["in_a"], row(frame, "new")["norm_b"]) == (False, pytest.approx(math.sqrt(2)))
    kind, shape = row(frame, "kind"), row(frame, "shape")
    assert (kind["dtype_a"], kind["dtype_b"], kind["is_same"], kind["l2_distance"]) == (
        "float32",
        "float16",
        False,
        None,
    )
    assert (shape["shape_a"], shape["shape_b"], shape["relative_change"]) == ([4], [2, 2], None)


def test_the_largest_change_comes_first(lake: Lake, run: Run) -> None:
    run.save_checkpoint({"a": np.ones(4), "b": np.ones(4), "zero": np.zeros(2), "gone": np.ones(1)}, step=1)
    run.save_checkpoint({"a": np.ones(4) * 1.1, "b": np.ones(4) * 3, "zero": np.ones(2)}, step=2)
    frame = lake.checkpoints.diff(1, 2, run)
    assert frame["path"].to_list() == ["zero", "b", "a", "gone"]
    assert frame["relative_change"].to_list() == [math.inf, pytest.approx(2), pytest.approx(0.1), None]


def test_tied_tensors_are_compared_under_each_name(lake: Lake, run: Run) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    run.save_checkpoint({"a": whole, "tied": whole, "column": whole[:, 1]}, step=1)
    run.save_checkpoint({"a": whole, "tied": whole + 1, "column": whole[:, 1].clone()}, step=2)
    frame = lake.checkpoints.diff(1, 2, run)
    assert row(frame, "a")["is_same"]
    assert row(frame, "column")["is_same"]
    assert row(frame, "tied")["l2_distance"] == pytest.approx(math.sqrt(6))


def test_nan_does_not_spread(lake: Lake, run: Run) -> None:
    run.save_checkpoint({"w": np.array([3.0, np.nan, 4.0])}, step=1)
    run.save_checkpoint({"w": np.array([3.0, 1.0, np.inf])}, step=2)
    found = row(lake.checkpoints.diff(1, 2, run), "w")
    assert (found["l2_distance"], found["norm_a"]) == (0.0, 5.0)
    assert not found["is_same"]


def test_layers(lake: Lake, run: Run) -> None:
    def state(shift: float) -> dict[str, Any]:
        return {
            "model": {
                "enc.0.weight": torch.full((4,), 1.0 + shift),
                "enc.0.bias": torch.ones(2),
                "head.weight": torch.ones(1),
            },
            "opt": [torch.ones(2)],
        }

    run.save_checkpoint(state(0), step=1)
    run.save_checkpoint(state(0.5), step=2)
    frame = lake.checkpoints.diff(1, 2, run)
    layers = lake.checkpoints.by_layer(frame)
    assert layers["layer"].to_list() == ["model/enc", "model/head", "opt/0"]
    assert layers["num_tensors"].to_list() == [2, 1, 1]
    assert layers["num_changed"].to_list() == [1, 0, 0]
    assert layers["l2_distance"].to_list() == pytest.approx([1, 0, 0])
    assert layers["norm_a"].to_list() == pytest.approx([math.sqrt(6), 1, math.sqrt(2)])
    assert lake.checkpoints.by_layer(frame, depth=1)["layer"].to_list() == ["model", "opt"]
    with pytest.raises(InvalidInputError, match="depth=0"):
        lake.checkpoints.by_layer(frame, depth=0)


def test_compressed_and_deferred_checkpoints_compare_the_same(lake: Lake, run: Run) -> None:
    torch.manual_seed(2)
    a = torch.randn(300, 200)
    run.save_checkpoint({"w": a}, step=1)
    run.save_checkpoint({"w": a + 0.01}, step=2)
    before = lake.checkpoints.diff(1, 2, run)
    lake.checkpoints.compact(keep_raw=0)
    assert lake.checkpoints.diff(1, 2, run).equals(before)
