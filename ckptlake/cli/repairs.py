"""What a repair would do and what it cannot save, for people and for programs."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING

from ckptlake.cli import wording
from ckptlake.cli.console import console

if TYPE_CHECKING:
    from ckptlake.integrity.repair import Repaired
    from ckptlake.integrity.repair_plan import Action, RepairPlan

_CAPITAL = re.compile("(?<!^)(?=[A-Z])")


def document(plan: RepairPlan) -> dict[str, object]:
    """Return the plan as a mapping."""
    return {
        "examined": plan.examined,
        "actions": [_told(action) for action in plan.actions],
        "losses": [asdict(loss) for loss in plan.losses],
        "concerned": list(plan.concerned),
    }


def show(plan: RepairPlan) -> None:
    """Print what is to be done and what is lost, a line each."""
    for action in plan.actions:
        console.line(action.sentence())
    for loss in plan.losses:
        console.line(loss.sentence(), style="red")
    examined = wording.count(plan.examined, "checkpoint")
    if plan.is_empty:
        console.line(f"examined {examined}, nothing to repair")
    else:
        console.note(f"examined {examined}")
    if plan.losses:
        console.note("other places that may have copies can be given with --source: lakes, exports, folders of them")


def outcome(done: Repaired) -> dict[str, object]:
    """Return what has been done as a mapping."""
    return {
        "done": [_told(action) for action in done.done],
        "failed": [{**_told(action), "reason": reason} for action, reason in done.failed],
        "verified": [asdict(one) for one in done.found],
    }


def tell(done: Repaired) -> None:
    """Print what has not been done, and whether what was damaged is whole now."""
    for action, reason in done.failed:
        console.line(f"not done: {action.sentence()}: {reason}", style="red")
    good = sum(one.is_good for one in done.found)
    if done.found:
        console.line(f"damaged before: {len(done.found):,}, whole now: {good:,}")


def _told(action: Action) -> dict[str, str]:
    return {"action": _kind(action), "sentence": action.sentence()}


def _kind(action: Action) -> str:
    """Return the kind of an action as a word of JSON, as in `mend_pack`."""
    return _CAPITAL.sub("_", type(action).__name__).lower()
