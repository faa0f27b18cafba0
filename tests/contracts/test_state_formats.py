"""The contract of formats, kept by the project's own and by one that another package adds."""

from __future__ import annotations

import importlib.metadata
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from state_format_contract import RELAXED, StateFormatContract, filled, same, states

from ckptlake import Lake, Run
from ckptlake.checkpoints import state_format
from ckptlake.checkpoints.formats.sanitising import sanitised
from ckptlake.checkpoints.tree import flatten, read_bytes
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, UnsafeFileError


class TestPacked(StateFormatContract):
    name = "packed"


class TestSafetensors(StateFormatContract):
    name = "safetensors"

    def test_other_programs_open_it(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"model": {"w": np.arange(3.0)}}, format="safetensors")
        found = safetensors.numpy.load_file(lake.path / "checkpoints" / f"{saved.id}.safetensors")
        assert found["model/w"].tolist() == [0, 1, 2]


class TestTorch(StateFormatContract):
    name = "torch"

    def opened(self, lake: Lake, checkpoint_id: str) -> Any:
        return torch.load(lake.path / "checkpoints" / f"{checkpoint_id}.pt", weights_only=True)

    @settings(max_examples=25, suppress_health_check=RELAXED)
    @given(state=states.map(lambda value: {"state": value}))
    def test_any_state_opens_with_weights_only(self, lake: Lake, run: Run, state: Any) -> None:
        saved = run.save_checkpoint(state, format="torch")
        found = self.opened(lake, saved.id)
        mine, its = flatten(state).leaves, flatten(found).leaves
        assert [read_bytes(leaf).tobytes() for leaf in its] == [read_bytes(leaf).tobytes() for leaf in mine]

    def test_values_become_plain(self, lake: Lake, run: Run) -> None:
        state = {"lr": np.float32(0.5), "order": np.arange(3), "kinds": {"a"}, "at": Path("x"), "t": (1, 2)}
        found = self.opened(lake, run.save_checkpoint(state, format="torch").id)
        assert (found["lr"], found["order"].tolist(), found["at"], found["t"]) == (0.5, [0, 1, 2], "x", (1, 2))

    def test_keys_that_become_equal_keep_their_values(self) -> None:
        state = {np.int64(1): torch.ones(1), (Path("a"),): torch.zeros(2), ("a",): torch.ones(3), Path("b"): 1, "b": 2}
        assert len(sanitised(state)) == len(state)

    def test_arrays_that_look_at_one_memory(self, run: Run) -> None:
        whole = np.arange(6.0).reshape(2, 3)
        state = {
            "whole": whole,
            "column": whole[:, 1],
            "back": whole[::-1],
            "text": np.array(["a"], np.dtypes.StringDType()),
        }
        loaded = self.there_and_back(run, state)
        assert same(loaded, state)
        loaded["whole"][:] = 7
        assert loaded["column"].tolist() == [7, 7]
        assert loaded["back"].tolist() == [[7] * 3] * 2

    def test_keys_of_any_kind(self, lake: Lake, run: Run) -> None:
        state = {frozenset({1}): torch.ones(1), (frozenset({2}), "a"): torch.ones(2), np.float32(1.5): torch.ones(3)}
        saved = run.save_checkpoint(state, format="torch")
        assert [len(value) for value in self.opened(lake, saved.id).values()] == [1, 2, 3]
        assert same(run.load_checkpoint(saved.id).state, state)

    @pytest.mark.filterwarnings("ignore:torch.quantize_per:UserWarning")
    def test_sparse_and_quantized_tensors(self, run: Run) -> None:
        state = {"s": torch.eye(3).to_sparse(), "q": torch.quantize_per_tensor(torch.ones(3), 0.5, 1, torch.qint8)}
        loaded = self.there_and_back(run, state)
        assert torch.equal(loaded["s"].to_dense(), torch.eye(3))
        assert torch.equal(loaded["q"].dequantize(), torch.ones(3))


@dataclass
class Point:
    """A class of the program's own, which only pickle keeps."""

    x: int
    w: Any = None


class TestPickle(StateFormatContract):
    name = "pickle"

    def test_objects_need_trust(self, run: Run) -> None:
        saved = run.save_checkpoint({"point": Point(3), "w": torch.ones(2)}, format="pickle")
        with pytest.raises(UnsafeFileError, match="Point"):
            _ = run.load_checkpoint(saved.id).state
        assert run.load_checkpoint(saved.id, allow_unsafe=True)["point"] == Point(3)

    @pytest.mark.parametrize("protocol", range(6))
    def test_hostile_files_are_not_run(self, lake: Lake, run: Run, tmp_path: Path, protocol: int) -> None:
        saved = run.save_checkpoint({"w": np.ones(2)}, format="pickle")
        mark = tmp_path / "ran"

        class Attack:
            def __reduce__(self) -> Any:
                return (Path.touch, (mark,))

        (lake.path / "checkpoints" / f"{saved.id}.pkl").write_bytes(pickle.dumps({"w": Attack()}, protocol))
        with pytest.raises((UnsafeFileError, DamagedCheckpointError)):
            _ = run.load_checkpoint(saved.id, verify=False).state
        assert not mark.exists()

    def test_what_cannot_be_pickled_is_told(self, lake: Lake, run: Run) -> None:
        with pytest.raises(InvalidInputError, match="cannot be pickled"):
            run.save_checkpoint({"g": (number for number in ())}, format="pickle")

    def test_parts_are_asked_for_their_state_wherever_they_are(self, run: Run) -> None:
        model = torch.nn.Linear(2, 2)
        loaded = self.there_and_back(run, {"parts": [model, {"m": model}], "m": model})
        for found in (loaded["parts"][0], loaded["parts"][1]["m"], loaded["m"]):
            assert same(dict(found), dict(model.state_dict()))


class Toy:
    """A format of another package: numpy's archive in memory, with a pickle-free list of the leaves in order."""

    name = "toy"
    suffix = ".toy"
    keeps_anything = False

    def write(self, state: object, file: BinaryIO) -> None:
        leaves = flatten(state).leaves
        held = {str(number): np.frombuffer(read_bytes(leaf), np.uint8) for number, leaf in enumerate(leaves)}
        memory = io.BytesIO()
        kinds = [f"{leaf.dtype.name} {','.join(map(str, leaf.shape))}" for leaf in leaves]
        np.savez(memory, kinds=np.array(kinds, np.str_), **held)
        file.write(memory.getvalue())

    def read(self, path: Path, *, allow_unsafe: bool) -> object:
        try:
            with path.open("rb") as file, np.load(file) as archive:
                return [self._tensor(archive, number) for number in range(len(archive["kinds"]))]
        except (ValueError, EOFError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise DamagedCheckpointError(f"{path} is damaged: {error}") from error
        except Exception as error:
            raise DamagedCheckpointError(f"{path} is damaged: {error}") from error

    def _tensor(self, archive: Any, number: int) -> torch.Tensor:
        name, _, sizes = str(archive["kinds"][number]).partition(" ")
        shape = [int(size) for size in sizes.split(",") if size]
        memory = bytearray(archive[str(number)].tobytes())
        if not memory:
            return torch.empty(shape, dtype=getattr(torch, name))
        return torch.frombuffer(memory, dtype=torch.uint8).view(getattr(torch, name)).reshape(shape)


class TestThirdParty(StateFormatContract):
    name = "toy"

    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        entry = importlib.metadata.EntryPoint("toy", f"{__name__}:Toy", state_format.GROUP)
        there = importlib.metadata.entry_points

        def entry_points(**wanted: Any) -> Any:
            return [*there(**wanted), entry]

        monkeypatch.setattr(state_format, "entry_points", entry_points)
        state_format.get_format.cache_clear()
        yield
        state_format.get_format.cache_clear()

    def test_it_is_among_the_names(self) -> None:
        assert "toy" in state_format.format_names()


def test_a_format_that_is_not_installed_is_told(run: Run) -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'pickle'"):
        run.save_checkpoint({"w": filled(torch.float32)}, format="pickel")
