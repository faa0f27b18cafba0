"""Tensors on a device: read by the writer's thread, as they were at the call, and a failing device costs one point."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import torch

import ckptlake
from ckptlake import Lake, Run, UnreadableTensorError

Points = Callable[..., list[tuple[str, int, float]]]


class OnDevice(torch.Tensor):
    """A tensor that says it is not on the CPU and tells which threads read it."""

    readers: ClassVar[list[int]] = []
    is_cpu = False

    def item(self) -> Any:
        self.readers.append(threading.get_ident())
        return super().item()

    def __float__(self) -> float:
        self.readers.append(threading.get_ident())
        return super().__float__()


class Broken(OnDevice):
    """A tensor whose device fails when it is read."""

    def item(self) -> Any:
        raise RuntimeError("device-side assert triggered")


def on_device(value: float, kind: type[OnDevice] = OnDevice, dtype: torch.dtype = torch.float32) -> OnDevice:
    return torch.tensor(value, dtype=dtype).as_subclass(kind)


@pytest.fixture(autouse=True)
def no_readers_yet() -> Iterator[None]:
    OnDevice.readers.clear()
    yield
    OnDevice.readers.clear()


def wait_for_loss(lake: Lake) -> None:
    """Return once the flush thread has met the unreadable tensor."""
    deadline = time.monotonic() + 10
    assert lake._writer is not None
    while not lake._writer.alarm and time.monotonic() < deadline:
        time.sleep(0.01)


class TestReading:
    def test_is_not_done_on_the_callers_thread(self, start: Callable[..., Run]) -> None:
        with start() as run:
            for step in range(20):
                run.log({"loss": on_device(step)}, step=step)
            assert threading.get_ident() not in OnDevice.readers
            time.sleep(1.5)
            readers = list(OnDevice.readers)
        assert len(readers) == 20
        assert threading.get_ident() not in readers

    def test_gives_the_value(self, start: Callable[..., Run], points: Points) -> None:
        run = start()
        run.log({"loss": on_device(0.1), "half": on_device(0.1, dtype=torch.bfloat16), "plain": 2.0})
        expected = [("half", 0, 0.10009765625), ("loss", 0, 0.10000000149011612), ("plain", 0, 2.0)]
        assert points(run) == expected
        run.finish()
        assert points(run) == expected

    def test_gives_the_value_it_had_at_the_call(self, start: Callable[..., Run], points: Points) -> None:
        running = on_device(1.0)
        with start() as run:
            for step in range(3):
                run.log({"running": running}, step=step)
                with torch.no_grad():
                    running.mul_(10)
        assert [value for _, _, value in points(run)] == [1.0, 10.0, 100.0]

    def test_of_a_value_with_a_gradient(self, start: Callable[..., Run], points: Points) -> None:
        with start() as run:
            run.log({"loss": torch.tensor(4.0, requires_grad=True).as_subclass(OnDevice)})
        assert points(run) == [("loss", 0, 4.0)]

    @pytest.mark.parametrize("shape", [(1,), (2, 2)])
    def test_only_of_scalars(self, start: Callable[..., Run], shape: tuple[int, ...]) -> None:
        run = start()
        with pytest.raises(ckptlake.InvalidInputError, match=r"'loss'.*shape"):
            run.log({"loss": torch.zeros(shape).as_subclass(OnDevice)})
        assert OnDevice.readers == []


class TestAFailingDevice:
    def test_costs_only_its_own_point(self, lake: Lake, start: Callable[..., Run], points: Points) -> None:
        run, other = start(), start()
        run.log({"before": 1.0}, step=0)
        run.log({"loss": on_device(7.0, Broken), "accuracy": 0.5, "lr": on_device(0.25)}, step=1)
        run.log({"after": 2.0}, step=2)
        other.log({"x": 3.0}, step=1)
        wait_for_loss(lake)
        with pytest.raises(UnreadableTensorError, match=rf"'loss' of run {run.id} at step 1 is lost: .*device-side"):
            run.log({"next": 4.0}, step=3)
        run.finish()
        other.finish()
        assert points(run) == [
            ("accuracy", 1, 0.5),
            ("after", 2, 2.0),
            ("before", 0, 1.0),
            ("lr", 1, 0.25),
            ("next", 3, 4.0),
        ]
        assert points(other) == [("x", 1, 3.0)]

    def test_is_told_once(self, lake: Lake, start: Callable[..., Run]) -> None:
        run = start()
        run.log({"loss": on_device(7.0, Broken)})
        wait_for_loss(lake)
        with pytest.raises(UnreadableTensorError):
            run.log({"x": 1.0})
        run.log({"x": 2.0})
        run.flush()
        run.log({"x": 3.0})

    def test_every_lost_point_is_told(self, lake: Lake, start: Callable[..., Run]) -> None:
        run = start()
        run.log({"first": on_device(7.0, Broken), "second": on_device(8.0, Broken)}, step=5)
        wait_for_loss(lake)
        told = []
        for _ in range(2):
            try:
                run.log({"x": 1.0})
            except UnreadableTensorError as error:
                told.append("".join([str(error), *getattr(error, "__notes__", [])]))
        assert "'first'" in "".join(told)
        assert "'second'" in "".join(told)

    def test_met_at_the_end_is_told_by_finish(self, lake: Lake, start: Callable[..., Run]) -> None:
        run = start()
        run.log({"loss": on_device(7.0, Broken), "x": 1.0})
        with pytest.raises(UnreadableTensorError, match="'loss'"):
            run.finish()
        assert lake.sql("SELECT status FROM runs").fetchall() == [("finished",)]

    def test_does_not_hide_the_error_that_ends_the_block(self, lake: Lake, start: Callable[..., Run]) -> None:
        with pytest.raises(KeyError, match="the cause"), start() as run:  # noqa: PT012
            run.log({"loss": on_device(7.0, Broken)})
            raise KeyError("the cause")
        ((status, notes),) = lake.sql("SELECT status, notes FROM runs").fetchall()
        assert status == "failed"
        assert "the cause" in notes

    def test_an_integer_that_would_be_rounded_is_lost_and_told(
        self, lake: Lake, start: Callable[..., Run], points: Points
    ) -> None:
        run = start()
        run.log({"count": on_device(2**53 + 1, dtype=torch.int64), "fine": on_device(2**53, dtype=torch.int64)})
        with pytest.raises(UnreadableTensorError, match="'count'"):
            run.finish()
        assert points(run) == [("fine", 0, float(2**53))]
