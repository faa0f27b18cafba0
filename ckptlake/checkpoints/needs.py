"""What is still needed of one pack: by checkpoints that are there, and by the deltas of other packs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.checkpoints.manifest import Manifest, StoredTensor
from ckptlake.checkpoints.marks import Marks, owner_of
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, CheckpointStore


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that are needed, once however many tensors have them.

    Attributes:
        digest: their SHA-256, or None while that is deferred.
        tensors: the tensors of checkpoints that have them, those of the pack's own checkpoint first; none where
            they serve as a base alone.
        is_base: whether deltas of other packs are differences to them.
    """

    digest: str | None
    dtype: str
    nbytes: int
    tensors: tuple[StoredTensor, ...]
    is_base: bool

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"tensor {self.tensors[0].path!r}" if self.tensors else f"the content {self.digest}"


@dataclass(frozen=True, slots=True)
class Needs:
    """What is needed of a pack.

    Attributes:
        manifests: those that refer to it, by checkpoint.
        contents: what they and the deltas of other packs need.
    """

    manifests: Mapping[str, Manifest]
    contents: tuple[Content, ...]

    @property
    def digests(self) -> frozenset[str | None]:
        """The digests of everything needed, None among them where one is deferred."""
        return frozenset(content.digest for content in self.contents)


def needs_of(store: CheckpointStore, marks: Marks, pack: str) -> Needs:
    """Return what is needed of a pack, where `marks` tell who refers to it.

    Raises:
        CheckpointNotFoundError: a checkpoint that refers to it has no manifest.
        DamagedCheckpointError: a manifest, or a pack with deltas, cannot be read.
    """
    manifests = {
        holding.checkpoint_id: store.read_manifest(holding.checkpoint_id)
        for holding in marks.live()
        if holding.packs is None or pack in holding.packs
    }
    tensors: dict[str | None, list[StoredTensor]] = {}
    for manifest in sorted(manifests.values(), key=lambda one: one.checkpoint_id != owner_of(pack)):
        for tensor in manifest.tensors:
            if tensor.pack == pack and tensor.nbytes:
                tensors.setdefault(tensor.digest, []).append(tensor)
    bases = dict(_bases_in_others(store, marks, pack))
    contents = [Content(d, same[0].dtype, same[0].nbytes, tuple(same), d in bases) for d, same in tensors.items()]
    contents += [Content(d, *kind, (), is_base=True) for d, kind in bases.items() if d not in tensors]
    return Needs(manifests, tuple(contents))


def _bases_in_others(store: CheckpointStore, marks: Marks, pack: str) -> Iterator[tuple[str | None, tuple[str, int]]]:
    """Yield what deltas of other packs are based on, with type and size, which are those of the deltas."""
    for other in marks.recodings:
        path = store.pack_path(other, ARCHIVE_SUFFIX)
        if other == pack or not path.exists():
            continue
        with Archive(path) as archive:
            for entry in archive.entries.values():
                if entry.base is not None and entry.base.pack == pack:
                    yield entry.base.digest, (entry.dtype, entry.nbytes)
