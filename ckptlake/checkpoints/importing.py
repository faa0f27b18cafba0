"""Checkpoints of other programs recognised by what they hold, and read without running anything in them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ckptlake.checkpoints.foreign import safetensors_files, torch_states
from ckptlake.checkpoints.foreign.dcp_folders import METADATA, read_dcp
from ckptlake.checkpoints.foreign.lakes import is_manifest, read_other_lake
from ckptlake.checkpoints.foreign.npz_files import read_npz
from ckptlake.checkpoints.foreign.origin import Foreign, count_of, member, read_json
from ckptlake.checkpoints.foreign.scratch import Scratch
from ckptlake.checkpoints.store import MANIFEST_SUFFIX
from ckptlake.errors import DamagedCheckpointError, InvalidInputError, NotFoundError

_INDEXES = {".safetensors.index.json": safetensors_files.read_shards, ".bin.index.json": torch_states.read_shards}
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_TRAINER = "trainer_state.json"
_MAGIC_BYTES = 16


@dataclass(frozen=True, slots=True)
class Probe:
    """What a file or folder is, found out without reading a tensor.

    Attributes:
        kind: ``safetensors``, ``huggingface-safetensors``, ``huggingface-torch``, ``torch``, ``torch-module``,
            ``lightning``, ``npz``, ``dcp`` or ``ckptlake``.
        num_tensors: how many tensors it names.
        size_bytes: of the file, or of all files in the folder.
        step: the step it tells, or None.
        epoch: the epoch it tells, or None.
        left_out: names of code in it, which an import would keep as text.
    """

    path: Path
    kind: str
    num_tensors: int
    size_bytes: int
    step: int | None
    epoch: int | None
    left_out: tuple[str, ...]


def probe(path: str | os.PathLike[str]) -> Probe:
    """Tell what a file or folder is; no tensor is read, and nothing in it is run.

    Raises:
        NotFoundError: there is none.
        InvalidInputError: it is nothing that can be imported.
        UnsafeFileError: it could only be read by running code, or claims more than its size can explain.
        DamagedCheckpointError: it is cut or malformed.
    """
    place = Path(path)
    found = read_foreign(place, Scratch(place.parent))
    size_bytes = place.stat().st_size
    if place.is_dir():
        size_bytes = sum(file.stat().st_size for file in place.iterdir() if file.is_file())
    return Probe(place, found.kind, found.num_tensors, size_bytes, found.step, found.epoch, found.left_out)


def read_foreign(path: Path, scratch: Scratch, *, allow_unsafe: bool = False) -> Foreign:
    """Return what a file or folder of another program holds, whatever it is called.

    Args:
        path: a file, a folder, an index of shards, or the manifest of a checkpoint in another lake.
        scratch: where tensors go that cannot be mapped.
        allow_unsafe: let a file of torch run the code that it names.

    Raises:
        NotFoundError: there is none.
        InvalidInputError: it is nothing that can be imported.
        UnsafeFileError: it could only be read by running code, or claims more than its size can explain.
        DamagedCheckpointError: it is cut or malformed.
    """
    if path.is_dir():
        return _read_folder(path, scratch)
    if not path.is_file():
        raise NotFoundError(f"there is no file or folder {str(path)!r} to import")
    for suffix in _INDEXES:
        if path.name.endswith(suffix):
            return _read_index(path, suffix)
    if is_manifest(path):
        return read_other_lake(path, scratch)
    if path.suffix == MANIFEST_SUFFIX:
        raise InvalidInputError(f"{str(path)!r} is neither an index of shards nor a checkpoint of a lake")
    if path.name == METADATA:
        return read_dcp(path.parent, scratch)
    return _read_file(path, scratch, allow_unsafe)


def _read_file(path: Path, scratch: Scratch, allow_unsafe: bool) -> Foreign:
    try:
        with path.open("rb") as file:
            head = file.read(_MAGIC_BYTES)
    except OSError as error:
        raise InvalidInputError(f"{str(path)!r} cannot be opened: {error.strerror or error}") from error
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return safetensors_files.read_safetensors(path)
    if path.suffix == ".npz":
        return read_npz(path, scratch)
    return torch_states.read_trusted(path) if allow_unsafe else torch_states.read_torch(path)


def _read_folder(folder: Path, scratch: Scratch) -> Foreign:
    names = sorted(path.name for path in folder.iterdir())
    for suffix in _INDEXES:
        indexes = [name for name in names if name.endswith(suffix)]
        if len(indexes) > 1:
            raise InvalidInputError(f"{str(folder)!r} holds {', '.join(indexes)}; import one of them")
        if indexes:
            return _with_trainer(folder, _read_index(member(folder, indexes[0]), suffix))
    for name in _WHOLE:
        if name in names:
            return _with_trainer(folder, _read_file(member(folder, name), scratch, False))
    if METADATA in names:
        return read_dcp(folder, scratch)
    raise InvalidInputError(
        f"{str(folder)!r} holds none of an index of shards, {', '.join(_WHOLE)} and {METADATA}; give the path of a file"
    )


def _read_index(path: Path, suffix: str) -> Foreign:
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedCheckpointError(f"{str(path)!r} has no weight_map that tells which file holds which tensor")
    wrong = next((name for name in weight_map.values() if not isinstance(name, str)), None)
    if wrong is not None:
        raise DamagedCheckpointError(f"{str(path)!r} names {wrong!r:.60} where a file's name should be")
    return _INDEXES[suffix](path.parent, weight_map)


def _with_trainer(folder: Path, found: Foreign) -> Foreign:
    """Add step and epoch from what Hugging Face's Trainer writes beside a model."""
    if not (folder / _TRAINER).exists():
        return found
    told = read_json(member(folder, _TRAINER))
    step, epoch = count_of(told.get("global_step")), count_of(told.get("epoch"))
    return Foreign(found.kind, found.num_tensors, found.read, step=step, epoch=epoch, left_out=found.left_out)
