"""`ckptlake checkpoints diff`, `export` and `import`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ckptlake.cli import wording
from ckptlake.cli.checkpoint_choice import RunOption, WhichArgument, find_checkpoint, find_run_id
from ckptlake.cli.console import console
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake
from ckptlake.errors import InvalidInputError

if TYPE_CHECKING:
    from ckptlake.lake import Lake
    from ckptlake.runs.run import Run


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="The checkpoint before, named as WHICH in `show`.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The checkpoint after.")],
    run: RunOption = None,
    depth: Annotated[
        int | None,
        typer.Option("--depth", min=1, metavar="N", help="Sum tensors up by the first N levels of their paths."),
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Tell how the tensors of two checkpoints differ.

    Those that have changed most come first. The change is the distance over the norm of A.
    """
    from ckptlake.cli import comparing

    with open_lake(lake) as opened:
        run_id = find_run_id(opened, run)
        before, after = (find_checkpoint(opened, text, run_id) for text in (a, b))
        with console.busy("comparing", quiet=as_json):
            frame = opened.checkpoints.diff(before.id, after.id)
        if depth is not None:
            frame = opened.checkpoints.by_layer(frame, depth)
    if as_json:
        console.json_list(frame.iter_rows(named=True))
    elif depth is not None:
        comparing.show_layers(frame)
    else:
        comparing.show_tensors(frame)


def export(
    which: WhichArgument,
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Where to: .safetensors, .pt, .pth, .bin, .npz, or .dcp for a folder."),
    ],
    run: RunOption = None,
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="safetensors, torch, npz or dcp; default what the ending says."),
    ] = None,
    part: Annotated[
        str | None, typer.Option("--part", metavar="NAME", help="Only this entry of the state, as in 'model'.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="PATTERN", help="Only tensors whose paths match, as in '*/bias'; may be repeated."
        ),
    ] = None,
    widen: Annotated[bool, typer.Option("--widen", help="In an .npz, types that numpy lacks become float32.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is at PATH.")] = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint as a file that other programs read.

    Every tensor is compared with its digest on the way. The file appears whole or not at all.
    """
    if not overwrite and (path.exists() or path.is_symlink()):
        raise InvalidInputError(f"{str(path)!r} exists already: give another path, or --overwrite")
    with open_lake(lake) as opened:
        record = find_checkpoint(opened, which, find_run_id(opened, run))
        with console.busy("exporting", quiet=as_json):
            done = opened.checkpoints.export(
                record.id, path, format=format, part=part, only=only or None, overwrite=overwrite, widen=widen
            )
    if as_json:
        console.json({"checkpoint_id": record.id, **asdict(done)})
        return
    count = wording.count(done.num_tensors, "tensor")
    console.line(f"wrote {count} of {record.id}, {wording.size(done.size_bytes)} as {done.format}, to {done.path}")
    console.line(f"sha256 {done.digest}")


def import_checkpoint(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A file or folder of another program, or another lake's manifest.")
    ],
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="RUN_ID", help="The run to save it in: its id, or enough of its beginning."),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="NAME", help="Save it in a new run of this experiment.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The new run's name.")] = None,
    step: Annotated[
        int | None, typer.Option("--step", min=0, metavar="N", help="Default: what the source tells.")
    ] = None,
    epoch: Annotated[
        int | None, typer.Option("--epoch", min=0, metavar="N", help="Default: what the source tells.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME=VALUE", help="A value to find it by; may be repeated."),
    ] = None,
    alias: Annotated[str | None, typer.Option("--alias", metavar="NAME", help="A name of your own.")] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Default: where it comes from.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Save what another program has written as a checkpoint.

    What SOURCE is, is told by what it holds. Nothing in it is run.
    """
    from ckptlake.cli import checkpoint_details as details

    if (run is None) == (experiment is None):
        raise typer.BadParameter("give one of --run and --experiment", param_hint="'--run'")
    if run is not None and name is not None:
        raise typer.BadParameter("a run that is there keeps its name: leave it out", param_hint="'--name'")
    metrics = _metrics(metric or ())
    with open_lake(lake) as opened:
        opened.checkpoints.probe(source)
        with console.busy("importing", quiet=as_json), _opened_run(opened, run, experiment, name) as opened_run:
            saved = opened.checkpoints.import_(
                source, opened_run, step=step, epoch=epoch, metrics=metrics, alias=alias, note=note
            )
        record = opened.checkpoints.get(saved.id)
    if as_json:
        console.json(details.details(record, None))
    else:
        details.show(record, None)


def _opened_run(lake: Lake, run: str | None, experiment: str | None, name: str | None) -> AbstractContextManager[Run]:
    """Return the run to save in; only one whose source could be read is started."""
    from ckptlake.config import Capture

    if run is not None:
        return lake.run(resume=find_run_id(lake, run), capture=Capture.nothing())
    return lake.run(experiment, name=name, capture=Capture.nothing())


def _metrics(texts: Sequence[str]) -> dict[str, float] | None:
    metrics = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            metrics[name] = float(value)
        except ValueError:
            equals = ""
        if not name or not equals:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE with a number", param_hint="'--metric'")
    return metrics or None
