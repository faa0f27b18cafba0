"""How long saving takes and stalls, what it costs in memory, how soon a tensor is there, and how fast verifying is."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp

import ckptlake
from benchmarks.checkpoint_states import model_state, step, tensors_of
from benchmarks.harness import Context, Row, Target, interleave, warm_memory
from ckptlake.config import Capture

_READ_BYTES = 8 << 20


def run(context: Context) -> list[Row]:
    """Return the rows of this part."""
    return [*_saving(context), _memory(context), *_stalls(context), *_first_tensor(context), _verifying(context)]


@contextmanager
def opened_run(root: Path) -> Iterator[tuple[ckptlake.Lake, ckptlake.Run]]:
    with ckptlake.open(root) as lake, lake.run(capture=Capture.nothing()) as run:
        yield lake, run


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _digest_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _flat(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        str(number): tensor for number, tensor in enumerate(tensors_of([model.state_dict(), optimizer.state_dict()]))
    }


def _saving(context: Context) -> list[Row]:
    size_mb = context.scaled(500, 12)
    model, optimizer = model_state(size_mb)
    scratch = context.scratch
    kept: list[Path] = []

    with opened_run(scratch / "lake") as (_, run):

        def change() -> None:
            with torch.no_grad():
                for tensor in tensors_of([model.state_dict(), optimizer.state_dict()]):
                    tensor.mul_(1.0001)

        def ours(**choices: Any) -> None:
            before = time.perf_counter()
            saved = run.save_checkpoint(model=model, optimizer=optimizer, **choices)
            spent.append(time.perf_counter() - before)
            run._finish_saving()
            ends.append(time.perf_counter() - before)
            kept.append(scratch / "lake" / "blobs" / f"{saved.id}.safetensors")
            if len(kept) > 1:
                kept.pop(0).unlink()

        def peer(save: Callable[[Path], object], *, digest: bool, sync: bool) -> None:
            path = scratch / "peer.bin"
            before = time.perf_counter()
            save(path)
            if digest:
                _digest_of_file(path)
            if sync:
                _synced(path)
            spent.append(time.perf_counter() - before)
            path.unlink()

        def torch_save(path: Path) -> None:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)

        def safetensors_save(path: Path) -> None:
            safetensors.torch.save_file(_flat(model, optimizer), path)

        calls: dict[str, Callable[[], object]] = {
            "ours": lambda: ours(),
            "deferred": lambda: ours(digest="deferred"),
            "torch": lambda: peer(torch_save, digest=True, sync=True),
            "safetensors": lambda: peer(safetensors_save, digest=True, sync=True),
            "plain safetensors": lambda: peer(safetensors_save, digest=False, sync=False),
        }
        found: dict[str, list[float]] = {name: [] for name in (*calls, "deferred, to the end")}
        for turn in range(context.scaled(11, 1) + 1):
            for name, call in calls.items():
                change()
                warm_memory(scratch / "warm", 3 * size_mb)
                spent: list[float] = []
                ends: list[float] = []
                call()
                if turn:
                    found[name].append(spent[0])
                    if name == "deferred":
                        found["deferred, to the end"].append(ends[0])
    seconds = {name: statistics.median(values) for name, values in found.items()}
    details = {"size_mb": size_mb, "all": found}
    what = f"save of {size_mb} MB with AdamW, durable"
    return [
        Row(
            what=f"{what}, SHA-256 and statistics of every tensor",
            figure=seconds["ours"] * 1e3,
            unit="ms",
            reference=seconds["torch"] * 1e3,
            against="ms: torch.save, sha256 of the file, fsync",
            target=Target("at most", 0.75, "ratio"),
            details=details,
        ),
        Row(
            what="the same",
            figure=seconds["ours"] * 1e3,
            unit="ms",
            reference=seconds["safetensors"] * 1e3,
            against="ms: safetensors save_file, sha256 of the file, fsync",
            target=Target("at most", 0.9, "ratio"),
            details=details,
        ),
        Row(
            what=f"save of {size_mb} MB with AdamW, SHA-256 and the wait for the disk deferred",
            figure=seconds["deferred"] * 1e3,
            unit="ms",
            reference=seconds["plain safetensors"] * 1e3,
            against="ms: safetensors save_file, which does not wait for the disk either",
            target=Target("at most", 1.0, "ratio"),
            details=details,
        ),
        Row(
            what="the same until it is durable and digested",
            figure=seconds["deferred, to the end"] * 1e3,
            unit="ms",
            reference=seconds["safetensors"] * 1e3,
            against="ms: safetensors save_file, sha256 of the file, fsync",
            details=details,
        ),
    ]


def _memory_kb(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _peak_growth_mb(save: Callable[[], object]) -> float:
    """Return how much more memory the process had at its peak during a call than before it."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory_kb("RssAnon")
    high_before = _memory_kb("VmHWM")
    save()
    return max(_memory_kb("VmHWM") - high_before, _memory_kb("RssAnon") - before, 0) / 1024


def _memory(context: Context) -> Row:
    size_mb = context.scaled(500, 12)
    model, optimizer = model_state(size_mb)
    path = context.scratch / "memory.pt"
    with opened_run(context.scratch / "memory") as (_, run):
        run.save_checkpoint(model=torch.nn.Linear(2, 2))
        ours = _peak_growth_mb(lambda: run.save_checkpoint(model=model, optimizer=optimizer))

    def whole() -> None:
        buffered = __import__("io").BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffered)
        path.write_bytes(buffered.getbuffer())

    return Row(
        what=f"peak memory growth of a save of {size_mb} MB",
        figure=ours,
        unit="MB",
        reference=max(_peak_growth_mb(whole), 0.1),
        against="MB: torch.save to memory, then to a file, as Lightning does",
        target=Target("at most", 64),
        details={"size_mb": size_mb},
    )


def _stalls(context: Context) -> list[Row]:
    size_mb = context.scaled(278, 12)
    model, optimizer = model_state(size_mb)
    steps, saves = context.scaled(6, 3), context.scaled(3, 1)

    def loop(save: Callable[[], tuple[Callable[[], object], Callable[[], object]]]) -> float:
        """Return the seconds that the call of a save, and what it does before the next step, have taken."""
        step(model, optimizer)
        before = time.perf_counter()
        finish, fence = save()
        stall = time.perf_counter() - before
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(context.scaled(768, 64), 1024)).square().mean().backward()
            before = time.perf_counter()
            fence()
            stall += time.perf_counter() - before
            optimizer.step()
        finish()
        return stall

    with opened_run(context.scratch / "stalls") as (_, run):

        def fenced() -> tuple[Callable[[], object], Callable[[], object]]:
            handle = run.save_checkpoint(model=model, optimizer=optimizer, async_=True)
            return handle.wait, handle.fence

        def staged() -> tuple[Callable[[], object], Callable[[], object]]:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            handle = run.save_checkpoint(state, async_=True)
            return handle.wait, handle.fence

        def distributed() -> tuple[Callable[[], object], Callable[[], object]]:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            target = context.scratch / f"dcp-{time.monotonic_ns()}"
            future: concurrent.futures.Future[Any] = dcp.async_save(state, checkpoint_id=target, no_dist=True)
            return future.result, lambda: None

        kinds = {"fence": fenced, "staging": staged, "dcp": distributed}
        stalls: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(saves + 1):
            for name, save in kinds.items():
                stall = loop(save)
                if turn:
                    stalls[name].append(stall)
    seconds = {name: statistics.median(values) for name, values in stalls.items()}
    details = {"size_mb": size_mb, "steps": steps, "all": stalls}
    return [
        Row(
            what=f"stall of the loop by an async save of {size_mb} MB, {how}",
            figure=seconds[name] * 1e3,
            unit="ms",
            reference=seconds["dcp"] * 1e3,
            against="ms: dcp.async_save, default",
            target=Target("at most", bound, "ratio"),
            details=details,
        )
        for name, how, bound in (("fence", "with the fence", 0.1), ("staging", "staged", 0.6))
    ]


def _first_tensor(context: Context) -> list[Row]:
    count = context.scaled(256, 8)
    state = {f"layer.{number}.weight": torch.randn(1448, 1448) for number in range(count)}
    name = f"layer.{count // 2}.weight"
    scratch = context.scratch
    torch.save(state, scratch / "first.pt")
    safetensors.torch.save_file(state, scratch / "first.safetensors")
    dcp.save(state, checkpoint_id=scratch / "first-dcp", no_dist=True)
    with opened_run(scratch / "first") as (lake, run):
        checkpoint_id = run.save_checkpoint(state).id
        expected = float(state.pop(name).sum())
        state.clear()

        def ours() -> float:
            with lake.checkpoints.open(checkpoint_id) as opened:
                return float(opened.tensor(name).sum())

        def by_safetensors() -> float:
            with safetensors.safe_open(scratch / "first.safetensors", "pt") as file:
                return float(file.get_tensor(name).sum())

        def by_torch() -> float:
            return float(torch.load(scratch / "first.pt", mmap=True, weights_only=True)[name].sum())

        def by_dcp() -> float:
            wanted = {name: torch.empty(1448, 1448)}
            dcp.load(wanted, checkpoint_id=scratch / "first-dcp", no_dist=True)
            return float(wanted[name].sum())

        assert {ours(), by_safetensors(), by_torch(), by_dcp()} == {expected}
        timings = interleave(context.scaled(30, 2), ours=ours, safe_open=by_safetensors, torch=by_torch, dcp=by_dcp)
    size_mb = count * 1448 * 1448 * 4 / 1e6
    return [
        Row(
            what=f"first of {count} tensors out of {size_mb:.0f} MB, summed",
            figure=timings["ours"].wall_ms,
            unit="ms",
            reference=timings[peer].wall_ms,
            against=f"ms: {against}",
            target=Target("at most", bound, "ratio"),
            details=timings["ours"].details(),
        )
        for peer, against, bound in (
            ("safe_open", "safetensors safe_open", 1.0),
            ("torch", "torch.load(mmap=True, weights_only=True)", 0.1),
            ("dcp", "dcp.load of one key", 0.15),
        )
    ]


def _verifying(context: Context) -> Row:
    count = context.scaled(128, 4)
    tensors = {f"layer.{number}": torch.randn(1448, 1448) for number in range(count)}
    size = sum(tensor.nbytes for tensor in tensors.values())
    with opened_run(context.scratch / "verify") as (lake, run):
        checkpoint_id = run.save_checkpoint(tensors).id
        views = [memoryview(tensor.numpy()).cast("B") for tensor in tensors.values()]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            timings = interleave(
                context.scaled(7, 1),
                ours=lambda: lake.checkpoints.verify(checkpoint_id),
                hashlib=lambda: list(pool.map(lambda view: hashlib.sha256(view).digest(), views)),
            )
    return Row(
        what=f"verifying {size / 1e6:.0f} MB by digest",
        figure=size / timings["ours"].wall_ms / 1e6,
        unit="GB/s",
        reference=size / timings["hashlib"].wall_ms / 1e6,
        against="GB/s: hashlib.sha256 of the same tensors in memory, two threads",
        target=Target("at least", 0.9, "ratio"),
        details=timings["ours"].details(),
    )
