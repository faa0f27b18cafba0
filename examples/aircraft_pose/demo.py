"""Train two ways to learn a rotation, over several seeds, into one lake; then ask the lake which is better.

python -m examples.aircraft_pose.demo --lake PATH [--epochs N] [--seeds 3] [--resume]
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

import ckptlake

from .train import QUATERNION_MLP, SIXD_MLP, Config, train

EXPERIMENT = "aircraft/pose"
_PURPOSE = "Train two ways to learn a rotation, over several seeds, into one lake; then compare them by SQL."

RUNS_SQL = """
with settings as (
    select run_id,
           max(text) filter (where key = 'name') as config,
           max(number) filter (where key = 'seed') as seed
    from params
    group by run_id
)
select config,
       seed::integer as seed,
       max(s.min) filter (where metric = 'val/rotation_deg_median') as "best deg",
       max(s.min_step) filter (where metric = 'val/rotation_deg_median') as "at step",
       max(s.last) filter (where metric = 'val/rotation_under_10deg') as "under 10 deg",
       max(s.last) filter (where metric = 'val/loss') as "last val/loss"
from summaries s
join settings using (run_id)
where s.experiment = $experiment
group by run_id, config, seed
order by "best deg"
"""
"""One row a run, the best rotation first."""

CONFIGURATIONS_SQL = """
with settings as (
    select run_id, text as config from params where key = 'name'
),
results as (
    select config,
           run_id,
           max(s.min) filter (where metric = 'val/rotation_deg_median') as rotation_deg,
           max(s.last) filter (where metric = 'val/rotation_under_10deg') as under_10deg,
           max(s.last) filter (where metric = 'val/add_m') as add_m
    from summaries s
    join settings using (run_id)
    where s.experiment = $experiment
    group by config, run_id
)
select config,
       count(*) as runs,
       avg(rotation_deg) as "best deg",
       stddev_samp(rotation_deg) as "± deg",
       avg(under_10deg) as "under 10 deg",
       stddev_samp(under_10deg) as "± share",
       avg(add_m) as "ADD, m",
       stddev_samp(add_m) as "± m"
from results
group by config
order by "best deg"
"""
"""One row a configuration: mean and sample standard deviation over its runs."""


WEIGHTS_SQL = """
select path[7:] as layer,
       arg_min(l2_norm, step) as "first norm",
       arg_max(l2_norm, step) as "last norm",
       sum(l2_distance) as "way gone",
       max(n_nan + n_inf) as "not finite"
from tensors
where run_id = $run and path like 'model/%.weight' and len(shape) = 2
group by path
order by "way gone" desc
limit 5
"""
"""One row a weight matrix of a run, from statistics alone: no checkpoint is opened for it."""

EARLIER_RUN_SQL = """
select run_id, status from runs where experiment = $experiment and name = $name order by started_at desc limit 1
"""
"""The newest run of a name."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo with command-line arguments."""
    arguments = _parser().parse_args(argv)
    # On layers this small a second thread gains a quarter on an idle machine and costs triple on a busy one.
    torch.set_num_threads(1)
    console = Console()
    lake = ckptlake.open(arguments.lake)
    try:
        _train_all(lake, list(_configs(arguments.epochs, arguments.seeds)), console, go_on=arguments.resume)
    except KeyboardInterrupt:
        chosen = f"--lake {arguments.lake} --epochs {arguments.epochs} --seeds {arguments.seeds}"
        _say(console, f"Stopped. To go on: python -m examples.aircraft_pose.demo {chosen} --resume")
        raise SystemExit(130) from None

    best = lake.checkpoints.best("val/rotation_deg_median", experiment=EXPERIMENT)
    for title, query, values in (
        ("Best median rotation error of each run", RUNS_SQL, {"experiment": EXPERIMENT}),
        ("Mean ± std over seeds", CONFIGURATIONS_SQL, {"experiment": EXPERIMENT}),
        ("How far the weights of the best run moved", WEIGHTS_SQL, {"run": best.run_id}),
    ):
        answer = lake.sql(query, **values)
        console.print(_table(title, answer.columns, answer.fetchall()))
    _say(
        console,
        f"Best checkpoint: {best.id}, epoch {best.epoch}, {best.metrics['val/rotation_deg_median']:.3f} degrees",
    )
    (space,) = lake.checkpoints.usage("lake")
    _say(console, f"Space: {space.checkpoints} checkpoints in {space.stored_bytes / 1e6:.1f} MB")
    _say(console, f"Lake: {arguments.lake}")
    for command in (
        "runs list",
        'sql "select metric, count(*) as points from metrics group by metric"',
        "checkpoints list --sort val/rotation_deg_median --limit 5",
        f"checkpoints show {best.id} --tensors",
        'checkpoints prune --policy "latest(2)+best(val/rotation_deg_median,1)"',
        "checkpoints compact",
    ):
        _say(console, f"  ckptlake {command} --lake {arguments.lake}")


def _train_all(lake: ckptlake.Lake, configs: Sequence[Config], console: Console, *, go_on: bool) -> None:
    with _progress(console) as progress:
        overall = progress.add_task("all runs", total=sum(config.epochs for config in configs))
        before = 0
        for config in configs:
            label = f"{config.name}-seed{config.seed}"
            current = progress.add_task(label, total=config.epochs)

            def show(epoch: int, task: TaskID = current, before: int = before) -> None:
                progress.update(task, completed=epoch)
                progress.update(overall, completed=before + epoch)

            earlier = _earlier_run(lake, label) if go_on else None
            if earlier is None or earlier.status != "finished":
                _train_one(lake, config, label, earlier, show)
            show(config.epochs)
            before += config.epochs


@dataclass(frozen=True, slots=True)
class _EarlierRun:
    run_id: str
    status: str


def _earlier_run(lake: ckptlake.Lake, label: str) -> _EarlierRun | None:
    lake.recover()
    found = lake.sql(EARLIER_RUN_SQL, experiment=EXPERIMENT, name=label).fetchall()
    if found and found[0][1] == "running":
        raise SystemExit(f"run {found[0][0]} ({label}) is being trained by another process: wait for it, or stop it")
    return _EarlierRun(*found[0]) if found else None


def _train_one(
    lake: ckptlake.Lake, config: Config, label: str, earlier: _EarlierRun | None, show: Callable[[int], None]
) -> None:
    if earlier is None:
        start: dict[str, Any] = {"experiment": EXPERIMENT, "name": label}
        start["tags"] = {"demo": True, "config": config.name}
    else:
        start = {"resume": earlier.run_id}
    with lake.run(**start, params=asdict(config)) as run:
        newest = lake.checkpoints.find("latest", run=run) if earlier is not None else None
        if newest is not None:
            show(newest.epoch or 0)
        train(run, config, resume_from="latest_good" if newest is not None else None, on_epoch=show)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _configs(epochs: int, seeds: int) -> Iterator[Config]:
    for config in (QUATERNION_MLP, SIXD_MLP):
        for seed in range(seeds):
            yield replace(config, epochs=epochs, seed=seed)


def _progress(console: Console) -> Progress:
    label = TextColumn("{task.description:<22}")
    return Progress(
        label, BarColumn(), MofNCompleteColumn(), TextColumn("epochs"), TimeElapsedColumn(), console=console
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        is_name = column in ("config", "layer")
        table.add_column(column, justify="left" if is_name else "right", no_wrap=is_name)
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.aircraft_pose.demo", description=_PURPOSE)
    parser.add_argument("--lake", type=Path, required=True, help="directory of the lake, made if missing")
    parser.add_argument("--epochs", type=_positive, default=SIXD_MLP.epochs, help="default: %(default)s")
    parser.add_argument("--seeds", type=_positive, default=3, help="runs a configuration, default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="go on with runs that were stopped, leave finished ones")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    main()
