"""What the checkpoints of whole trainings take on the disk, and how fast they are compressed."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch

import ckptlake
from benchmarks.checkpoint_states import Language, State, Trainer, tensors_of, training
from benchmarks.harness import Context, Row, Target, warm_memory
from ckptlake.checkpoints.codec.archive import ArchiveWriter
from ckptlake.checkpoints.codec.chunks import CHUNK_ELEMENTS, cut_chunk
from ckptlake.checkpoints.codec.planes import Memory
from ckptlake.checkpoints.dtypes import get_dtype
from ckptlake.config import Capture


def run(context: Context) -> list[Row]:
    """Return the rows of this part."""
    width, depth = context.scaled(192, 32), context.scaled(6, 1)
    apart, warm = context.scaled(20, 2), context.scaled(40, 2)
    torch.manual_seed(0)
    trainer = Trainer(Language(width, depth), lr=3e-4)
    trainer.steps(warm)
    full = list(training(trainer, context.scaled(10, 3), apart))
    pretrained = trainer.state()["model"]
    return [
        *_full(context, full, apart),
        _half(context, width, depth, pretrained),
        _frozen(context, width, depth, pretrained),
        _fine_tune(context, width, depth, pretrained),
        *_speed(context, full[-1]),
    ]


def _stored(root: Path, states: Iterable[State], base: State | None = None) -> int:
    """Return the bytes that a lake takes for the checkpoints of a training once all are compressed."""
    with ckptlake.open(root) as lake:
        base_id = None
        if base is not None:
            with lake.run(name="base", capture=Capture.nothing()) as run:
                base_id = run.save_checkpoint(base).id
        before = _bytes_in(root)
        with lake.run(capture=Capture.nothing()) as run:
            for step, state in enumerate(states):
                run.save_checkpoint(state, step=step)
        lake.checkpoints.compact(run, base=base_id, keep_raw=0)
        stored = _bytes_in(root) - before
    shutil.rmtree(root)
    return stored


def _bytes_in(root: Path) -> int:
    folders = (root / "blobs", root / "checkpoints")
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.name[0] != ".")


def _torch_bytes(path: Path, states: Iterable[State]) -> int:
    total = 0
    for state in states:
        torch.save(state, path)
        total += path.stat().st_size
    return total


def _zipnn_bytes(states: Iterable[State]) -> int | None:
    """Return the bytes ZipNN needs for the same tensors, or None where it is not installed."""
    try:
        from zipnn import ZipNN
    except ImportError:
        return None
    total = 0
    for state in states:
        for tensor in tensors_of(state):
            raw = tensor.contiguous()
            if raw.numel() < 2 or raw.dtype not in (torch.float32, torch.bfloat16):
                total += raw.nbytes
                continue
            kind = "float32" if raw.dtype == torch.float32 else "bfloat16"
            packed = ZipNN(bytearray_dtype=kind, input_format="byte", threads=1).compress(
                bytearray(raw.view(torch.uint8).numpy().tobytes() if raw.dim() else raw.numpy().tobytes())
            )
            total += min(len(packed), raw.nbytes)
    return total


def _full(context: Context, states: list[State], apart: int) -> list[Row]:
    ours = _stored(context.scratch / "full", states)
    torch_bytes = _torch_bytes(context.scratch / "full.pt", states)
    what = f"{len(states)} checkpoints of fp32 training with AdamW, {apart} steps apart"
    details = {"bytes_of_torch_save": torch_bytes, "apart": apart}
    rows = [
        Row(
            what=what,
            figure=ours / 1e6,
            unit="MB",
            reference=torch_bytes / 1e6,
            against="MB: torch.save",
            target=Target("at most", 0.78, "ratio"),
            details=details,
        )
    ]
    zipped = _zipnn_bytes(states)
    if zipped is not None:
        rows.append(
            Row(
                what="the same",
                figure=ours / 1e6,
                unit="MB",
                reference=zipped / 1e6,
                against="MB: ZipNN of every tensor",
                target=Target("at most", 0.94, "ratio"),
                details=details,
            )
        )
    return rows


def _against_torch(context: Context, what: str, states: list[State], bound: float, base: State | None = None) -> Row:
    return Row(
        what=what,
        figure=_stored(context.scratch / "lake", states, base) / 1e6,
        unit="MB",
        reference=_torch_bytes(context.scratch / "state.pt", states) / 1e6,
        against="MB: torch.save",
        target=Target("at most", bound, "ratio"),
        details={"checkpoints": len(states)},
    )


def _half(context: Context, width: int, depth: int, pretrained: State) -> Row:
    model = Language(width, depth)
    model.load_state_dict(pretrained)
    trainer = Trainer(model.bfloat16(), lr=1e-4)
    states = list(training(trainer, context.scaled(4, 2), context.scaled(10, 2)))
    return _against_torch(context, f"{len(states)} checkpoints of bf16 training with AdamW", states, 0.55)


def _frozen(context: Context, width: int, depth: int, pretrained: State) -> Row:
    model = Language(width, depth)
    model.load_state_dict(pretrained)
    layers = [model.embedding, model.position, *model.blocks.layers[: depth * 2 // 3]]  # type: ignore[index]
    for layer in layers:
        layer.requires_grad_(False)  # type: ignore[union-attr]
    trainer = Trainer(model, lr=3e-4)
    trainer.steps(1)
    states = list(training(trainer, context.scaled(5, 2), context.scaled(20, 2)))
    what = f"{len(states)} checkpoints of a fine-tune with a frozen backbone, AdamW"
    return _against_torch(context, what, states, 0.52)


def _fine_tune(context: Context, width: int, depth: int, pretrained: State) -> Row:
    base = {name: tensor.bfloat16() for name, tensor in pretrained.items()}
    model = Language(width, depth)
    model.load_state_dict({name: tensor.float() for name, tensor in base.items()})
    trainer = Trainer(model, lr=2e-5)
    trainer.steps(context.scaled(40, 2))
    tuned = {name: tensor.bfloat16() for name, tensor in trainer.state()["model"].items()}
    return _against_torch(context, "a bf16 fine-tune against its base", [tuned], 0.25, base)


def _speed(context: Context, state: State) -> list[Row]:
    try:
        from zipnn import ZipNN
    except ImportError:
        return []
    tensors = [t.numpy() for t in tensors_of(state["model"]) if t.dtype == torch.float32]
    whole = np.concatenate([tensor.ravel() for tensor in tensors])
    whole = np.tile(whole, max(1, context.scaled(16 << 20, 1 << 16) // whole.size))
    raw = memoryview(whole).cast("B")
    dtype = get_dtype("float32")
    chunk_bytes = CHUNK_ELEMENTS * dtype.itemsize

    def zipnn(copied: bytearray) -> bytes:  # it works in the memory it is given
        packed: bytes = ZipNN(bytearray_dtype="float32", input_format="byte", threads=1).compress(copied)
        return packed

    def zipnn_to_file(target: Path, copied: bytearray) -> None:
        with target.open("wb") as file:
            file.write(zipnn(copied))
            file.flush()
            os.fsync(file.fileno())

    def ours_to_file(target: Path) -> None:
        writer = ArchiveWriter(target, {})
        writer.add("0" * 64, "float32", len(raw), lambda start, stop: raw[start:stop])
        writer.finish()

    seconds: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, int] = {}

    memory = Memory(CHUNK_ELEMENTS)

    def ours() -> None:  # as packs are written: the memory of a chunk's lanes serves the next
        for start in range(0, len(raw), chunk_bytes):
            chunk = cut_chunk(raw[start : start + chunk_bytes], dtype, None, memory)
            chunk.packed()
            chunk.give_back(memory)

    def timed(name: str, call: Callable[[], object]) -> None:
        before = time.perf_counter()
        call()
        seconds[name].append(time.perf_counter() - before)

    for turn in range(context.scaled(9, 1)):
        copied = bytearray(raw)
        timed("ours", ours)
        timed("zipnn", partial(zipnn, copied))
        copied = bytearray(raw)
        for name, call in (("ours", ours_to_file), ("zipnn", partial(zipnn_to_file, copied=copied))):
            warm_memory(context.scratch / "warm", len(raw) // 1_000_000)
            target = context.scratch / f"{turn}.{name}"
            timed(f"{name} to a file", partial(call, target))
            sizes[name] = target.stat().st_size
            target.unlink()
    speed = {name: len(raw) / statistics.median(values) / 1e6 for name, values in seconds.items()}
    what = f"compressing {len(raw) / 1e6:.0f} MB of fp32 weights"
    return [
        Row(
            what=f"{what} in memory, one thread",
            figure=speed["ours"],
            unit="MB/s",
            reference=speed["zipnn"],
            against="MB/s: ZipNN, one thread",
            target=Target("at least", 2.5, "ratio"),
            details={"all": dict(seconds)},
        ),
        Row(
            what=f"{what} to a file, synced",
            figure=speed["ours to a file"],
            unit="MB/s",
            reference=speed["zipnn to a file"],
            against="MB/s: ZipNN, one thread",
            details={"all": dict(seconds)},
        ),
        Row(
            what="the same: bytes",
            figure=sizes["ours"] / 1e6,
            unit="MB",
            reference=sizes["zipnn"] / 1e6,
            against="MB: ZipNN",
            target=Target("at most", 1.005, "ratio"),
        ),
    ]
