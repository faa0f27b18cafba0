"""Files of safetensors and the shards of Hugging Face, mapped; every claim of a header is checked before it is used."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ckptlake.checkpoints.arrays import as_array
from ckptlake.checkpoints.dtypes import BY_CODE
from ckptlake.checkpoints.foreign.origin import Foreign, count_of, mapped, member, nested, parse_json
from ckptlake.checkpoints.leaves import LeafInfo
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, UnsafeFileError

_LENGTH = struct.Struct("<Q")
_MOST_HEADER_BYTES = 100_000_000
_SPARE_HEADER_BYTES = 1 << 20
_MOST_DIMENSIONS = 64
_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """An opened file: its tensors by name, in the order of their bytes, and what it tells beside them."""

    path: Path
    infos: Mapping[str, LeafInfo]
    views: Mapping[str, memoryview]
    metadata: Mapping[str, str]

    def tensors(self) -> dict[str, Any]:
        """Return its tensors over the mapped file: torch's if torch is installed, else numpy's.

        Names that the metadata say are tied to one of them are there too, as the same object.
        """
        found = {name: as_value(info, self.views[name]) for name, info in self.infos.items()}
        tied = {name: found[of] for name, of in self.metadata.items() if name not in found and of in found}
        return found | tied


def open_safetensors(path: Path) -> SafetensorsFile:
    """Open a safetensors file, reading its header alone.

    Raises:
        InvalidInputError: it cannot be opened, or holds an element type that is not kept.
        DamagedCheckpointError: its header cannot be read, or its tensors do not fill its data exactly.
        UnsafeFileError: its header is larger than its data can explain.
    """
    data = mapped(path)
    length = _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else -1
    if not 0 < length <= len(data) - _LENGTH.size:
        raise DamagedCheckpointError(
            f"{str(path)!r} has {len(data)} bytes and claims a header of {length}; it is cut, or no safetensors file"
        )
    start = _LENGTH.size + length
    if length > min(_MOST_HEADER_BYTES, _SPARE_HEADER_BYTES + len(data) - start):
        raise UnsafeFileError(f"{str(path)!r} has a header of {length} bytes for {len(data) - start} bytes of data")
    fields = parse_json(bytes(data[_LENGTH.size : start]), str(path))
    metadata = fields.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DamagedCheckpointError(f"the metadata of {str(path)!r} are no texts by name")
    room = len(data) - start
    spans = [_span(path, name, entry, room) for name, entry in fields.items()]
    spans.sort(key=lambda span: span[1:])
    end = 0
    for info, begin, stop in spans:
        if begin != end:
            raise DamagedCheckpointError(
                f"{str(path)!r}: tensor {info.path!r:.200} begins at byte {begin} of the data where the one before it "
                f"ends at {end}; tensors must neither overlap nor leave gaps"
            )
        end = stop
    if end != room:
        raise DamagedCheckpointError(f"{str(path)!r} has {room} bytes of data where its header tells {end}")
    views = {info.path: data[start + begin : start + stop] for info, begin, stop in spans}
    return SafetensorsFile(path, {info.path: info for info, _, _ in spans}, views, metadata)


def read_safetensors(path: Path) -> Foreign:
    """Return what a safetensors file holds; `open_safetensors` tells the errors."""
    file = open_safetensors(path)
    told = file.metadata
    return Foreign(
        "safetensors",
        len(file.infos),
        lambda: nested(file.tensors(), told),
        step=count_of(told.get("ckptlake.step")),
        epoch=count_of(told.get("ckptlake.epoch")),
    )


def read_shards(folder: Path, weight_map: Mapping[str, Any]) -> Foreign:
    """Return the tensors of a folder of shards, by the file that each is in.

    Raises:
        UnsafeFileError: a shard lies outside of the folder.
        DamagedCheckpointError: a shard is missing, damaged, or lacks a tensor of the index.
    """
    names = dict.fromkeys(weight_map.values())
    files = {name: open_safetensors(member(folder, name)) for name in names}
    for tensor, name in weight_map.items():
        if tensor not in files[name].infos:
            raise lacking(folder / name, tensor)

    def read() -> dict[str, Any]:
        opened = {name: file.tensors() for name, file in files.items()}
        return {tensor: opened[name][tensor] for tensor, name in weight_map.items()}

    return Foreign("huggingface-safetensors", len(weight_map), read)


def lacking(path: Path, tensor: str) -> DamagedCheckpointError:
    """Return the error for a shard without a tensor that its index says it has."""
    return DamagedCheckpointError(
        f"{str(path)!r} does not hold tensor {tensor!r:.200}, which the index says it does; take a whole copy"
    )


def as_value(info: LeafInfo, view: memoryview) -> Any:
    """Return bytes as a torch tensor if torch is installed, else as a numpy array."""
    if find_spec("torch") is None:
        return as_array(info, view)
    from ckptlake.checkpoints.formats.torch_tensors import as_tensor

    return as_tensor(info, view)


def _span(path: Path, name: str, entry: Any, room: int) -> tuple[LeafInfo, int, int]:
    """Return a tensor of a header and where its bytes begin and end."""
    where = f"{str(path)!r}: tensor {name!r:.200}"
    match entry:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [int(begin), int(stop)]} if len(entry) == 3:
            pass
        case _:
            raise DamagedCheckpointError(f"{where} has no dtype, shape and two offsets")
    if code not in BY_CODE:
        raise InvalidInputError(f"{where} is of {code!r:.40}, which is not kept; convert it to one of {list(BY_CODE)}")
    if isinstance(begin, bool) or isinstance(stop, bool) or not 0 <= begin <= stop <= room:
        raise DamagedCheckpointError(f"{where} lies outside of the file's {room} bytes of data")
    if len(shape) > _MOST_DIMENSIONS or any(type(size) is not int or not 0 <= size <= 2**62 for size in shape):
        raise DamagedCheckpointError(f"{where} has a shape that no tensor has")
    info = LeafInfo(name, BY_CODE[code], tuple(shape))
    if info.nbytes != stop - begin or (info.nbytes == 0 and sum(size.bit_length() for size in shape) > 62):
        raise DamagedCheckpointError(f"{where} has {stop - begin} bytes, which its shape does not take")
    return info, begin, stop
