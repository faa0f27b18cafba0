"""An experiment: a named group of comparable runs, and what it asks of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ckptlake._internal.ids import new_id
from ckptlake._internal.names import check_text

if TYPE_CHECKING:
    from ckptlake.runs.requirements import Requirement
    from ckptlake.tables.store import TableStore


class Experiment:
    """A handle on one experiment; `lake.experiment("pose/vit")` returns it."""

    def __init__(self, name: str, store: TableStore) -> None:
        self.name = name
        self._store = store

    def __repr__(self) -> str:
        return f"Experiment({self.name!r})"

    def require(self, params: Mapping[str, object] | None = None, metrics: Iterable[str] = ()) -> None:
        """Require params and metrics of every run started from now on; replaces what was required before.

        Args:
            params: for each param a type (float, int, str, bool, list, dict), ``None`` for any value, or a
                list of allowed texts. A run without one, or with another type, fails at its start.
            metrics: metrics a run must have logged when it finishes; one without is marked failed.

        Raises:
            InvalidInputError: a description is none of these.

        >>> import ckptlake, tempfile
        >>> lake = ckptlake.open(tempfile.mkdtemp())
        >>> lake.experiment("pose").require(params={"lr": float})
        >>> lake.run(experiment="pose", params={"seed": 1})
        Traceback (most recent call last):
        ckptlake.errors.RequirementError: experiment 'pose' requires the param 'lr' (float), which this run ...
        """
        from ckptlake.runs.requirements import Requirement

        self._append(requirement=Requirement.of(params or {}, metrics).to_json())

    def describe(self, text: str) -> None:
        """Set the experiment's description; the newest shows."""
        self._append(description=check_text("the text of a description", text))

    def requirement(self) -> Requirement | None:
        """Return what the experiment requires, or None."""
        from ckptlake.runs.requirements import Requirement

        own = [row for row in self._rows() if row["requirement"] is not None]
        return Requirement.from_json(max(own, key=lambda row: row["ts"])["requirement"]) if own else None

    def _rows(self) -> list[dict[str, Any]]:
        from ckptlake.tables.reading import read_files

        files = self._store.snapshot().files()
        if not files:
            return []
        rows = read_files(self._store.path, self._store.spec, files).to_pylist()
        return [row for row in rows if row["experiment"] == self.name]

    def _append(self, **columns: str) -> None:
        import pyarrow as pa

        from ckptlake.tables.store import Batch

        # Newer than what is there, also where the clock has been set back.
        newest = max((row["ts"] + timedelta(microseconds=1) for row in self._rows()), default=datetime.now(UTC))
        row = {"experiment": self.name, "ts": max(newest, datetime.now(UTC)), **columns}
        rows = pa.Table.from_pylist([row], schema=self._store.spec.schema)
        self._store.append([Batch(new_id(), 1, rows)])
