"""Run benchmarks by name, print their rows and keep them as JSON."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

from benchmarks.harness import HEADINGS, RESULTS, Context, keep, line, machine, shown

BENCHMARKS = {
    "imports": "loading the package in fresh processes",
    "log_call": "one log call as the training loop sees it",
    "sustained": "points a second until they are on the disk",
    "storage": "bytes a point, and the speed of compaction",
    "opening": "opening a lake of many runs and starting one more",
    "best_values": "best and last values of all runs",
    "one_curve": "one curve out of all points",
    "cached": "the same question asked again",
    "queries": "questions asked with the query builder",
    "checkpoints": "saving, loading, storing and finding checkpoints",
    "analytics": "statistics, trends and forecasts of many runs",
    "analytics_real": "what the analysis says of real runs whose ends are known",
    "search": "searching the texts of very many runs",
    "writers": "many commits by many processes",
}


def main() -> None:
    """Run what the command line asks for."""
    listed = "\n".join(f"  {name:<14} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Measure ckptlake against named references.\n\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="which to run; default all")
    parser.add_argument("--quick", action="store_true", help="scaled down, to see that all of it works")
    parser.add_argument("--large", action="store_true", help="also build and read ten times the points")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    parser.add_argument(
        "--data",
        type=Path,
        help="where built lakes are kept; default a temporary directory",
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    names = arguments.names or list(BENCHMARKS)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ckptlake-benchmarks-")))
        data = (arguments.data or scratch / "data").absolute()
        run(names, scratch, data, arguments)


def run(names: list[str], scratch: Path, data: Path, arguments: argparse.Namespace) -> None:
    """Run the named benchmarks one after the other."""
    print(line(HEADINGS))
    verdicts = []
    for name in names:
        own = scratch / name
        own.mkdir()
        context = Context(data=data, scratch=own, quick=arguments.quick, large=arguments.large)
        before = machine()
        rows = import_module(f"benchmarks.{name}").run(context)
        for row in rows:
            print(shown(row), flush=True)
        verdicts += [row.verdict for row in rows]
        keep(arguments.out, name, rows, context, before)
    print(f"{verdicts.count('pass')} targets met, {verdicts.count('MISS')} missed; JSON in {arguments.out}")


if __name__ == "__main__":
    main()
