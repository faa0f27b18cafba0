"""Valid files of every kind that is read, small ones: what fuzzing begins with."""

from __future__ import annotations

import collections
import datetime
import decimal
import io
import json
import pickle
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

import ckptlake
from ckptlake import Capture, Lake
from ckptlake.checkpoints.leaves import Flat
from ckptlake.checkpoints.tree import flatten

Specimens = dict[str, Sequence[bytes]]


def rich_state() -> dict[str, Any]:
    """Return a state with something of every kind that a checkpoint keeps."""
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    weight = torch.arange(12.0).reshape(3, 4)
    return {
        "plain": [None, True, 7, 2**70, -0.5, float("nan"), "text", b"bytes", 3 + 4j, range(2, 9, 3), (1, "a"), {1, 2}],
        "times": [
            datetime.datetime(2020, 5, 4, tzinfo=datetime.UTC),
            datetime.timedelta(days=1),
            decimal.Decimal("1.5"),
        ],
        "kept": {1: "one", (1, 2): collections.Counter("aab"), "o": collections.OrderedDict(a=1)},
        "queue": collections.deque([1, 2], maxlen=5),
        "array": base,
        "view": base[1:3, ::2],
        "half": np.linspace(0, 1, 7, dtype=np.float16),
        "record": np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "<i4"), ("b", "<f8")]),
        "strings": np.array(["ä", "bc"]),
        "scalar": np.float32(0.5),
        "dtype": np.dtype("<i2"),
        "tensor": weight,
        "tied": weight[1:],
        "bfloat16": torch.ones(5, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.zeros(2, 2)),
        "sparse": torch.eye(3).to_sparse(),
        "kind": [torch.float32, torch.Size([2, 3]), torch.device("cpu")],
    }


@lru_cache(maxsize=1)
def flat_state() -> Flat:
    """Return the rich state taken apart."""
    return flatten(rich_state())


def _training_state(step: int) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    weights = (rng.standard_normal(400) * 0.05).astype(np.float32)
    return {
        "weights": weights * np.float32(1 + step * 1e-4),
        "moments": torch.from_numpy(np.square(weights[:160])).to(torch.bfloat16),
        "counts": np.arange(40, dtype=np.int64) + step,
        "step": step,
    }


@lru_cache(maxsize=1)
def specimens() -> Specimens:
    """Return valid files by the kind they are of."""
    with tempfile.TemporaryDirectory() as folder, ckptlake.open(Path(folder) / "lake") as lake:
        found = {**_files_of_a_lake(lake), **_files_of_others()}
    found["tree"] = [json.dumps(flat_state().tree).encode(), b"[]", b'{"dict":[["a",{"tuple":[1,{"int":"0x10"}]}]]}']
    return found


def _files_of_a_lake(lake: Lake) -> Specimens:
    with lake.run(run_id="fuzzed", capture=Capture.nothing()) as run:
        run.log_params({"lr": 0.1, "layers": [1, 2]})
        for step in (1, 2):
            run.log({"loss": 1 / step, "acc": 0.5}, step=step)
            run.save_checkpoint(_training_state(step), step=step)
        run.log_frame({"step": [3, 4], "loss": [0.25, float("nan")]})
        run.flush()
        segments = _all(lake.path / "wal", "*.wal")
    lake.checkpoints.protect()
    folder = lake.path / "blobs"
    found = {
        "manifest": _all(lake.path / "checkpoints", "*.json"),
        "raw_pack": _all(folder, "*.safetensors"),
        "parity": _all(folder, "*.safetensors.pq"),
        "segment": segments,
    }
    lake.checkpoints.compact(keep_raw=0)
    return {**found, "archive": _all(folder, "*.ckpk")}


def _all(folder: Path, pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob(pattern))]


def _files_of_others() -> Specimens:
    state = rich_state()
    arrays = {name: state[name] for name in ("array", "half", "record")}
    stored, deflated, modern, old = (io.BytesIO() for _ in range(4))
    np.savez(stored, **arrays)
    np.savez_compressed(deflated, **arrays, many=np.zeros(2000))
    tensors = {name: state[name] for name in ("tensor", "tied", "bfloat16", "parameter", "sparse")}
    saved = {**tensors, "epoch": 3, "nested": [{"lr": 0.1}], "kept": state["kept"], "numpy": np.float64(3.0)}
    torch.save(saved, modern)
    torch.save(saved, old, _use_new_zipfile_serialization=False)
    plain = {name: state[name] for name in ("plain", "times", "kept", "queue", "array", "record", "scalar", "dtype")}
    return {
        "npz": [stored.getvalue(), deflated.getvalue()],
        "torch": [modern.getvalue(), old.getvalue()],
        "pickle": [pickle.dumps(plain, protocol) for protocol in (0, 2, 5)],
        "safetensors": [safetensors.torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2).bfloat16()}, {"k": "v"})],
    }
