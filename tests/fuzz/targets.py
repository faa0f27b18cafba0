"""What is fuzzed: every reader of bytes that others may have written, with the errors that it may answer with."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckptlake.checkpoints.codec.archive import Archive, Base
from ckptlake.checkpoints.foreign.npz_files import read_npz
from ckptlake.checkpoints.foreign.safetensors_files import read_safetensors
from ckptlake.checkpoints.foreign.scratch import Scratch
from ckptlake.checkpoints.formats.torch_files import read_torch_file, verify_torch_file
from ckptlake.checkpoints.formats.unpickling import Policy, load_pickle
from ckptlake.checkpoints.leaves import LeafInfo
from ckptlake.checkpoints.manifest import Manifest
from ckptlake.checkpoints.rawpack import MANIFEST_KEY, RawPack
from ckptlake.checkpoints.restore import unflatten
from ckptlake.checkpoints.tree import read_bytes
from ckptlake.errors import (
    CkptlakeError,
    DamagedCheckpointError,
    DamagedSegmentError,
    InvalidInputError,
    LakeFormatError,
    MissingDependencyError,
    UnsafeFileError,
)
from ckptlake.integrity.parity import examine
from ckptlake.runs.frames import unpack
from ckptlake.runs.wal import read_segment
from tests.fuzz import mutations, resealing
from tests.fuzz.mutations import Form
from tests.fuzz.specimens import flat_state, specimens

MEMORY_SPARE_BYTES = 96 << 20
MEMORY_TIMES = 64
LONGEST_MESSAGE = 4000
_MOST_DECODED_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """One reader.

    Attributes:
        read: reads all of what may be a file; it raises `declared` errors alone.
        declared: what its documentation says it raises.
        forms: what its files are made of, for changes that keep to it.
        reseal: puts right the checksums of a changed file.
    """

    name: str
    read: Callable[[bytes], None]
    declared: tuple[type[CkptlakeError], ...]
    forms: Sequence[Form] = ()
    reseal: Callable[[bytes], bytes] | None = None

    def specimens(self) -> Sequence[bytes]:
        return specimens()[self.name]

    def check(self, data: bytes) -> None:
        """Read a file as it is, and with its checksums put right.

        Raises:
            AssertionError: it took more memory than its size explains, or an error said nothing or too much.
            Exception: any that is not declared.
        """
        self._check(data)
        if self.reseal is not None:
            self._check(self.reseal(data))

    def _check(self, data: bytes) -> None:
        said = "nothing"
        tracemalloc.start()
        try:
            self.read(data)
        except self.declared as error:
            said = str(error)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert 0 < len(said) <= LONGEST_MESSAGE, f"an error of {len(said)} characters: {said[:200]}"
        assert peak <= MEMORY_SPARE_BYTES + MEMORY_TIMES * len(data), f"{peak} bytes of memory for {len(data)} of file"


@contextlib.contextmanager
def _file(data: bytes, suffix: str = "") -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(suffix)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        yield path
    finally:
        path.unlink()


def _read_manifest(data: bytes) -> None:
    manifest = Manifest.decode(data, "manifest")
    for tensor in manifest.tensors:
        assert tensor.nbytes >= 0
    assert len(manifest.paths) == len(manifest.tensors)
    assert Manifest.decode(manifest.encode(), "again") == manifest
    _ = manifest.digest, manifest.packs, manifest.logical_bytes


def _read_raw_pack(data: bytes) -> None:
    with _file(data) as path:
        pack = RawPack(path)
        try:
            slots, metadata = pack.header()
            for slot in slots:
                pack.view(slot.offset, slot.nbytes)
            if MANIFEST_KEY in metadata:
                _read_manifest(metadata[MANIFEST_KEY].encode("utf-8", "surrogatepass"))
        finally:
            pack.close()


def _read_archive(data: bytes) -> None:
    def read_base(_: Base, start: int, stop: int) -> memoryview:
        return memoryview(bytes(stop - start))

    with _file(data) as path, Archive(path) as archive:
        for digest, entry in archive.entries.items():
            archive.check(digest)
            if entry.nbytes <= _MOST_DECODED_BYTES:
                archive.read_into(digest, 0, entry.nbytes, memoryview(bytearray(entry.nbytes)), read_base)


def _read_parity(data: bytes) -> None:
    with _file(specimens()["raw_pack"][0]) as protected, _file(data) as parity:
        examine(protected, parity)


def _read_pickle(data: bytes) -> None:
    for policy in Policy:
        with contextlib.suppress(*_CODE):
            load_pickle(memoryview(data), policy)
    load_pickle(memoryview(data), Policy.STUB)


def _read_torch(data: bytes) -> None:
    with _file(data, ".pt") as path:
        with contextlib.suppress(*_CODE):
            verify_torch_file(path)
        with contextlib.suppress(*_CODE):
            read_torch_file(path, Policy.STUB)
        read_torch_file(path)


def _read_segment(data: bytes) -> None:
    folder = Path(tempfile.mkdtemp())
    path = folder / _segment_name(data)
    try:
        path.write_bytes(data)
        for _, batch in read_segment(path).frames:
            unpack(batch).validate(full=True)
    finally:
        path.unlink()
        folder.rmdir()


def _segment_name(data: bytes) -> str:
    """Return the name of a segment of the writer that its header tells, as far as it does."""
    try:
        writer = json.loads(next(resealing.frames(data))[2])["writer"]
    except (ValueError, LookupError, TypeError, StopIteration, RecursionError):
        writer = None
    known = isinstance(writer, str) and 0 < len(writer) < 100 and writer.isascii() and writer.replace("-", "").isalnum()
    return f"{writer if known else 'writer'}.00000000.wal"


def _read_npz(data: bytes) -> None:
    with _file(data, ".npz") as path, tempfile.TemporaryDirectory() as folder:
        read_npz(path, Scratch(Path(folder))).read()


def _read_safetensors(data: bytes) -> None:
    with _file(data, ".safetensors") as path:
        read_safetensors(path).read()


def _read_tree(data: bytes) -> None:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return
    leaves = flat_state().leaves
    infos = [LeafInfo(leaf.path, leaf.dtype, leaf.shape) for leaf in leaves]
    unflatten(tree, infos, lambda number: memoryview(bytearray(read_bytes(leaves[number]))))


_CODE = (DamagedCheckpointError, UnsafeFileError, InvalidInputError, MissingDependencyError)
_OWN = (DamagedCheckpointError, LakeFormatError)
TARGETS = {
    target.name: target
    for target in (
        Target("manifest", _read_manifest, _OWN, (mutations.MANIFEST,), resealing.manifest),
        Target("raw_pack", _read_raw_pack, _OWN, (mutations.HEADER,)),
        Target("archive", _read_archive, _OWN, (mutations.FOOTER,), resealing.archive),
        Target("parity", _read_parity, _OWN, (), resealing.parity),
        Target("segment", _read_segment, (DamagedSegmentError, LakeFormatError),
               (mutations.FRAMES, mutations.SEGMENT_HEADER), resealing.segment),
        Target("tree", _read_tree, (DamagedCheckpointError, InvalidInputError, MissingDependencyError),
               (mutations.JSON_FILE,)),
        Target("pickle", _read_pickle, _CODE[:2] + _CODE[3:], (mutations.PICKLE,)),
        Target("torch", _read_torch, _CODE, (mutations.TORCH_ZIP, mutations.PICKLE), resealing.archive_of_zip),
        Target("npz", _read_npz, (UnsafeFileError, DamagedCheckpointError, InvalidInputError), (),
               resealing.archive_of_zip),
        Target("safetensors", _read_safetensors, (UnsafeFileError, DamagedCheckpointError, InvalidInputError),
               (mutations.HEADER,)),
    )
}  # fmt: skip
