"""Run in a process of its own: attacks against the loaders that fall for them, or bombs against ours.

``attack <folder> <table>`` lets Python's own unpickler read every attack of a table, each with its own canary in
the folder. ``bombs <table>`` reads every bomb with both policies within a bounded address space, and prints a
line of JSON for each: its name, the policy, what came of it, its size, and the growth of the process's peak
memory.
"""

from __future__ import annotations

import copyreg
import json
import pickle
import resource
import sys
from pathlib import Path

ROOM_BYTES = 1 << 30


def attack(folder: Path, table: str) -> None:
    import hostile_pickles

    sys.path.insert(0, str(folder))
    copyreg.add_extension(*hostile_pickles.EXTENSION)
    for index, build in enumerate(getattr(hostile_pickles, table).values()):
        try:
            pickle.loads(build(folder / f"canary{index}"))
        except Exception as error:
            print(index, type(error).__name__, error)


def bombs(table: str) -> None:
    import pickle_bombs

    from ckptlake.checkpoints.formats.guards import Allowance
    from ckptlake.checkpoints.formats.unpickling import Policy, Reading, load_pickle
    from ckptlake.errors import CkptlakeError

    def read(content: bytes, policy: Policy) -> None:
        if table == "BOMBS":
            load_pickle(memoryview(content), policy)
        else:
            reading = Reading(policy, Allowance("the bomb", len(content)))
            reading.finish(read_container(memoryview(bytearray(content)), reading))

    from ckptlake.checkpoints.formats.torch_files import read_container

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, used + ROOM_BYTES))
    for name, build in getattr(pickle_bombs, table).items():
        content = build()
        for policy in Policy:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            outcome = "value"
            try:
                read(content, policy)
            except CkptlakeError as error:
                outcome = type(error).__name__
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            print(json.dumps([name, policy.name, outcome, len(content), grown]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "attack":
        attack(Path(sys.argv[2]), sys.argv[3])
    else:
        bombs(sys.argv[2])
