"""Train two ways to learn a rotation, over several seeds, into one lake; then ask the lake which is better.

python -m examples.aircraft_pose.demo --lake PATH [--epochs N] [--seeds 3]
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo with command-line arguments."""
    arguments = _parser().parse_args(argv)
    # On layers this small a second thread gains a quarter on an idle machine and costs triple on a busy one.
    torch.set_num_threads(1)
    console = Console()
    lake = ckptlake.open(arguments.lake)
    configs = list(_configs(arguments.epochs, arguments.seeds))

    with _progress(console) as progress:
        overall = progress.add_task("all runs", total=arguments.epochs * len(configs))
        for config in configs:
            label = f"{config.name}-seed{config.seed}"
            current = progress.add_task(label, total=config.epochs)

            def advance(epoch: int, task: TaskID = current) -> None:
                progress.update(task, completed=epoch)
                progress.advance(overall)

            with lake.run(
                experiment=EXPERIMENT,
                name=label,
                params=asdict(config),
                tags={"demo": True, "config": config.name},
            ) as run:
                train(run, config, on_epoch=advance)

    for title, query in (
        ("Best median rotation error of each run", RUNS_SQL),
        ("Mean ± std over seeds", CONFIGURATIONS_SQL),
    ):
        answer = lake.sql(query, experiment=EXPERIMENT)
        console.print(_table(title, answer.columns, answer.fetchall()))
    console.print(f"Lake: {arguments.lake}", markup=False, soft_wrap=True)
    for command in ("runs list", 'sql "select metric, count(*) as points from metrics group by metric"'):
        console.print(f"  ckptlake {command} --lake {arguments.lake}", markup=False, highlight=False, soft_wrap=True)


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
        is_name = column == "config"
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
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    main()
