"""Checkpoints written for other programs, read back by those programs themselves."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp

from ckptlake import Lake, Run
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, StorageError


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 8))
    model[2].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def model(run: Run) -> torch.nn.Module:
    model, optimizer = trained()
    run.save_checkpoint(
        {"model": model, "optimizer": optimizer, "np": np.arange(6.0).reshape(2, 3), "epoch": 3}, step=7, epoch=3
    )
    return model


def equal(found: Any, expected: Any) -> bool:
    return list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lake")


class TestSafetensors:
    def test_a_part_has_the_keys_of_its_state_dict(self, lake: Lake, model: torch.nn.Module, tmp_path: Path) -> None:
        exported = lake.checkpoints.export("latest", tmp_path / "m.safetensors", part="model")
        found = safetensors.torch.load_file(exported.path)
        assert equal({name: found[name] for name in model.state_dict()}, model.state_dict())
        assert len(found) == len(model.state_dict()) == exported.num_tensors
        torch.nn.Sequential(*trained()[0]).load_state_dict(found)

    def test_the_whole_state_is_named_by_paths(self, lake: Lake, model: torch.nn.Module, tmp_path: Path) -> None:
        lake.checkpoints.export("latest", tmp_path / "all.safetensors")
        with safetensors.safe_open(tmp_path / "all.safetensors", "pt") as file:
            names = set(file.keys())
            assert file.metadata()["ckptlake.step"] == "7"
            assert torch.equal(file.get_tensor("model/0.weight"), model[0].weight)  # type: ignore[index]
            assert torch.equal(file.get_tensor("np"), torch.arange(6.0, dtype=torch.float64).reshape(2, 3))
        assert {"model/2.weight", "optimizer/state/0/exp_avg"} <= names

    def test_size_and_digest_are_those_of_the_file(self, lake: Lake, model: object, tmp_path: Path) -> None:
        for name in ("a.safetensors", "a.pt", "a.npz"):
            exported = lake.checkpoints.export("latest", tmp_path / name)
            payload = exported.path.read_bytes()
            assert (exported.size_bytes, exported.digest) == (len(payload), hashlib.sha256(payload).hexdigest())

    @pytest.mark.parametrize("dtype", [torch.complex128, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz])
    def test_types_it_lacks_name_the_tensor(self, lake: Lake, run: Run, tmp_path: Path, dtype: torch.dtype) -> None:
        run.save_checkpoint({"fine": torch.ones(1), "odd": torch.zeros(2).to(dtype)})
        with pytest.raises(InvalidInputError, match=r"'odd'.*only="):
            lake.checkpoints.export("latest", tmp_path / "x.safetensors")
        assert left(tmp_path) == []
        lake.checkpoints.export("latest", tmp_path / "x.safetensors", only="fine")
        assert list(safetensors.torch.load_file(tmp_path / "x.safetensors")) == ["fine"]

    def test_views_hold_their_own_elements(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        whole = torch.arange(12.0).reshape(3, 4)
        state = {"whole": whole, "column": whole[:, 1], "turned": whole.t(), "bf": torch.ones(3, dtype=torch.bfloat16)}
        run.save_checkpoint(state)
        lake.checkpoints.export("latest", tmp_path / "x.safetensors")
        found = safetensors.torch.load_file(tmp_path / "x.safetensors")
        assert equal({name: found[name] for name in state}, state)

    def test_sparse_tensors_are_refused(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        run.save_checkpoint({"s": torch.eye(3).to_sparse()})
        for name in ("x.safetensors", "x.npz"):
            with pytest.raises(InvalidInputError, match="'s' is sparse"):
                lake.checkpoints.export("latest", tmp_path / name)

    def test_keys_with_slashes_in_a_part(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        run.save_checkpoint({"model": {"a/b": torch.ones(1), "100%": torch.ones(2)}})
        lake.checkpoints.export("latest", tmp_path / "x.safetensors", part="model")
        assert set(safetensors.torch.load_file(tmp_path / "x.safetensors")) == {"a/b", "100%"}


class TestTorch:
    def test_it_opens_with_weights_only(self, lake: Lake, model: torch.nn.Module, tmp_path: Path) -> None:
        lake.checkpoints.export("latest", tmp_path / "x.pt")
        found = torch.load(tmp_path / "x.pt", weights_only=True)
        assert equal(found["model"], model.state_dict())
        assert isinstance(found["model"], OrderedDict)
        assert found["epoch"] == 3
        assert found["np"].tolist() == [[0, 1, 2], [3, 4, 5]]
        found["model"]["0.weight"].zero_()
        assert found["model"]["2.weight"].abs().sum() == 0, "tied tensors are one"
        _, optimizer = trained()
        optimizer.load_state_dict(found["optimizer"])

    def test_equal_bytes_do_not_become_one_tensor(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        run.save_checkpoint({"a": torch.zeros(4), "b": torch.zeros(4), "c": torch.zeros(2, dtype=torch.int64)})
        lake.checkpoints.export("latest", tmp_path / "x.pt")
        found = torch.load(tmp_path / "x.pt", weights_only=True)
        found["a"] += 1
        assert found["b"].tolist() == [0] * 4
        assert found["c"].dtype == torch.int64

    def test_one_part_alone(self, lake: Lake, model: torch.nn.Module, tmp_path: Path) -> None:
        lake.checkpoints.export("latest", tmp_path / "x.pth", part="model")
        assert equal(torch.load(tmp_path / "x.pth", weights_only=True), model.state_dict())
        with pytest.raises(InvalidInputError, match=r"'modell'.*'model', 'optimizer'"):
            lake.checkpoints.export("latest", tmp_path / "y.pth", part="modell")

    @pytest.mark.parametrize("format", ["safetensors", "torch", "pickle"])
    def test_from_other_formats(self, lake: Lake, run: Run, tmp_path: Path, format: str) -> None:
        run.save_checkpoint({"w": torch.arange(5.0), "n": np.ones(2)}, format=format)
        lake.checkpoints.export("latest", tmp_path / "x.pt")
        found = torch.load(tmp_path / "x.pt", weights_only=True)
        assert (found["w"].tolist(), found["n"].tolist()) == ([0, 1, 2, 3, 4], [1, 1])


class TestNumpy:
    def test_it_opens_without_pickle(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        odd = np.array([(1, 2.5)], dtype=[("a", ">i2"), ("b", "f8")])
        run.save_checkpoint(
            {"w": torch.arange(6.0).reshape(2, 3), "odd": odd, "none": np.empty((0, 2)), "s": np.float64(1)}
        )
        lake.checkpoints.export("latest", tmp_path / "x.npz")
        with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
            assert found["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
            assert found["odd"].dtype == odd.dtype
            assert found["odd"].tolist() == odd.tolist()
            assert found["none"].shape == (0, 2)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
    def test_types_numpy_lacks_can_be_widened(self, lake: Lake, run: Run, tmp_path: Path, dtype: torch.dtype) -> None:
        bits = torch.arange(256).to(torch.uint8).repeat(3).view(dtype)
        run.save_checkpoint({"w": bits.reshape(3, -1)})
        with pytest.raises(InvalidInputError, match=r"'w'.*widen=True"):
            lake.checkpoints.export("latest", tmp_path / "x.npz")
        lake.checkpoints.export("latest", tmp_path / "x.npz", widen=True)
        found = np.load(tmp_path / "x.npz")["w"]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, bits.reshape(3, -1).float().numpy())


class TestDistributed:
    def test_dcp_reads_it(self, lake: Lake, model: torch.nn.Module, tmp_path: Path) -> None:
        exported = lake.checkpoints.export("latest", tmp_path / "folder", format="dcp")
        target = {"model": {name: torch.zeros_like(value) for name, value in model.state_dict().items()}, "epoch": 0}
        with pytest.warns(UserWarning, match="single process"):
            dcp.load(target, checkpoint_id=tmp_path / "folder", no_dist=True)
        assert equal(target["model"], model.state_dict())
        assert target["epoch"] == 3
        assert exported.size_bytes == sum(path.stat().st_size for path in exported.path.iterdir())

    def test_a_folder_is_replaced_only_if_told(self, lake: Lake, model: torch.nn.Module, tmp_path: Path) -> None:
        lake.checkpoints.export("latest", tmp_path / "x.dcp")
        with pytest.raises(InvalidInputError, match="overwrite=True"):
            lake.checkpoints.export("latest", tmp_path / "x.dcp")
        lake.checkpoints.export("latest", tmp_path / "x.dcp", overwrite=True, only="model/0.bias")
        assert lake.checkpoints.probe(tmp_path / "x.dcp").num_tensors == 1
        assert left(tmp_path) == ["x.dcp"]


class TestWriting:
    def test_nothing_is_replaced_unless_told(self, lake: Lake, model: object, tmp_path: Path) -> None:
        target = tmp_path / "x.safetensors"
        target.write_text("mine")
        with pytest.raises(InvalidInputError, match="exists already"):
            lake.checkpoints.export("latest", target)
        assert target.read_text() == "mine"
        lake.checkpoints.export("latest", target, overwrite=True)
        assert safetensors.torch.load_file(target)
        assert left(tmp_path) == ["x.safetensors"]

    @pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.npz", "x.dcp"])
    def test_damage_leaves_no_file(self, lake: Lake, run: Run, tmp_path: Path, name: str) -> None:
        saved = run.save_checkpoint({"a": torch.zeros(3), "w": torch.arange(4096.0)})
        pack = lake.path / "blobs" / f"{saved.id}.safetensors"
        payload = bytearray(pack.read_bytes())
        payload[-9000] ^= 1
        pack.write_bytes(payload)
        with pytest.raises(DamagedCheckpointError, match="'w'"):
            lake.checkpoints.export("latest", tmp_path / name)
        assert left(tmp_path) == []

    def test_what_names_no_format_is_told(self, lake: Lake, model: object, tmp_path: Path) -> None:
        for name, format in (("x.onnx", None), ("x", None), ("x.pt", "zip")):
            with pytest.raises(InvalidInputError, match=r"\.safetensors"):
                lake.checkpoints.export("latest", tmp_path / name, format=format)
        with pytest.raises(InvalidInputError, match="no directory"):
            lake.checkpoints.export("latest", tmp_path / "missing" / "x.pt")
        with pytest.raises(InvalidInputError, match="'zzz'"):
            lake.checkpoints.export("latest", tmp_path / "x.pt", only="zzz")

    def test_a_full_disk_leaves_nothing(self, lake: Lake, model: object, tmp_path: Path) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(StorageError, match="free space"):
                lake.checkpoints.export("latest", tmp_path / "x.safetensors")
        assert left(tmp_path) == []

    def test_compressed_packs_export_the_same(self, lake: Lake, run: Run, tmp_path: Path) -> None:
        torch.manual_seed(1)
        state = {"w": torch.randn(400, 300), "b": torch.randn(300).bfloat16()}
        saved = run.save_checkpoint(state, step=1)
        run.save_checkpoint({"w": state["w"] + 1e-3, "b": state["b"]}, step=2)
        names = ("x.safetensors", "x.npz", "x.pt")
        for name in names:
            lake.checkpoints.export(saved.id, tmp_path / f"raw-{name}", widen=True)
        lake.checkpoints.compact(keep_raw=0)
        assert not list((lake.path / "blobs").glob("*.safetensors"))
        for name in names:
            lake.checkpoints.export(saved.id, tmp_path / f"small-{name}", widen=True)
            if name != "x.pt":
                assert (tmp_path / f"raw-{name}").read_bytes() == (tmp_path / f"small-{name}").read_bytes()
        assert equal(torch.load(tmp_path / "small-x.pt", weights_only=True), state)


MEASURED = """
import resource, sys
import ckptlake
lake = ckptlake.open(sys.argv[1])
if sys.argv[3].endswith("pt"):
    import torch
lake.checkpoints.open("latest").close()
def own():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields["RssAnon"].split()[0])
before = own()
import threading
peak, done = [0], threading.Event()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], own())
watcher = threading.Thread(target=watch)
watcher.start()
lake.checkpoints.export("latest", sys.argv[2] + "/" + sys.argv[3])
done.set()
watcher.join()
print(peak[0] - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted by Linux's /proc")
@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.pt"])
def test_memory_does_not_grow_with_the_checkpoint(lake: Lake, run: Run, tmp_path: Path, name: str) -> None:
    run.save_checkpoint({str(number): torch.full((1 << 20,), float(number)) for number in range(48)})
    run.finish()
    command = [sys.executable, "-c", MEASURED, str(lake.path), str(tmp_path), name]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 64 * 1024, f"{grown} KiB for 192 MiB of tensors"
