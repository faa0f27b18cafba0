"""Checkpoints in one file of another program's format, digested while they are written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import BinaryIO, Self, cast

from ckptlake._internal.files import storage_errors, sync_directory, write_all
from ckptlake.checkpoints.checksums import CHECKED_BYTES, check
from ckptlake.checkpoints.manifest import Manifest, PlainFile, StoredTensor
from ckptlake.checkpoints.packed import Previous, Written, no_previous
from ckptlake.checkpoints.sources import Source
from ckptlake.checkpoints.state_format import StateFormat
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.checkpoints.tensor_pass import Work, check_all, measure_all

_INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit)


class DigestedFile:
    """A file that is written front to back while its digest and checksums are taken.

    Used as a context, it raises what the system refused even if the library that writes to it raises something else
    then, as torch does, or nothing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._checks: list[int] = []
        self._pending = bytearray()
        self._refusal: OSError | None = None
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self._refusal is not None and error is not self._refusal and not isinstance(error, _INTERRUPTS):
            raise self._refusal from error

    def write(self, payload: bytes | memoryview) -> int:
        """Write all of `payload`."""
        view = memoryview(payload).cast("B")
        try:
            write_all(self._descriptor, view)
        except OSError as error:
            self._refusal = error
            raise
        self._digest.update(view)
        self.size_bytes += len(view)
        rest = view
        while len(self._pending) + len(rest) >= CHECKED_BYTES:
            free = CHECKED_BYTES - len(self._pending)
            piece = bytes(self._pending) + bytes(rest[:free]) if self._pending else rest[:free]
            self._checks.append(check(piece))
            self._pending.clear()
            rest = rest[free:]
        self._pending += rest
        return len(view)

    def flush(self) -> None:
        """Do nothing: every write goes to the system at once."""

    def writable(self) -> bool:
        return True

    def described(self, name: str) -> PlainFile:
        """Return what has been written under the name it shall have."""
        checks = (*self._checks, check(bytes(self._pending))) if self._pending else tuple(self._checks)
        return PlainFile(name, self.size_bytes, self._digest.hexdigest(), checks)


def save_plain(
    store: CheckpointStore,
    draft: Manifest,
    state: object,
    sources: Sequence[Source],
    form: StateFormat,
    previous: Previous = no_previous,
) -> Written:
    """Write a state as one file in a plain format, then its manifest.

    Raises:
        InvalidInputError: the format cannot keep the state.
        StorageError: the disk refused; nothing of the checkpoint is left.
    """
    name = f"{draft.checkpoint_id}{form.suffix}"
    target = store.plain_path(name)
    partial = target.with_name(f".{name}.partial")
    with storage_errors("save a checkpoint", target):
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with DigestedFile(descriptor) as file:
                form.write(state, cast(BinaryIO, file))
            os.fsync(descriptor)
            partial.rename(target)
            sync_directory(target.parent)
            checks = check_all(sources)
            works = [Work(s, c, None, previous(s)) for s, c in zip(sources, checks, strict=True)]
            measured = measure_all(works)
            pack = f"checkpoints/{draft.checkpoint_id}"
            tensors = tuple(
                StoredTensor(s.leaf.path, s.leaf.dtype.name, s.leaf.shape, m.digest, c, pack, 0)
                for s, c, m in zip(sources, checks, measured, strict=True)
            )
            manifest = replace(draft, tensors=tensors, file=file.described(name))
            store.publish(manifest)
        except BaseException:
            if not store.manifest_path(draft.checkpoint_id).exists():
                target.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
            partial.unlink(missing_ok=True)
    statistics = {s.leaf.path: m.statistics for s, m in zip(sources, measured, strict=True)}
    return Written(manifest, file.size_bytes, statistics)
