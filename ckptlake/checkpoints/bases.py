"""Which earlier tensors others may be stored as differences to."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping

from ckptlake.checkpoints.codec.archive import Base
from ckptlake.checkpoints.manifest import Manifest, StoredTensor
from ckptlake.checkpoints.marks import PACK_FOLDER
from ckptlake.checkpoints.needs import Content
from ckptlake.checkpoints.packs import Packs
from ckptlake.checkpoints.rawpack import MANIFEST_KEY, RawPack
from ckptlake.errors import DamagedCheckpointError

logger = logging.getLogger(__name__)
MOST_DELTAS = 4
"""How many deltas are undone at most, one after the other, to read a tensor."""


class Bases:
    """Finds bases for the contents of one pack.

    Args:
        packs: where they are read from.
        pack: the pack that is compressed.
        before: tensors by path, of an earlier checkpoint.
        lasting: the packs that checkpoints refer to; what lies in others alone is no base.
    """

    def __init__(self, packs: Packs, pack: str, before: Mapping[str, StoredTensor], lasting: frozenset[str]) -> None:
        self._packs = packs
        self._pack = pack
        self._before = before
        self._lasting = lasting
        self._told: dict[str, frozenset[str]] = {}

    def find(self, content: Content) -> tuple[Base, memoryview] | None:
        """Return a base and its bytes, or None where there is no sound one.

        What others are differences to gets no base itself: that could make their chains longer, or circles.
        """
        if content.is_base:
            return None
        base = self._own_of(content) or self._earlier(content)
        if base is None:
            return None
        try:
            view = self._packs.blob(base.pack, base.digest, 0, content.nbytes)
        except DamagedCheckpointError as error:
            logger.warning("%s of %s is stored without a base: %s", content.name, self._pack, error)
            return None
        if hashlib.sha256(view).hexdigest() != base.digest:
            logger.warning(
                "%s of %s is stored without a base: that in %s is damaged", content.name, self._pack, base.pack
            )
            return None
        return base, view

    def _own_of(self, content: Content) -> Base | None:
        """Return the base that a content of a compressed pack has already, if that lasts."""
        opened = self._packs.get(self._pack)
        entry = None if isinstance(opened, RawPack) else opened.entries.get(str(content.digest))
        return entry.base if entry is not None and entry.base and entry.base.pack in self._lasting else None

    def _earlier(self, content: Content) -> Base | None:
        for tensor in content.tensors:
            earlier = self._before.get(tensor.path)
            if (
                earlier is not None
                and earlier.digest not in (None, content.digest)
                and (earlier.dtype, earlier.shape) == (tensor.dtype, tensor.shape)
                and earlier.pack in self._lasting
                and earlier.pack.startswith(PACK_FOLDER)
                and earlier.pack != self._pack
            ):
                base = Base(str(earlier.digest), earlier.pack)
                depth = self._depth(base)
                if depth is not None and depth < MOST_DELTAS:
                    return base
        return None

    def _depth(self, base: Base) -> int | None:
        """Return how many deltas are undone to read a base, or None where it cannot be found by its digest."""
        depth = 0
        next_base: Base | None = base
        try:
            while next_base is not None and depth <= MOST_DELTAS:
                opened = self._packs.get(next_base.pack)
                if isinstance(opened, RawPack):
                    return depth if next_base.digest in self._told_by(opened, next_base.pack) else None
                if next_base.digest not in opened.entries:
                    return None
                next_base = opened.entries[next_base.digest].base
                depth += next_base is not None
        except DamagedCheckpointError as error:
            logger.warning("tensors of %s are stored without a base: %s", self._pack, error)
            return None
        return depth

    def _told_by(self, opened: RawPack, pack: str) -> frozenset[str]:
        """Return the digests that an uncompressed pack's own header tells, so that it alone leads to them."""
        if pack not in self._told:
            text = opened.header()[1].get(MANIFEST_KEY)
            tensors = () if text is None else Manifest.decode(text, str(opened.path)).tensors
            self._told[pack] = frozenset(t.digest for t in tensors if t.digest is not None and t.pack == pack)
        return self._told[pack]
