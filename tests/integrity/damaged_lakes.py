"""A lake with checkpoints of every kind, copies of it to damage, and ways to damage them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import ckptlake
from ckptlake.checkpoints.codec.archive import ArchiveWriter, Base
from ckptlake.checkpoints.opened import OpenedCheckpoint
from ckptlake.checkpoints.packs import Packs
from ckptlake.checkpoints.rawpack import MANIFEST_KEY
from ckptlake.checkpoints.store import CheckpointStore
from ckptlake.config import Capture
from ckptlake.errors import CkptlakeError
from ckptlake.integrity.planning import Listed
from ckptlake.tables.layout import Layout

State = dict[str, Any]
Kind = str
KINDS: tuple[Kind, ...] = ("first", "second", "same", "third", "planes", "delta", "safetensors", "pickle")


def array(seed: int, size: int, dtype: str = "float32") -> npt.NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(size).astype(dtype)


def make_states() -> dict[Kind, State]:
    """Return states that share tensors: `frozen` with all, `trained` with the one before it in part."""
    frozen, trained = array(0, 6000), array(1, 5000)
    states: dict[Kind, State] = {}
    for number, kind in enumerate(KINDS):
        if kind != "same":
            trained = trained + np.float32(0.001) * array(10 + number, 5000)
        states[kind] = {
            "model": {"frozen": frozen, "trained": trained, "bias": array(20 + number, 7), "none": np.zeros((0, 3))},
            "step": number if kind != "same" else number - 1,
            "name": "\u00e9 / %",
        }
        if kind == "same":
            states[kind]["model"]["bias"] = states["second"]["model"]["bias"]
    return states


STATES = make_states()


@dataclass(frozen=True)
class Scene:
    """A lake on the disk that nobody has open, and its checkpoints' ids by kind."""

    root: Path
    ids: Mapping[Kind, str]

    @property
    def states(self) -> Mapping[Kind, State]:
        return STATES

    @property
    def store(self) -> CheckpointStore:
        return CheckpointStore(Layout(self.root), "lake")

    def copy(self, root: Path) -> Scene:
        shutil.copytree(self.root, root)
        return Scene(root, self.ids)

    def pack(self, kind: Kind) -> Path:
        """Return the pack that a checkpoint wrote."""
        found = self.store.find_pack(f"blobs/{self.ids[kind]}")
        assert found is not None
        return found

    def manifest(self, kind: Kind) -> Path:
        return self.root / "checkpoints" / f"{self.ids[kind]}.json"

    def files(self) -> list[Path]:
        """Return every file of checkpoints, in an order that random ids do not change."""
        folders = (self.root / "blobs", self.root / "checkpoints")
        paths = [path for folder in folders for path in folder.iterdir() if path.name[0] != "."]
        kinds = {name: number for number, name in enumerate(self.ids.values())}
        return sorted(paths, key=lambda path: (path.parent, kinds[path.name[:26]], path.name[26:]))

    def loads(self, kind: Kind) -> bool:
        """Tell whether a checkpoint loads bit for bit as it was saved, all of it compared with its SHA-256."""
        store, name = self.store, self.ids[kind]
        try:
            manifest = store.read_manifest(name)
            if manifest.checkpoint_id != name:
                return False
            with OpenedCheckpoint(store, manifest) as opened:
                return is_same(opened.state(verify="digest"), self.states[kind])
        except (CkptlakeError, OSError):
            return False


def build(root: Path) -> Scene:
    """Make a lake with one checkpoint of each kind."""
    ids: dict[Kind, str] = {}
    with ckptlake.open(root) as lake, lake.run("care", capture=Capture.nothing()) as run:
        for step, (kind, state) in enumerate(STATES.items()):
            form = kind if kind in ("safetensors", "pickle") else "packed"
            ids[kind] = run.save_checkpoint(state, step=step, format=form).id
    scene = Scene(root, ids)
    compress(scene, "planes")
    compress(scene, "delta", base="third")
    for kind in KINDS:
        assert scene.loads(kind)
    return scene


def compress(scene: Scene, kind: Kind, base: Kind | None = None) -> Path:
    """Put a compressed pack in the place of the raw one of a checkpoint, one tensor as differences to a base."""
    store, name = scene.store, scene.ids[kind]
    manifest = store.read_manifest(name)
    others = {} if base is None else {t.path: t for t in store.read_manifest(scene.ids[base]).tensors}
    packs = Packs(store)
    target = store.pack_path(f"blobs/{name}", ".ckpk")
    writer = ArchiveWriter(target, {MANIFEST_KEY: manifest.encode().decode().rstrip("\n")})
    for tensor in manifest.tensors:
        if tensor.pack != f"blobs/{name}" or not tensor.nbytes:
            continue
        data, other = packs.view(tensor), others.get(tensor.path)
        assert tensor.digest is not None
        if other is None:
            writer.add(tensor.digest, tensor.dtype, tensor.nbytes, cut(data))
        else:
            assert other.digest is not None
            told = Base(other.digest, other.pack)
            writer.add(tensor.digest, tensor.dtype, tensor.nbytes, cut(data), told, cut(packs.view(other)))
    writer.finish()
    packs.close()
    store.pack_path(f"blobs/{name}").unlink()
    return target


def cut(view: memoryview) -> Callable[[int, int], memoryview]:
    return lambda start, stop: view[start:stop]


def is_same(one: Any, other: Any) -> bool:
    """Compare states bit for bit, types included."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


class FakeTables:
    """What the tables know, for tests that leave them out: all of a scene's checkpoints, and the rows added."""

    def __init__(self, scene: Scene, known: Sequence[Kind] = KINDS) -> None:
        self.rows: list[tuple[str, dict[str, object]]] = []
        self._listed: dict[str, Listed] = {}
        self._digests: dict[str, dict[str, str]] = {}
        for kind in known:
            manifest = scene.store.read_manifest(scene.ids[kind])
            self._listed[scene.ids[kind]] = Listed(manifest.digest)
            self._digests[scene.ids[kind]] = {t.path: str(t.digest) for t in manifest.tensors}

    def listed(self) -> Mapping[str, Listed]:
        return self._listed

    def tensor_digests(self, checkpoint_id: str) -> Mapping[str, str]:
        return self._digests.get(checkpoint_id, {})

    def add_rows(self, table: str, rows: Sequence[dict[str, object]]) -> None:
        self.rows += [(table, row) for row in rows]

    def flush(self) -> None:
        pass


def flip(path: Path, bit: int) -> None:
    """Change one bit of a file, counted from its start and around at its end."""
    data = bytearray(path.read_bytes())
    if not data:
        return
    bit %= len(data) * 8
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def overwrite(path: Path, offset: int, payload: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(payload)


def swap(one: Path, other: Path) -> None:
    """Give two files each other's name."""
    between = one.with_name(f"{one.name}.between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def cut_short(path: Path, size: int) -> None:
    os.truncate(path, size)
