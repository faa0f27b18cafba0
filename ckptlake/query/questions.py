"""What one question needs of DuckDB, and the shape that questions answered by the same views have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ckptlake.query.scans import SCANNED, Scan
from ckptlake.query.sources import Sources
from ckptlake.query.views import ScanShape


@dataclass(frozen=True, slots=True)
class Folds:
    """The tables of DuckDB that hold what the view of checkpoints is made of, where a question wants it."""

    settled: str | None = None
    recent: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a question reads, and the views on it that it wants.

    Attributes:
        kept: all rows of some of these views, or the name of the table of DuckDB that holds them.
    """

    sources: Sources
    wanted: frozenset[str]
    folds: Folds = Folds()
    kept: Mapping[str, str | pa.Table] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides the text of the views: two questions of one shape differ in rows and files alone."""

    views: frozenset[str]
    scans: frozenset[tuple[str, ScanShape]]
    has_settled: bool
    kept: frozenset[str]

    @classmethod
    def of(cls, question: Question) -> Shape:
        sources, wanted = question.sources, question.wanted
        if wanted & {"experiments", "runs_wide"}:
            wanted |= {"runs"}
        if "runs_wide" in wanted:
            wanted |= {"params", "summaries", "definitions"}
        scans = frozenset(
            (name, _scan_shape(scan)) for name, scan in sources.scans.items() if SCANNED[name].views & wanted
        )
        return cls(wanted, scans, question.folds.settled is not None, frozenset(question.kept))


def _scan_shape(scan: Scan) -> ScanShape:
    return ScanShape(
        bool(scan.files),
        scan.live is not None,
        scan.repeated is not None and scan.repeated.num_rows > 0,
        bool(scan.files) and "=" in str(root_of(scan)),
    )


def root_of(scan: Scan) -> Path:
    """Return the directory of the table that a scan with files reads."""
    return Path(scan.files[0]).parent.parent
