"""What a repair asks the tables."""

from __future__ import annotations

from collections.abc import Mapping

from ckptlake.integrity.planning import Listed
from ckptlake.query import checkpoint_facts as facts


class TableRegister:
    """Answers from a lake's tables, always as they are now; see `ckptlake.integrity.planning.Register`."""

    def __init__(self, ask: facts.Ask) -> None:
        self._ask = ask

    def listed(self) -> Mapping[str, Listed]:
        """Return every checkpoint that a row tells of."""
        found = {name: Listed(None, is_deleted=is_deleted) for name, is_deleted in facts.known_ids(self._ask).items()}
        for row in facts.checkpoints(self._ask):
            is_quarantined = row["status"] == "quarantined"
            found[row["checkpoint_id"]] = Listed(row["digest"], is_quarantined=is_quarantined)
        return found

    def tensor_digests(self, checkpoint_id: str) -> Mapping[str, str]:
        """Return the digests of a checkpoint's tensors by path, as far as rows tell them."""
        return facts.tensor_digests(self._ask, checkpoint_id)
