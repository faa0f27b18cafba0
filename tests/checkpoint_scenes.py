"""Lakes with checkpoints whose bytes are looked after: states, crashes, and what must be on the disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import ckptlake
from ckptlake import Lake, Run
from ckptlake.checkpoints.codec.archive import Archive
from ckptlake.config import Capture, Settings
from ckptlake.runs.writer import Writer

State = dict[str, Any]
NOTHING = Capture.nothing()


def quiet_lake(path: Path) -> Lake:
    """Open a lake in which rows reach the disk only when somebody waits for it."""
    never = 1e8
    return ckptlake.open(path, settings=Settings(flush_interval_s=never, commit_interval_s=never, auto_compact=False))


class Training:
    """Something like AdamW: weights that move a little each step, moments that mostly stay what they were."""

    def __init__(self, seed: int = 0, size: int = 5000) -> None:
        self._rng = np.random.default_rng(seed)
        self._weights = self._noise(size, 0.05)
        self._first = self._noise(size, 1e-3)
        self._second = np.square(self._noise(size, 1e-3))
        self.frozen = self._noise(size, 0.05)
        self.step = 0

    def _noise(self, size: int, scale: float) -> npt.NDArray[np.float32]:
        return (self._rng.standard_normal(size) * scale).astype(np.float32)

    def next_state(self) -> State:
        """Train a step and return what would be saved."""
        gradient = self._noise(self._weights.size, 1e-3)
        self._first = np.float32(0.999) * self._first + np.float32(0.001) * gradient
        self._second = np.float32(0.9999) * self._second + np.float32(0.0001) * gradient * gradient
        self._weights = self._weights - np.float32(1e-5) * self._first / (np.sqrt(self._second) + np.float32(1e-8))
        self.step += 1
        return {
            "model": {"weights": self._weights.copy(), "frozen": self.frozen.copy()},
            "optimizer": {"first": self._first.copy(), "second": self._second.copy(), "lr": 1e-5},
            "step": self.step,
        }


def save(run: Run, state: State, step: int | None = None, **choices: Any) -> str:
    """Save a state and return the checkpoint's id."""
    return run.save_checkpoint(state, step=state.get("step") if step is None else step, **choices).id


def train(run: Run, steps: int, training: Training | None = None) -> dict[str, State]:
    """Save a checkpoint of each of so many steps and return the states by id, oldest first."""
    training = training or Training()
    states = [training.next_state() for _ in range(steps)]
    return {save(run, state): state for state in states}


def same(one: Any, other: Any) -> bool:
    """Tell whether two states are equal to the last bit."""
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


def assert_holds(lake: Lake, states: Mapping[str, State]) -> None:
    """Assert that these checkpoints and no others are listed, and that each loads to the last bit."""
    assert {record.id for record in lake.checkpoints.list()} == set(states)
    for checkpoint_id, state in states.items():
        with lake.checkpoints.open(checkpoint_id) as opened:
            assert same(opened.state(verify="digest"), state), checkpoint_id


def files_of(lake: Lake) -> set[str]:
    """Return all files of checkpoints but the index and lock files, as paths within the lake."""
    return {
        f"{folder}/{name}"
        for folder in ("blobs", "checkpoints")
        if (lake.path / folder).exists()
        for name in os.listdir(lake.path / folder)
        if not name.startswith((".index.sqlite", ".gc.", ".recode.lock"))
    }


def needed_files(lake: Lake) -> set[str]:
    """Return the files that must be there for the listed checkpoints, by what the files themselves say."""
    needed: set[str] = set()
    packs: list[str] = []
    for record in lake.checkpoints.list():
        path = f"checkpoints/{record.id}.json"
        needed.add(path)
        fields = json.loads((lake.path / path).read_bytes())["manifest"]
        if fields["file"] is not None:
            needed.add(f"checkpoints/{fields['file'][0]}")
            continue
        tensors = fields["tensors"]
        packs += [
            tensors["packs"][n] for n, shape in zip(tensors["pack"], tensors["shape"], strict=True) if 0 not in shape
        ]
    seen: set[str] = set()
    while packs:
        pack = packs.pop()
        if pack in seen:
            continue
        seen.add(pack)
        if (lake.path / f"{pack}.safetensors").exists():
            needed.add(f"{pack}.safetensors")
            continue
        needed.add(f"{pack}.ckpk")
        with Archive(lake.path / f"{pack}.ckpk") as archive:
            packs += [entry.base.pack for entry in archive.entries.values() if entry.base is not None]
    return needed


def codecs(lake: Lake, checkpoint_id: str) -> dict[str, str]:
    """Return the codec of each tensor of a checkpoint, as the lake's tables tell it."""
    query = "SELECT path, codec FROM tensors WHERE checkpoint_id = $id"
    return dict(lake.sql(query, id=checkpoint_id).fetchall())


class Crashed(BaseException):
    """The process is dead: nothing it does from here on has an effect."""


class Crash:
    """Stops everything at the n-th step that changes the disk, be it files of checkpoints or rows; counted from 1."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.steps = 0

    @property
    def came(self) -> bool:
        return self.steps >= self._at

    @contextmanager
    def expected(self, lake: Lake) -> Iterator[None]:
        """Run the block until the crash, if it comes that far, and forget what was only in memory."""
        flush, write_rows = Writer.flush, Writer.write_rows

        def flush_counted(writer: Writer) -> None:
            self._reach()
            flush(writer)

        def write_rows_counted(writer: Writer, *arguments: Any) -> None:
            self._reach()
            write_rows(writer, *arguments)

        with pytest.MonkeyPatch.context() as patched, suppress(Crashed):
            for name in ("rename", "unlink", "link"):
                patched.setattr(os, name, self._counted(getattr(os, name)))
            patched.setattr(Writer, "flush", flush_counted)
            patched.setattr(Writer, "write_rows", write_rows_counted)
            yield
        if lake._writer is not None:
            lake._writer._rows.clear()

    def _reach(self) -> None:
        self.steps += 1
        if self.came:
            raise Crashed

    def _counted(self, call: Callable[..., None]) -> Callable[..., None]:
        def counted(path: Path | str, *args: object, **kwargs: object) -> None:
            if Path(path).parent.name in ("blobs", "checkpoints"):
                self._reach()
            call(path, *args, **kwargs)

        return counted


def copy_of(lake: Lake, path: Path) -> Lake:
    """Return another lake that is as this one was when it was closed."""
    shutil.copytree(lake.path, path)
    return quiet_lake(path)
