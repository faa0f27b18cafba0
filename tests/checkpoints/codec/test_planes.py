"""Cutting words into lanes and joining them again."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake.checkpoints.codec.planes import BLOCK_WORDS, Cut, Memory, Words

WIDTHS = {
    1: [(1,)],
    2: [(1, 1), (2,)],
    4: [(1, 1, 1, 1), (2, 1, 1), (1, 1, 2), (2, 2), (4,)],
    8: [(1,) * 8, (4, 2, 1, 1), (2, 1, 1, 2, 1, 1), (2, 2, 2, 2), (4, 4), (1, 1, 2, 4), (8,)],
}
CUTS = [
    (size, widths, rotation)
    for size, cuts in WIDTHS.items()
    for widths in cuts
    for rotation in (0, 1, 4, 7)
    if Cut(widths, rotation).suits(size)
]


@pytest.mark.parametrize(
    ("widths", "rotation"), [((1, 2, 1), 0), ((1, 1), 0), ((2, 2, 1), 0), ((), 0), ((3, 1), 0), ((2, 2), 16), ((4,), 1)]
)
def test_what_no_halving_gives_suits_no_word(widths: tuple[int, ...], rotation: int) -> None:
    assert not Cut(widths, rotation).suits(4)


def noise(size: int, count: int, seed: int) -> Words:
    return np.frombuffer(np.random.default_rng(seed).bytes(size * count), f"<u{size}")


def expected_lanes(words: Words, others: Words | None, cut: Cut) -> list[list[int]]:
    """Return the lanes by Python's own integers."""
    bits = 8 * words.itemsize
    lanes: list[list[int]] = [[] for _ in cut.widths]
    for place, value in enumerate(words.tolist()):
        if others is not None:
            difference = (value - int(others[place])) % 2**bits
            signed = difference - 2**bits if difference >= 2 ** (bits - 1) else difference
            value = 2 * signed if signed >= 0 else -2 * signed - 1
        whole = bits if bits <= 16 else bits // 2
        upper, lower = divmod(value, 2 ** (bits - whole))
        upper = (upper << cut.rotation | upper >> (whole - cut.rotation)) % 2**whole
        value = upper << (bits - whole) | lower
        for lane, width in zip(lanes, cut.widths, strict=True):
            lane.append(value % 256**width)
            value >>= 8 * width
    return lanes


@pytest.mark.parametrize("against", [False, True])
@pytest.mark.parametrize(("size", "widths", "rotation"), CUTS)
def test_lanes_are_those_of_plain_integers(size: int, widths: tuple[int, ...], rotation: int, against: bool) -> None:
    edges = np.array([0, 1, 2**63, 2**64 - 1, 2**31, 2**32 - 1, 2**15, 2**16 - 1, 127, 128, 255], np.uint64)
    words = np.concatenate([edges.astype(f"<u{size}"), noise(size, 200, 1)])
    others = np.concatenate([edges[::-1].astype(f"<u{size}"), noise(size, 200, 2)]) if against else None
    cut = Cut(widths, rotation)
    lanes = cut.split(words, others)
    assert [lane.tolist() for lane in lanes] == expected_lanes(words, others, cut)
    out = np.zeros_like(words)
    cut.join(lanes, others, out)
    assert out.tobytes() == words.tobytes()


@pytest.mark.parametrize("count", [0, 1, BLOCK_WORDS - 1, BLOCK_WORDS, BLOCK_WORDS + 1, 2 * BLOCK_WORDS + 5])
@pytest.mark.parametrize("against", [False, True])
def test_blocks_meet_without_a_seam(count: int, against: bool) -> None:
    words, others = noise(4, count, 3), noise(4, count, 4) if against else None
    cut = Cut((2, 1, 1), 1)
    lanes = cut.split(words, others)
    assert [lane.nbytes for lane in lanes] == [2 * count, count, count]
    out = np.zeros_like(words)
    cut.join(lanes, others, out)
    assert out.tobytes() == words.tobytes()


@settings(max_examples=25)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1), st.integers(0, 3))
def test_memory_that_is_not_aligned_serves_as_well(values: list[int], shift: int) -> None:
    words = np.array(values, "<u4")
    given_words = np.frombuffer(bytes(shift) + words.tobytes(), "<u4", offset=shift)
    cut = Cut((1, 1, 1, 1), 1)
    out = np.frombuffer(bytearray(shift + words.nbytes), "<u4", offset=shift)
    for others in (None, np.zeros_like(words), given_words):
        out[:] = 0
        cut.join(cut.split(given_words, others), others, out)
        assert out.tobytes() == words.tobytes()


def test_memory_is_used_again_and_never_by_two_at_once() -> None:
    words, cut, memory = noise(4, 1000, 5), Cut((2, 1, 1), 1), Memory(1000)
    first, second = cut.split(words, None, memory), cut.split(words, None, memory)
    assert not any(np.shares_memory(one, other) for one in first for other in second)
    for lane in first:
        memory.give_back(lane)
    assert {id(lane) for lane in cut.split(words, None, memory)} == {id(lane) for lane in first}


def test_memory_of_other_lengths_is_not_kept() -> None:
    memory = Memory(1000)
    lane = memory.take(999, 2)
    memory.give_back(lane)
    assert memory.take(999, 2) is not lane


def test_small_differences_of_either_sign_leave_the_high_lanes_empty() -> None:
    words = np.array([1000, 999, 1003, 2**32 - 1, 0], "<u4")
    others = np.array([1000, 1000, 1000, 0, 2**32 - 1], "<u4")
    low, *high = Cut((1, 1, 1, 1)).split(words, others)
    assert low.tolist() == [0, 1, 6, 1, 2]
    assert not any(lane.any() for lane in high)


def test_threads_do_not_meet_in_the_blocks_they_work_in() -> None:
    cut, rounds = Cut((1, 1, 1, 1), 1), 30
    wrong: list[int] = []

    def work(seed: int) -> None:
        words, others = noise(4, 3 * BLOCK_WORDS, seed), noise(4, 3 * BLOCK_WORDS, seed + 100)
        out = np.empty_like(words)
        for _ in range(rounds):
            cut.join(cut.split(words, others), others, out)
            if out.tobytes() != words.tobytes():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
