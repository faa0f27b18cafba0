"""Loading: whole, in part, tensor by tensor, into models; and finding what to load."""

from __future__ import annotations

import math
import mmap
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ckptlake
from ckptlake import Lake, Run
from ckptlake.checkpoints.arrays import over
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.rawpack import RawPack
from ckptlake.config import Capture
from ckptlake.errors import CheckpointNotFoundError, DamagedCheckpointError, InvalidInputError


def net(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    encoder = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8))
    return torch.nn.ModuleDict({"encoder": encoder, "head": torch.nn.Linear(8, 2)})


def flip(path: Path, place: int = -5) -> None:
    payload = bytearray(path.read_bytes())
    payload[place] ^= 0x10
    path.write_bytes(payload)


def pack_of(lake: Lake, checkpoint_id: str) -> Path:
    return lake.path / "blobs" / f"{checkpoint_id}.safetensors"


class TestFinding:
    @pytest.fixture
    def saved(self, run: Run) -> list[ckptlake.checkpoints.session.SavedCheckpoint]:  # type: ignore[name-defined]
        run.define("val/loss", direction="min")
        losses = [0.5, 0.2, float("nan"), 0.3]
        return [
            run.save_checkpoint({"n": step}, step=step * 10, metrics={"val/loss": loss, "acc": step})
            for step, loss in enumerate(losses)
        ]

    def test_by_every_name(self, lake: Lake, run: Run, saved: list[Any]) -> None:
        lake.checkpoints.alias(saved[0].id, "paper")
        for which, number in {
            "latest": 3, "best": 1, "best:val/loss": 1, "paper": 0, 20: 2, saved[2].id: 2, "latest_good": 3,
        }.items():  # fmt: skip
            assert run.load_checkpoint(which).state == {"n": number}, which

    def test_best_refuses_to_guess(self, lake: Lake, saved: list[Any]) -> None:
        with pytest.raises(InvalidInputError, match=r"'acc'.*run\.define"):
            lake.checkpoints.best("acc")
        assert lake.checkpoints.best("acc", direction="max").id == saved[3].id
        assert lake.checkpoints.best("acc", direction="min").id == saved[0].id
        with pytest.raises(InvalidInputError, match="'up'"):
            lake.checkpoints.best("acc", direction="up")  # type: ignore[arg-type]

    def test_nan_is_never_the_best(self, lake: Lake, run: Run) -> None:
        run.define("loss", direction="max")
        run.save_checkpoint({"n": 0}, metrics={"loss": math.nan})
        with pytest.raises(CheckpointNotFoundError, match="'loss'"):
            lake.checkpoints.best("loss")
        good = run.save_checkpoint({"n": 1}, metrics={"loss": -math.inf})
        assert lake.checkpoints.best("loss").id == good.id

    def test_what_is_not_there_tells_what_is(self, lake: Lake, run: Run, saved: list[Any]) -> None:
        with pytest.raises(CheckpointNotFoundError, match="nearest steps are 10, 20"):
            lake.checkpoints.get(14)
        with pytest.raises(CheckpointNotFoundError, match="latest"):
            lake.checkpoints.get("lates")
        with pytest.raises(CheckpointNotFoundError, match="none answers"):
            lake.checkpoints.get("latest", run="no-such-run")
        assert lake.checkpoints.find(14) is None
        with pytest.raises(InvalidInputError, match="True"):
            lake.checkpoints.get(True)

    def test_an_alias_belongs_to_one_checkpoint_of_a_run(self, lake: Lake, run: Run, saved: list[Any]) -> None:
        lake.checkpoints.alias(saved[0].id, "mine")
        lake.checkpoints.alias(saved[2].id, "mine")
        assert [record.aliases for record in lake.checkpoints.list(run)] == [(), (), ("mine",), ()]
        lake.checkpoints.unalias("mine", run=run)
        assert lake.checkpoints.find("mine") is None

    def test_pins(self, lake: Lake, run: Run, saved: list[Any]) -> None:
        assert lake.checkpoints.pin(10, run).pinned
        assert [record.pinned for record in lake.checkpoints.list(run)] == [False, True, False, False]
        assert not lake.checkpoints.unpin(10, run).pinned

    def test_lists_of_runs_and_subtrees(self, lake: Lake, saved: list[Any]) -> None:
        with lake.run(experiment="tests/deeper", capture=Capture.nothing()) as other:
            other.save_checkpoint({"n": 9}, step=1)
        assert len(lake.checkpoints.list()) == 5
        assert len(lake.checkpoints.list(experiment="tests")) == 5
        assert len(lake.checkpoints.list(experiment="tests/deeper")) == len(lake.checkpoints.list(other)) == 1


class TestInto:
    def test_a_model_alone_and_parts_by_name(self, run: Run) -> None:
        model = net(1)
        optimizer = torch.optim.AdamW(model.parameters())
        run.save_checkpoint(model=model, optimizer=optimizer, step=1)
        other = net(2)
        run.load_checkpoint("latest", into=other)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
        third = net(3)
        run.load_checkpoint("latest", into={"model": third})
        assert torch.equal(third.state_dict()["head.weight"], model.state_dict()["head.weight"])

    def test_only_some_tensors(self, run: Run) -> None:
        model, other = net(1), net(2)
        head = other.state_dict()["head.weight"].clone()
        run.save_checkpoint(model=model, step=1)
        loaded = run.load_checkpoint("latest", into=other, only="encoder.*")
        assert torch.equal(other.state_dict()["encoder.0.weight"], model.state_dict()["encoder.0.weight"])
        assert torch.equal(other.state_dict()["head.weight"], head)
        assert all(path.startswith("model/encoder.") for path in loaded.tensors())

    def test_a_state_dict_of_its_own(self, run: Run) -> None:
        model, other = net(1), net(2)
        run.save_checkpoint(model.state_dict(), step=1)
        run.load_checkpoint("latest", into=other)
        assert torch.equal(other.state_dict()["head.bias"], model.state_dict()["head.bias"])

    def test_a_model_that_does_not_fit(self, run: Run) -> None:
        run.save_checkpoint(model=net(1), step=1)
        with pytest.raises(InvalidInputError, match=r"does not fit 'model'(.|\n)*head\.weight"):
            run.load_checkpoint("latest", into={"model": torch.nn.ModuleDict({"head": torch.nn.Linear(3, 2)})})
        partial = torch.nn.ModuleDict({"head": torch.nn.Linear(8, 2)})
        run.load_checkpoint("latest", into={"model": partial}, strict=False)

    def test_parts_that_are_not_there(self, run: Run) -> None:
        run.save_checkpoint(model=net(1), step=1)
        with pytest.raises(InvalidInputError, match="'ema'; it holds model"):
            run.load_checkpoint("latest", into={"ema": net(1)})
        with pytest.raises(InvalidInputError, match="load_state_dict"):
            run.load_checkpoint("latest", into={"model": 3})
        with pytest.raises(InvalidInputError, match="not clear"):
            run.load_checkpoint("latest", into=torch.nn.Linear(1, 1))

    def test_random_numbers_go_on(self, run: Run) -> None:
        run.save_checkpoint(model=net(1), rng=True, step=1)
        drawn = (random.random(), np.random.rand(), torch.rand(3))  # noqa: NPY002
        run.load_checkpoint("latest", rng=True)
        again = (random.random(), np.random.rand(), torch.rand(3))  # noqa: NPY002
        assert drawn[:2] == again[:2]
        assert torch.equal(drawn[2], again[2])

    def test_random_numbers_that_were_not_saved(self, run: Run) -> None:
        run.save_checkpoint(model=net(1), step=1)
        with pytest.raises(InvalidInputError, match="rng=True"):
            run.load_checkpoint("latest", rng=True)


class TestPieces:
    @pytest.fixture
    def opened(self, lake: Lake, run: Run) -> Any:
        state = {"w": torch.arange(600.0).reshape(100, 6), "n": np.arange(20), "one": torch.tensor(5)}
        return lake.checkpoints.open(run.save_checkpoint(state, step=1).id)

    def test_one_tensor_is_mapped_not_read(self, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []
        real = RawPack.view
        monkeypatch.setattr(RawPack, "view", lambda self, *at: seen.append(at[1]) or real(self, *at))
        assert torch.equal(opened.tensor("w")[3], torch.arange(18.0, 24.0))
        assert seen == [2400]

    def test_writing_to_one_reaches_neither_the_file_nor_other_loads(self, lake: Lake, opened: Any) -> None:
        before = pack_of(lake, opened.id).read_bytes()
        opened.tensor("w")[:] = 0
        opened.tensors()["w"][:] = 1
        opened.state()["w"][:] = 2
        assert opened.state(verify="digest")["w"][1, 0] == 6
        assert pack_of(lake, opened.id).read_bytes() == before

    def test_tensors_outlive_what_they_came_from(self, lake: Lake, opened: Any) -> None:
        tensor, array, state = opened.tensor("w"), opened.tensor("n"), opened.state()
        opened.close()
        pack_of(lake, opened.id).unlink()
        assert tensor.sum() == sum(range(600))
        assert array.sum() == state["n"].sum() == sum(range(20))

    def test_an_array_keeps_the_file_it_looks_at_mapped(self) -> None:
        mapped = mmap.mmap(-1, 4096)
        array = over(memoryview(mapped)[64:128], np.dtype("<f4"), (2, 8))
        with pytest.raises(BufferError):
            mapped.close()
        assert array.sum() == 0
        del array
        mapped.close()

    @pytest.mark.parametrize(
        "index",
        [
            3,
            -1,
            slice(2, 5),
            slice(None),
            slice(10, 3),
            slice(1, 20, 4),
            (slice(2, 4), 1),
            (5, slice(1, 3)),
            ...,
            (..., 2),
        ],
    )
    def test_slices(self, opened: Any, index: Any) -> None:
        whole = torch.arange(600.0).reshape(100, 6)
        taken = opened.get_slice("w")[index]
        assert taken.shape == whole[index].shape
        assert torch.equal(taken, whole[index])

    def test_a_slice_reads_its_rows_alone(self, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []
        real = RawPack.view
        monkeypatch.setattr(RawPack, "view", lambda self, *at: seen.append(at[1]) or real(self, *at))
        opened.get_slice("w")[10:12]
        assert seen == [2 * 6 * 4]

    def test_slices_that_cannot_be(self, opened: Any) -> None:
        with pytest.raises(IndexError, match="row 100"):
            opened.get_slice("w")[100]
        with pytest.raises(InvalidInputError, match="step"):
            opened.get_slice("w")[::-1]
        with pytest.raises(InvalidInputError, match="no dimensions"):
            opened.get_slice("one")[0]
        assert opened.get_slice("one")[()] == 5

    def test_kinds_and_names(self, opened: Any) -> None:
        assert isinstance(opened.tensor("n"), np.ndarray)
        assert list(opened.tensors()) == ["w", "n", "one"]
        assert list(opened.tensors(only="?")) == ["w", "n"]
        with pytest.raises(KeyError):
            opened.tensors(only="w")["n"]
        with pytest.raises(InvalidInputError, match="near it are w"):
            opened.tensor("ww")
        with pytest.raises(InvalidInputError, match=r"matches 'x\*'"):
            opened.tensors(only="x*")


class TestDamage:
    @pytest.mark.parametrize("verify", ["fast", "digest"])
    def test_a_flipped_bit_is_named(self, lake: Lake, run: Run, verify: Any) -> None:
        saved = run.save_checkpoint({"a": torch.ones(64), "b": torch.arange(3)}, step=1)
        flip(pack_of(lake, saved.id))
        with pytest.raises(DamagedCheckpointError, match="tensor 'b'"):
            _ = run.load_checkpoint("latest", verify=verify).state
        assert run.load_checkpoint("latest", verify=False)["a"].sum() == 64
        assert run.load_checkpoint("latest", only="a", verify=verify)["a"].sum() == 64

    def test_latest_good_falls_back_quarantines_and_says_so(
        self, lake: Lake, run: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        good = run.save_checkpoint({"a": torch.full((9,), 1.0)}, step=1)
        flipped = run.save_checkpoint({"a": torch.full((9,), 2.0)}, step=2)
        cut = run.save_checkpoint({"a": torch.full((9,), 3.0)}, step=3)
        gone = run.save_checkpoint({"a": torch.full((9,), 4.0)}, step=4)
        flip(pack_of(lake, flipped.id))
        pack_of(lake, cut.id).write_bytes(pack_of(lake, cut.id).read_bytes()[:-8])
        pack_of(lake, gone.id).unlink()
        loaded = run.load_checkpoint("latest_good")
        assert loaded.id == good.id
        assert [skipped.step for skipped in loaded.skipped] == [4, 3, 2]
        told = [skipped.finding for skipped in loaded.skipped]
        assert all(word in text for word, text in zip(("missing", "cut short", "SHA-256"), told, strict=True)), told
        assert [record.status for record in lake.checkpoints.list(run)] == ["good", *["quarantined"] * 3]
        assert "passed over" in caplog.text
        assert run.load_checkpoint("latest").id == good.id
        again = run.save_checkpoint({"a": torch.full((9,), 2.0)}, step=5)
        assert again.stored_bytes > 0
        assert run.load_checkpoint(again.id, verify="digest")["a"].sum() == 18

    def test_where_none_is_good(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"a": torch.ones(9)}, step=1)
        flip(pack_of(lake, saved.id))
        with pytest.raises(DamagedCheckpointError, match="none of 1"):
            run.load_checkpoint("latest_good")
        with pytest.raises(CheckpointNotFoundError):
            run.load_checkpoint("latest_good")

    def test_the_rest_of_a_damaged_one_can_be_had(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"model": {"a": torch.ones(64), "b": torch.arange(3)}}, step=1)
        flip(pack_of(lake, saved.id))
        rest, lost = lake.checkpoints.open(saved.id).salvage()
        assert list(lost) == ["model/b"]
        assert rest["model"].keys() == {"a"}

    @pytest.mark.parametrize("keep", [0, 5, 100, -1])
    def test_a_manifest_cut_short(self, lake: Lake, run: Run, keep: int) -> None:
        saved = run.save_checkpoint({"a": torch.ones(64)}, step=1)
        path = lake.path / "checkpoints" / f"{saved.id}.json"
        path.write_bytes(path.read_bytes()[:keep] if keep >= 0 else path.read_bytes()[:-3])
        with pytest.raises(DamagedCheckpointError, match="manifest"):
            run.load_checkpoint("latest")

    def test_a_manifest_in_the_place_of_another(self, lake: Lake, run: Run) -> None:
        first, second = (run.save_checkpoint({"a": torch.ones(64) * step}, step=step) for step in (1, 2))
        folder = lake.path / "checkpoints"
        (folder / f"{second.id}.json").write_bytes((folder / f"{first.id}.json").read_bytes())
        with pytest.raises(DamagedCheckpointError, match=first.id):
            run.load_checkpoint(second.id)

    def test_every_flipped_byte_of_a_manifest_is_found(self, lake: Lake, run: Run) -> None:
        saved = run.save_checkpoint({"a": torch.ones(4)}, step=1)
        payload = (lake.path / "checkpoints" / f"{saved.id}.json").read_bytes()
        body = payload.index(b'"manifest":') + 11
        for place in range(len(payload) - 2):
            spoiled = bytearray(payload)
            spoiled[place] ^= 1
            if place >= body:
                with pytest.raises(DamagedCheckpointError):
                    Manifest.decode(bytes(spoiled), "m")


def test_a_loaded_checkpoint_reads_like_its_state(run: Run) -> None:
    run.save_checkpoint({"a": 1, "b": [2]}, step=3, epoch=1)
    loaded = run.load_checkpoint("latest")
    assert dict(loaded) == {"a": 1, "b": [2]}
    assert (len(loaded), loaded.step, loaded.epoch, "b" in loaded) == (2, 3, 1, True)


def test_a_reader_needs_no_permission_to_write(tmp_path: Path) -> None:
    with ckptlake.open(tmp_path / "lake") as lake, lake.run(capture=Capture.nothing()) as run:
        saved = run.save_checkpoint({"a": torch.ones(3)}, step=1)
    reader = ckptlake.open(tmp_path / "lake")
    assert reader.checkpoints.load("latest")["a"].sum() == 3
    assert reader.checkpoints.get("latest").id == saved.id
    assert reader._writer is None
