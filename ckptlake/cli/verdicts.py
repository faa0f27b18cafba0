"""What verifications have found, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ckptlake.cli import wording
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, number_column, text_column

if TYPE_CHECKING:
    from ckptlake.integrity.verification import Verification

VERDICT_STYLES = {"good": "green", "damaged": "red", "missing": "red"}
_COLUMNS = (
    Column("checkpoint"),
    Column("verdict", styles=VERDICT_STYLES),
    number_column("tensors lost"),
    text_column("finding", shortest=20, rank=1),
)
_TENSORS_SHOWN = 10


def document(found: Verification) -> dict[str, object]:
    """Return what was found as a mapping."""
    return asdict(found)


def show_one(found: Verification) -> None:
    """Print what was found of one checkpoint."""
    console.line(found.checkpoint_id, style="bold")
    pairs: list[tuple[str, str]] = [("verdict", found.verdict), ("level", found.level)]
    if found.finding is not None:
        pairs.append(("finding", found.finding))
    if found.tensors_lost:
        more = len(found.tensors_lost) - _TENSORS_SHOWN
        names = ", ".join(found.tensors_lost[:_TENSORS_SHOWN])
        pairs.append(("tensors lost", f"{names} and {more:,} more" if more > 0 else names))
    pairs += [("read", wording.size(found.bytes_read)), ("duration", wording.duration(found.duration_s))]
    console.pairs(pairs)
    if not found.is_good:
        advise(found.checkpoint_id)


def show_many(found: Sequence[Verification]) -> None:
    """Print what is not good, and how many are."""
    wrong = [one for one in found if not one.is_good]
    if wrong:
        rows = [[one.checkpoint_id, one.verdict, f"{len(one.tensors_lost):,}", one.finding or "-"] for one in wrong]
        console.note(console.table(_COLUMNS, rows))
    console.line(_summary(found))
    if wrong:
        advise(wrong[0].checkpoint_id if len(wrong) == 1 else "")


def advise(which: str) -> None:
    """Say what to do about damage."""
    command = " ".join(filter(None, ("ckptlake checkpoints repair", which)))
    console.note(f"what is damaged is quarantined; `{command}` looks for other copies of its bytes")


def _summary(found: Sequence[Verification]) -> str:
    counts = Counter[str](one.verdict for one in found)
    verdicts = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICT_STYLES if counts[verdict])
    if not verdicts:
        return "no checkpoints to verify"
    read = wording.size(sum(one.bytes_read for one in found))
    checkpoints = wording.count(len(found), "checkpoint")
    return f"verified {checkpoints} at the level {found[0].level}: {verdicts}; {read} were read"
