"""`ckptlake checkpoints prune`, `delete`, `gc`, `compact` and `du`: what checkpoints cost, and how they cost less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ckptlake.cli import wording
from ckptlake.cli.bars import bar
from ckptlake.cli.checkpoint_choice import ExperimentOption, RunOption, as_which, find_run_id, one_of
from ckptlake.cli.console import console
from ckptlake.cli.grid import Column, name_column, number_column, text_column
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake
from ckptlake.errors import InvalidInputError

if TYPE_CHECKING:
    from ckptlake.catalog.pruning import Applied
    from ckptlake.checkpoints.budgets import Quota
    from ckptlake.checkpoints.records import CheckpointRecord
    from ckptlake.checkpoints.sweeping import Sweep
    from ckptlake.checkpoints.usage import By, Usage
    from ckptlake.lake import Lake

ApplyOption = Annotated[bool, typer.Option("--apply", help="Do it; without this nothing is deleted.")]
_NOT_YET = "nothing is deleted yet: --apply does it"
_FILES_SHOWN = 20
_SCOPES: tuple[By, ...] = ("run", "experiment", "lake")
_USAGE_COLUMNS = (
    name_column("name", shortest=26),
    number_column("checkpoints"),
    number_column("tensors' bytes"),
    number_column("stored"),
    number_column("lent", rank=1),
    number_column("not needed"),
)


def prune(
    policy: Annotated[
        str,
        typer.Option(
            "--policy", metavar="TEXT", help="Which to keep, as in 'latest(3)+best(val/loss,2)+every(1000)+pinned()'."
        ),
    ],
    quota: Annotated[
        str | None, typer.Option("--quota", metavar="SIZE", help="The most bytes that may stay, as in 200GB.")
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope", metavar="run|experiment|lake", help="Of what each --quota is the limit; default what is chosen."
        ),
    ] = None,
    keep_optimizer: Annotated[
        int | None,
        typer.Option(
            "--keep-optimizer", min=1, metavar="N", help="Only the newest N of each run keep their optimizer state."
        ),
    ] = None,
    run: RunOption = None,
    experiment: ExperimentOption = None,
    apply: ApplyOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Delete checkpoints that a policy does not keep.

    Without --apply the plan is only printed. Pinned and named ones, the best by each declared metric and the newest
    good one of each run stay in any case.
    """
    from ckptlake.cli import checkpoint_plans as plans

    limit = _limit(quota, scope)
    with open_lake(lake) as opened:
        run_id = find_run_id(opened, run)
        plan = opened.checkpoints.plan_retention(
            policy, keep_optimizer=keep_optimizer, quota=limit, run=run_id, experiment=experiment
        )
        if not as_json:
            plans.show(plan)
        applied: Applied | None = None
        if apply:
            with console.busy("deleting", quiet=as_json):
                applied = opened.checkpoints.apply(plan)
    if as_json:
        console.json({**plans.document(plan), "applied": None if applied is None else asdict(applied)})
    elif applied is not None:
        plans.tell(applied)
    elif plan.delete or plan.trim:
        console.note(_NOT_YET)


def _limit(quota: str | None, scope: str | None) -> Quota | str | None:
    """Return the quota as the library takes it: one without a scope is for all that is looked at."""
    from ckptlake.checkpoints.budgets import Quota, parse_size

    if scope is None:
        return quota
    chosen = one_of(_SCOPES, scope, "--scope")
    if quota is None:
        raise typer.BadParameter("it says of what a quota is the limit: give --quota too", param_hint="'--scope'")
    return Quota(parse_size(quota), chosen)


def delete(
    which: Annotated[list[str], typer.Argument(metavar="WHICH", help="Steps, ids or aliases.")],
    run: RunOption = None,
    apply: ApplyOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Delete checkpoints, whatever policies say of them.

    Without --apply they are only shown. Bytes that other checkpoints need stay, and so do pinned ones.
    """
    from ckptlake.cli import checkpoint_listing as listing

    with open_lake(lake) as opened:
        records = _doomed(opened, which, find_run_id(opened, run))
        if not as_json:
            console.note(console.table(*listing.table(records, ())))
        swept: Sweep | None = None
        if apply:
            with console.busy("deleting", quiet=as_json):
                swept = opened.checkpoints.delete(*(record.id for record in records))
    if as_json:
        console.json(
            {
                "checkpoints": [record.id for record in records],
                "deleted": swept is not None,
                "freed_bytes": None if swept is None else swept.size_bytes,
                "files": [] if swept is None else [file.path for file in swept.files],
            }
        )
    elif swept is None:
        console.note(_NOT_YET)
    else:
        count = wording.count(len(records), "checkpoint")
        console.line(f"deleted {count}, which frees {wording.size(swept.size_bytes)}")


def _doomed(lake: Lake, texts: Sequence[str], run_id: str | None) -> list[CheckpointRecord]:
    """Return the checkpoints meant, each once.

    Raises:
        CheckpointNotFoundError: there is no such checkpoint.
        InvalidInputError: one is pinned, or named by what another may be by now.
    """
    records: dict[str, CheckpointRecord] = {}
    for text in texts:
        record = lake.checkpoints.get(as_which(text), run_id)
        if text in ("latest", "best") or text.startswith("best:"):
            raise InvalidInputError(
                f"{text!r} may be another checkpoint by then: give its id, which is {record.id} now"
            )
        if record.pinned:
            raise InvalidInputError(
                f"checkpoint {record.id} is pinned: `ckptlake checkpoints unpin {record.id}` takes the pin away"
            )
        records[record.id] = record
    return list(records.values())


def gc(
    grace: Annotated[
        float,
        typer.Option("--grace", min=0, metavar="S", help="Seconds for which a file stays that no row tells of."),
    ] = 3600.0,
    apply: ApplyOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Delete files that no checkpoint needs.

    These are leftovers of crashes, of deleted runs and of interrupted deletions. Without --apply they are only listed.
    Deleting waits for saves under way and holds back new ones for a moment.
    """
    with open_lake(lake) as opened, console.busy("looking at files", quiet=as_json):
        swept = opened.checkpoints.gc(grace, dry_run=not apply)
    if as_json:
        console.json(
            {
                "deleted": swept.deleted,
                "size_bytes": swept.size_bytes,
                "files": [asdict(file) for file in swept.files],
            }
        )
        return
    if not swept.files:
        console.line("nothing to delete")
        return
    columns = (name_column("file", shortest=26), number_column("size"), text_column("why", shortest=20))
    rows = [[file.path, wording.size(file.size_bytes), file.reason] for file in swept.files[:_FILES_SHOWN]]
    omissions = console.table(columns, rows)
    total = f"{wording.count(len(swept.files), 'file')}, {wording.size(swept.size_bytes)}"
    console.line(f"deleted {total}" if swept.deleted else f"{total} in all")
    rest = len(swept.files) - len(rows)
    console.note(f"{rest:,} more files are named by --json" if rest > 0 else "", omissions)
    if not swept.deleted:
        console.note(_NOT_YET)


def compact(
    run: RunOption = None,
    experiment: ExperimentOption = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="ID", help="A checkpoint that all of these are stored as differences to."),
    ] = None,
    keep_raw: Annotated[
        int,
        typer.Option("--keep-raw", min=0, metavar="N", help="The newest N of each run stay uncompressed."),
    ] = 1,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Compress checkpoints without loss.

    Each is stored as differences to the one before, where that is smaller. Loading needs no change, and saves and
    loads may go on meanwhile.
    """
    with open_lake(lake) as opened, bar("compressing", of_bytes=True, quiet=as_json) as report:
        done = opened.checkpoints.compact(
            find_run_id(opened, run),
            experiment=experiment,
            base=None if base is None else as_which(base),
            keep_raw=keep_raw,
            progress=report,
        )
    if as_json:
        console.json(
            {
                "packs": [asdict(pack) for pack in done.packs],
                "before_bytes": done.before_bytes,
                "after_bytes": done.after_bytes,
                "freed_bytes": done.freed_bytes,
            }
        )
        return
    if not done.packs:
        console.line("nothing to compress")
        return
    columns = (
        Column("pack"), number_column("before"), number_column("after"), number_column("ratio"),
        number_column("tensors"), number_column("as differences"),
    )  # fmt: skip
    rows = [
        [
            pack.pack,
            wording.size(pack.before_bytes),
            wording.size(pack.after_bytes),
            f"{pack.after_bytes / pack.before_bytes:.2f}" if pack.before_bytes else "-",
            f"{pack.num_tensors:,}",
            f"{pack.num_deltas:,}",
        ]
        for pack in done.packs
    ]
    console.note(console.table(columns, rows))
    console.line(f"{wording.size(done.before_bytes)} became {wording.size(done.after_bytes)}")


def du(
    by: Annotated[str, typer.Option("--by", metavar="run|experiment|lake", help="What each line is about.")] = "run",
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Show what checkpoints take up on the disk.

    A file counts for the checkpoint that wrote it. Lent is what others of the same kind need too, not needed is
    what `ckptlake checkpoints gc` deletes.
    """
    from ckptlake.checkpoints.usage import Usage

    group = one_of(_SCOPES, by, "--by")
    with open_lake(lake) as opened:
        found = opened.checkpoints.usage(group)
    if as_json:
        console.json_list(map(asdict, found))
        return
    if not found:
        console.note("no checkpoints yet")
        return
    total = Usage(
        "total",
        sum(one.checkpoints for one in found),
        sum(one.logical_bytes for one in found),
        sum(one.stored_bytes for one in found),
        sum(one.lent_bytes for one in found),
        sum(one.orphan_bytes for one in found),
    )
    console.note(console.table(_USAGE_COLUMNS, map(_usage_cells, [*found, total] if len(found) > 1 else found)))


def _usage_cells(one: Usage) -> list[str]:
    sizes = (one.logical_bytes, one.stored_bytes, one.lent_bytes, one.orphan_bytes)
    return ["(no run)" if one.name is None else one.name, f"{one.checkpoints:,}", *map(wording.size, sizes)]
