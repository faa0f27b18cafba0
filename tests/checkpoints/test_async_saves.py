"""Saving while training goes on: what is saved is the state at the call, whatever happens next."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import ckptlake
from ckptlake import Lake, Run
from ckptlake.checkpoints import packed
from ckptlake.config import Capture, Settings
from ckptlake.errors import InvalidInputError, StorageError


class Gate:
    """Holds the background back before its first pass over the bytes until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open = threading.Event()
        self.reached = threading.Event()
        real = packed.PackedSave.run

        def wait_and_run(save: packed.PackedSave) -> packed.Written:
            if threading.current_thread().name == "ckptlake-checkpoint":
                self.reached.set()
                assert self._open.wait(60)
            return real(save)

        monkeypatch.setattr(packed.PackedSave, "run", wait_and_run)

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    held = Gate(monkeypatch)
    yield held
    held.open()


class Training:
    """A small model with buffers, its optimizer and an average of its weights."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 8))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.average = copy.deepcopy(self.model)
        self.step()

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.randn(16, 64)).square().sum().backward()
        self.optimizer.step()
        with torch.no_grad():
            for mean, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(weight, 0.5)

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "average": self.average}

    def frozen(self) -> dict[str, Any]:
        return copy.deepcopy({name: part.state_dict() for name, part in self.parts().items()})


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("with_fence", [True, False])
def test_training_on_changes_nothing_of_what_is_saved(gate: Gate, run: Run, with_fence: bool) -> None:
    training = Training()
    expected = training.frozen()
    if with_fence:
        pending = run.save_checkpoint(**training.parts(), async_=True)
    else:
        pending = run.save_checkpoint({n: p.state_dict() for n, p in training.parts().items()}, async_=True)
    gate.reached.wait(60)
    for _ in range(3):
        training.step()
    assert not pending.done
    gate.open()
    saved = pending.wait(60)
    assert same(run.load_checkpoint(saved.id, verify="digest").state, expected)


def test_what_the_optimizer_owns_is_not_copied_before_its_step(gate: Gate, run: Run) -> None:
    training = Training()
    run.save_checkpoint(**training.parts(), async_=True)
    session = run._session
    assert session is not None
    owned = sum(p.nbytes for p in training.model.parameters())
    others = sum(t.nbytes for t in training.average.state_dict().values())
    others += sum(b.nbytes for b in training.model.buffers())
    assert session._staging._held_bytes == others
    training.step()
    moments = sum(t.nbytes for state in training.optimizer.state.values() for t in state.values())
    assert session._staging._held_bytes == others + owned + moments
    gate.open()


def test_a_fence_after_the_save_copies_nothing(run: Run) -> None:
    training = Training()
    pending = run.save_checkpoint(model=training.model, optimizer=training.optimizer, async_=True)
    pending.wait(60)
    session = run._session
    assert session is not None
    held = session._staging._held_bytes
    training.step()
    pending.fence()
    assert session._staging._held_bytes == held


def test_staging_memory_is_used_again(run: Run) -> None:
    state = {"w": torch.ones(1000), "v": np.ones(500)}
    session = None
    for step in range(3):
        run.save_checkpoint(state, step=step, async_=True).wait(60)
        session = run._session
        assert session is not None
        assert session._staging._held_bytes == 4000 + 4000
    assert session is not None


def test_staging_memory_is_bounded(tmp_path: Any) -> None:
    settings = Settings(max_staging_bytes=5000)
    with ckptlake.open(tmp_path / "lake", settings=settings) as lake, lake.run(capture=Capture.nothing()) as run:
        state = {f"t{number}": torch.full((1000,), float(number)) for number in range(6)}
        expected = copy.deepcopy(state)
        pending = run.save_checkpoint(state, async_=True)
        session = run._session
        assert session is not None
        assert session._staging._held_bytes <= 5000
        for tensor in state.values():
            tensor += 1
        assert same(run.load_checkpoint(pending.wait(60).id).state, expected)


def test_one_save_at_a_time(lake: Lake, run: Run) -> None:
    first = run.save_checkpoint({"w": torch.ones(10)}, step=1, async_=True)
    second = run.save_checkpoint({"w": torch.zeros(10)}, step=2, async_=True)
    assert first.done
    second.wait(60)
    assert [record.step for record in lake.checkpoints.list(run)] == [1, 2]


def test_latest_is_the_one_before_until_it_is_durable(gate: Gate, lake: Lake, run: Run) -> None:
    before = run.save_checkpoint({"w": torch.ones(10)}, step=1)
    pending = run.save_checkpoint({"w": torch.zeros(10)}, step=2, async_=True)
    gate.reached.wait(60)
    assert lake.checkpoints.get("latest").id == before.id
    gate.open()
    saved = pending.wait(60)
    assert lake.checkpoints.get("latest").id == saved.id


def test_finish_waits(lake: Lake) -> None:
    with lake.run(capture=Capture.nothing()) as run:
        run.save_checkpoint({"w": torch.ones(1000)}, async_=True)
    assert len(lake.checkpoints.list(run)) == 1


def test_loading_waits_for_what_is_being_saved(run: Run) -> None:
    run.save_checkpoint({"w": torch.ones(3)}, step=7, async_=True)
    assert run.load_checkpoint("latest").step == 7


class TestChangesInBetween:
    def test_a_change_outside_of_a_step_is_found_not_saved(self, gate: Gate, lake: Lake, run: Run) -> None:
        training = Training()
        pending = run.save_checkpoint(**training.parts(), async_=True)
        with torch.no_grad():
            training.model[0].weight.clamp_(-0.1, 0.1)
        gate.open()
        with pytest.raises(InvalidInputError, match=r"model/0\.weight.*fence"):
            pending.wait(60)
        assert lake.checkpoints.list(run) == []
        assert not list((lake.path / "blobs").glob("*safetensors*"))

    def test_a_change_that_torch_does_not_count_is_found_while_it_is_read(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        training = Training()
        real = packed.measure_all

        def change_first(works: Any) -> Any:
            training.model[0].weight.data.numpy()[:] += 1
            return real(works)

        monkeypatch.setattr(packed, "measure_all", change_first)
        pending = run.save_checkpoint(model=training.model, optimizer=training.optimizer, async_=True)
        with pytest.raises(InvalidInputError, match="changed while"):
            pending.wait(60)

    def test_a_fence_by_hand_allows_it(self, gate: Gate, run: Run) -> None:
        training = Training()
        expected = training.frozen()
        pending = run.save_checkpoint(**training.parts(), async_=True)
        pending.fence()
        with torch.no_grad():
            training.model[0].weight.clamp_(-0.1, 0.1)
        gate.open()
        assert same(run.load_checkpoint(pending.wait(60).id).state, expected)

    def test_several_optimizers(self, gate: Gate, run: Run) -> None:
        one, two = Training(), Training()
        expected = (one.frozen()["model"], two.frozen()["model"])
        pending = run.save_checkpoint(
            a=one.model, b=two.model, optimizer={"a": one.optimizer, "b": two.optimizer}, async_=True
        )
        one.step()
        two.step()
        gate.open()
        loaded = run.load_checkpoint(pending.wait(60).id)
        assert same((loaded["a"], loaded["b"]), expected)
        assert set(loaded["optimizer"]) == {"a", "b"}


class TestErrors:
    @pytest.fixture
    def refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise StorageError("the disk is full: free space on that disk")

        monkeypatch.setattr(packed.PackedSave, "_find_known", refuse)

    @pytest.mark.usefixtures("refused")
    def test_one_is_raised_at_the_next_call(self, run: Run, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.CRITICAL)
        pending = run.save_checkpoint({"w": torch.ones(3)}, async_=True)
        pending.join()
        with pytest.raises(StorageError, match="full"):
            run.log({"loss": 1.0})
        run.log({"loss": 1.0})

    @pytest.mark.usefixtures("refused")
    def test_one_is_raised_when_the_run_ends(self, lake: Lake) -> None:
        with pytest.raises(StorageError, match="full"), lake.run(capture=Capture.nothing()) as run:
            run.save_checkpoint({"w": torch.ones(3)}, async_=True)

    @pytest.mark.usefixtures("refused")
    def test_one_that_wait_has_raised_is_not_raised_again(self, run: Run) -> None:
        pending = run.save_checkpoint({"w": torch.ones(3)}, async_=True)
        with pytest.raises(StorageError, match="full"):
            pending.wait(60)
        run.log({"loss": 1.0})

    def test_a_failed_save_leaves_the_one_before(self, lake: Lake, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        first = run.save_checkpoint({"w": torch.ones(3)}, step=1)
        with monkeypatch.context() as patch:
            patch.setattr(packed, "measure_all", lambda works: 1 / 0)
            pending = run.save_checkpoint({"w": torch.zeros(3)}, step=2, async_=True)
            with pytest.raises(ZeroDivisionError):
                pending.wait(60)
        assert lake.checkpoints.get("latest").id == first.id
        assert run.save_checkpoint({"w": torch.zeros(3)}, step=3).stored_bytes > 0

    @pytest.mark.parametrize("form", ["torch", "pickle"])
    def test_formats_of_other_libraries_are_not_saved_in_the_background(self, run: Run, form: str) -> None:
        with pytest.raises(InvalidInputError, match="without async_"):
            run.save_checkpoint({"w": torch.ones(3)}, format=form, async_=True)

    def test_an_optimizer_that_is_none(self, run: Run) -> None:
        with pytest.raises(InvalidInputError, match="str is no torch optimizer"):
            run.save_checkpoint({"w": torch.ones(3)}, optimizer="adam", async_=True)
