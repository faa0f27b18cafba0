"""Time that never runs backwards inside a process."""

from __future__ import annotations

import time

import pytest

from ckptlake._internal.clock import Clock


class Times:
    """The machine's two clocks, in microseconds, moved by hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.wall_us = 1_700_000_000_000_000
        self.monotonic_us = 5_000_000
        patch.setattr(time, "time_ns", lambda: self.wall_us * 1000 + 7)
        patch.setattr(time, "monotonic_ns", lambda: self.monotonic_us * 1000 + 3)

    def pass_us(self, duration_us: int) -> None:
        self.wall_us += duration_us
        self.monotonic_us += duration_us


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    return Times(monkeypatch)


def test_is_the_wall_clock() -> None:
    before_us = time.time_ns() // 1000
    now_us = Clock().now_us()
    assert before_us - 2 <= now_us <= time.time_ns() // 1000 + 2


def test_goes_forward_with_time(times: Times) -> None:
    clock = Clock()
    first = clock.now_us()
    times.pass_us(250)
    assert clock.now_us() == first + 250


def test_a_wall_clock_set_back_does_not_move_it(times: Times) -> None:
    clock = Clock()
    first = clock.now_us()
    times.wall_us -= 3_600_000_000
    clock.resync()
    assert clock.now_us() == first
    times.pass_us(10)
    assert clock.now_us() == first + 10


def test_a_wall_clock_set_forward_is_followed_at_the_next_resync(times: Times) -> None:
    clock = Clock()
    first = clock.now_us()
    times.wall_us += 3_600_000_000
    assert clock.now_us() == first
    clock.resync()
    assert clock.now_us() == first + 3_600_000_000


def test_a_small_drift_is_not_followed(times: Times) -> None:
    clock = Clock()
    first = clock.now_us()
    times.wall_us += 900_000
    clock.resync()
    assert clock.now_us() == first


def test_never_runs_backwards_whatever_happens(times: Times) -> None:
    clock = Clock()
    seen = [clock.now_us()]
    for wall_jump_us in (5_000_000, -9_000_000, 2_000_000, -1, 86_400_000_000, -86_400_000_000, 0):
        times.wall_us += wall_jump_us
        times.pass_us(1)
        clock.resync()
        seen.append(clock.now_us())
    assert seen == sorted(set(seen))
