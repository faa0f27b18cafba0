"""kill -9 at any moment of saving, deleting, compacting and sweeping: what is listed loads bit for bit."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scenes import HURRIED, NOTHING, open_lake, start, wait_until

import ckptlake
from ckptlake import CheckpointNotFoundError, Lake, RunNotFoundError

WRITERS = ("north", "east", "south", "west")
State = dict[str, npt.NDArray[np.float32]]


def state_at(name: str, step: int) -> State:
    """Return what a writer saves at a step: shared by all, its own and frozen, and changing."""
    common = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    own = np.random.default_rng(WRITERS.index(name) + 1).standard_normal(6000).astype(np.float32)
    changing = np.random.default_rng([step, WRITERS.index(name)]).standard_normal(40_000).astype(np.float32)
    return {"common": common, "own": own, "weights": own[:1000] + np.float32(step) * 1e-6, "changing": changing}


def train_until_killed(root: str, name: str, first: int, book: str, ready: str) -> None:
    chance = random.Random(f"{name}{first}")
    diary = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(what: str, checkpoint_id: str, step: int | None) -> None:
        os.write(diary, (json.dumps([what, checkpoint_id, step]) + "\n").encode())

    lake = ckptlake.open(root, settings=HURRIED)
    try:
        run = lake.run(resume=name, capture=NOTHING)
    except RunNotFoundError:
        run = lake.run(run_id=name, capture=NOTHING)
    Path(ready).touch()
    actions: list[Callable[[], None]] = [
        lambda: delete_one(lake, name, chance, note),
        lambda: ignore_absent(lambda: lake.checkpoints.compact(name)),
        lambda: ignore_absent(lambda: lake.checkpoints.gc(grace_s=0, dry_run=False)),
    ]
    for step in range(first, first + 10_000):
        choices = {"format": "safetensors"} if step % 5 == 4 else {}
        if step % 3 == 0:
            saved = run.save_checkpoint(state_at(name, step), step=step, async_=True, **choices).wait(60)
        else:
            saved = run.save_checkpoint(state_at(name, step), step=step, **choices)
        note("saved", saved.id, step)
        if step % 2:
            chance.choice(actions)()


def delete_one(lake: Lake, name: str, chance: random.Random, note: Callable[[str, str, int | None], None]) -> None:
    found = lake.checkpoints.list(name)
    if len(found) > 3:
        record = chance.choice(found[:-2])
        note("deleting", record.id, record.step)
        ignore_absent(lambda: lake.checkpoints.delete(record.id))


def ignore_absent(work: Callable[[], object]) -> None:
    """Do what another process may have made impossible by deleting the same checkpoint."""
    with contextlib.suppress(CheckpointNotFoundError):
        work()


def entries(book: Path) -> list[tuple[str, str, int]]:
    lines = book.read_text().splitlines() if book.exists() else []
    return [tuple(json.loads(line)) for line in lines if line.endswith("]")]  # type: ignore[misc]


def check_all(lake: Lake, books: dict[str, Path]) -> int:
    """Load everything listed and compare it; return how many checkpoints there are."""
    listed = {record.id: record for record in lake.checkpoints.list()}
    for record in listed.values():
        assert record.step is not None
        loaded = lake.checkpoints.load(record.id).opened.state(verify="digest")
        expected = state_at(record.run_id, record.step)
        assert loaded.keys() == expected.keys()
        assert all(loaded[key].tobytes() == array.tobytes() for key, array in expected.items())
    for name, book in books.items():
        saved = {checkpoint_id for what, checkpoint_id, _ in entries(book) if what == "saved"}
        given_up = {checkpoint_id for what, checkpoint_id, _ in entries(book) if what == "deleting"}
        assert saved - given_up <= set(listed), f"{name}: saved, never deleted, and not listed"
    return len(listed)


def orphans(lake: Lake) -> set[str]:
    """Return the files that no manifest of a listed checkpoint leads to, worked out by hand."""
    used: set[str] = set()
    waiting: list[str] = []
    for record in lake.checkpoints.list():
        manifest = json.loads((lake.path / "checkpoints" / f"{record.id}.json").read_text())["manifest"]
        used.add(f"checkpoints/{record.id}.json")
        waiting += manifest["tensors"]["packs"]
    seen: set[str] = set()
    while waiting:
        pack = waiting.pop()
        if pack in seen:
            continue
        seen.add(pack)
        raw, archive = lake.path / f"{pack}.safetensors", lake.path / f"{pack}.ckpk"
        used.add(f"{pack}.safetensors" if raw.exists() else f"{pack}.ckpk")
        if not raw.exists():
            waiting += bases_of(archive)
    files = {
        str(path.relative_to(lake.path))
        for folder in ("blobs", "checkpoints")
        for path in (lake.path / folder).iterdir()
        if not (path.name.startswith(".") and (path.name.endswith((".lock", ".wanted")) or ".index" in path.name))
    }
    return files - used


def bases_of(archive: Path) -> list[str]:
    from ckptlake.checkpoints.codec.archive import Archive

    with Archive(archive) as opened:
        return [entry.base.pack for entry in opened.entries.values() if entry.base is not None]


def rounds_of_kills(root: Path, rounds: int, longest_s: float) -> None:
    chance = random.Random(rounds)
    lake_path = root / "lake"
    open_lake(lake_path).close()
    books = {name: root / f"{name}.book" for name in WRITERS}
    for number in range(rounds):
        signs = {name: root / f"{name}-{number}" for name in WRITERS}
        writers = [
            start(train_until_killed, str(lake_path), name, number * 10_000, str(books[name]), str(signs[name]))
            for name in WRITERS
        ]
        wait_until(lambda signs=signs: all(sign.exists() for sign in signs.values()), 60, "the start of all writers")
        for writer in chance.sample(writers, len(writers)):
            time.sleep(chance.uniform(0, longest_s))
            assert writer.exitcode is None, f"a writer ended by itself with {writer.exitcode}"
            writer.kill()
            writer.join()
    lake = open_lake(lake_path)
    lake.recover()
    assert check_all(lake, books) > 3
    lake.checkpoints.gc(grace_s=0, dry_run=False)
    assert check_all(lake, books) > 3
    assert orphans(lake) == set()
    assert any(what == "deleting" for book in books.values() for what, _, _ in entries(book))
    lake.checkpoints.compact(keep_raw=0)
    lake.checkpoints.gc(grace_s=0, dry_run=False)
    check_all(lake, books)
    assert orphans(lake) == set()
    lake.close()


@pytest.mark.timeout(280)
def test_forty_kills_of_four_writers(tmp_path: Path) -> None:
    rounds_of_kills(tmp_path, rounds=10, longest_s=0.5)


@pytest.mark.slow
def test_two_hundred_kills_of_four_writers(tmp_path: Path) -> None:
    rounds_of_kills(tmp_path, rounds=50, longest_s=0.8)
