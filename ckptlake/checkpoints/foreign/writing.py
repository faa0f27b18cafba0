"""Files of safetensors and of numpy, written one tensor after the other."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ckptlake.checkpoints.arrays import over, reinterpret
from ckptlake.checkpoints.decoding import Blocks, decoding_of
from ckptlake.checkpoints.foreign.mapped import MappedCheckpoint
from ckptlake.checkpoints.foreign.places import Place
from ckptlake.checkpoints.leaves import LeafInfo
from ckptlake.checkpoints.rawpack import header, place, tensor_name
from ckptlake.errors import InvalidInputError

_BLOCK = 1 << 18
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Item:
    """A tensor that is to be written under a name."""

    name: str
    info: LeafInfo
    place: Place
    source: MappedCheckpoint

    def elements(self) -> memoryview:
        """Return its elements, contiguous and little-endian."""
        return self.source.elements(self.place)


def write_safetensors(items: Sequence[Item], metadata: Mapping[str, str], file: BinaryIO) -> None:
    """Write tensors as a safetensors file; tied ones are written under each of their names.

    Raises:
        InvalidInputError: a tensor is of a type that the format lacks; the message names it. Nothing is written.
    """
    by_name = _by_name(items)
    for item in items:
        if item.info.dtype.code is None or item.place.raw is not None:
            kind = item.info.dtype.name if item.place.raw is None else "an array of a numpy type of its own"
            raise InvalidInputError(
                f"tensor {item.name!r:.200} is {kind}, which safetensors does not have: leave it out with only=, or "
                "export to .pt or .npz"
            )
    slots = place((tensor_name(i.name), i.info.dtype, i.info.shape, i.info.nbytes) for i in items)
    file.write(header(slots, metadata))
    for slot in slots:  # noqa: FURB122 - the file need not be able to do more than write()
        file.write(by_name[slot.name].elements())


def write_npz(items: Sequence[Item], metadata: Mapping[str, str], file: BinaryIO, widen: bool) -> None:
    """Write tensors as an uncompressed .npz that `numpy.load` opens without pickle.

    Args:
        items: the tensors.
        metadata: kept as JSON in the archive's comment, which numpy ignores.
        file: where to; it need not be able to seek.
        widen: whether floating types that numpy lacks become float32, which holds all of their values.

    Raises:
        InvalidInputError: a tensor is of a type that numpy lacks; the message names it.
    """
    _by_name(items)
    for item in items:
        if item.info.dtype.numpy is None and not (widen and item.info.dtype.kind == "float"):
            remedy = "widen=True stores it as float32" if item.info.dtype.kind == "float" else "export to .pt"
            raise InvalidInputError(
                f"tensor {item.name!r:.200} is of {item.info.dtype.name}, which numpy does not have: {remedy}"
            )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = json.dumps(metadata).encode()
        for item in items:
            entry = zipfile.ZipInfo(f"{item.name or 'value'}.npy", _FIXED_TIME)
            with archive.open(entry, "w", force_zip64=True) as member:
                _write_npy(item, cast(BinaryIO, member))


def _write_npy(item: Item, member: BinaryIO) -> None:
    info = item.info
    if info.dtype.numpy is not None:
        array = over(item.elements(), np.dtype(info.dtype.as_numpy()), info.shape)
        if item.place.raw is not None:
            array = reinterpret(array, *item.place.raw)
        _write_header(member, np.lib.format.dtype_to_descr(array.dtype), array.shape)
        if array.nbytes:
            member.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return
    shape = info.shape if decoding_of(info.dtype).width == 1 else (*info.shape, decoding_of(info.dtype).width)
    _write_header(member, "<f4", shape)
    member.writelines(block.data.cast("B") for block in _widened(item))


def _write_header(member: BinaryIO, described: Any, shape: tuple[int, ...]) -> None:
    fields = {"descr": described, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(member, fields)


def _widened(item: Item) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the numbers of a tensor, block by block."""
    blocks = Blocks(decoding_of(item.info.dtype), item.info.num_elements, _BLOCK, "now")
    for block in blocks.cut(item.elements()):
        yield block.numbers.astype("<f4")


def _by_name(items: Sequence[Item]) -> dict[str, Item]:
    found: dict[str, Item] = {}
    for item in items:
        if item.place.made_of_parts is not None:
            raise InvalidInputError(
                f"tensor {item.name!r:.200} is {item.place.made_of_parts}, and this format keeps dense ones alone: "
                "leave it out with only=, or export to .pt"
            )
        name = tensor_name(item.name)
        if name in found:
            raise InvalidInputError(f"two tensors would be called {name!r:.200} in the file; export without part=")
        found[name] = item
    return found
