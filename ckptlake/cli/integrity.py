"""`ckptlake integrity …`: watch over the bytes of all checkpoints, and tell how well that goes."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ckptlake.cli import wording
from ckptlake.cli.checkpoint_choice import ExperimentOption, RunOption, find_run_id, one_of
from ckptlake.cli.console import console
from ckptlake.cli.failures import FAILED
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ckptlake.integrity.monitor import Monitor
    from ckptlake.integrity.verification import Level, Verification

app = typer.Typer(help="Watch over the bytes of all checkpoints.", no_args_is_help=True, rich_markup_mode=None)
_BYTES_A_MB = 1e6
_SECONDS_A_DAY = 86_400.0
_LOOK_S = 2.0
_LEVELS: tuple[Level, ...] = ("fast", "digest")

LevelOption = Annotated[
    str, typer.Option("--level", metavar="fast|digest", help="Compare checksums, or SHA-256, which costs more.")
]
DaysOption = Annotated[
    float, typer.Option("--every", metavar="DAYS", help="How often each byte is to be read.", min=1e-5)
]


@app.command("watch")
def watch(
    rate: Annotated[float, typer.Option("--rate", metavar="MB/S", min=1e-3, help="How much may be read.")] = 32.0,
    level: LevelOption = "fast",
    every: DaysOption = 7.0,
    once: Annotated[bool, typer.Option("--once", help="Stop once nothing is due.")] = False,
    run: RunOption = None,
    experiment: ExperimentOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Read checkpoints again and again, slowly, and record damage.

    Those never verified come first, then those verified longest ago. A line tells of each that has been read; it goes
    on until Ctrl-C, and the next time where it stopped. With --once the exit code is 1 if there is damage.
    """
    closely, is_whole = one_of(_LEVELS, level, "--level"), True
    with open_lake(lake) as opened:
        monitor = opened.checkpoints.watch(
            find_run_id(opened, run),
            experiment,
            bytes_per_s=rate * _BYTES_A_MB,
            level=closely,
            every_s=every * _SECONDS_A_DAY,
        )
        for found in _checks(monitor, once=once):
            is_whole = is_whole and found.is_good
            if as_json:
                console.json_line(asdict(found))
            else:
                _tell(found)
            console.flush()
        status = monitor.status()
    if not as_json:
        console.note(_coverage(status.verified_bytes, status.total_bytes))
    if not is_whole:
        raise typer.Exit(FAILED)


@app.command("status")
def status(
    level: LevelOption = "fast",
    every: DaysOption = 7.0,
    run: RunOption = None,
    experiment: ExperimentOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Tell how much has been verified, and what is damaged."""
    closely = one_of(_LEVELS, level, "--level")
    with open_lake(lake) as opened:
        run_id = find_run_id(opened, run)
        monitor = opened.checkpoints.watch(run_id, experiment, level=closely, every_s=every * _SECONDS_A_DAY)
        now = monitor.status()
        damaged = [record for record in opened.checkpoints.list(run_id, experiment) if record.status != "good"]
    if as_json:
        console.json(
            {
                "at": now.at,
                "level": level,
                "checkpoints": now.checkpoints,
                "total_bytes": now.total_bytes,
                "verified_bytes": now.verified_bytes,
                "coverage": now.coverage,
                "oldest_unverified_age_s": now.oldest_unverified_age_s,
                "quarantined": [record.id for record in damaged],
            }
        )
        return
    pairs = [("checkpoints", f"{now.checkpoints:,}")]
    if now.checkpoints:
        pairs += [
            ("verified", _coverage(now.verified_bytes, now.total_bytes)),
            ("longest unread", wording.duration(now.oldest_unverified_age_s)),
            ("quarantined", ", ".join(record.id for record in damaged) or "none"),
        ]
    console.pairs(pairs)
    if damaged:
        console.note("`ckptlake checkpoints repair` looks for other copies of what is damaged")


def _checks(monitor: Monitor, *, once: bool) -> Iterator[Verification]:
    """Yield what is found, for ever or until nothing is due."""
    looked_at = 0.0
    while True:
        step = monitor.step()
        if step.found is not None:
            yield step.found
        if step.wait_s <= 0:
            continue
        if once and time.monotonic() - looked_at >= _LOOK_S:
            if monitor.status().coverage >= 1:
                return
            looked_at = time.monotonic()
        time.sleep(min(step.wait_s, _LOOK_S) if once else step.wait_s)


def _tell(found: Verification) -> None:
    words = f"{wording.moment(found.verified_at, seconds=True)}  {found.checkpoint_id}  {found.verdict}"
    if found.is_good:
        console.line(f"{words}  {wording.size(found.bytes_read)}")
    else:
        console.line(f"{words}: {found.finding}", style="red")


def _coverage(verified_bytes: int, total_bytes: int) -> str:
    share = verified_bytes / total_bytes if total_bytes else 1.0
    return f"{share:.1%} of {wording.size(total_bytes)} within the period"
