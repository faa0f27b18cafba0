"""torch's tensors and the small values around them, made of the nodes of a state's tree.

Importing this module imports torch; `ckptlake.checkpoints.formats.torch_nodes` tells the grammar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ckptlake.checkpoints.formats import torch_layouts
from ckptlake.checkpoints.formats.torch_tensors import TORCH_DTYPES, as_tensor, repeats_elements
from ckptlake.checkpoints.leaves import JSON, LeafInfo
from ckptlake.checkpoints.numpy_types import read_shape
from ckptlake.checkpoints.plain_values import read_float, read_int, text_of
from ckptlake.checkpoints.windows import read_window
from ckptlake.errors import CkptlakeError, DamagedCheckpointError, InvalidInputError, MissingDependencyError

Leaves = Callable[[JSON], tuple[LeafInfo, memoryview]]
"""Returns what a leaf is and its bytes; raises DamagedCheckpointError where there is none of that number."""

_LAYOUTS = {
    str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.layout)
}
_FORMATS = {
    str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.memory_format)
}
_CPU = torch.device("cpu")


class TorchRestorer:
    """Makes torch's values; equal nodes give the same tensor, nodes of one leaf share its memory.

    Args:
        leaves: finds leaves.
        map_location: the device for all tensors, or None for those they were on.

    Raises:
        InvalidInputError: there is no such device.
    """

    def __init__(self, leaves: Leaves, map_location: object) -> None:
        self._leaves = leaves
        self._target = None if map_location is None else _wanted(map_location)
        self._stored: dict[tuple[int, torch.device], torch.Tensor] = {}

    def read(self, tag: str, payload: JSON) -> object:
        """Return the value of a node.

        Raises:
            DamagedCheckpointError: it is no node that was written.
            InvalidInputError: a tensor's device is not here.
            MissingDependencyError: this version of torch lacks what it takes.
        """
        with _sound(tag):
            return _READERS[tag](self, payload)

    def _data(self, node: JSON) -> torch.Tensor:
        if isinstance(node, dict) and len(node) == 1:
            ((tag, payload),) = node.items()
            if tag in _DATA:
                return _DATA[tag](self, payload)
        raise TypeError("no tensor")

    def _dense(self, node: JSON) -> torch.Tensor:
        match node:
            case {"on": [device, inner]}:
                return self._on(_saved_device(device), inner)
        return self._on(_CPU, node)

    def _on(self, saved: torch.device, node: JSON) -> torch.Tensor:
        device = self._target or saved
        match node:
            case {"tensor": leaf}:
                return self._leaf(leaf, device)
            case {"view": payload}:
                window = read_window(payload)
                stored = self._leaf(window.leaf, device)
                window.check(stored.numel())
                return stored.as_strided(window.shape, window.strides, stored.storage_offset() + window.offset)
        raise TypeError("no dense tensor")

    def _leaf(self, number: JSON, device: torch.device) -> torch.Tensor:
        key = (read_int(number), device)
        if key not in self._stored:
            tensor = as_tensor(*self._leaves(number))
            self._stored[key] = tensor if device == _CPU else _moved(tensor, device)
        return self._stored[key]

    def _part(self, node: JSON) -> torch.Tensor:
        """Return a part of a tensor; one that repeats elements would let few bytes stand for any number."""
        part = self._dense(node)
        if repeats_elements(part):
            raise ValueError("a part that repeats elements")
        return part

    def _coo(self, payload: JSON) -> torch.Tensor:
        match payload:
            case [indices, values, size, bool(is_coalesced)]:
                parts = self._part(indices), self._part(values)
                return torch_layouts.build_coo(*parts, read_shape(size), is_coalesced)
        raise TypeError("not the parts of a sparse tensor")

    def _compressed(self, payload: JSON) -> torch.Tensor:
        match payload:
            case [str(layout), compressed, plain, values, size]:
                parts = self._part(compressed), self._part(plain), self._part(values)
                return torch_layouts.build_compressed(torch_layouts.COMPRESSED[layout], *parts, read_shape(size))
        raise TypeError("not the parts of a sparse tensor")

    def _quantized(self, payload: JSON) -> torch.Tensor:
        match payload:
            case [integers, scale, zero_point]:
                return torch_layouts.build_quantized(self._part(integers), read_float(scale), read_int(zero_point))
        raise TypeError("not the parts of a quantized tensor")

    def _channelwise(self, payload: JSON) -> torch.Tensor:
        match payload:
            case [integers, scales, zero_points, axis]:
                parts = self._part(integers), self._part(scales), self._part(zero_points)
                return torch_layouts.build_channelwise(*parts, read_int(axis))
        raise TypeError("not the parts of a quantized tensor")

    def _requires_grad(self, payload: JSON) -> torch.Tensor:
        return self._data(payload).detach().requires_grad_()

    def _parameter(self, payload: JSON) -> torch.Tensor:
        match payload:
            case [bool(requires_grad), data]:
                return torch.nn.Parameter(self._data(data), requires_grad)
        raise TypeError("no parameter")

    def _buffer(self, payload: JSON) -> torch.Tensor:
        match payload:
            case [bool(persistent), bool(requires_grad), data]:
                if not hasattr(torch.nn, "Buffer"):
                    raise MissingDependencyError(
                        f"torch {torch.__version__} has no torch.nn.Buffer: upgrade to 2.5 or later"
                    )
                tensor = self._data(data).detach().requires_grad_(requires_grad)
                return torch.nn.Buffer(tensor, persistent=persistent)
        raise TypeError("no buffer")

    def _generator(self, payload: JSON) -> torch.Generator:
        match payload:
            case [device, state]:
                generator = _generator_on(self._generator_device(_saved_device(device)))
                return generator.set_state(self._dense(state).cpu().contiguous())
        raise TypeError("no generator")

    def _generator_device(self, saved: torch.device) -> torch.device:
        """Return where a generator goes: one of the CPU stays there, others go where tensors go."""
        if saved.type == "cpu" or self._target is None:
            return saved
        if self._target.type != saved.type:
            raise InvalidInputError(
                f"the state of a generator of {saved} means nothing on {self._target}: load it where {saved.type} is, "
                "or load the tensors alone"
            )
        return self._target


def _wanted(map_location: object) -> torch.device:
    if not isinstance(map_location, str | torch.device):
        raise InvalidInputError(
            f"map_location must be None, a device's name or a torch.device, got {type(map_location).__name__}"
        )
    try:
        return torch.device(map_location)
    except RuntimeError as error:
        raise InvalidInputError(f"map_location {map_location!r:.80} is no device: {error!s:.200}") from None


def _saved_device(node: JSON) -> torch.device:
    device = torch.device(text_of(node))
    if device.type == "meta":
        raise ValueError("a device without memory")
    return device


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    try:
        return tensor.to(device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InvalidInputError(
            f"a tensor cannot be put on {device} here: pass map_location='cpu', or another device; {error!s:.200}"
        ) from error


def _generator_on(device: torch.device) -> torch.Generator:
    try:
        return torch.Generator(device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InvalidInputError(
            f"a generator of {device} cannot be made here: load it where {device.type} is, or load the tensors alone; "
            f"{error!s:.200}"
        ) from error


@contextmanager
def _sound(tag: str) -> Iterator[None]:
    """Have what torch or a reader says against a node be said as damage."""
    try:
        yield
    except CkptlakeError:
        raise
    except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise DamagedCheckpointError(f"the tree's node {tag!r} is damaged: {error!s:.200}") from None


_DATA: dict[str, Callable[[TorchRestorer, JSON], torch.Tensor]] = {
    "tensor": lambda restorer, payload: restorer._dense({"tensor": payload}),
    "view": lambda restorer, payload: restorer._dense({"view": payload}),
    "on": lambda restorer, payload: restorer._dense({"on": payload}),
    "sparse_coo": TorchRestorer._coo,
    "sparse_compressed": TorchRestorer._compressed,
    "quantized": TorchRestorer._quantized,
    "channelwise": TorchRestorer._channelwise,
}
_READERS: dict[str, Callable[[TorchRestorer, JSON], object]] = {
    **_DATA,
    "requires_grad": TorchRestorer._requires_grad,
    "parameter": TorchRestorer._parameter,
    "buffer": TorchRestorer._buffer,
    "generator": TorchRestorer._generator,
    "size": lambda _, payload: torch.Size(read_shape(payload)),
    "torch_dtype": lambda _, payload: TORCH_DTYPES[text_of(payload)],
    "torch_device": lambda _, payload: torch.device(text_of(payload)),
    "torch_layout": lambda _, payload: _LAYOUTS[text_of(payload)],
    "memory_format": lambda _, payload: _FORMATS[text_of(payload)],
}
