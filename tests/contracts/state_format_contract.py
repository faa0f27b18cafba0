"""What every format of checkpoints has to keep; the author of one inherits the tests and names it."""

from __future__ import annotations

import datetime
import json
from collections import OrderedDict
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptlake import Lake, Run
from ckptlake.errors import CkptlakeError, DamagedCheckpointError

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip


def filled(dtype: torch.dtype, shape: tuple[int, ...] = (3, 5)) -> torch.Tensor:
    """Return a tensor of arbitrary bits, the same each time."""
    count = int(np.prod(shape)) * dtype.itemsize
    if dtype is torch.bool:
        return torch.arange(count).reshape(shape) % 3 == 0
    return (torch.arange(count) % 113).to(torch.uint8).view(dtype).reshape(shape)


def same(a: Any, b: Any) -> bool:
    """Tell whether two states are of equal types, values and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        equal = a.dtype == b.dtype and a.shape == b.shape
        return equal and bytes(_bits(a)) == bytes(_bits(b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (a != a and b != b)


def _bits(tensor: torch.Tensor) -> list[int]:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


plain = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5),
    st.decimals(allow_nan=False), st.dates(), st.datetimes(), st.timedeltas(), st.complex_numbers(allow_nan=False),
    st.just(PurePosixPath("a/b")), st.frozensets(st.integers(-9, 9), max_size=3),
    st.sets(st.text(max_size=3), max_size=3),
    st.floats(width=32).map(np.float32), st.integers(0, 255).map(np.uint8),
)  # fmt: skip
leaves = st.one_of(
    plain,
    st.sampled_from(DTYPES).map(filled),
    st.just(torch.zeros(0, 3)),
    st.just(np.arange(6, dtype=">i4").reshape(2, 3)),
    st.just(np.float64(2).reshape(())),
)
keys = st.one_of(st.text(max_size=6), st.integers(-3, 3))
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=6,
)


RELAXED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.differing_executors]


class StateFormatContract:
    """Saves through a run in the format `name` and loads again.

    Attributes:
        name: of the format under test.
        shares_memory: whether tied tensors come back as one.
    """

    name: ClassVar[str]
    shares_memory: ClassVar[bool] = True

    def there_and_back(self, run: Run, state: object) -> Any:
        return run.load_checkpoint(run.save_checkpoint(state, format=self.name).id).state

    def file_of(self, lake: Lake, checkpoint_id: str) -> Path:
        """Return the file that holds the bytes."""
        (path,) = [
            path
            for folder in ("checkpoints", "blobs")
            for path in (lake.path / folder).glob(f"{checkpoint_id}.*")
            if path.suffix not in (".json", ".pq")
        ]
        return path

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_element_type(self, run: Run, dtype: torch.dtype) -> None:
        state = {"w": filled(dtype), "scalar": filled(dtype, ()), "empty": filled(dtype, (0, 4))}
        assert same(self.there_and_back(run, state), state)

    def test_values_keep_their_types(self, run: Run) -> None:
        state = {
            0: (1, [2.5, None]), "0": OrderedDict(b=np.float32(0.1), a={1, 2}),
            "when": datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC), "price": Decimal("1.10"),
            "nan": float("nan"), "big": 1 << 200, "x/y": np.arange(3),
        }  # fmt: skip
        assert same(self.there_and_back(run, state), state)

    @settings(max_examples=15, suppress_health_check=RELAXED)
    @given(state=states.map(lambda value: {"state": value}))
    def test_any_state(self, run: Run, state: Any) -> None:
        assert same(self.there_and_back(run, state), state)

    def test_a_training_state(self, run: Run) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(3, 4)).sum().backward()
        optimizer.step()
        saved = run.save_checkpoint(model=model, optimizer=optimizer, format=self.name)
        loaded = run.load_checkpoint(saved.id)
        assert same(loaded["model"], model.state_dict())
        other = torch.optim.AdamW(model.parameters())
        other.load_state_dict(loaded["optimizer"])
        assert same(other.state_dict()["state"], optimizer.state_dict()["state"])

    def test_tied_and_overlapping_tensors(self, run: Run) -> None:
        whole = torch.arange(12.0).reshape(3, 4)
        state = {"a": whole, "tied": whole, "row": whole[1], "column": whole[:, 2], "other": torch.ones(2)}
        loaded = self.there_and_back(run, state)
        assert all(torch.equal(loaded[name], state[name]) for name in state)
        loaded["a"].fill_(7)
        assert bool((loaded["tied"] == 7).all()) == self.shares_memory
        assert bool((loaded["column"] == 7).all()) == self.shares_memory
        assert torch.equal(loaded["other"], torch.ones(2))

    def test_what_was_loaded_can_be_written_to(self, run: Run) -> None:
        saved = run.save_checkpoint({"w": torch.zeros(3), "n": np.zeros(3)}, format=self.name)
        first = run.load_checkpoint(saved.id).state
        first["w"] += 1
        first["n"] += 1
        again = run.load_checkpoint(saved.id, verify="digest").state
        assert again["w"].tolist() == again["n"].tolist() == [0, 0, 0]

    def test_metadata_and_tensors_are_recorded(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"w": torch.ones(4, 2)}, format=self.name, step=3, epoch=1, metrics={"loss": 0.5})
        record = lake.checkpoints.get("latest", run)
        assert (record.id, record.format, record.step, record.epoch) == (saved.id, self.name, 3, 1)
        assert dict(record.metrics) == {"loss": 0.5}
        assert (record.num_tensors, record.logical_bytes) == (1, 32)
        assert lake.checkpoints.verify(saved.id).is_good

    def test_damage_is_found(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"w": torch.arange(4096.0)}, format=self.name)
        path = self.file_of(lake, saved.id)
        payload = bytearray(path.read_bytes())
        payload[len(payload) // 2] ^= 1
        path.write_bytes(payload)
        with pytest.raises(DamagedCheckpointError):
            _ = run.load_checkpoint(saved.id, verify="digest").state
        assert not lake.checkpoints.verify(saved.id).is_good

    @pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
    def test_a_cut_file_is_refused(self, lake: Lake, run: Run, keep: float) -> None:
        saved = run.save_checkpoint({"w": torch.arange(4096.0)}, format=self.name)
        path = self.file_of(lake, saved.id)
        payload = path.read_bytes()
        path.write_bytes(payload[: int(keep * len(payload)) if keep < 1 else keep])  # type: ignore[misc]
        with pytest.raises(DamagedCheckpointError):
            _ = run.load_checkpoint(saved.id).state

    def test_a_missing_file_is_told(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"w": torch.arange(9.0)}, format=self.name)
        self.file_of(lake, saved.id).unlink()
        with pytest.raises(DamagedCheckpointError, match="missing"):
            _ = run.load_checkpoint(saved.id).state

    def test_a_refused_state_leaves_nothing(self, lake: Lake, run: Run) -> None:
        with pytest.raises(CkptlakeError):
            run.save_checkpoint({"w": torch.ones(3), "code": (lambda: 1)}, format=self.name)
        assert lake.checkpoints.list() == []
        left = [path.name for folder in ("checkpoints", "blobs") for path in (lake.path / folder).glob("*[a-z0-9]")]
        assert [name for name in left if not name.startswith(".")] == []

    def test_the_manifest_is_json(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"w": torch.ones(3)}, format=self.name)
        manifest = json.loads((lake.path / "checkpoints" / f"{saved.id}.json").read_text())["manifest"]
        assert manifest["format"] == self.name
