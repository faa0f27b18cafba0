"""Files computed anew from their parity, and compared with what checkpoints say of them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.checkpoints.rawpack import RawPack
from ckptlake.checkpoints.store import ARCHIVE_SUFFIX, CheckpointStore
from ckptlake.errors import DamagedCheckpointError
from ckptlake.integrity.copies import ByDigest, InArchive, InFile, entry_of
from ckptlake.integrity.parity import rebuild
from ckptlake.integrity.pieces import Piece
from ckptlake.integrity.repair_plan import RebuildFile
from ckptlake.integrity.search import is_right


def rebuild_checked(
    store: CheckpointStore, action: RebuildFile, out: Path, mended: Collection[str | None] = ()
) -> None:
    """Write the file that parity gives back to `out`, and make sure that it is the one that is wanted.

    Args:
        store: the lake's checkpoints.
        action: which file, and what is to be in it.
        out: where to write.
        mended: digests of tensors that will have been mended before; whole differences to them are taken for right.

    Raises:
        DamagedCheckpointError: it is not, or some of its bytes are lost.
        CkptlakeError: as for `ckptlake.integrity.parity.rebuild`.
    """
    rebuild(action.path, action.parity, out)
    for piece in action.pieces:
        if not _is_in(store, action.path, out, piece, mended):
            raise DamagedCheckpointError(f"the parity {action.parity} is that of another file: {piece} is not in it")


def _is_in(store: CheckpointStore, path: Path, out: Path, piece: Piece, mended: Collection[str | None]) -> bool:
    """Tell whether a piece is in a file that will take the name of another."""
    if piece.is_pack and path.suffix == ARCHIVE_SUFFIX:
        return piece.digest is not None and _is_in_archive(store, out, piece, piece.digest, mended)
    start = 0
    if piece.is_pack:
        with closing(RawPack(out)) as pack:
            start = pack.data_start + piece.offset
    return is_right(InFile(out, start, piece.nbytes).read(), piece)


def _is_in_archive(
    store: CheckpointStore, out: Path, piece: Piece, digest: str, mended: Collection[str | None]
) -> bool:
    found = entry_of(out, digest)
    if found is None or found[0] != piece.nbytes:
        return False
    base = found[1]
    if base is not None and base.digest in mended:
        with Archive(out) as archive:
            return not archive.check(digest)
    told = ByDigest(store.layout.root, base.pack, base.digest, piece.nbytes) if base is not None else None
    return is_right(InArchive(out, digest, piece.nbytes, told).read(), piece)
