"""Files of `torch.save`: the same tensors as torch's own reader gives, and none of what a file may ask beside."""

from __future__ import annotations

import argparse
import copyreg
import gc
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_pickles import ATTACKS, EXTENSION, TORCH_ATTACKS
from hypothesis import given, settings
from hypothesis import strategies as st
from pickle_assembly import (
    NOTHING,
    call,
    dict_of,
    list_of,
    name,
    number,
    real,
    storage,
    stream_storage,
    tensor,
    text,
    torch_stream,
    torch_zip,
    tuple_of,
    whole,
)

import ckptlake
from ckptlake.checkpoints.formats.torch_files import TorchFile, read_torch_file, verify_torch_file
from ckptlake.checkpoints.formats.unpickling import REFUSE, STUB, Policy, Stub, load_pickle, state_dict_of
from ckptlake.errors import CkptlakeError, DamagedCheckpointError, InvalidInputError, UnsafeFileError

CHILD = Path(__file__).with_name("unpickling_child.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(ckptlake.__file__).parents[1])}
FOREIGN = os.environ.get("CKPTLAKE_FOREIGN_CHECKPOINTS")

each_protocol = pytest.mark.parametrize("protocol", range(1, 6))
each_container = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
each_policy = pytest.mark.parametrize("policy", Policy)


def content_of(tensor: torch.Tensor) -> bytes:
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def same_tensor(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    if type(found) is not type(wanted) or found.layout != wanted.layout or found.requires_grad != wanted.requires_grad:
        return False
    if (found.dtype, found.shape, vars(found)) != (wanted.dtype, wanted.shape, vars(wanted)):
        return False
    if found.layout != torch.strided:
        marked = found.layout != torch.sparse_coo or found.is_coalesced() == wanted.is_coalesced()
        return marked and torch.equal(found.to_dense(), wanted.to_dense())
    if found.is_quantized:
        return found.qscheme() == wanted.qscheme() and torch.equal(found.dequantize(), wanted.dequantize())
    bits = (found.is_conj(), found.is_neg()) == (wanted.is_conj(), wanted.is_neg())
    return bits and found.stride() == wanted.stride() and content_of(found) == content_of(wanted)


def same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, torch.Tensor):
        return isinstance(found, torch.Tensor) and same_tensor(found, wanted)
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, dict):
        attributes = getattr(found, "__dict__", None) == getattr(wanted, "__dict__", None)
        return attributes and list(found) == list(wanted) and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


def with_attribute(tensor: torch.Tensor) -> torch.Tensor:
    tensor.note = {"scale": 2}  # type: ignore[attr-defined]
    return tensor


def quietly(make: Any) -> Any:
    """torch warns that it may drop sparse and quantized tensors one day, and that it has them at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    for _ in range(3):
        model(torch.randn(5, 3)).sum().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


MODEL, OPTIMIZER, SCHEDULER = trained()
KINDS = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu, torch.complex128, torch.complex64,
    torch.complex32, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16,
    torch.uint8, torch.bool,
]  # fmt: skip
NOISE = torch.from_numpy(np.random.default_rng(0).integers(0, 2, 16 * 12, dtype=np.uint8))
CASES: dict[str, Any] = {
    **{str(kind): NOISE.view(kind)[:12].reshape(3, 4) for kind in KINDS},
    "state dict": MODEL.state_dict(),
    "AdamW": OPTIMIZER.state_dict(),
    "scheduler": {key: value for key, value in SCHEDULER.state_dict().items() if not callable(value)},
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "frozen parameter": torch.nn.Parameter(torch.ones(2), requires_grad=False),
    "parameter with an attribute": with_attribute(torch.nn.Parameter(torch.ones(2))),
    "buffer": torch.nn.Buffer(torch.ones(2)),
    "attribute": with_attribute(torch.ones(2)),
    "needs a gradient": torch.ones(2, requires_grad=True),
    "scalar": torch.tensor(1.5),
    "empty": torch.empty(0, 3),
    "view": torch.arange(20)[3:15:4],
    "transposed": torch.randn(3, 4).t(),
    "channels last": torch.randn(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
    "expanded": torch.ones(3, 1).expand(3, 5),
    "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
    "negated": torch._neg_view(torch.randn(3)),
    "coordinates": quietly(lambda: torch.eye(3).to_sparse()),
    "coordinates twice": quietly(lambda: torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (2, 2))),
    "rows": quietly(lambda: torch.eye(3).to_sparse_csr()),
    "columns": quietly(lambda: torch.eye(3).to_sparse_csc()),
    "blocks": quietly(lambda: torch.eye(4).to_sparse_bsr((2, 2))),
    "quantized": quietly(lambda: torch.quantize_per_tensor(torch.randn(4, 3), 0.1, 2, torch.qint8)),
    "quantized to 32 bits": quietly(lambda: torch.quantize_per_tensor(torch.randn(4), 0.1, 2, torch.qint32)),
    "quantized by channel": quietly(
        lambda: torch.quantize_per_channel(
            torch.randn(4, 2), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 1, torch.quint8
        )
    ),
    "generator": torch.get_rng_state(),
    "descriptions": [torch.Size([1, 2]), torch.device("cuda", 1), torch.device("cpu"), torch.bfloat16, torch.strided],
    "many": {str(index): torch.full((index % 7,), index) for index in range(150)},
    "no tensor": {"epoch": 3, "metrics": [0.5, None], "numpy": np.float32(2.5)},
}  # fmt: skip


def saved(value: object, path: Path, *, protocol: int = 2, zipped: bool = True) -> Path:
    quietly(lambda: torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped))
    return path


@each_container
@each_protocol
@pytest.mark.parametrize("case", CASES)
def test_the_same_as_torch_reads(case: str, protocol: int, zipped: bool, tmp_path: Path) -> None:
    path = saved(CASES[case], tmp_path / "file.pt", protocol=protocol, zipped=zipped)
    found = read_torch_file(path)
    assert (found.stubs, found.container) == ((), "zip" if zipped else "stream")
    assert same(found.value, CASES[case])
    if zipped or not str(CASES[case]).startswith("tensor") or case in ("torch.float32", "view", "conjugated"):
        with suppress(AttributeError):  # torch itself cannot read untyped storages from a stream
            assert same(found.value, quietly(lambda: torch.load(path, weights_only=False)))
    verify_torch_file(path)


def test_protocol_4_is_read_where_torch_does_not(tmp_path: Path) -> None:
    path = saved(MODEL.state_dict(), tmp_path / "file.pt", protocol=4)
    with pytest.raises(pickle.UnpicklingError):
        quietly(lambda: torch.load(path, weights_only=True))
    assert same(read_torch_file(path).value, MODEL.state_dict())


@each_container
def test_protocol_0_is_told_to_keep_no_tensors(zipped: bool, tmp_path: Path) -> None:
    path = saved(torch.ones(2), tmp_path / "file.pt", protocol=0, zipped=zipped)
    with pytest.raises(InvalidInputError, match="protocol 0"):
        read_torch_file(path)
    assert read_torch_file(saved([1, "a"], path, protocol=0, zipped=zipped)).value == [1, "a"]


@each_container
def test_shared_storages_are_shared_again(zipped: bool, tmp_path: Path) -> None:
    weight = torch.zeros(4, 3)
    state = {"a": weight, "b": weight, "row": weight[2], "transposed": weight.t(), "other": torch.zeros(2)}
    found = read_torch_file(saved(state, tmp_path / "tied.pt", zipped=zipped)).value
    found["a"][2, 1] = 7
    assert found["b"] is found["a"]
    assert found["row"].tolist() == [0, 7, 0]
    assert found["transposed"][1, 2] == 7
    assert found["other"].untyped_storage().data_ptr() != found["a"].untyped_storage().data_ptr()


@each_container
def test_writing_to_a_tensor_does_not_reach_the_file(zipped: bool, tmp_path: Path) -> None:
    path = saved(torch.zeros(1000), tmp_path / "file.pt", zipped=zipped)
    before = path.read_bytes()
    found = read_torch_file(path).value
    found += 1
    assert found.sum() == 1000
    assert path.read_bytes() == before


def test_tensors_live_on_when_the_file_is_gone(tmp_path: Path) -> None:
    path = saved({"a": torch.arange(5000)}, tmp_path / "file.pt")
    weight = read_torch_file(path).value["a"]
    path.unlink()
    gc.collect()
    assert weight.sum() == 4999 * 2500


@pytest.mark.skipif(sys.platform != "linux", reason="mapped files are looked up in /proc")
def test_tensors_are_the_mapped_file(tmp_path: Path) -> None:
    path = saved({"a": torch.arange(5000), "b": torch.ones(9)}, tmp_path / "file.pt")
    found = read_torch_file(path).value
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    ranges = [tuple(int(end, 16) for end in words[0].split("-")) for words in maps]
    for weight in found.values():
        assert any(start <= weight.data_ptr() < end for start, end in ranges)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_packed_again_is_read(compression: int, tmp_path: Path) -> None:
    path, again = saved(MODEL.state_dict(), tmp_path / "file.pt"), tmp_path / "again.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(again, "w", compression) as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry))
    assert same(read_torch_file(again).value, MODEL.state_dict())
    verify_torch_file(again)


def test_the_other_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    wanted = np.array([1.5, -2.0, 3e30], np.float32)
    swapped = wanted.astype(">f4").tobytes()
    plane = whole(tensor(storage("0", 3), 0, (3,), (1,)))
    path.write_bytes(torch_zip(plane, {"0": swapped}, order="big"))
    assert read_torch_file(path).value.tolist() == wanted.tolist()
    pairs = whole(tensor(storage("0", 1, "ComplexFloatStorage"), 0, (1,), (1,)))
    path.write_bytes(torch_zip(pairs, {"0": swapped[:8]}, order="big"))
    assert read_torch_file(path).value.tolist() == [1.5 - 2j]
    path.write_bytes(torch_zip(whole(storage("0", 12, "UntypedStorage")), {"0": swapped}, order="big"))
    with pytest.raises(InvalidInputError, match="byte order"):
        read_torch_file(path)
    path.write_bytes(torch_zip(plane, {"0": swapped}, order="middle"))
    with pytest.raises(DamagedCheckpointError, match="byte order"):
        read_torch_file(path)


def test_views_of_storages_in_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    view = tuple_of(text("1"), number(1), number(2))
    content = np.arange(4, dtype=np.float32).tobytes()
    path.write_bytes(torch_stream(whole(tensor(stream_storage("0", 4, view=view), 0, (2,), (1,))), {"0": (4, content)}))
    assert read_torch_file(path).value.tolist() == [1.0, 2.0]
    outside = tuple_of(text("1"), number(3), number(2))
    path.write_bytes(torch_stream(whole(stream_storage("0", 4, view=outside)), {"0": (4, content)}))
    with pytest.raises(DamagedCheckpointError):
        read_torch_file(path)


class Net(torch.nn.Module):
    """A module of a program that whoever reads the file need not have."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(2, 3)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.zeros(3))


class Tagged(torch.Tensor):
    pass


@each_container
def test_weights_of_a_whole_module(zipped: bool, tmp_path: Path) -> None:
    net = Net()
    path = saved({"net": net, "hparams": argparse.Namespace(lr=0.1)}, tmp_path / "net.pt", zipped=zipped)
    with pytest.raises(UnsafeFileError, match=r"test_torch_files\.Net.*allow_unsafe=True"):
        read_torch_file(path)
    found = read_torch_file(path, STUB)
    assert found.stubs == (f"{__name__}.Net", "torch.nn.modules.linear.Linear")
    assert found.value["hparams"].lr == 0.1
    assert isinstance(found.value["net"], Stub)
    weights, expected = state_dict_of(found.value["net"]), net.state_dict()
    assert list(weights) == list(expected)
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_a_tensor_of_a_subclass_is_the_plain_one_inside(tmp_path: Path) -> None:
    path = saved(torch.arange(3.0).as_subclass(Tagged), tmp_path / "file.pt")
    with pytest.raises(UnsafeFileError, match="Tagged"):
        read_torch_file(path)
    found = read_torch_file(path, STUB)
    assert found.stubs == (f"{__name__}.Tagged",)
    assert type(found.value) is torch.Tensor
    assert found.value.tolist() == [0.0, 1.0, 2.0]


BAD_PLACES = {
    "behind the end": (0, (5,), (1,)),
    "offset behind the end": (4, (1,), (1,)),
    "offset before the start": (-1, (1,), (1,)),
    "a step behind the end": (0, (2, 2), (3, 1)),
    "a step backwards": (3, (2,), (-1,)),
    "a negative size": (0, (-1,), (1,)),
    "too few steps": (0, (2, 2), (1,)),
    "an offset without end": (1 << 62, (1,), (1,)),
    "a size without end": (0, (1 << 62,), (1,)),
    "a step without end": (0, (2,), (1 << 62,)),
    "more than 64 bits": (0, (1 << 80,), (0,)),
    "too many axes": (0, (1,) * 65, (1,) * 65),
}


@each_container
@pytest.mark.parametrize("place", BAD_PLACES)
def test_a_tensor_lies_within_its_storage(place: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    if zipped:
        path.write_bytes(torch_zip(whole(tensor(storage("0", 4), *BAD_PLACES[place])), {"0": bytes(16)}))
    else:
        path.write_bytes(torch_stream(whole(tensor(stream_storage("0", 4), *BAD_PLACES[place])), {"0": (4, bytes(16))}))
    with pytest.raises(DamagedCheckpointError):
        read_torch_file(path)


def rebuilt(function: str, *args: bytes, module: str = "torch._utils") -> bytes:
    return whole(call(name(module, function), *args))


def vector(count: int = 4, kind: str = "FloatStorage") -> bytes:
    return tensor(storage(kind, count, kind), 0, (count,), (1,))


HOOKS = call(name("collections", "OrderedDict"))
VECTOR = (storage("FloatStorage", 4), number(0), tuple_of(number(4)), tuple_of(number(1)))
FLAGS = (pickle.NEWFALSE, HOOKS)
INDICES = tensor(storage("LongStorage", 4, "LongStorage"), 0, (2, 2), (2, 1))
BAD_TENSORS = {
    "indices outside": rebuilt(
        "_rebuild_sparse_tensor",
        call(name("torch.serialization", "_get_layout"), text("torch.sparse_coo")),
        tuple_of(INDICES, vector(2), tuple_of(number(1), number(1)), pickle.NEWTRUE),
    ),
    "twice, and said to be once": rebuilt(
        "_rebuild_sparse_tensor",
        call(name("torch.serialization", "_get_layout"), text("torch.sparse_coo")),
        tuple_of(
            tensor(storage("LongStorage", 4, "LongStorage"), 0, (2, 2), (0, 0)),
            vector(2),
            tuple_of(number(9), number(9)),
            pickle.NEWTRUE,
        ),
    ),
    "rows that do not fit": rebuilt(
        "_rebuild_sparse_tensor",
        call(name("torch.serialization", "_get_layout"), text("torch.sparse_csr")),
        tuple_of(vector(3, "LongStorage"), vector(2, "LongStorage"), vector(2), tuple_of(number(5), number(5))),
    ),
    "no such layout": rebuilt("_get_layout", text("torch.imaginary"), module="torch.serialization"),
    "conjugated without an imaginary part": rebuilt(
        "_rebuild_tensor_v2", *VECTOR, *FLAGS, dict_of(text("conj"), pickle.NEWTRUE)
    ),
    "a bit that is none": rebuilt("_rebuild_tensor_v2", *VECTOR, *FLAGS, dict_of(text("other"), pickle.NEWTRUE)),
    "a gradient of integers": rebuilt("_rebuild_parameter", vector(4, "LongStorage"), pickle.NEWTRUE, HOOKS),
    "a parameter of no tensor": rebuilt("_rebuild_parameter", number(1), pickle.NEWTRUE, HOOKS),
    "a plain tensor of quantized elements": rebuilt(
        "_rebuild_tensor_v2", storage("q", 4, "QInt8Storage"), *VECTOR[1:], *FLAGS
    ),
    "a quantized tensor of plain elements": rebuilt(
        "_rebuild_qtensor", *VECTOR, tuple_of(name("torch", "per_tensor_affine"), real(1.0), number(0)), *FLAGS
    ),
    "an axis outside": rebuilt(
        "_rebuild_qtensor",
        storage("q", 4, "QInt8Storage"),
        *VECTOR[1:],
        tuple_of(name("torch", "per_channel_affine"), vector(), vector(), number(1)),
        *FLAGS,
    ),
    "scales of another size": rebuilt(
        "_rebuild_qtensor",
        storage("q", 4, "QInt8Storage"),
        *VECTOR[1:],
        tuple_of(name("torch", "per_channel_affine"), vector(2), vector(2), number(0)),
        *FLAGS,
    ),
    "no storage": rebuilt("_rebuild_tensor_v2", number(1), *VECTOR[1:], *FLAGS),
    "a storage that is missing": whole(tensor(storage("missing", 4), 0, (4,), (1,))),
    "a storage of no kind": whole(storage("FloatStorage", 4, "_utils")),
    "a reference that is none": whole(list_of(), pickle.BINPERSID),
    "a reference to something else": whole(
        tuple_of(text("module"), NOTHING, NOTHING, NOTHING, NOTHING), pickle.BINPERSID
    ),
    "a device of nothing": rebuilt("device", text("toaster"), module="torch"),
    "a size of texts": rebuilt("Size", list_of(text("a")), module="torch"),
}


@each_policy
@pytest.mark.parametrize("case", BAD_TENSORS)
def test_what_torch_would_trust_is_checked(case: str, policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    contents = {"FloatStorage": bytes(16), "LongStorage": np.array([0, 9, 0, 9]).tobytes(), "q": bytes(4)}
    path.write_bytes(torch_zip(BAD_TENSORS[case], contents))
    with pytest.raises((DamagedCheckpointError, UnsafeFileError)):
        read_torch_file(path, policy)


@pytest.mark.parametrize("attribute", ["data", "numpy", "__class__", "requires_grad", "backward", "_backward_hooks"])
def test_no_attribute_of_a_tensor_is_replaced(attribute: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    state = dict_of(text(attribute), number(1))
    kinds = {
        "tensor": rebuilt(
            "_rebuild_from_type_v2",
            name("torch._utils", "_rebuild_tensor_v2"),
            name("torch", "Tensor"),
            tuple_of(*VECTOR, *FLAGS),
            state,
            module="torch._tensor",
        ),
        "parameter": rebuilt("_rebuild_parameter_with_state", vector(), pickle.NEWTRUE, HOOKS, state),
        "by BUILD": whole(vector(), state, pickle.BUILD),
        "of the class": whole(name("torch", "Tensor"), state, pickle.BUILD),
    }
    for pickled in kinds.values():
        path.write_bytes(torch_zip(pickled, {"FloatStorage": bytes(16)}))
        for policy in Policy:
            with pytest.raises(UnsafeFileError):
                read_torch_file(path, policy)


@pytest.fixture
def registered() -> Iterator[None]:
    copyreg.add_extension(*EXTENSION)
    yield
    copyreg.remove_extension(*EXTENSION)


def test_every_attack_on_torch_is_one(tmp_path: Path) -> None:
    command = [sys.executable, CHILD, "attack", tmp_path, "TORCH_ATTACKS"]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, timeout=200)
    assert [attack for index, attack in enumerate(TORCH_ATTACKS) if not (tmp_path / f"canary{index}").exists()] == []


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("attack", [*TORCH_ATTACKS, *ATTACKS])
def test_attacks_are_refused_and_stubs_of_them_are_inert(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, path = tmp_path / "canary", tmp_path / "file.pt"
    monkeypatch.syspath_prepend(tmp_path)
    pickled = {**ATTACKS, **TORCH_ATTACKS}[attack](canary)
    with pytest.raises(UnsafeFileError):
        load_pickle(memoryview(pickled), REFUSE)
    for content in (torch_zip(pickled, {}), torch_stream(pickled, {})):
        path.write_bytes(content)
        with pytest.raises(UnsafeFileError):
            read_torch_file(path, REFUSE)
        with suppress(UnsafeFileError, DamagedCheckpointError):
            assert read_torch_file(path, STUB).stubs
    assert not canary.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is bounded by Linux's own means")
def test_bombs_go_off_without_noise() -> None:
    """No bomb costs more than a small multiple of its own bytes, a hang, or an error of Python's own."""
    command = [sys.executable, CHILD, "bombs", "TORCH_BOMBS"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=250, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (results[-1:], done.stderr[-2000:])
    assert [result for result in results if result[1] == "REFUSE" and result[2] == "value"] == []
    assert [result for result in results if result[-1] > 100 * result[-2] + (32 << 20)] == []


def test_a_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    quietly(lambda: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), path))
    with pytest.raises(UnsafeFileError, match=r"TorchScript.*state_dict"):
        read_torch_file(path, STUB)


def test_what_is_no_file_of_torch_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(InvalidInputError, match="cannot be opened"):
        read_torch_file(path)
    with pytest.raises(InvalidInputError, match="cannot be opened"):
        read_torch_file(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match="is empty"):
        read_torch_file(path)
    for content in (b"x", b"not at all a checkpoint" * 99, pickle.dumps({"a": 1}), pickle.dumps(list(range(999)), 0)):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=r"no file of torch\.save"):
            read_torch_file(path)
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))
    with pytest.raises(InvalidInputError, match=r"not of torch\.save"):
        read_torch_file(path)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(InvalidInputError, match="tar archive"):
        read_torch_file(path)


def test_two_entries_of_one_name_are_damage(tmp_path: Path) -> None:
    """Readers that take the first and readers that take the last would disagree on what the file is."""
    path = tmp_path / "file.pt"
    content = torch_zip(whole(number(1)), {"0": b"first", "1": b"other"})
    path.write_bytes(content.replace(b"archive/data/1", b"archive/data/0"))
    with pytest.raises(DamagedCheckpointError, match="two entries"):
        read_torch_file(path)


@each_container
def test_a_file_cut_anywhere_is_damaged(zipped: bool, tmp_path: Path) -> None:
    path = saved({"a": torch.arange(6.0), "b": torch.ones(3, dtype=torch.int64)}, tmp_path / "file.pt", zipped=zipped)
    content = path.read_bytes()
    for size in range(0, len(content), 3):
        path.write_bytes(content[:size])
        with pytest.raises((DamagedCheckpointError, InvalidInputError)) as caught:
            read_torch_file(path)
        assert size < 64 or isinstance(caught.value, DamagedCheckpointError)


def test_a_stream_ends_where_the_file_does(tmp_path: Path) -> None:
    path = saved(torch.ones(3), tmp_path / "file.pt", zipped=False)
    content = path.read_bytes()
    path.write_bytes(content + content)
    with pytest.raises(DamagedCheckpointError, match="behind its end"):
        read_torch_file(path)


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = saved({"a": torch.zeros(1000)}, tmp_path / "file.pt")
    content = bytearray(path.read_bytes())
    content[content.index(bytes(2000)) + 1000] ^= 4
    path.write_bytes(content)
    assert read_torch_file(path).value["a"].count_nonzero() == 1
    with pytest.raises(DamagedCheckpointError, match="file/data/0"):
        verify_torch_file(path)
    content = bytearray(saved({"epoch": 77}, path).read_bytes())
    content[content.index(b"epoch")] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=r"checksum.*data\.pkl"):
        read_torch_file(path)


@pytest.fixture
def without_checksums() -> Iterator[None]:
    torch.serialization.set_crc32_options(False)
    yield
    torch.serialization.set_crc32_options(True)


@pytest.mark.usefixtures("without_checksums")
def test_archives_without_checksums_are_read(tmp_path: Path) -> None:
    path = saved({"a": torch.ones(10)}, tmp_path / "file.pt")
    assert read_torch_file(path).value["a"].sum() == 10
    verify_torch_file(path)


def seeds() -> list[bytes]:
    """Small files with all kinds of tensors; no checksum keeps a flipped byte from being read."""
    small = {
        key: CASES[key] for key in ("state dict", "parameter with an attribute", "attribute", "coordinates", "rows")
    }
    small |= {
        key: CASES[key] for key in ("quantized", "quantized by channel", "conjugated", "torch.uint16", "expanded")
    }
    small |= {"module": Net(), "numpy": np.arange(3), "shared": [CASES["view"]] * 2}
    made = []
    torch.serialization.set_crc32_options(False)
    for protocol, zipped in [(2, True), (4, True), (5, False), (1, False)]:
        file = io.BytesIO()
        quietly(lambda file=file, protocol=protocol, zipped=zipped: torch.save(
            small, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped))  # fmt: skip
        made.append(file.getvalue())
    torch.serialization.set_crc32_options(True)
    return made


SEEDS = seeds()
edits = st.lists(st.tuples(st.integers(0, 1 << 20), st.one_of(st.none(), st.integers(0, 255))), min_size=1, max_size=6)


@settings(max_examples=300)
@given(st.sampled_from(SEEDS), edits, st.sampled_from(Policy))
def test_damage_is_told_or_harmless(content: bytes, changes: list[tuple[int, int | None]], policy: Policy) -> None:
    data = bytearray(content)
    for place, byte in changes:
        if byte is None:
            del data[place % (len(data) + 1) :]
        elif data:
            data[place % len(data)] = byte
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.pt"
        path.write_bytes(data)
        with suppress(UnsafeFileError, DamagedCheckpointError, InvalidInputError):
            touched(read_torch_file(path, policy).value)


def touched(value: Any) -> None:
    """Read every element of every tensor: views outside of the file's memory would end the process."""
    if isinstance(value, dict):
        for item in value.values():
            touched(item)
    elif isinstance(value, list | tuple):
        for item in value:
            touched(item)
    elif isinstance(value, torch.Tensor) and value.layout == torch.strided:
        (value.dequantize() if value.is_quantized else value.detach().clone()).contiguous()


def digest(state: dict[str, torch.Tensor]) -> str:
    """The digest that the foreign files' manifests keep of a flat state dict."""
    found = hashlib.sha256()
    for key, weight in state.items():
        found.update(f"{key}|{weight.dtype}|{tuple(weight.shape)}|".encode() + content_of(weight))
    return found.hexdigest()


def recorded(manifest: Any) -> Iterator[tuple[str, str]]:
    """Yield the ends of file names and the digests of the weights in them."""
    for experiment in manifest.get("experiments", ()):
        for checkpoint in experiment["checkpoints"]:
            yield checkpoint["id"][:8], checkpoint["model_digest"]
    for case in manifest.get("cases", ()):
        if "model_digest" in case:
            yield case["checkpoint_id"][:8], case["model_digest"]


@pytest.mark.skipif(FOREIGN is None, reason="CKPTLAKE_FOREIGN_CHECKPOINTS names no folder of other programs' files")
def test_real_files_hold_what_their_manifests_say() -> None:
    compared = 0
    for manifest in Path(str(FOREIGN)).glob("*/manifest.json"):
        for short, wanted in recorded(json.loads(manifest.read_text())):
            for path in [*manifest.parent.rglob(f"*{short}.pth"), *manifest.parent.rglob(f"*{short}.pkl")]:
                state = weights_in(path)
                if state:
                    assert digest(state) == wanted, path
                    compared += 1
    assert compared >= 30
    assert not Path("legacy_canary_PWNED").exists()


def weights_in(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".pth":
        found: TorchFile | Any = read_torch_file(path, STUB)
        return dict(found.value.get("model_state_dict", {}))
    with path.open("rb") as file:
        found = load_pickle(file, STUB)
    model = found.value["model"]
    return state_dict_of(model) if isinstance(model, Stub) else dict(model)


@pytest.mark.skipif(FOREIGN is None, reason="CKPTLAKE_FOREIGN_CHECKPOINTS names no folder of other programs' files")
def test_real_attacks_and_damage_are_told() -> None:
    told: dict[str, int] = {}
    for path in Path(str(FOREIGN)).rglob("*.pth"):
        try:
            read_torch_file(path)
        except CkptlakeError as error:
            told[type(error).__name__] = told.get(type(error).__name__, 0) + 1
    assert told == {"UnsafeFileError": 2, "DamagedCheckpointError": 2, "InvalidInputError": 1}
    assert not Path("legacy_canary_PWNED").exists()
