"""Fuzz the readers of files with atheris: ``python -m tests.fuzz manifest --seconds 300``."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

INSTALL = f"atheris is not installed: `{sys.executable} -m pip install atheris` (Linux or macOS), then try again"
MOST_FILE_BYTES = 64 << 10
MOST_MEMORY_MB = 2048


def main() -> int:
    """Run what the command line asks for; return 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="which readers; default all of them")
    parser.add_argument("--seconds", type=int, default=60, help="how long for each")
    parser.add_argument("--found", type=Path, default=Path(".fuzz"), help="where files go that something is wrong with")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="read one such file again, without atheris")
    arguments = parser.parse_args()
    if arguments.replay is None and find_spec("atheris") is None:
        print(INSTALL, file=sys.stderr)
        return 2
    if arguments.replay is not None or len(arguments.targets) == 1:
        return alone(arguments, parser)
    names = arguments.targets or names_of_all()
    with_findings = [name for name in names if fuzzed_apart(name, arguments) != 0]
    print(f"{len(names)} targets, findings in {', '.join(with_findings) or 'none'}")
    return 1 if with_findings else 0


def names_of_all() -> list[str]:
    from tests.fuzz.targets import TARGETS

    return list(TARGETS)


def fuzzed_apart(name: str, arguments: argparse.Namespace) -> int:
    """Fuzz one target in a process of its own, which ends with its first finding."""
    command = [sys.executable, "-m", "tests.fuzz", name, f"--seconds={arguments.seconds}", f"--found={arguments.found}"]
    print(f"{name}: {arguments.seconds} s", flush=True)
    return subprocess.run(command, check=False).returncode


def alone(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if arguments.replay is None:
        import atheris

        with atheris.instrument_imports(include=["ckptlake"]):
            from tests.fuzz.targets import TARGETS
    else:
        from tests.fuzz.targets import TARGETS
    names = arguments.targets
    if len(names) != 1 or names[0] not in TARGETS:
        parser.error(f"no target is called {', '.join(names) or 'nothing'}; there are {', '.join(TARGETS)}")
    target = TARGETS[names[0]]
    if arguments.replay is not None:
        target.check(arguments.replay.read_bytes())
        print("it is read, or refused with an error that is declared")
    else:
        fuzz(target, arguments.seconds, arguments.found)
    return 0


def fuzz(target: Any, seconds: int, found: Path) -> None:
    """Give libFuzzer the target; it ends the process when the time is over, or at a finding."""
    import atheris

    from tests.fuzz.mutations import Change, mutated

    specimens: Sequence[bytes] = target.specimens()
    forms = [*target.forms, None]

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.3:
            return bytes(atheris.Mutate(data, max_size))
        changes = [Change(*(chance.randrange(1 << 16) for _ in range(4))) for _ in range(chance.choice((1, 1, 2, 3)))]
        return mutated(data, changes, specimens, chance.choice(forms))[:max_size]

    found.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(specimens):
            (Path(corpus) / str(number)).write_bytes(data)
        options = [
            f"-max_total_time={seconds}", f"-max_len={MOST_FILE_BYTES}", f"-rss_limit_mb={MOST_MEMORY_MB}",
            f"-artifact_prefix={found}/{target.name}-", "-print_final_stats=1", "-timeout=30", "-verbosity=0",
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, corpus], target.check, custom_mutator=mutator)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
