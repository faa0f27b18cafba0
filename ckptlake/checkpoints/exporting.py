"""Checkpoints written as files that other programs read: streamed, digested in the same pass, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ckptlake._internal.files import storage_errors, sync_directory
from ckptlake.checkpoints.foreign.mapped import MappedCheckpoint
from ckptlake.checkpoints.foreign.places import Place, key_of, part_of, places
from ckptlake.checkpoints.foreign.scratch import Scratch
from ckptlake.checkpoints.foreign.writing import Item, write_npz, write_safetensors
from ckptlake.checkpoints.formats.optional_torch import needing_torch
from ckptlake.checkpoints.leaves import JSON
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.opened import VerifyLevel
from ckptlake.checkpoints.opened import matches as matches
from ckptlake.checkpoints.plain import DigestedFile
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.errors import InvalidInputError

FORMATS = {
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
    ".bin": "torch",
    ".npz": "npz",
    ".dcp": "dcp",
}
"""Formats by the suffix of their files; a folder of `torch.distributed.checkpoint` needs none."""
_PIECE = 4 << 20


@dataclass(frozen=True, slots=True)
class ExportChoices:
    """What of a checkpoint is written, and how.

    Attributes:
        part: one entry of the state, such as ``model``; None for all of it.
        only: patterns of tensor paths; None for all.
        verify: what tensors are compared with as they are read.
        overwrite: whether what is at the path may be replaced.
        widen: whether element types that numpy lacks become float32 in an .npz.
    """

    part: str | None = None
    only: str | Sequence[str] | None = None
    verify: VerifyLevel = "digest"
    overwrite: bool = False
    widen: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """A file, or a folder, that has been written and is durable.

    Attributes:
        format: ``safetensors``, ``torch``, ``npz`` or ``dcp``.
        num_tensors: how many tensors it holds, each name of tied ones counted.
        digest: SHA-256 of the file; of a folder, of the lines ``<SHA-256>  <name>`` of its files by name.
    """

    path: Path
    format: str
    num_tensors: int
    size_bytes: int
    digest: str


def format_of(path: Path, name: str | None) -> str:
    """Return the format that a name or else a suffix stands for.

    Raises:
        InvalidInputError: neither does.
    """
    found = FORMATS.get(path.suffix.lower()) if name is None else name
    if found is None or found not in FORMATS.values():
        asked = repr(path.name) if name is None else f"format={name!r:.40}"
        raise InvalidInputError(
            f"{asked} names no format to export to; end the path in {', '.join(FORMATS)}, or give "
            f"format= one of {', '.join(sorted(set(FORMATS.values())))}"
        )
    return found


def export(
    store: CheckpointStore, manifest: Manifest, path: Path, format: str | None, choices: ExportChoices
) -> Exported:
    """Write a checkpoint to a path; `lake.checkpoints.export` tells the choices and errors."""
    name = format_of(path, format)
    if (path.exists() or path.is_symlink()) and not choices.overwrite:
        raise _taken(path)
    if not path.parent.is_dir():
        raise InvalidInputError(f"there is no directory {str(path.parent)!r} to export to; make it first")
    mapped = MappedCheckpoint(store, manifest, Scratch(path.parent), choices.verify)
    try:
        chosen = _chosen(mapped, choices)
        with storage_errors("export a checkpoint", path):
            if name == "dcp":
                size_bytes, digest = _export_folder(path, chosen.state(), choices.overwrite)
            else:
                size_bytes, digest = _export_file(path, _WRITERS[name], chosen, choices)
    finally:
        mapped.close()
    return Exported(path, name, len(chosen.places), size_bytes, digest)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What of a checkpoint is to be written.

    Attributes:
        node: the node of the state or part that is written whole, or None where tensors were picked out of it.
        places: its tensors.
    """

    mapped: MappedCheckpoint
    node: JSON
    is_whole: bool
    is_part: bool
    places: list[Place]

    def state(self) -> Any:
        if self.is_whole:
            return self.mapped.state(self.node)
        nested: dict[str, Any] = {}
        for place in self.places:
            *levels, name = [key_of(level) for level in place.path.split("/")]
            inner = nested
            for level in levels:
                inner = inner.setdefault(level, {})
            inner[name] = self.mapped.state(place.node)
        return nested

    def items(self) -> Iterator[Item]:
        for place in self.places:
            name = key_of(place.path) if self.is_part else place.path
            yield Item(name, self.mapped.info(place), place, self.mapped)

    def metadata(self) -> dict[str, str]:
        """Return what a file is to tell of where it comes from; its names are paths if it is no part."""
        manifest = self.mapped.manifest
        told = {
            "ckptlake.checkpoint": manifest.checkpoint_id,
            "ckptlake.names": "keys" if self.is_part else "paths",
            "ckptlake.step": manifest.step,
            "ckptlake.epoch": manifest.epoch,
        }
        return {name: str(value) for name, value in told.items() if value is not None}


def _chosen(mapped: MappedCheckpoint, choices: ExportChoices) -> _Chosen:
    tree = cast(JSON, mapped.manifest.tree)
    node = tree if choices.part is None else part_of(tree, choices.part)
    found = list(places(node))
    if choices.only is not None:
        patterns = [choices.only] if isinstance(choices.only, str) else list(choices.only)
        for pattern in patterns:
            if not any(matches(place.path, pattern) for place in found):
                known = ", ".join(place.path for place in found[:5])
                raise InvalidInputError(f"no tensor matches {pattern!r:.80}; the first are {known or 'none'}")
        found = [place for place in found if any(matches(place.path, pattern) for pattern in patterns)]
    return _Chosen(mapped, node, choices.only is None, choices.part is not None, found)


Write = Callable[[_Chosen, BinaryIO, ExportChoices], None]


def _write_safetensors(chosen: _Chosen, file: BinaryIO, _: ExportChoices) -> None:
    write_safetensors(list(chosen.items()), chosen.metadata(), file)


def _write_npz(chosen: _Chosen, file: BinaryIO, choices: ExportChoices) -> None:
    write_npz(list(chosen.items()), chosen.metadata(), file, choices.widen)


def _write_torch(chosen: _Chosen, file: BinaryIO, _: ExportChoices) -> None:
    with needing_torch("a file of torch.save"):
        from ckptlake.checkpoints.formats.torch_exchange import save_file
    save_file(chosen.state(), file)


_WRITERS: dict[str, Write] = {"safetensors": _write_safetensors, "npz": _write_npz, "torch": _write_torch}


def _export_file(path: Path, write: Write, chosen: _Chosen, choices: ExportChoices) -> tuple[int, str]:
    with _partial(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with DigestedFile(descriptor) as file:
                write(chosen, cast(BinaryIO, file), choices)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _give_name(partial, path, choices.overwrite)
    return file.size_bytes, file.described(path.name).digest


def _give_name(partial: Path, path: Path, overwrite: bool) -> None:
    if overwrite:
        partial.replace(path)
    else:
        try:
            os.link(partial, path)
        except FileExistsError:
            raise _taken(path) from None
    sync_directory(path.parent)


def _export_folder(path: Path, state: Any, overwrite: bool) -> tuple[int, str]:
    with needing_torch("a folder of torch.distributed.checkpoint"):
        from ckptlake.checkpoints.formats.dcp import save_folder
    with _partial(path) as partial:
        save_folder(state, partial)
        sync_directory(partial)
        size_bytes, digest = _folder_digest(partial)
        if overwrite and path.is_dir() and not path.is_symlink():
            with _partial(path) as old:
                path.rename(old)
                partial.rename(path)
        else:
            partial.rename(path)
        sync_directory(path.parent)
    return size_bytes, digest


def _folder_digest(folder: Path) -> tuple[int, str]:
    size_bytes, lines = 0, hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                size_bytes += len(piece)
        lines.update(f"{digest.hexdigest()}  {path.name}\n".encode())
    return size_bytes, lines.hexdigest()


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """Offer a name beside a path; whatever has it in the end is deleted."""
    partial = path.with_name(f".{path.name[:150]}.{secrets.token_hex(8)}.partial")
    try:
        yield partial
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def _taken(path: Path) -> InvalidInputError:
    return InvalidInputError(f"{str(path)!r} exists already; give another path, or overwrite=True")
