"""A checkpoint of a lake as memory that lies on the disk, so that its size does not matter."""

from __future__ import annotations

from collections.abc import Callable
from mmap import mmap
from typing import Any

import numpy as np

from ckptlake.checkpoints.arrays import over, view_within
from ckptlake.checkpoints.contents import open_contents
from ckptlake.checkpoints.dtypes import get_dtype
from ckptlake.checkpoints.foreign.places import Place
from ckptlake.checkpoints.foreign.scratch import Scratch
from ckptlake.checkpoints.leaves import JSON, LeafInfo
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.opened import VerifyLevel, get_verifier
from ckptlake.checkpoints.restore import unflatten
from ckptlake.checkpoints.state_format import get_format
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.checkpoints.windows import Window
from ckptlake.errors import DamagedCheckpointError, InvalidInputError


class MappedCheckpoint:
    """The tensors of one checkpoint; each is verified when it is first read.

    Args:
        store: the lake's checkpoints.
        manifest: which of them.
        scratch: where tensors go that are not mapped from a file: those of compressed packs.
        verify: what each is compared with.

    Raises:
        InvalidInputError: only its own format can hold its state.
    """

    def __init__(self, store: CheckpointStore, manifest: Manifest, scratch: Scratch, verify: VerifyLevel) -> None:
        if manifest.file is not None and manifest.tree is None and get_format(manifest.format).keeps_anything:
            raise InvalidInputError(
                f"checkpoint {manifest.checkpoint_id} holds objects that only {manifest.format} keeps; load it with "
                "allow_unsafe=True and save the parts that are tensors and plain values"
            )
        self.manifest = manifest
        self._contents = open_contents(store, manifest)
        self._scratch = scratch
        self._check = get_verifier(verify)
        self._infos = [LeafInfo(t.path, get_dtype(t.dtype), t.shape) for t in manifest.tensors]
        self._seen: set[tuple[str, int, str | None]] = set()
        self._verified: set[int] = set()

    def state(self, node: JSON) -> Any:
        """Return what a node of the tree stands for; no two tensors are in the same memory unless they were."""
        return unflatten(node, self._infos, self._apart)

    def info(self, place: Place) -> LeafInfo:
        """Return what kind of tensor is at a place."""
        info = self._infos[place.leaf]
        return LeafInfo(place.path, info.dtype, info.shape if place.window is None else place.window.shape)

    def elements(self, place: Place) -> memoryview:
        """Return the elements of the tensor at a place, contiguous; they are not to be written to."""
        if place.window is None:
            return self._view(place.leaf)
        return windowed(self._infos[place.leaf], place.window, lambda _, __: self._view(place.leaf))

    def close(self) -> None:
        """Let go of the files; what was handed out stays valid."""
        self._contents.close()

    def _view(self, number: int) -> memoryview:
        tensor = self.manifest.tensors[number]
        view = self._contents.slice(number, 0, tensor.nbytes)
        if number not in self._verified:
            self._check(tensor, view)
            self._verified.add(number)
        return view

    def _apart(self, number: int) -> memoryview:
        tensor, view = self.manifest.tensors[number], self._view(number)
        place = (tensor.pack, tensor.offset, tensor.digest)
        if isinstance(view.obj, mmap) and place not in self._seen:
            self._seen.add(place)
            return view
        return self._scratch.copy(view)


def windowed(info: LeafInfo, window: Window, read: Callable[[int, int], memoryview]) -> memoryview:
    """Return the elements of a window on a tensor as contiguous bytes.

    Raises:
        DamagedCheckpointError: the window reaches beyond the tensor.
    """
    try:
        window.check(info.num_elements)
    except ValueError as error:
        raise DamagedCheckpointError(f"tensor {info.path!r:.200}: {error}") from None
    whole = over(read(0, info.nbytes), np.dtype(info.dtype.as_numpy()), (info.num_elements,))
    return np.ascontiguousarray(view_within(whole, window)).reshape(-1).view(np.uint8).data
