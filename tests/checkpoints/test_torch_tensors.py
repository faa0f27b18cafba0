"""torch's part of a state: every kind of tensor, shared memory, devices, real training states, hostile trees."""

from __future__ import annotations

import json
import os
import random
from collections import OrderedDict
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from state_values import again, infos, put_together, same
from test_state_tree import mutated

from ckptlake.checkpoints.dtypes import DTYPES
from ckptlake.checkpoints.formats import torch_layouts
from ckptlake.checkpoints.formats.torch_tensors import as_tensor, repeats_elements, start_of, version_of
from ckptlake.checkpoints.leaves import LeafInfo
from ckptlake.checkpoints.restore import as_array, as_leaf, unflatten
from ckptlake.checkpoints.tree import flatten, read_bytes
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, MissingDependencyError

# What torch itself says of layouts it plans to change or drop.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*quantized.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning"),
]


def bits(tensor: torch.Tensor) -> bytes:
    """Return the values of a dense tensor as bytes, by way of a list of numbers where numpy has no such type."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.itemsize == 1:
        plain = plain.view(torch.uint8)
    elif plain.dtype in (torch.bfloat16, torch.float16):
        plain = plain.view(torch.int16)
    elif plain.dtype is torch.complex32:
        plain = plain.view(torch.int32)
    return plain.contiguous().numpy().tobytes()


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Tell whether two tensors are alike in everything but their strides."""
    head = (type(a), a.dtype, a.shape, a.layout, a.requires_grad, a.device, a.is_quantized, vars(a))
    if head != (type(b), b.dtype, b.shape, b.layout, b.requires_grad, b.device, b.is_quantized, vars(b)):
        return False
    if a.layout is torch.sparse_coo:
        parts = alike(a._indices(), b._indices()) and alike(a.detach()._values(), b.detach()._values())
        return a.is_coalesced() == b.is_coalesced() and parts
    if a.layout in torch_layouts.COMPRESSED.values():
        return all(map(alike, torch_layouts.compressed_parts(a.detach()), torch_layouts.compressed_parts(b.detach())))
    if a.is_quantized:
        return a.qscheme() == b.qscheme() and alike(a.int_repr(), b.int_repr()) and a.equal(b)
    return bits(a) == bits(b)


def random_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    dtype = DTYPES[name]
    count = int(np.prod(shape)) * dtype.itemsize
    data = np.random.default_rng(1).integers(0, 2 if name == "bool" else 256, count, np.uint8)
    return (
        torch.from_numpy(data).view(getattr(torch, name)).reshape(shape)
        if count
        else torch.empty(shape, dtype=getattr(torch, name))
    )


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (4, 6)])
def test_every_element_type(name: str, shape: tuple[int, ...]) -> None:
    tensor = random_tensor(name, shape)
    flat = flatten({"w": tensor})
    (leaf,) = flat.leaves
    assert (leaf.dtype, leaf.shape) == (DTYPES[name], shape)
    assert bytes(read_bytes(leaf)) == bits(tensor)
    assert alike(put_together(flat)["w"], tensor)


@pytest.mark.parametrize("name", DTYPES)
def test_strided_tensors_of_every_element_type(name: str) -> None:
    tensor = random_tensor(name, (4, 6))[:, ::2]
    assert not tensor.is_contiguous()
    assert alike(again(tensor), tensor)
    assert bytes(read_bytes(flatten(tensor).leaves[0])) == bits(tensor)


@pytest.mark.parametrize("name", [name for name, dtype in DTYPES.items() if dtype.code is not None])
def test_bytes_are_those_of_safetensors(name: str) -> None:
    tensor = random_tensor(name, (4, 6))
    assert save({"w": tensor}).endswith(bytes(read_bytes(flatten(tensor).leaves[0])))


def quantized_by_channel(zero_points: torch.Tensor) -> torch.Tensor:
    scales = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    return torch.quantize_per_channel(torch.randn(2, 3), scales, zero_points, 1, torch.quint8)


KINDS: dict[str, Any] = {
    "transposed": lambda: torch.randn(3, 4).T,
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "expanded": lambda: torch.randn(1, 3).expand(4, 3),
    "conjugate": lambda: torch.randn(3, dtype=torch.complex64).conj(),
    "negative": lambda: torch.randn(3, dtype=torch.complex64).conj().imag,
    "requires grad": lambda: torch.randn(3, requires_grad=True),
    "no leaf of autograd": lambda: torch.randn(3, requires_grad=True) * 2,
    "parameter": lambda: torch.nn.Parameter(torch.randn(3)),
    "frozen parameter": lambda: torch.nn.Parameter(torch.randn(3), requires_grad=False),
    "parameter of integers": lambda: torch.nn.Parameter(torch.arange(3), requires_grad=False),
    "buffer": lambda: torch.nn.Buffer(torch.randn(3)),
    "passing buffer": lambda: torch.nn.Buffer(torch.randn(3), persistent=False),
    "coalesced": lambda: torch.eye(3).to_sparse(),
    "uncoalesced": lambda: torch.sparse_coo_tensor([[1, 0, 1], [2, 0, 2]], [1.0, 2.0, 3.0], (3, 4)),
    "hybrid": lambda: torch.sparse_coo_tensor([[1, 0]], torch.randn(2, 5), (3, 5)),
    "no values": lambda: torch.sparse_coo_tensor(size=(2**40, 3)),
    "sparse that requires grad": lambda: torch.eye(3).to_sparse().requires_grad_(),
    "expanded values": lambda: torch.sparse_coo_tensor([[1, 0]], torch.ones(1).expand(2), (3,)),
    "csr": lambda: torch.eye(4).to_sparse_csr(),
    "csc": lambda: torch.eye(4).to_sparse_csc(),
    "bsr": lambda: torch.eye(4).to_sparse_bsr((2, 2)),
    "bsc": lambda: torch.eye(4).to_sparse_bsc((2, 2)),
    "batched csr": lambda: torch.eye(4).expand(2, 4, 4).to_sparse_csr(),
    "qint8": lambda: torch.quantize_per_tensor(torch.randn(3, 4), 0.1, -3, torch.qint8),
    "quint8": lambda: torch.quantize_per_tensor(torch.randn(3, 4).T, 0.1, 3, torch.quint8),
    "qint32": lambda: torch.quantize_per_tensor(torch.randn(()), 0.1, 3, torch.qint32),
    "by channel": lambda: quantized_by_channel(torch.tensor([1, 2, 3])),
    "by channel with floats": lambda: quantized_by_channel(torch.tensor([1.0, 2.5, 3.0])),
    "inference": lambda: torch.inference_mode()(torch.ones)(3),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_kind_of_tensor(make: Any) -> None:
    tensor = make()
    found = again({"w": [tensor]})["w"][0]
    assert alike(found, tensor)
    assert found.is_leaf


def test_the_comparison_sees_what_differs() -> None:
    one = torch.ones(3)
    others = [
        torch.nn.Parameter(one), torch.ones(3, requires_grad=True), torch.nn.Buffer(one), one.double(), one[:, None],
        one * 2, one.to_sparse(), torch.quantize_per_tensor(one, 1.0, 0, torch.qint8),
    ]  # fmt: skip
    assert not any(alike(one, other) for other in others)


@pytest.mark.parametrize(
    "value",
    [
        torch.Size([1, 2]), torch.Size([]), torch.bfloat16, torch.float8_e5m2, torch.complex64, torch.device("cuda:3"),
        torch.device("cpu"), torch.device("meta"), torch.strided, torch.sparse_csr, torch.channels_last,
        torch.contiguous_format,
    ],
    ids=str,
)  # fmt: skip
def test_small_values(value: Any) -> None:
    found = again({"a": (value, {value: 1})})["a"]
    assert found == (value, {value: 1})
    assert type(found[0]) is type(value)


def test_the_version_of_torch_is_text() -> None:
    found = again({"version": torch.__version__})["version"]
    assert type(found) is str
    assert found == str(torch.__version__)


def test_generators_go_on() -> None:
    generator = torch.Generator().manual_seed(7)
    torch.randn(3, generator=generator)
    found = again([generator])[0]
    assert isinstance(found, torch.Generator)
    assert torch.equal(torch.randn(5, generator=found), torch.randn(5, generator=generator))


class TestSharedMemory:
    def test_one_tensor_is_one_leaf_and_one_object(self) -> None:
        w = torch.randn(3, 4)
        flat = flatten({"a": w, "b": [w, w.detach(), w.view(3, 4)]})
        assert [leaf.path for leaf in flat.leaves] == ["a"]
        found = put_together(flat)
        assert found["a"] is found["b"][0]
        found["b"][2].zero_()
        assert found["a"].count_nonzero() == 0

    def test_tied_weights_of_a_model(self) -> None:
        model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False))
        model[1].weight = model[0].weight
        flat = flatten(model)
        assert [leaf.path for leaf in flat.leaves] == ["0.weight"]
        found = put_together(flat)
        assert found["0.weight"].data_ptr() == found["1.weight"].data_ptr()

    def test_parameters_and_their_data(self) -> None:
        parameter = torch.nn.Parameter(torch.randn(3))
        found = again({"p": parameter, "data": parameter.detach(), "again": parameter})
        assert found["p"] is found["again"]
        assert not found["data"].requires_grad
        with torch.no_grad():
            found["p"].fill_(4)
        assert found["data"].tolist() == [4, 4, 4]

    @pytest.mark.parametrize(
        "view",
        [
            lambda w: w.T,
            lambda w: w[:2],
            lambda w: w[1:, 2],
            lambda w: w.reshape(-1),
            lambda w: w[0, :1].expand(7, 1),
            lambda w: w.diagonal(),
            lambda w: w.as_strided((2, 2), (1, 1), 3),
            lambda w: torch.nn.Parameter(w[2]),
        ],
    )
    @pytest.mark.parametrize("first", ["view", "whole"])
    def test_views_share_the_memory(self, view: Any, first: str) -> None:
        whole = torch.randn(4, 6)
        part = view(whole)
        flat = flatten({"view": part, "whole": whole} if first == "view" else {"whole": whole, "view": part})
        assert [leaf.nbytes for leaf in flat.leaves] == [96]
        found = put_together(flat)
        assert alike(found["view"], part)
        assert alike(found["whole"], whole)
        found["whole"].copy_(torch.arange(24.0).reshape(4, 6))
        assert torch.equal(found["view"], view(found["whole"]))

    def test_overlaps_without_a_whole_are_stored_apart(self) -> None:
        flat_parameters = torch.arange(10.0)
        state = [flat_parameters[:6], flat_parameters[4:], flat_parameters[::2]]
        flat = flatten(state)
        assert [leaf.num_elements for leaf in flat.leaves] == [6, 6, 5]
        assert all(map(alike, put_together(flat), state))

    def test_other_types_of_the_same_memory_are_stored_apart(self) -> None:
        w = torch.randn(4)
        found = again([w, w.view(torch.int32)])
        assert alike(found[1], w.view(torch.int32))

    def test_a_conjugate_is_no_view(self) -> None:
        z = torch.randn(4, dtype=torch.complex64)
        found = again([z, z.conj(), z.conj()[:2]])
        assert alike(found[0], z)
        assert alike(found[1], z.conj())
        assert alike(found[2], z.conj()[:2])

    def test_slices_of_one_buffer_of_numpy(self) -> None:
        buffer = np.arange(10.0)
        flat = flatten([torch.from_numpy(buffer[4:]), torch.from_numpy(buffer)])
        assert len(flat.leaves) == 1

    def test_empty_tensors_are_not_mixed_up(self) -> None:
        first, second = torch.empty(0, 3), torch.empty(0, 3)
        found = again([first, second, first])
        assert found[0] is found[2]
        assert found[0] is not found[1]

    def test_quantized_tensors(self) -> None:
        q = torch.quantize_per_tensor(torch.randn(3, 4), 0.1, -3, torch.qint8)
        flat = flatten([q, q])
        assert len(flat.leaves) == 1
        found = put_together(flat)
        assert found[0] is found[1]

    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 3)), max_size=6))
    def test_any_views_of_one_buffer(self, spans: list[tuple[int, int, int]]) -> None:
        buffer = torch.arange(30, dtype=torch.int16)
        state = [buffer[min(a, b) : max(a, b) : step] for a, b, step in spans]
        flat = flatten(state)
        found = put_together(flat)
        assert all(map(alike, found, state))
        pairs = [(i, j) for i in range(len(state)) for j in range(i)]
        assert [pair for pair in pairs if overlaps(found, pair) and not overlaps(state, pair)] == []
        assert sum(leaf.nbytes for leaf in flat.leaves) <= sum(part.nbytes for part in state)


def overlaps(tensors: list[torch.Tensor], pair: tuple[int, int]) -> bool:
    one, other = (set(addresses(tensors[i])) for i in pair)
    return bool(one & other)


def addresses(tensor: torch.Tensor) -> range:
    """Return the addresses of the bytes that a tensor of one axis reaches over."""
    length = ((len(tensor) - 1) * tensor.stride(0) + 1) * tensor.element_size() if len(tensor) else 0
    return range(tensor.data_ptr(), tensor.data_ptr() + length)


class TestBytes:
    def test_contiguous_memory_is_not_copied(self) -> None:
        w = torch.zeros(4, 3, dtype=torch.bfloat16)
        data = read_bytes(flatten(w).leaves[0])
        assert np.frombuffer(data, np.uint8).ctypes.data == w.data_ptr()
        w.fill_(1)
        assert bytes(data) == b"\x80\x3f" * 12

    def test_nothing_is_copied_when_a_state_is_taken_apart(self) -> None:
        state = [
            torch.zeros(3, 4)[:, ::2],
            torch.nn.Parameter(torch.zeros(3)),
            torch.zeros(3, dtype=torch.cfloat).conj(),
        ]
        for tensor, leaf in zip(state, flatten(state).leaves, strict=True):
            assert leaf.array.data_ptr() == tensor.data_ptr()
            assert not leaf.array.requires_grad

    def test_tensors_use_the_bytes(self) -> None:
        data = bytearray(8)
        tensor = as_tensor(LeafInfo("w", DTYPES["int32"], (2,)), memoryview(data))
        tensor[1] = 1
        assert data == bytes([0, 0, 0, 0, 1, 0, 0, 0])

    @pytest.mark.parametrize(
        "data", [memoryview(bytes(8)), memoryview(bytearray(9))[1:]], ids=["read-only", "unaligned"]
    )
    def test_what_torch_cannot_use_is_copied(self, data: memoryview) -> None:
        tensor = as_tensor(LeafInfo("w", DTYPES["int32"], (2,)), data)
        assert tensor.data_ptr() % 4 == 0
        tensor.fill_(1)
        assert tensor.tolist() == [1, 1]
        assert bytes(data) == bytes(8)

    def test_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(DamagedCheckpointError, match=r"'w' of int32.*takes 12 bytes, 8 are there"):
            as_tensor(LeafInfo("w", DTYPES["int32"], (3,)), memoryview(bytearray(8)))
        for shape in [(0, 2**62, 2**62), (-1, 0), (0, 2**70)]:
            with pytest.raises(DamagedCheckpointError):
                as_tensor(LeafInfo("w", DTYPES["int32"], shape), memoryview(bytearray()))

    def test_one_leaf_alone(self) -> None:
        flat = flatten({"a": np.arange(3), "b": torch.ones(2, dtype=torch.bfloat16)})
        found = [
            as_leaf(flat.tree, i, infos(flat)[i], memoryview(bytearray(read_bytes(flat.leaves[i])))) for i in (0, 1)
        ]
        assert same(found[0], np.arange(3))
        assert alike(found[1], torch.ones(2, dtype=torch.bfloat16))
        with pytest.raises(InvalidInputError, match="bfloat16"):
            as_array(infos(flat)[1], read_bytes(flat.leaves[1]))


class TestIdentity:
    def test_starts(self) -> None:
        w = torch.zeros(4, 6)
        assert start_of(w) == start_of(w.detach()) == start_of(w.T) == (w.data_ptr(), torch.device("cpu"))
        assert start_of(w[1:, 2:4]) == (w.data_ptr() + 32, torch.device("cpu"))
        with pytest.raises(InvalidInputError, match="no memory of its own"):
            start_of(torch.eye(2).to_sparse())

    def test_versions(self) -> None:
        w = torch.nn.Parameter(torch.zeros(3))
        (leaf,) = flatten(w).leaves
        before = version_of(leaf.array)
        with torch.no_grad():
            w[0] = 1
        assert version_of(leaf.array) > before
        with torch.inference_mode():
            silent = torch.ones(2)
        with pytest.raises(InvalidInputError, match="inference mode"):
            version_of(silent)

    def test_repetition(self) -> None:
        w = torch.zeros(4, 6)
        assert [repeats_elements(t) for t in (w, w.T, w[:0], w[0, :1].expand(3), w.as_strided((4, 4), (1, 1)))] == [
            False, False, False, True, True,
        ]  # fmt: skip


ON_CUDA = {"dict": [["w", {"on": ["cuda:0", {"tensor": 0}]}], ["v", {"on": ["cuda:0", {"view": [0, 1, [1], [1]]}]}]]}
TWO = [LeafInfo("w", DTYPES["float32"], (2,))]


class TestDevices:
    @staticmethod
    def read(_: int) -> memoryview:
        return memoryview(bytearray(np.array([1, 2], "<f4").tobytes()))

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
    def test_a_missing_device_is_told(self) -> None:
        with pytest.raises(InvalidInputError, match="cuda:0 here: pass map_location='cpu'"):
            unflatten(ON_CUDA, TWO, self.read)

    @pytest.mark.parametrize("location", ["cpu", torch.device("cpu")])
    def test_another_device(self, location: object) -> None:
        found = unflatten(ON_CUDA, TWO, self.read, location)
        assert found["w"].tolist() == [1, 2]
        found["w"][1] = 5
        assert found["v"].tolist() == [5]

    def test_tensors_of_the_cpu_go_where_they_shall(self) -> None:
        found = put_together(flatten({"w": torch.ones(2), "p": torch.nn.Parameter(torch.ones(3))}), "meta")
        assert {value.device.type for value in found.values()} == {"meta"}

    @pytest.mark.parametrize("location", [5, "nowhere", {"cuda:0": "cpu"}])
    def test_no_device(self, location: object) -> None:
        with pytest.raises(InvalidInputError, match="map_location"):
            unflatten(ON_CUDA, TWO, self.read, location)

    def test_generators_stay_where_they_mean_something(self) -> None:
        generator = torch.Generator().manual_seed(3)
        found = put_together(flatten([generator]), "cpu")[0]
        assert torch.equal(found.get_state(), generator.get_state())
        if not torch.cuda.is_available():
            with pytest.raises(InvalidInputError, match="a generator of cuda:0 cannot be made here"):
                unflatten({"generator": ["cuda:0", {"tensor": 0}]}, TWO, self.read)
        with pytest.raises(InvalidInputError, match="a generator of cuda:0 means nothing on cpu"):
            unflatten({"generator": ["cuda:0", {"tensor": 0}]}, TWO, self.read, "cpu")


class Wrapped(torch.Tensor):
    """A tensor of a class of its own."""


REFUSED: list[tuple[Any, str]] = [
    (lambda: torch.ones(2, device="meta"), "on the meta device"),
    (lambda: torch.ones(2).as_subclass(Wrapped), "a subclass of Tensor; store .detach().as_subclass(torch.Tensor)"),
    (lambda: torch.nn.UninitializedParameter(), "run the module once"),
    (lambda: torch.nested.nested_tensor([torch.ones(2)]), "nested"),
    (lambda: torch.ones(2, 2).to_mkldnn(), "of layout torch._mkldnn; store .to_dense()"),
    (lambda: torch.empty(2, dtype=torch.bits8), "of torch.bits8, which is not kept; store .view(torch.uint8)"),
    (lambda: torch.ones(2).untyped_storage(), "store a tensor over it"),
    (lambda: torch.sparse_coo_tensor([[5]], [1.0], (3,), check_invariants=False), "its indices break the rules"),
    (
        lambda: torch.sparse_csr_tensor([0, 9], [0], [1.0], (1, 1), check_invariants=False),
        "its indices break the rules",
    ),
    (lambda: torch.ones(2).to_sparse().to(torch.float16)._values().new_empty(2, dtype=torch.int4), "of torch.int4"),
    (
        lambda: torch.quantize_per_channel(torch.randn(2, 4), torch.ones(2), torch.zeros(2), 0, torch.quint4x2),
        "of torch.quint4x2; store .dequantize()",
    ),
]


class TestRefusals:
    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
    @pytest.mark.parametrize(("make", "told"), REFUSED, ids=[told[:40] for _, told in REFUSED])
    def test_what_cannot_be_kept(self, make: Any, told: str) -> None:
        with pytest.raises(InvalidInputError) as raised:
            flatten({"a": {"w": make()}})
        assert "'a/w' (torch." in str(raised.value) or "Wrapped" in str(raised.value)
        assert told in str(raised.value)

    def test_tensors_spread_over_processes(self) -> None:
        from torch.distributed import destroy_process_group, init_process_group
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import distribute_tensor

        init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
        try:
            spread = distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)))
            with pytest.raises(InvalidInputError, match=r"full_tensor\(\), or save by torch.distributed.checkpoint"):
                flatten([spread])
            assert alike(again([spread.full_tensor()])[0], torch.ones(4))
        finally:
            destroy_process_group()

    def test_inside_a_transform(self) -> None:
        def inside(x: torch.Tensor) -> torch.Tensor:
            with pytest.raises(InvalidInputError, match="without memory of its own"):
                flatten([x])
            return x

        torch.func.vmap(inside)(torch.ones(2))

    def test_a_tensor_is_no_key(self) -> None:
        with pytest.raises(InvalidInputError, match="cannot be a key"):
            flatten({torch.ones(1): 1})


def loop(model: torch.nn.Module, optimizer: Any, scheduler: Any, scaler: Any, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        data = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss = model(data).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        losses.append(loss.item())
    return losses


def parts(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 4)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=50)
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "scaler": torch.amp.GradScaler("cpu"),
        "epoch": 3,
    }


class TestTraining:
    def test_it_goes_on_bit_by_bit(self) -> None:
        first, second = parts(1), parts(2)
        loop(first["model"], first["optimizer"], first["scheduler"], first["scaler"], 5)
        state = again(first)
        for name in ("model", "optimizer", "scheduler", "scaler"):
            second[name].load_state_dict(state[name])
        expected, found = (loop(p["model"], p["optimizer"], p["scheduler"], p["scaler"], 5) for p in (first, second))
        assert found == expected
        assert all(map(alike, second["model"].state_dict().values(), first["model"].state_dict().values()))

    def test_the_state_is_what_torch_gives(self) -> None:
        made = parts(1)
        loop(made["model"], made["optimizer"], made["scheduler"], made["scaler"], 2)
        state = again(made)
        assert type(state["model"]) is OrderedDict
        assert state["model"]._metadata == made["model"].state_dict()._metadata
        assert list(state["optimizer"]["state"]) == list(made["optimizer"].state_dict()["state"])
        assert state["optimizer"]["param_groups"] == made["optimizer"].state_dict()["param_groups"]
        assert state["scheduler"] == made["scheduler"].state_dict()
        paths = [leaf.path for leaf in flatten(made).leaves]
        assert "model/0.weight" in paths
        assert "optimizer/state/0/exp_avg" in paths


DAMAGED: list[object] = [
    {"tensor": 1}, {"tensor": "0"}, {"tensor": True}, {"view": [0, 0, [5], [1]]}, {"view": [0, 3, [1], [-1]]},
    {"view": [0, -1, [1], [1]]}, {"view": [0, 0, [1], [1, 1]]}, {"view": [0, 0, [2], [2**80]]},
    {"on": ["cpu", {"dict": []}]}, {"on": ["meta", {"tensor": 0}]}, {"on": ["nowhere", {"tensor": 0}]},
    {"on": ["cpu", {"on": ["cpu", {"tensor": 0}]}]}, {"requires_grad": {"tensor": 2}},
    {"requires_grad": {"parameter": [True, {"tensor": 0}]}}, {"parameter": [1, {"tensor": 0}]},
    {"parameter": [True, {"tensor": 2}]}, {"parameter": [True, {"array": 0}]}, {"buffer": [True, {"tensor": 0}]},
    {"sparse_coo": [{"tensor": 2}, {"tensor": 0}, [3], True]},
    {"sparse_coo": [{"tensor": 0}, {"tensor": 0}, [3], True]},
    {"sparse_coo": [{"view": [2, 0, [1, 2**50], [0, 0]]}, {"view": [0, 0, [2**50], [0]]}, [3], False]},
    {"sparse_coo": [{"view": [2, 0, [2, 2], [1, 1]]}, {"tensor": 0}, [3], False]},
    {"sparse_compressed": ["strided", {"tensor": 2}, {"tensor": 2}, {"tensor": 0}, [2, 2]]},
    {"sparse_compressed": ["sparse_csr", {"tensor": 2}, {"tensor": 2}, {"tensor": 0}, [3, 2**40]]},
    {"quantized": [{"tensor": 0}, 0.1, 0]}, {"quantized": [{"tensor": 3}, "x", 0]},
    {"quantized": [{"tensor": 3}, 0.1, 2**70]}, {"quantized": [{"view": [3, 0, [2**50], [0]]}, 0.1, 0]},
    {"channelwise": [{"tensor": 3}, {"tensor": 0}, {"tensor": 2}, 0]},
    {"channelwise": [{"tensor": 3}, {"tensor": 0}, {"tensor": 0}, 5]}, {"generator": ["cpu", {"tensor": 0}]},
    {"generator": ["cpu", {"tensor": 4}]}, {"generator": ["meta", {"tensor": 4}]}, {"size": [-1]},
    {"torch_dtype": "nn"}, {"torch_dtype": "_dynamo"}, {"torch_device": "nowhere"}, {"torch_layout": "float32"},
    {"memory_format": 1}, {"tensor": {"tensor": 0}}, {"tensor": 5},
]  # fmt: skip
LEAVES = [
    LeafInfo("floats", DTYPES["float32"], (4,)),
    LeafInfo("wrong", DTYPES["float64"], (2**40,)),
    LeafInfo("ints", DTYPES["int64"], (4,)),
    LeafInfo("bytes", DTYPES["uint8"], (8,)),
    LeafInfo("state", DTYPES["uint8"], (5056,)),
]
BYTES = [bytearray(16), bytearray(8), bytearray(b"\x09" * 32), bytearray(8), bytearray(os.urandom(5056))]
TAGS = [
    "tensor", "view", "on", "parameter", "buffer", "requires_grad", "sparse_coo", "sparse_compressed", "quantized",
    "channelwise", "generator", "size", "torch_dtype", "array", "raw",
]  # fmt: skip


class TestHostileTrees:
    @pytest.mark.parametrize("node", DAMAGED, ids=lambda node: str(node)[:70])
    def test_damage_is_told(self, node: object) -> None:
        for tree in (node, [node], {"tuple": [1, node]}):
            with pytest.raises(DamagedCheckpointError):
                unflatten(tree, LEAVES, lambda number: memoryview(BYTES[number]))

    @settings(max_examples=150)
    @given(st.lists(st.sampled_from(sorted(KINDS)), max_size=4), st.randoms(use_true_random=False))
    def test_mutations(self, names: list[str], chance: random.Random) -> None:
        state = [KINDS[name]() for name in names]
        w = torch.zeros(4, 6)
        flat = flatten([state, w, w.T, w[1], torch.Size([1]), torch.float32, torch.Generator(), torch.strided])
        tree = mutated(json.loads(json.dumps(flat.tree)), chance, TAGS)
        stored = [bytearray(read_bytes(leaf)) for leaf in flat.leaves]
        if stored and stored[0] and chance.random() < 0.5:
            stored[0][chance.randrange(len(stored[0]))] ^= 0xFF
        with suppress(DamagedCheckpointError, MissingDependencyError):
            unflatten(tree, infos(flat), lambda number: memoryview(stored[number]), "cpu")
