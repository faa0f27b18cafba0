"""`ckptlake checkpoints verify`, `repair` and `protect`: whether checkpoints are whole, and how they are kept so."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ckptlake.cli import wording
from ckptlake.cli.bars import bar
from ckptlake.cli.checkpoint_choice import WHICH, ExperimentOption, RunOption, find_checkpoint, find_run_id, one_of
from ckptlake.cli.console import console
from ckptlake.cli.failures import FAILED
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake

if TYPE_CHECKING:
    from ckptlake.integrity.repair import Repaired
    from ckptlake.integrity.verification import Level

_LEVELS: tuple[Level, ...] = ("exists", "size", "fast", "digest", "loads")
OptionalWhich = Annotated[str | None, typer.Argument(metavar="WHICH", help=WHICH)]


def verify(
    which: OptionalWhich = None,
    run: RunOption = None,
    experiment: ExperimentOption = None,
    every: Annotated[bool, typer.Option("--all", help="All checkpoints of the lake.")] = False,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, metavar="N", help="Only N: those not verified for longest.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", min=0, metavar="S", help="Begin no more after S seconds.")
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            "--level",
            metavar="LEVEL",
            help="How closely to look: exists, size, fast, digest or loads; default digest for one, fast for many.",
        ),
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Compare checkpoints with what was written.

    One that is damaged is quarantined, and the exit code is 1.
    """
    from ckptlake.cli import verdicts

    depth = one_of(_LEVELS, level or ("fast" if which is None else "digest"), "--level")
    is_many = (
        every
        or sample is not None
        or budget is not None
        or experiment is not None
        or (which is None and run is not None)
    )
    if (which is not None) == is_many:
        raise typer.BadParameter("give one checkpoint, or --run, --experiment or --all for many", param_hint="'WHICH'")
    with open_lake(lake) as opened:
        run_id = find_run_id(opened, run)
        if which is not None:
            record = find_checkpoint(opened, which, run_id)
            with console.busy("verifying", quiet=as_json):
                found = [opened.checkpoints.verify(record.id, level=depth)]
        else:
            with bar("verifying", of_bytes=False, quiet=as_json) as report:
                found = list(
                    opened.checkpoints.verify_all(
                        run_id,
                        experiment,
                        level=depth,
                        budget_s=budget,
                        sample=sample,
                        progress=lambda far: report(far.done, far.total),
                    )
                )
    if as_json:
        console.json_list(map(verdicts.document, found))
    elif which is not None:
        verdicts.show_one(found[0])
    else:
        verdicts.show_many(found)
    if not all(one.is_good for one in found):
        raise typer.Exit(FAILED)


def repair(
    which: OptionalWhich = None,
    run: RunOption = None,
    source: Annotated[
        list[Path] | None,
        typer.Option("--source", metavar="PATH", help="Where copies may be: a lake, an export, a folder; repeatable."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this nothing is changed.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Give damaged checkpoints back what is damaged.

    The bytes come from other checkpoints, from parity and from --source. Without --apply the plan is only printed. The
    exit code is 1 where something is lost for good.
    """
    from ckptlake.cli import repairs

    with open_lake(lake) as opened:
        run_id = find_run_id(opened, run)
        chosen = None if which is None else find_checkpoint(opened, which, run_id).id
        with console.busy("examining", quiet=as_json):
            plan = opened.checkpoints.plan_repair(chosen, run_id, sources=source or ())
        if not as_json:
            repairs.show(plan)
        done: Repaired | None = None
        if apply:
            with console.busy("repairing", quiet=as_json):
                done = opened.checkpoints.repair(plan)
    if as_json:
        console.json({**repairs.document(plan), "applied": None if done is None else repairs.outcome(done)})
    elif done is not None:
        repairs.tell(done)
    elif plan.actions:
        console.note("nothing is changed yet: --apply does it")
    if plan.losses or (done is not None and done.failed):
        raise typer.Exit(FAILED)


def protect(
    which: OptionalWhich = None,
    run: RunOption = None,
    every: Annotated[bool, typer.Option("--all", help="All checkpoints of the lake.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Write parity beside checkpoints, from which damage can be mended.

    It takes about a twentieth of their size.
    """
    if every == (which is not None or run is not None):
        raise typer.BadParameter("give one checkpoint, --run for those of a run, or --all", param_hint="'WHICH'")
    with open_lake(lake) as opened:
        run_id = find_run_id(opened, run)
        chosen = None if which is None else find_checkpoint(opened, which, run_id).id
        with bar("protecting", of_bytes=True, quiet=as_json) as report:
            done = opened.checkpoints.protect(chosen, run_id, progress=report)
    if as_json:
        console.json({**asdict(done), "added_bytes": done.added_bytes})
    else:
        size = wording.size(sum(file.data_bytes for file in done.written))
        words = f"protected {wording.count(len(done.written), 'file')} of {size} by {wording.size(done.added_bytes)}"
        console.line(f"{words} of parity" + (f", {len(done.fresh):,} had it already" if done.fresh else ""))
        for path, finding in done.refused:
            console.line(f"not protected, as it is damaged: {path}: {finding}", style="red")
        if done.refused:
            console.note("`ckptlake checkpoints repair` looks for other copies of what is damaged")
    if done.refused:
        raise typer.Exit(FAILED)
