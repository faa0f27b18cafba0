"""`ckptlake tail`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from ckptlake.cli import wording
from ckptlake.cli.console import console
from ckptlake.cli.options import DEFAULT_LAKE, JsonOption, LakeOption, open_lake
from ckptlake.errors import RunNotFoundError

if TYPE_CHECKING:
    from ckptlake.cli.points import Point, PointReader
    from ckptlake.lake import Lake

_STATUS = "SELECT status, duration_s FROM runs WHERE run_id = $run_id"
_METRICS = "SELECT DISTINCT metric FROM summaries WHERE run_id = $run_id"
_SETTLED_S = 1.0


def tail(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="A run's id, or enough of its beginning.")],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Only this metric; may be repeated."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on with new points until the run ends.")
    ] = True,
    last: Annotated[int, typer.Option("-n", min=0, metavar="N", help="How many of the latest points come first.")] = 10,
    interval: Annotated[
        float, typer.Option("--interval", min=0.05, metavar="S", help="Seconds between two looks.")
    ] = 1.0,
    system: Annotated[
        bool, typer.Option("--system", help="Also what the machine measured of itself, under system/.")
    ] = False,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Print a run's points as they come.

    The latest come first, then new ones until the run ends, or Ctrl-C. Every point is printed once: also one that
    comes late, and each value of a step that is repeated.
    """
    from ckptlake.cli.lookup import find_run
    from ckptlake.cli.points import PointReader

    with open_lake(lake) as opened:
        found = find_run(opened, run_id)
        points = PointReader(opened, found.run_id, metric or (), with_system=system)
        printer = _Printer(as_json=as_json)
        is_running, ended = _state(opened, found.run_id)
        printer.show(points.latest(last))
        console.note(*_remarks(opened, found.run_id, metric or ()))
        if follow and is_running:
            while is_running:
                time.sleep(interval)
                is_running, ended = _state(opened, found.run_id)
                printer.show(points.fresh())
            _drain(points, printer)
            if not as_json:
                console.note(f"{found.run_id} {ended}")


def _state(lake: Lake, run_id: str) -> tuple[bool, str]:
    """Return whether a run is running, and in words how it ended."""
    rows = lake.sql(_STATUS, run_id=run_id).fetchall()
    if not rows:
        raise RunNotFoundError(f"run {run_id!r} has been deleted")
    ((status, duration_s),) = rows
    return status == "running", f"{status} after {wording.duration(duration_s)}"


def _remarks(lake: Lake, run_id: str, metrics: Sequence[str]) -> list[str]:
    known = [name for (name,) in lake.sql(_METRICS, run_id=run_id).fetchall()]
    if not known:
        return ["no points yet"]
    near = {metric: get_close_matches(metric, known, n=1) for metric in metrics if metric not in known}
    return [
        f"no point of {metric!r} yet" + (f"; did you mean {found[0]!r}?" if found else "")
        for metric, found in near.items()
    ]


def _drain(points: PointReader, printer: _Printer) -> None:
    """Print what a run logged last: its end can be seen a moment before the points logged with it."""
    while True:
        time.sleep(_SETTLED_S)
        rest = points.fresh()
        if not rest:
            return
        printer.show(rest)


class _Printer:
    """Prints points, one a line, at once."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._metric_width = 0
        self._step_width = 0

    def show(self, points: Sequence[Point]) -> None:
        if self._as_json:
            for point in points:
                console.json_line(point.document())
        else:
            self._show_lines(points)
        console.flush()

    def _show_lines(self, points: Sequence[Point]) -> None:
        cells = [
            (
                wording.moment(point.ts, seconds=True),
                str(point.step),
                wording.literal(point.metric),
                wording.number(point.value),
            )
            for point in points
        ]
        for _, step, metric, _ in cells:
            self._step_width = max(self._step_width, len(step))
            self._metric_width = max(self._metric_width, len(metric))
        for time_of, step, metric, value in cells:
            console.line(f"{time_of}  step {step:>{self._step_width}}  {metric:<{self._metric_width}}  {value}")
