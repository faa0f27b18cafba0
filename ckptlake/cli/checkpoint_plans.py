"""What a retention policy would do, and why, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ckptlake.cli import wording
from ckptlake.cli.checkpoint_listing import whole
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, name_column, number_column, text_column

if TYPE_CHECKING:
    from ckptlake.catalog.pruning import Applied
    from ckptlake.checkpoints.budgets import Decision, RetentionPlan

_COLUMNS = (
    Column("what", styles={"delete": "red", "trim": "yellow", "keep": "green"}),
    Column("id"),
    number_column("step"),
    number_column("frees"),
    name_column("run", shortest=26, rank=1),
    text_column("why", shortest=20),
)


def document(plan: RetentionPlan) -> dict[str, object]:
    """Return the plan as a mapping."""
    return asdict(plan)


def show(plan: RetentionPlan) -> None:
    """Print what goes first, then what stays, each with the reason."""
    trimmed = {decision.checkpoint_id for decision in plan.trim}
    kept = [decision for decision in plan.keep if decision.checkpoint_id not in trimmed]
    decisions = [*plan.delete, *plan.trim, *kept]
    if not decisions:
        console.line("no checkpoints to decide about")
        return
    console.note(console.table(_COLUMNS, _cells(decisions)))
    console.line(_summary(plan))
    for name, excess in plan.over_quota.items():
        console.warning(
            f"{name} stays {wording.size(excess)} over its quota: protected checkpoints take them; unpin some, take "
            "away their names, or raise --quota"
        )


def tell(applied: Applied) -> None:
    """Print what has become of a plan."""
    if applied.spared:
        columns = (Column("stays as it is"), text_column("why", shortest=20))
        console.line()
        console.note(console.table(columns, list(applied.spared.items())))
    words = f"deleted {wording.count(len(applied.deleted), 'checkpoint')}"
    if applied.trimmed:
        words += f", dropped the optimizer state of {len(applied.trimmed):,}"
    console.line(f"{words}, which frees {wording.size(applied.freed_bytes)}")


def _cells(decisions: Sequence[Decision]) -> list[list[str]]:
    return [
        [
            one.action,
            one.checkpoint_id,
            whole(one.step),
            "-" if one.action == "keep" else wording.size(one.freed_bytes),
            one.run_id,
            one.reason,
        ]
        for one in decisions
    ]


def _summary(plan: RetentionPlan) -> str:
    total = wording.count(len(plan.keep) + len(plan.delete), "checkpoint")
    words = [f"{len(plan.delete):,} of {total} {'goes' if len(plan.delete) == 1 else 'go'}"]
    if plan.trim:
        words.append(f"{len(plan.trim):,} {'loses' if len(plan.trim) == 1 else 'lose'} optimizer state")
    words.append(f"{wording.size(plan.freed_bytes)} are freed and {wording.size(plan.kept_bytes)} stay")
    return ", ".join(words)
