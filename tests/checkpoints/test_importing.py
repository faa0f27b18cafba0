"""Checkpoints of other programs, written by those programs themselves and imported."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp

import ckptlake
from ckptlake import Lake, Run
from ckptlake.config import Capture
from ckptlake.errors import CheckpointNotFoundError, InvalidInputError, NotFoundError, UnsafeFileError


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "encoder.0.weight": torch.randn(5, 3), "encoder.0.bias": torch.randn(5).bfloat16(), "a/b": torch.arange(4),
        "empty": torch.empty(0, 2), "scalar": torch.tensor(2.0), "fp8": torch.ones(3).to(torch.float8_e4m3fn),
    }  # fmt: skip


def equal(found: Any, expected: Any) -> bool:
    def bits(tensor: Any) -> bytes:
        return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()  # type: ignore[no-any-return]

    return list(found) == list(expected) and all(
        (found[n].dtype, found[n].shape, bits(found[n])) == (expected[n].dtype, expected[n].shape, bits(expected[n]))
        for n in expected
    )


class TestSafetensors:
    def test_names_stay_keys(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        safetensors.torch.save_file(weights(), tmp_path / "w.safetensors")
        saved = lake.checkpoints.import_(tmp_path / "w.safetensors", run, step=3, metrics={"loss": 1}, alias="base")
        found = run.load_checkpoint("base").state
        assert equal({name: found[name] for name in weights()}, weights())
        record = lake.checkpoints.get(saved.id)
        assert (record.step, dict(record.metrics)) == (3, {"loss": 1.0})
        assert record.note == "imported from w.safetensors (safetensors)"

    def test_names_that_are_tied_come_back_as_one(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        model[1].weight = model[0].weight
        safetensors.torch.save_model(model, str(tmp_path / "m.safetensors"))
        lake.checkpoints.import_(tmp_path / "m.safetensors", run)
        other = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
        loaded = run.load_checkpoint(into=other)
        assert torch.equal(other[1].weight, model[0].weight)
        assert loaded["0.weight"].data_ptr() == loaded["1.weight"].data_ptr()

    def test_an_export_comes_back_nested(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        run.save_checkpoint({"model": weights(), "n": {"x": torch.ones(2)}}, step=8, epoch=2)
        for name in ("x.safetensors", "x.npz"):
            lake.checkpoints.export("latest", tmp_path / name, widen=True, only="*b*")
            saved = lake.checkpoints.import_(tmp_path / name, run)
            assert (saved.step, saved.epoch) == (8, 2)
            assert list(run.load_checkpoint(saved.id)["model"]["a/b"]) == [0, 1, 2, 3]


class TestHuggingFace:
    def shards(self, folder: Path) -> dict[str, torch.Tensor]:
        folder.mkdir(parents=True)
        tensors = weights()
        names = list(tensors)
        weight_map = {}
        for number, part in enumerate((names[:2], names[2:]), 1):
            file = f"model-0000{number}-of-00002.safetensors"
            safetensors.torch.save_file({name: tensors[name] for name in part}, folder / file)
            weight_map |= dict.fromkeys(part, file)
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        return tensors

    def test_a_folder_or_its_index(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        tensors = self.shards(tmp_path / "hf")
        (tmp_path / "hf" / "trainer_state.json").write_text('{"global_step": 500, "epoch": 2.5}')
        for source in (tmp_path / "hf", tmp_path / "hf" / "model.safetensors.index.json"):
            saved = lake.checkpoints.import_(source, run)
            assert equal(run.load_checkpoint(saved.id).state, tensors)
        assert lake.checkpoints.probe(tmp_path / "hf").step == 500
        assert lake.checkpoints.probe(tmp_path / "hf").kind == "huggingface-safetensors"

    def test_the_links_of_its_cache_are_followed(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        folder = tmp_path / "models--x" / "snapshots" / "abc"
        tensors = self.shards(folder)
        blobs = tmp_path / "models--x" / "blobs"
        blobs.mkdir()
        for number, path in enumerate(folder.iterdir()):
            path.rename(blobs / str(number))
            path.symlink_to(Path("..", "..", "blobs", str(number)))
        lake.checkpoints.import_(folder, run)
        assert equal(run.load_checkpoint().state, tensors)

    def test_older_shards(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-1.bin")
        torch.save({"b": torch.ones(3)}, tmp_path / "pytorch_model-2.bin")
        index = {"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        lake.checkpoints.import_(tmp_path, run)
        assert {name: len(value) for name, value in run.load_checkpoint().items()} == {"a": 2, "b": 3}

    def test_a_model_of_one_file(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        safetensors.torch.save_file(weights(), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text("{}")
        assert lake.checkpoints.probe(tmp_path).num_tensors == len(weights())


class TestTorch:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_training_state(self, lake: Lake, run: Run, tmp_path: Path, zipped: bool) -> None:
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 4, "global_step": 99}
        torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        saved = lake.checkpoints.import_(tmp_path / "x.pt", run)
        assert (saved.step, saved.epoch) == (99, 4)
        loaded = run.load_checkpoint(saved.id, into={"model": torch.nn.Linear(3, 2)})
        assert equal(loaded["model"], model.state_dict())
        optimizer.load_state_dict(loaded["optimizer"])

    def test_what_the_caller_says_goes_first(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        torch.save({"epoch": 4, "step": 2.0}, tmp_path / "x.pt")
        saved = lake.checkpoints.import_(tmp_path / "x.pt", run, step=7)
        assert (saved.step, saved.epoch) == (7, 4)

    def test_a_module_saved_whole_gives_its_weights(
        self, lake: Lake, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        torch.save(model, tmp_path / "x.pt")
        with caplog.at_level(logging.WARNING):
            lake.checkpoints.import_(tmp_path / "x.pt", run)
        assert equal(dict(run.load_checkpoint().state), dict(model.state_dict()))
        assert "torch.nn.modules.linear.Linear" in caplog.text

    def test_code_needs_trust(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        torch.save({"w": torch.ones(2), "f": functools.partial(int, "3")}, tmp_path / "x.pt")
        with pytest.raises(UnsafeFileError, match=r"functools\.partial.*allow_unsafe"):
            lake.checkpoints.import_(tmp_path / "x.pt", run)
        saved = lake.checkpoints.import_(tmp_path / "x.pt", run, allow_unsafe=True, format="pickle")
        assert run.load_checkpoint(saved.id, allow_unsafe=True)["f"]() == 3


class TestLightning:
    def saved(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Path:
        """Write what Lightning's Trainer writes, with a class of a package that is not here when it is read."""
        package = types.ModuleType("their_package")

        class Settings(dict):  # type: ignore[type-arg]
            pass

        class Choice:
            pass

        for kind in (Settings, Choice):
            kind.__module__, kind.__qualname__ = "their_package", kind.__name__
            setattr(package, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, "their_package", package)
        checkpoint = {
            "epoch": 2, "global_step": 300, "pytorch-lightning_version": "2.5.0", "state_dict": {"w": torch.ones(3)},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}],
            "lr_schedulers": [{"last_epoch": 2}], "loops": {}, "hparams_name": "kwargs",
            "hyper_parameters": Settings(lr=0.1, choice=Choice(), path=Path("data")), **more,
        }  # fmt: skip
        torch.save(checkpoint, tmp_path / "x.ckpt")
        monkeypatch.delitem(sys.modules, "their_package")
        return tmp_path / "x.ckpt"

    def test_all_but_code_is_kept(
        self, lake: Lake, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = self.saved(tmp_path, monkeypatch)
        probed = lake.checkpoints.probe(path)
        assert (probed.kind, probed.step, probed.epoch, probed.num_tensors) == ("lightning", 300, 2, 2)
        assert "their_package.Choice" in probed.left_out
        with caplog.at_level(logging.WARNING):
            saved = lake.checkpoints.import_(path, run)
        assert "their_package.Choice" in caplog.text
        state = run.load_checkpoint(saved.id).state
        assert (saved.step, saved.epoch) == (300, 2)
        assert state["hyper_parameters"]["lr"] == 0.1
        assert state["hyper_parameters"]["choice"] == "<their_package.Choice>"
        assert state["optimizer_states"][0]["state"][0]["exp_avg"].tolist() == [1, 1, 1]
        lake.checkpoints.export(saved.id, tmp_path / "back.pt")
        assert torch.load(tmp_path / "back.pt", weights_only=True)["state_dict"]["w"].tolist() == [1, 1, 1]

    def test_code_among_the_weights_is_refused(
        self, lake: Lake, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = self.saved(tmp_path, monkeypatch, state_dict={"w": functools.partial(int)})
        with pytest.raises(UnsafeFileError, match=r"functools\.partial|their_package"):
            lake.checkpoints.import_(path, run)


class TestNumpy:
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_arrays_of_every_kind(self, lake: Lake, run: Run, tmp_path: Path, save: Any) -> None:
        arrays = {
            "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">i4"), "s": np.float32(3),
            "none": np.empty((0, 3)), "a/b": np.zeros((300, 300)), "text": np.array(["x", "yz"]), "c": np.array([1j]),
            "t": np.array(["2024-01-01"], "M8[D]"), "v": np.array([(1, 2)], dtype=[("a", "i2"), ("b", "f4")]),
        }  # fmt: skip
        save(tmp_path / "x.npz", **arrays)
        assert lake.checkpoints.probe(tmp_path / "x.npz").num_tensors == len(arrays)
        lake.checkpoints.import_(tmp_path / "x.npz", run)
        found = run.load_checkpoint().state
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


class TestDistributed:
    def save(self, state: Any, folder: Path) -> None:
        with pytest.warns(UserWarning, match="single process"):
            dcp.save(state, storage_writer=dcp.FileSystemWriter(folder, thread_count=2), no_dist=True)

    def test_what_dcp_has_saved(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        state = {"model": weights(), "list": [torch.ones(2), 5], "step": 12, "epoch": 3, "none": None, "lr": 0.5}
        self.save(state, tmp_path / "d")
        probed = lake.checkpoints.probe(tmp_path / "d")
        assert (probed.kind, probed.step, probed.epoch, probed.num_tensors) == ("dcp", 12, 3, len(weights()) + 1)
        for source in (tmp_path / "d", tmp_path / "d" / ".metadata"):
            saved = lake.checkpoints.import_(source, run)
            found = run.load_checkpoint(saved.id).state
            assert (saved.step, saved.epoch, found["lr"], found["none"]) == (12, 3, 0.5, None)
            assert equal({name: found["model"][name] for name in weights()}, weights())
            assert found["list"][0].tolist() == [1, 1]
            assert found["list"][1] == 5

    def test_an_index_with_members_written_as_attributes(
        self, lake: Lake, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As the first releases of Python 3.11 write the members of enumerations."""
        from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

        def as_attribute(member: _MEM_FORMAT_ENCODING, protocol: int) -> tuple[Any, ...]:
            return getattr, (type(member), member.name)

        monkeypatch.setattr(_MEM_FORMAT_ENCODING, "__reduce_ex__", as_attribute)
        self.save({"w": torch.arange(3.0)}, tmp_path / "d")
        assert b"getattr" in (tmp_path / "d" / ".metadata").read_bytes()
        lake.checkpoints.import_(tmp_path / "d", run)
        assert run.load_checkpoint()["w"].tolist() == [0.0, 1.0, 2.0]

    def test_shards_are_put_together(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        """The index of two ranks that each saved half the rows, as FSDP does, made from one of a whole tensor."""
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

        whole = torch.arange(24.0).reshape(6, 4)
        self.save({"w": whole[:4].clone(), "rest": whole[4:].clone()}, tmp_path / "d")
        reader = dcp.FileSystemReader(tmp_path / "d")
        metadata = reader.read_metadata()
        rest = metadata.state_dict_metadata.pop("rest")
        tensor = metadata.state_dict_metadata["w"]
        tensor.size = torch.Size([6, 4])
        tensor.chunks.append(ChunkStorageMetadata(torch.Size([4, 0]), rest.chunks[0].sizes))
        for index in list(metadata.storage_data):
            if index.fqn == "rest":
                metadata.storage_data[MetadataIndex("w", [4, 0])] = metadata.storage_data.pop(index)
        import pickle

        (tmp_path / "d" / ".metadata").write_bytes(pickle.dumps(metadata))
        lake.checkpoints.import_(tmp_path / "d", run)
        assert torch.equal(run.load_checkpoint()["w"], whole)


class TestLakes:
    def test_a_checkpoint_of_another_lake(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        whole = torch.arange(6.0)
        state = {"w": whole, "tied": whole, "n": (1, np.float32(2)), 3: {"x"}}
        with ckptlake.open(tmp_path / "other") as other, other.run(experiment="e", capture=Capture.nothing()) as theirs:
            saved = theirs.save_checkpoint(state, step=4, epoch=1, metrics={"loss": 0.5}, note="good")
        mine = lake.checkpoints.import_((tmp_path / "other", saved.id), run)
        assert mine.digest == saved.digest
        record = lake.checkpoints.get(mine.id)
        assert (record.step, record.epoch, dict(record.metrics), record.note) == (4, 1, {"loss": 0.5}, "good")
        found = run.load_checkpoint(mine.id).state
        assert found["n"] == (1, np.float32(2))
        assert found["tied"] is not None
        assert found["tied"].data_ptr() == found["w"].data_ptr()
        with pytest.raises(NotFoundError):
            lake.checkpoints.import_((tmp_path / "other", "20200101-000000-aaaaaaaaaa"), run)


def test_what_cannot_be_imported_is_told(lake: Lake, run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello, world")
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "none").mkdir()
    for name in ("x.txt", "x.json", "none"):
        with pytest.raises(InvalidInputError, match=name):
            lake.checkpoints.import_(tmp_path / name, run)
    with pytest.raises(NotFoundError, match="missing"):
        lake.checkpoints.import_(tmp_path / "missing", run)
    with pytest.raises(InvalidInputError, match="open run"):
        lake.checkpoints.import_(tmp_path / "x.txt", run.id)  # type: ignore[arg-type]
    assert lake.checkpoints.list() == []
    assert CheckpointNotFoundError.__mro__[1] is NotFoundError
    assert os.listdir(tmp_path / "none") == []
