"""Folders of ``torch.distributed.checkpoint``: shards put together, and the pickled index read as inert data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ckptlake.checkpoints.arrays import over
from ckptlake.checkpoints.dtypes import DTYPES
from ckptlake.checkpoints.foreign.origin import Foreign, count_of, mapped, member
from ckptlake.checkpoints.foreign.safetensors_files import as_value
from ckptlake.checkpoints.foreign.scratch import Scratch
from ckptlake.checkpoints.formats.optional_torch import needing_torch
from ckptlake.checkpoints.formats.stubs import Stub
from ckptlake.checkpoints.leaves import LeafInfo
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, UnsafeFileError

METADATA = ".metadata"
_META = "torch.distributed.checkpoint.metadata."
_KNOWN = {
    *(_META + name for name in (
        "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata",
        "TensorProperties", "_MEM_FORMAT_ENCODING", "StorageMeta",
    )),
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "pathlib.PosixPath",
    "builtins.getattr", "__builtin__.getattr",  # the first releases of Python 3.11 write members of enumerations so
}  # fmt: skip
"""Names that an index may have; each becomes an inert stub, none is called."""
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError)
_MOST_CELLS = 1_000_000
_STEPS = (("step",), ("global_step",), ("train_state", "step"))
_EPOCHS = (("epoch",), ("train_state", "epoch"))


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where one chunk, or one pickled value, lies."""

    file: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    info: LeafInfo
    chunks: tuple[tuple[tuple[int, ...], tuple[int, ...], _Stored], ...]


def read_dcp(folder: Path, scratch: Scratch) -> Foreign:
    """Return what a folder of `dcp.save` holds, in the nesting it was saved with; keys of dicts come back as text.

    Args:
        folder: the folder, with its ``.metadata``.
        scratch: where tensors are put together.

    Raises:
        UnsafeFileError: its index names what is no part of one, or a file outside of the folder.
        DamagedCheckpointError: it is cut, or chunks do not make up their tensors.
        InvalidInputError: it was written with extensions or in another serialization.
        MissingDependencyError: torch is not installed.
    """
    source = str(folder)
    try:
        entries, paths, stored = _index(folder)
        tensors = {name: _tensor(name, entry, stored) for name, entry in entries.items() if _kind(entry)}
    except _UNREADABLE as error:
        raise _damaged(source, error) from error
    values = {name: _only(stored, name) for name in entries if name not in tensors}
    files = _open_files(folder, [place for places in stored.values() for place in places.values()])

    def read() -> Any:
        found = {name: _together(source, tensor, files, scratch) for name, tensor in tensors.items()}
        found |= {name: _load(source, _piece(files, place)) for name, place in values.items()}
        return _nested(source, {name: found[name] for name in entries}, paths)

    told = {}
    for name, place in values.items():
        if tuple(paths.get(name, (name,))) in (*_STEPS, *_EPOCHS):
            told[tuple(paths.get(name, (name,)))] = count_of(_load(source, _piece(files, place)))
    step, epoch = (next((told[path] for path in among if path in told), None) for among in (_STEPS, _EPOCHS))
    return Foreign("dcp", len(tensors), read, step=step, epoch=epoch)


def _index(folder: Path) -> tuple[dict[str, Stub], dict[str, Any], dict[str, dict[Any, _Stored]]]:
    """Return the entries by name, their paths, and where their chunks lie by offset."""
    from ckptlake.checkpoints.formats.unpickling import STUB, load_pickle

    data = mapped(member(folder, METADATA))
    found = load_pickle(data, STUB)
    strange = [name for name in found.stubs if name not in _KNOWN]
    if strange:
        raise UnsafeFileError(
            f"{str(folder / METADATA)!r} names {strange[0]!r:.200}, which is no part of a checkpoint's index"
        )
    metadata = _fields(found.value, "Metadata")
    stored: dict[str, dict[Any, _Stored]] = {}
    for index, info in metadata["storage_data"].items():
        key = _fields(index, "MetadataIndex")
        place = _fields(info, "_StorageInfo")
        if place.get("transform_descriptors"):
            raise InvalidInputError(
                f"{str(folder)!r} was written with extensions, such as compression; save it without"
            )
        offset = key.get("offset")
        at = _Stored(place["relative_path"], _whole(place["offset"]), _whole(place["length"]))
        stored.setdefault(key["fqn"], {})[None if offset is None else tuple(offset)] = at
    return dict(metadata["state_dict_metadata"]), dict(metadata.get("planner_data") or {}), stored


def _kind(entry: Any) -> bool:
    """Tell whether an entry is a tensor; the other kind is a value of its own."""
    if not isinstance(entry, Stub) or entry.name not in (
        f"{_META}TensorStorageMetadata",
        f"{_META}BytesStorageMetadata",
    ):
        raise TypeError("an entry that is neither a tensor nor bytes")
    return entry.name.endswith("TensorStorageMetadata")


def _fields(stub: Any, name: str) -> dict[str, Any]:
    if not isinstance(stub, Stub) or stub.name.rpartition(".")[2] != name or not isinstance(stub.state, dict):
        raise TypeError(f"no {name} where one should be")
    return stub.state


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise TypeError("no whole number where one should be")
    return value


def _tensor(name: str, entry: Stub, stored: dict[str, dict[Any, _Stored]]) -> _Tensor:
    fields = _fields(entry, "TensorStorageMetadata")
    properties = fields["properties"].state
    dtype = str((properties if isinstance(properties, tuple) else (properties["dtype"],))[0]).removeprefix("torch.")
    if dtype not in DTYPES:
        raise InvalidInputError(f"tensor {name!r:.200} is of {dtype:.60}, which is not kept")
    info = LeafInfo(name, DTYPES[dtype], tuple(_whole(size) for size in fields["size"]))
    chunks = []
    for stub in fields["chunks"]:
        chunk = _fields(stub, "ChunkStorageMetadata")
        offsets, sizes = tuple(map(_whole, chunk["offsets"])), tuple(map(_whole, chunk["sizes"]))
        chunks.append((offsets, sizes, stored[name][offsets]))
    room = sum(place.length for _, _, place in chunks)
    if info.nbytes > room:
        raise ValueError(f"tensor {name!r:.100} of {info.nbytes} bytes lies in {room}")
    _check_cover(info, [(offsets, sizes) for offsets, sizes, _ in chunks])
    return _Tensor(info, tuple(chunks))


def _check_cover(info: LeafInfo, chunks: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    """Raise ValueError unless every element of a tensor is in exactly one chunk."""
    rank = len(info.shape)
    if any(len(offsets) != rank or len(sizes) != rank for offsets, sizes in chunks):
        raise ValueError(f"a chunk of tensor {info.path!r:.100} has another number of dimensions")
    if not info.num_elements:
        return
    edges = [
        sorted({0, info.shape[d], *(o[d] for o, _ in chunks), *(o[d] + s[d] for o, s in chunks)}) for d in range(rank)
    ]
    numbers = [{edge: number for number, edge in enumerate(axis)} for axis in edges]
    if any(axis[-1] > size for axis, size in zip(edges, info.shape, strict=True)):
        raise ValueError(f"a chunk of tensor {info.path!r:.100} reaches beyond it")
    if math.prod(len(axis) - 1 for axis in edges) > _MOST_CELLS:
        raise ValueError(f"tensor {info.path!r:.100} is cut into pieces beyond all reason")
    count = np.zeros([len(axis) - 1 for axis in edges], np.int64)
    for offsets, sizes in chunks:
        cells = tuple(slice(n[o], n[o + s]) for n, o, s in zip(numbers, offsets, sizes, strict=True))
        count[cells] += 1
    if not (count == 1).all():
        raise ValueError(f"the chunks of tensor {info.path!r:.100} leave gaps or overlap")


def _only(stored: dict[str, dict[Any, _Stored]], name: str) -> _Stored:
    places = list(stored.get(name, {}).values())
    if len(places) != 1:
        raise DamagedCheckpointError(f"the value {name!r:.200} is stored {len(places)} times where once is meant")
    return places[0]


def _open_files(folder: Path, places: Sequence[_Stored]) -> dict[str, memoryview]:
    files = {name: mapped(member(folder, name)) for name in dict.fromkeys(place.file for place in places)}
    claimed: dict[str, int] = {}
    for place in places:
        claimed[place.file] = claimed.get(place.file, 0) + place.length
        if place.offset + place.length > len(files[place.file]) or claimed[place.file] > len(files[place.file]):
            raise DamagedCheckpointError(
                f"{str(folder / place.file)!r} has {len(files[place.file])} bytes, its index tells of more or of the "
                "same ones twice; take a whole copy"
            )
    return files


def _piece(files: dict[str, memoryview], place: _Stored) -> memoryview:
    return files[place.file][place.offset : place.offset + place.length]


def _load(source: str, content: memoryview) -> Any:
    """Return what a piece of a file holds, which is a file of torch.save of its own."""
    with needing_torch(f"{source!r}"):
        from ckptlake.checkpoints.formats.torch_files import read_container
    from ckptlake.checkpoints.formats.guards import Allowance
    from ckptlake.checkpoints.formats.unpickling import REFUSE, Reading

    reading = Reading(REFUSE, Allowance(repr(source), len(content)))
    return reading.finish(read_container(content, reading)).value


def _together(source: str, tensor: _Tensor, files: dict[str, memoryview], scratch: Scratch) -> Any:
    with needing_torch(f"{source!r}"):
        from ckptlake.checkpoints.formats.torch_tensors import dtype_of, tensor_bytes
    info = tensor.info
    memory = scratch.take(info.nbytes)
    raw = np.dtype(info.dtype.as_numpy())
    whole = over(memory, raw, info.shape)
    for offsets, sizes, place in tensor.chunks:
        part = _load(source, _piece(files, place))
        if not hasattr(part, "untyped_storage") or dtype_of(part) is not info.dtype or tuple(part.shape) != sizes:
            raise DamagedCheckpointError(f"{source!r}: a chunk of {info.path!r:.200} is not what the index tells")
        where = tuple(slice(start, start + size) for start, size in zip(offsets, sizes, strict=True))
        whole[where] = over(tensor_bytes(part.detach()), raw, sizes)
    return as_value(info, memory)


def _nested(source: str, found: dict[str, Any], paths: dict[str, Any]) -> Any:
    """Return named values in the nesting they were saved with; numbers in paths are places in lists."""
    root: dict[Any, Any] = {}
    for name, value in found.items():
        path = paths.get(name, (name,))
        if not isinstance(path, tuple) or not path or not all(type(part) in (str, int) for part in path):
            raise _damaged(source, ValueError(f"the path of {name!r:.100} is none"))
        place = root
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise _damaged(source, ValueError(f"{name!r:.100} lies in what is no container"))
        place[path[-1]] = value
    return _with_lists(root)


def _with_lists(node: Any) -> Any:
    if not isinstance(node, dict) or not node:
        return node
    items = {key: _with_lists(value) for key, value in node.items()}
    if all(type(key) is int for key in items):
        return [items[key] for key in sorted(items)]
    return items


def _damaged(source: str, error: BaseException) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"the index of {source!r} cannot be read: {error!s:.300}; take a whole copy of it")
