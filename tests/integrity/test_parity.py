"""Parity beside a file gives back what it promises, byte for byte, and says what it cannot give back."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptlake.errors import (
    DamagedCheckpointError,
    InvalidInputError,
    LakeFormatError,
    NotFoundError,
    ReadOnlyLakeError,
    StorageError,
)
from ckptlake.integrity import galois, parity_file
from ckptlake.integrity.parity import Damage, Protection, examine, parity_path, protect, rebuild

BLOCK = 4096
GROUP = 40
HEADER = struct.Struct("<8sIIIIQ16s")
HEADER_BYTES = HEADER.size + 16
SIZES = st.one_of(
    st.sampled_from([0, 1, 4095, 4096, 4097, 40 * BLOCK, 40 * BLOCK + 1, 41 * BLOCK, 81 * BLOCK - 1, 3_000_001]),
    st.integers(0, 600_000),
)
SEEDS = st.integers(0, 2**32 - 1)


def times(a: int, b: int) -> int:
    """Multiply two elements of the field the slow way: polynomials over GF(2), then the remainder."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(15, 7, -1):
        if product >> bit & 1:
            product ^= 0x11D << (bit - 8)
    return product


TIMES = np.array([[times(a, b) for b in range(256)] for a in range(256)], np.uint8)


@dataclass(frozen=True)
class Shape:
    """Which blocks belong together, told independently of the code under test."""

    size: int

    @property
    def blocks(self) -> int:
        return (self.size + BLOCK - 1) // BLOCK

    @property
    def columns(self) -> int:
        return (self.blocks + GROUP - 1) // GROUP

    def column(self, number: int) -> list[int]:
        return list(range(number, self.blocks, self.columns))

    @property
    def slots(self) -> int:
        return (self.blocks + self.columns - 1) // self.columns + 2

    @property
    def record(self) -> int:
        return 4 * self.slots + 8

    @property
    def parity_at(self) -> int:
        return HEADER_BYTES + self.columns * self.record

    def extent(self, block: int) -> tuple[int, int]:
        return block * BLOCK, min(self.size, (block + 1) * BLOCK)

    def ranges(self, blocks: list[int]) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        for start, stop in map(self.extent, sorted(blocks)):
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], stop)
            else:
                found.append((start, stop))
        return tuple(found)


def reference(data: bytes) -> bytes:
    """Return the parity file of `data`, written from the description of the format, one block after the other."""
    shape = Shape(len(data))
    rows = shape.slots - 2 if shape.columns else 0
    padded = np.zeros((rows * shape.columns, BLOCK), np.uint8)
    padded.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
    records, all_p, all_q = b"", b"", b""
    for column in range(shape.columns):
        blocks = [padded[row * shape.columns + column] for row in range(rows)]
        p, q = np.zeros(BLOCK, np.uint8), np.zeros(BLOCK, np.uint8)
        for weight, block in enumerate(blocks, 1):
            p, q = p ^ block, q ^ TIMES[weight][block]
        sums = b"".join((xxhash.xxh3_64_intdigest(b.tobytes()) % 2**32).to_bytes(4, "little") for b in (p, *blocks, q))
        records += sums + xxhash.xxh3_64_intdigest(sums, seed=column).to_bytes(8, "little")
        all_p, all_q = all_p + p.tobytes(), all_q + q.tobytes()
    row_bytes = shape.columns * BLOCK
    digests = [xxhash.xxh3_128_digest(data[row * row_bytes : (row + 1) * row_bytes]) for row in range(rows)]
    header = sealed(data_bytes=len(data), digest=xxhash.xxh3_128_digest(b"".join(digests)))
    return header + records + all_p + all_q + records + header


def sealed(
    data_bytes: int,
    digest: bytes = bytes(16),
    magic: bytes = b"CKLPQ\r\n\x1a",
    version: int = 1,
    block_bytes: int = BLOCK,
    group_blocks: int = GROUP,
) -> bytes:
    head = HEADER.pack(magic, version, block_bytes, group_blocks, 0, data_bytes, digest)
    return head + xxhash.xxh3_128_digest(head)


@dataclass(frozen=True)
class Pair:
    """A data file and its parity file, with what they held when they were written."""

    path: Path
    parity: Path
    data: bytes
    written: bytes

    @property
    def shape(self) -> Shape:
        return Shape(len(self.data))

    @property
    def out(self) -> Path:
        return self.path.with_name("rebuilt")

    def spoil(self, rng: np.random.Generator, data_blocks: list[int], parity_blocks: list[int]) -> None:
        """Change at least one byte of each of these blocks, and nothing else."""
        extents = [(self.path, *self.shape.extent(block)) for block in data_blocks]
        for block in parity_blocks:
            start = self.shape.parity_at + block * BLOCK
            extents.append((self.parity, start, start + BLOCK))
        for path, start, stop in extents:
            with path.open("r+b") as file:
                file.seek(start)
                held = np.frombuffer(file.read(stop - start), np.uint8)
                count = int(rng.choice([1, 1, (1 + len(held)) // 2, len(held)]))
                change = np.zeros_like(held)
                change[rng.choice(len(held), count, replace=False)] = rng.integers(1, 256)
                file.seek(start)
                file.write((held ^ change).tobytes())

    def assert_gives_back(self) -> Damage:
        damage = rebuild(self.path, self.parity, self.out)
        assert self.out.read_bytes() == self.data
        self.out.unlink()
        assert damage == examine(self.path, self.parity)
        assert damage.is_repairable
        return damage

    def assert_refuses(self) -> Damage:
        before = {path: path.read_bytes() for path in (self.path, self.parity)}
        damage = examine(self.path, self.parity)
        assert not damage.is_repairable
        assert not damage.is_clean
        with pytest.raises(DamagedCheckpointError) as caught:
            rebuild(self.path, self.parity, self.out)
        for start, stop in damage.unrepairable_bytes[:8]:
            assert f"from {start} up to {stop}" in str(caught.value)
        lost = sum(stop - start for start, stop in damage.unrepairable_bytes)
        assert f"{lost} bytes are lost" in str(caught.value)
        assert set(os.listdir(self.path.parent)) == {path.name for path in before}
        assert {path: path.read_bytes() for path in before} == before
        return damage


def make(folder: Path, size: int, seed: int = 0) -> Pair:
    path = folder / "a.safetensors"
    data = np.random.default_rng(seed).bytes(size)
    path.write_bytes(data)
    parity = protect(path).path
    return Pair(path, parity, data, parity.read_bytes())


@contextmanager
def made(size: int, seed: int, run_columns: int = 128) -> Iterator[Pair]:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity_file, "RUN_COLUMNS", run_columns)
        yield make(Path(folder), size, seed)


class TestField:
    def test_doubles_every_byte(self) -> None:
        every = np.arange(256, dtype=np.uint8)
        doubled = galois.double(every.view(np.uint64)).view(np.uint8)
        assert doubled.tolist() == [times(2, a) for a in range(256)]

    def test_multiplies_by_every_factor(self) -> None:
        every = np.arange(256, dtype=np.uint8)
        factors = np.arange(256, dtype=np.uint8)
        words = np.tile(every.view(np.uint64), (256, 1))
        assert (galois.multiply(words, factors).view(np.uint8) == TIMES).all()
        assert (words.view(np.uint8) == every).all()

    def test_inverts_all_but_zero(self) -> None:
        factors = np.arange(1, 256, dtype=np.uint8)
        assert (TIMES[factors, galois.invert(factors)] == 1).all()

    @pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9, 31, 32, 33, 40, 41, 64])
    def test_folds_any_number_of_blocks(self, count: int) -> None:
        blocks = np.random.default_rng(count).integers(0, 256, (count, 3, 16), dtype=np.uint8)
        total, weighted = galois.fold(blocks.view(np.uint64))
        slow_total, slow_weighted = np.zeros((2, 3, 16), np.uint8)
        for number, block in enumerate(blocks):
            slow_total = slow_total ^ block
            slow_weighted = slow_weighted ^ TIMES[number][block]
        assert (total.view(np.uint8) == slow_total).all()
        assert (weighted.view(np.uint8) == slow_weighted).all()

    @pytest.mark.parametrize("rows", [1, 2, 3, 40])
    def test_recovers_every_pair_of_losses(self, rows: int) -> None:
        losses = [(), *itertools.chain.from_iterable(itertools.combinations(range(rows + 2), n) for n in (1, 2))]
        sound = np.random.default_rng(rows).integers(0, 2**64, (rows + 2, len(losses), 2), dtype=np.uint64)
        galois.encode(sound)
        lost = np.zeros(sound.shape[:2], np.bool_)
        for column, slots in enumerate(losses):
            lost[list(slots), column] = True
        damaged = np.where(lost[:, :, None], ~sound, sound)
        galois.recover(damaged, lost)
        assert (damaged[:-1] == sound[:-1]).all()


class TestProtect:
    @settings(max_examples=20)
    @given(size=st.one_of(st.sampled_from([0, 1, 4095, 4096, 4097]), st.integers(0, 400_000)), seed=SEEDS)
    def test_writes_the_described_format(self, size: int, seed: int) -> None:
        with made(size, seed, run_columns=1 + seed % 3) as pair:
            assert pair.written == reference(pair.data)

    def test_tells_what_it_wrote(self, tmp_path: Path) -> None:
        path = tmp_path / "w.pt"
        path.write_bytes(bytes(1000))
        assert protect(path) == Protection(tmp_path / "w.pt.pq", 1000, (tmp_path / "w.pt.pq").stat().st_size)
        assert parity_path(path) == tmp_path / "w.pt.pq"
        elsewhere = tmp_path / "elsewhere"
        assert protect(path, elsewhere).path == elsewhere
        assert elsewhere.read_bytes() == (tmp_path / "w.pt.pq").read_bytes()
        assert sorted(os.listdir(tmp_path)) == ["elsewhere", "w.pt", "w.pt.pq"]

    def test_replaces_the_parity_of_an_older_file(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 50_000)
        pair.path.write_bytes(b"another file altogether")
        assert not examine(pair.path, pair.parity).is_repairable
        protect(pair.path)
        assert examine(pair.path, pair.parity).is_clean

    def test_takes_a_twentieth(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 200 * GROUP * BLOCK)
        assert len(pair.written) / len(pair.data) < 0.0522

    def test_tells_its_progress(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parity_file, "RUN_COLUMNS", 3)
        path = tmp_path / "data"
        path.write_bytes(bytes(7 * GROUP * BLOCK))
        seen: list[int] = []
        protect(path, progress=seen.append)
        assert seen == [3 * GROUP * BLOCK, 6 * GROUP * BLOCK, 7 * GROUP * BLOCK]

    def test_nobody_reads_parity_who_may_not_read_the_file(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 5000)
        pair.path.chmod(0o600)
        protect(pair.path)
        rebuild(pair.path, pair.parity, pair.out)
        assert stat.S_IMODE(pair.parity.stat().st_mode) == stat.S_IMODE(pair.out.stat().st_mode) == 0o600

    def test_refuses_a_file_that_shrinks_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parity_file, "RUN_COLUMNS", 1)
        path = tmp_path / "data"
        path.write_bytes(bytes(3 * GROUP * BLOCK))
        with pytest.raises(DamagedCheckpointError, match=f"to its end at byte {3 * GROUP * BLOCK}"):
            protect(path, progress=lambda done: os.truncate(path, 2 * GROUP * BLOCK))
        assert os.listdir(tmp_path) == ["data"]


class TestRepair:
    @settings(max_examples=60)
    @given(size=SIZES, seed=SEEDS, run_columns=st.sampled_from([1, 2, 7, 128]))
    def test_two_losses_in_every_group(self, size: int, seed: int, run_columns: int) -> None:
        rng = np.random.default_rng(seed)
        with made(size, seed, run_columns) as pair:
            shape, data_blocks, parity_blocks = pair.shape, list[int](), list[int]()
            for column in range(shape.columns):
                members = [("data", block) for block in shape.column(column)]
                members += [("parity", column), ("parity", shape.columns + column)]
                for at in rng.choice(len(members), rng.integers(0, 3), replace=False):
                    kind, block = members[at]
                    (data_blocks if kind == "data" else parity_blocks).append(block)
            pair.spoil(rng, data_blocks, parity_blocks)
            damage = pair.assert_gives_back()
            assert damage == Damage(tuple(sorted(data_blocks)), tuple(sorted(parity_blocks)), 0, 0, ())
            assert damage.is_clean == (not data_blocks and not parity_blocks)

    @settings(max_examples=25)
    @given(size=st.integers(1_800_000, 3_000_000), seed=SEEDS, part=st.floats(0.001, 0.045), place=st.floats(0, 1))
    def test_a_hole(self, size: int, seed: int, part: float, place: float) -> None:
        with made(size, seed, run_columns=5) as pair:
            length = int(size * part)
            start = int((size - length) * place)
            pair.path.write_bytes(pair.data[:start] + bytes(length) + pair.data[start + length :])
            damage = pair.assert_gives_back()
            assert damage.data_blocks == tuple(range(start // BLOCK, (start + length - 1) // BLOCK + 1))

    @settings(max_examples=25)
    @given(size=st.integers(1_800_000, 3_000_000), seed=SEEDS, part=st.floats(0.0, 0.045))
    def test_a_tail_cut_off(self, size: int, seed: int, part: float) -> None:
        with made(size, seed, run_columns=5) as pair:
            kept = size - int(size * part)
            os.truncate(pair.path, kept)
            damage = pair.assert_gives_back()
            assert damage.size_difference == kept - size
            assert damage.data_blocks == (tuple(range(kept // BLOCK, pair.shape.blocks)) if kept < size else ())

    def test_missing_zeros_are_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "data"
        path.write_bytes(b"x" * BLOCK + bytes(2 * BLOCK))
        parity = protect(path).path
        os.truncate(path, BLOCK + 1)
        assert rebuild(path, parity, path) == Damage((1, 2), (), 1 - 2 * BLOCK, 0, ())
        assert path.read_bytes() == b"x" * BLOCK + bytes(2 * BLOCK)

    @pytest.mark.parametrize("longer_by", [1, BLOCK, 300_000])
    def test_a_tail_put_on(self, tmp_path: Path, longer_by: int) -> None:
        pair = make(tmp_path, 100_001)
        with pair.path.open("ab") as file:
            file.write(b"z" * longer_by)
        damage = pair.assert_gives_back()
        assert damage == Damage((), (), longer_by, 0, ())
        assert not damage.is_clean

    def test_in_place(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 300_000)
        pair.spoil(np.random.default_rng(0), [3, 70], [])
        assert rebuild(pair.path, pair.parity, pair.path).data_blocks == (3, 70)
        assert pair.path.read_bytes() == pair.data
        assert examine(pair.path, pair.parity).is_clean

    def test_parity_alone_is_damaged(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 3 * GROUP * BLOCK)
        pair.spoil(np.random.default_rng(0), [], list(range(6)))
        assert pair.assert_gives_back().parity_blocks == tuple(range(6))
        protect(pair.path)
        assert pair.parity.read_bytes() == pair.written

    def test_many_flipped_bits(self, tmp_path: Path) -> None:
        """One bit in every column, then a second one in the block after it: every kind of pair in one pass."""
        pair = make(tmp_path, 150 * GROUP * BLOCK)
        shape, data = pair.shape, bytearray(pair.data)
        bad = [shape.column(column)[(column * 7 + more) % GROUP] for column in range(150) for more in (0, 1)]
        for block in bad:
            data[block * BLOCK + block % BLOCK] ^= 1 << block % 8
        pair.path.write_bytes(data)
        assert pair.assert_gives_back().data_blocks == tuple(sorted(bad))

    def test_the_longest_hole_and_one_block_more(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 5 * GROUP * BLOCK)
        start = 33 * BLOCK
        for blocks in (10, 11):
            stop = start + blocks * BLOCK
            pair.path.write_bytes(pair.data[:start] + bytes(stop - start) + pair.data[stop:])
            if blocks == 10:
                pair.assert_gives_back()
        lost = [33, 38, 43]
        assert pair.assert_refuses().unrepairable_bytes == pair.shape.ranges(lost)


class TestLosses:
    @settings(max_examples=40)
    @given(size=st.one_of(st.sampled_from([4097, 3_000_001]), st.integers(1, 600_000)), seed=SEEDS)
    def test_three_in_a_group_are_named_exactly(self, size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        with made(size, seed, run_columns=1 + seed % 5) as pair:
            shape, lost = pair.shape, list[int]()
            data_blocks, parity_blocks = list[int](), list[int]()
            for column in range(shape.columns):
                members = [("data", block) for block in shape.column(column)]
                members += [("parity", column), ("parity", shape.columns + column)]
                beyond = column == 0 or rng.random() < 0.5
                count = int(rng.integers(3, min(len(members), 6) + 1)) if beyond else int(rng.integers(0, 3))
                at = rng.choice(len(members), count, replace=False)
                chosen = [members[number] for number in at]
                here = [block for kind, block in chosen if kind == "data"]
                data_blocks += here
                parity_blocks += [block for kind, block in chosen if kind == "parity"]
                lost += here if count > 2 else []
            pair.spoil(rng, data_blocks, parity_blocks)
            damage = pair.assert_refuses()
            assert damage == Damage(tuple(sorted(data_blocks)), tuple(sorted(parity_blocks)), 0, 0, shape.ranges(lost))

    def test_an_empty_file_is_left(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 300_001)
        pair.path.write_bytes(b"")
        damage = pair.assert_refuses()
        assert damage.unrepairable_bytes == ((0, 300_001),)
        assert damage.data_blocks == tuple(range(74))

    def test_only_the_first_places_are_in_the_message(self, tmp_path: Path) -> None:
        pair = make(tmp_path, GROUP * BLOCK)
        pair.spoil(np.random.default_rng(0), list(range(0, 40, 2)), [])
        assert len(pair.assert_refuses().unrepairable_bytes) == 20
        with pytest.raises(DamagedCheckpointError, match=r"up to 61440, and in 12 more places; restore it from"):
            rebuild(pair.path, pair.parity, pair.out)

    def test_a_block_that_is_not_what_its_checksum_says(self, tmp_path: Path) -> None:
        """As if a damaged P had its old checksum: what is solved with it is wrong, and must not be believed."""
        pair = make(tmp_path, 3 * BLOCK)
        damaged_p = bytes(BLOCK)
        forged = bytearray(pair.written)
        forged[pair.shape.parity_at : pair.shape.parity_at + BLOCK] = damaged_p
        pair.parity.write_bytes(resealed(forged, pair.shape, slot=0, block=damaged_p))
        pair.spoil(np.random.default_rng(0), [1], [])
        assert pair.assert_refuses() == Damage((1,), (), 0, 0, ((BLOCK, 2 * BLOCK),))

    def test_a_damaged_block_with_its_old_checksum(self, tmp_path: Path) -> None:
        """No checksum of a block can tell, the digest of the whole file can."""
        pair = make(tmp_path, 3 * BLOCK)
        pair.spoil(np.random.default_rng(0), [1], [])
        block = pair.path.read_bytes()[BLOCK : 2 * BLOCK]
        pair.parity.write_bytes(resealed(bytearray(pair.written), pair.shape, slot=2, block=block))
        assert pair.assert_refuses() == Damage((), (), 0, 0, ((0, 3 * BLOCK),))


def resealed(parity: bytearray, shape: Shape, slot: int, block: bytes) -> bytes:
    """Return a parity file of one column whose records claim `block` for a slot."""
    for at in (HEADER_BYTES, len(parity) - HEADER_BYTES - shape.record):
        struct.pack_into("<I", parity, at + 4 * slot, xxhash.xxh3_64_intdigest(block) % 2**32)
        sums = bytes(parity[at : at + 4 * shape.slots])
        struct.pack_into("<Q", parity, at + 4 * shape.slots, xxhash.xxh3_64_intdigest(sums, seed=0))
    return bytes(parity)


class TestDamagedParityFiles:
    def test_every_byte_of_either_header_and_record(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 5 * BLOCK)
        pair.spoil(np.random.default_rng(0), [0, 4], [])
        index = HEADER_BYTES + pair.shape.record
        for at in [*range(index), *range(len(pair.written) - index, len(pair.written))]:
            flipped = bytearray(pair.written)
            flipped[at] ^= 1 << at % 8
            pair.parity.write_bytes(flipped)
            assert examine(pair.path, pair.parity) == Damage((0, 4), (), 0, 1, ()), at
        rebuild(pair.path, pair.parity, pair.out)
        assert pair.out.read_bytes() == pair.data

    def test_faults_of_the_index_are_not_clean(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 5 * BLOCK)
        pair.parity.write_bytes(b"\0" + pair.written[1:])
        damage = examine(pair.path, pair.parity)
        assert not damage.is_clean
        assert damage.is_repairable
        protect(pair.path)
        assert examine(pair.path, pair.parity).is_clean

    def test_both_headers(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 5 * BLOCK)
        damaged = bytearray(pair.written)
        damaged[20] ^= 1
        damaged[-20] ^= 1
        pair.parity.write_bytes(damaged)
        self.assert_not_trusted(pair, "no header of a parity file, neither at its start nor at its end")

    def test_both_records_of_a_column(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 3 * GROUP * BLOCK)
        record = pair.shape.record
        damaged = bytearray(pair.written)
        damaged[HEADER_BYTES + record] ^= 1
        pair.parity.write_bytes(damaged)
        assert pair.assert_gives_back().index_faults == 1
        damaged[len(damaged) - HEADER_BYTES - record] ^= 1
        pair.parity.write_bytes(damaged)
        assert pair.assert_gives_back().index_faults == 2, "the copies of two columns, one each"
        damaged[len(damaged) - HEADER_BYTES - 2 * record] ^= 1
        pair.parity.write_bytes(damaged)
        self.assert_not_trusted(pair, "both copies of the checksums of 1 columns, the first is column 1")

    def test_records_in_another_place(self, tmp_path: Path) -> None:
        """A record is good for its own column only."""
        pair = make(tmp_path, 2 * GROUP * BLOCK)
        record = pair.shape.record
        first, second = (pair.written[HEADER_BYTES + at * record : HEADER_BYTES + (at + 1) * record] for at in (0, 1))
        pair.parity.write_bytes(pair.written.replace(first + second, second + first))
        self.assert_not_trusted(pair, "both copies of the checksums of 2 columns, the first is column 0")

    def test_a_tail_cut_off(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 3 * GROUP * BLOCK)
        pair.spoil(np.random.default_rng(0), [5], [])
        os.truncate(pair.parity, pair.shape.parity_at + 4 * BLOCK + 7)
        damage = pair.assert_gives_back()
        assert damage == Damage((5,), (4, 5), 0, 4, ()), "a header and three records of the second copy are gone too"
        os.truncate(pair.parity, pair.shape.parity_at)
        assert pair.assert_refuses().unrepairable_bytes == pair.shape.ranges([5])
        os.truncate(pair.parity, pair.shape.parity_at - 1)
        self.assert_not_trusted(pair, f"takes at least {pair.shape.parity_at}")

    def test_a_tail_put_on(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 5 * BLOCK)
        pair.parity.write_bytes(pair.written + b"more")
        assert pair.assert_gives_back().index_faults == 1

    def test_of_another_file(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 100_000)
        other = tmp_path / "other"
        other.write_bytes(np.random.default_rng(1).bytes(100_000))
        damage = examine(other, pair.parity)
        assert damage.unrepairable_bytes == ((0, 100_000),)

    @settings(max_examples=40)
    @given(size=st.integers(0, 100_000), seed=SEEDS, edits=st.integers(1, 6))
    def test_whatever_is_edited_no_wrong_byte_comes_back(self, size: int, seed: int, edits: int) -> None:
        rng = np.random.default_rng(seed)
        with made(size, seed) as pair:
            for _ in range(edits):
                path = pair.path if rng.random() < 0.3 else pair.parity
                content = bytearray(path.read_bytes())
                at, length = int(rng.integers(0, len(content) + 1)), int(rng.choice([1, 16, 5000]))
                content[at : at + length] = rng.bytes(int(rng.choice([0, 1, length])))
                path.write_bytes(content)
            try:
                rebuild(pair.path, pair.parity, pair.out)
            except DamagedCheckpointError:
                assert not pair.out.exists()
            else:
                assert pair.out.read_bytes() == pair.data

    @staticmethod
    def assert_not_trusted(pair: Pair, message: str) -> None:
        for attempt in (lambda: examine(pair.path, pair.parity), lambda: rebuild(pair.path, pair.parity, pair.out)):
            with pytest.raises(DamagedCheckpointError, match=message) as caught:
                attempt()
            assert str(pair.parity) in str(caught.value)
        assert not pair.out.exists()


class TestHostileParityFiles:
    @pytest.mark.parametrize(
        ("header", "message"),
        [
            (sealed(1, magic=b"CKLPQ\r\n\x1b"), "no header"),
            (sealed(1, version=0), "no header"),
            (sealed(1, block_bytes=0), "groups of 40 blocks of 0 bytes, not 40 of 4096"),
            (sealed(1, block_bytes=2**32 - 1), "blocks of 4294967295 bytes"),
            (sealed(1, group_blocks=0), "groups of 0 blocks"),
            (sealed(1, group_blocks=2**32 - 1), "groups of 4294967295 blocks"),
            (sealed(2**64 - 1), "parity of 18446744073709551615 bytes takes at least"),
            (sealed(2**40), "parity of 1099511627776 bytes takes at least"),
            (b"", "no header"),
            (sealed(1)[:-1], "no header"),
        ],
    )
    @pytest.mark.parametrize("end", [b"", bytes(10_000)], ids=["alone", "before a tail"])
    def test_are_refused_at_no_cost(self, tmp_path: Path, header: bytes, message: str, end: bytes) -> None:
        self.assert_refused(tmp_path, header + end, message)

    def test_a_header_at_the_end_needs_all_before_it(self, tmp_path: Path) -> None:
        self.assert_refused(tmp_path, bytes(9000) + sealed(10_000_000), "has 9064 bytes, and the parity of 10000000")

    def test_records_of_nothing(self, tmp_path: Path) -> None:
        """A file with room for its records, all of them holes."""
        parity = tmp_path / "parity"
        parity.write_bytes(sealed(2**40))
        os.truncate(parity, 2**31)
        (tmp_path / "data").write_bytes(b"x")
        with pytest.raises(DamagedCheckpointError, match="both copies of the checksums of 128 columns"):
            examine(tmp_path / "data", parity)

    @settings(max_examples=50)
    @given(content=st.binary(max_size=300))
    def test_any_bytes(self, content: bytes) -> None:
        with TemporaryDirectory() as folder:
            self.assert_refused(Path(folder), content, "no header")

    def test_a_newer_format(self, tmp_path: Path) -> None:
        (tmp_path / "parity").write_bytes(sealed(1, version=2))
        (tmp_path / "data").write_bytes(b"x")
        with pytest.raises(LakeFormatError, match="parity format 2, newer"):
            examine(tmp_path / "data", tmp_path / "parity")

    @staticmethod
    def assert_refused(folder: Path, content: bytes, message: str) -> None:
        data, parity, out = folder / "data", folder / "parity", folder / "out"
        data.write_bytes(b"x")
        parity.write_bytes(content)
        tracemalloc.start()
        try:
            for attempt in (lambda: examine(data, parity), lambda: rebuild(data, parity, out)):
                with pytest.raises(DamagedCheckpointError, match=message):
                    attempt()
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
        assert sorted(os.listdir(folder)) == ["data", "parity"]


class TestDisks:
    @pytest.mark.parametrize("refused", ["pwrite", "fsync", "rename"])
    @pytest.mark.parametrize("there_already", [True, False], ids=["replacing", "new"])
    def test_a_refused_write_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, there_already: bool
    ) -> None:
        pair = make(tmp_path, 300_000)
        pair.out.write_bytes(b"out as it was")
        parity = pair.parity
        if not there_already:
            parity = tmp_path / "new"
            pair.out.unlink()

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
        with monkeypatch.context() as patch:
            patch.setattr(os, refused, refuse)
            with pytest.raises(StorageError, match=f"write the parity of the file at {pair.path}: No space left"):
                protect(pair.path, parity)
            with pytest.raises(StorageError, match=f"rebuild the file at {pair.path}: No space left"):
                rebuild(pair.path, pair.parity, pair.out)
        assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before

    def test_an_interrupt_leaves_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "data"
        path.write_bytes(bytes(100_000))

        def interrupt(done: int) -> None:
            assert len(os.listdir(tmp_path)) == 2, "it is written under another name"
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            protect(path, progress=interrupt)
        assert os.listdir(tmp_path) == ["data"]

    def test_is_on_the_disk_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pair = make(tmp_path, 100_000)
        order: list[str] = []

        def noting(name: str) -> Callable[..., object]:
            real = getattr(os, name)

            def call(*arguments: object) -> object:
                is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)  # type: ignore[arg-type]
                order.append("fsync of the folder" if is_folder else name)
                return real(*arguments)

            return call

        for name in ("pwrite", "fsync", "rename"):
            monkeypatch.setattr(os, name, noting(name))
        for work in (lambda: protect(pair.path), lambda: rebuild(pair.path, pair.parity, pair.out)):
            order.clear()
            work()
            assert [name for name, _ in itertools.groupby(order)] == [
                "pwrite",
                "fsync",
                "rename",
                "fsync of the folder",
            ]

    def test_however_little_one_call_moves(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read, write = os.preadv, os.pwrite
        monkeypatch.setattr(os, "preadv", lambda fd, views, at: read(fd, [views[0][:1000]], at))
        monkeypatch.setattr(os, "pwrite", lambda fd, payload, at: write(fd, payload[:1000], at))
        pair = make(tmp_path, 300_000)
        assert pair.written == reference(pair.data)
        pair.spoil(np.random.default_rng(0), [1, 60], [0])
        pair.assert_gives_back()

    def test_what_the_disk_cannot_read_is_a_damaged_block(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = make(tmp_path, 6 * GROUP * BLOCK - 5)
        q_of_column_4 = pair.shape.parity_at + (6 + 4) * BLOCK
        unreadable = {
            pair.path.stat().st_ino: [7 * BLOCK + 512, 50 * BLOCK, 239 * BLOCK],
            pair.parity.stat().st_ino: [0, HEADER_BYTES + 5, q_of_column_4],
        }

        def failing(real: Callable[..., object], length_of: Callable[..., int]) -> Callable[..., object]:
            def call(descriptor: int, what: object, at: int) -> object:
                sectors = unreadable.get(os.fstat(descriptor).st_ino, [])
                if any(at < sector + 512 and sector < at + length_of(what) for sector in sectors):
                    raise OSError(errno.EIO, "Input/output error")
                return real(descriptor, what, at)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "preadv", failing(os.preadv, lambda views: len(views[0])))
            patch.setattr(os, "pread", failing(os.pread, lambda length: length))
            damage = pair.assert_gives_back()
            with pytest.raises(DamagedCheckpointError, match="cannot be read to its end"):
                protect(pair.path)
        assert damage == Damage((7, 50, 239), (10,), 0, 1 + 6, ()), "the first header and all first records"

    def test_other_refusals_to_read_are_raised(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pair = make(tmp_path, 100_000)
        for name in ("pread", "preadv"):

            def refuse(*_: object) -> None:
                raise OSError(errno.EACCES, "Permission denied")

            with monkeypatch.context() as patch:
                patch.setattr(os, name, refuse)
                with pytest.raises(ReadOnlyLakeError, match="cannot examine the file"):
                    examine(pair.path, pair.parity)

    def test_memory_is_bounded(self, tmp_path: Path) -> None:
        path, out = tmp_path / "data", tmp_path / "out"
        path.touch()
        os.truncate(path, 160 << 20)
        tracemalloc.start()
        try:
            parity = protect(path).path
            os.truncate(path, 154 << 20)
            assert rebuild(path, parity, out).is_repairable
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert out.stat().st_size == 160 << 20
        assert peak < 64 << 20


class TestPaths:
    def test_that_lead_nowhere(self, tmp_path: Path) -> None:
        pair, nowhere = make(tmp_path, 100), tmp_path / "nowhere"
        for work in (
            lambda: protect(nowhere),
            lambda: examine(nowhere, pair.parity),
            lambda: examine(pair.path, nowhere),
            lambda: rebuild(nowhere, pair.parity, pair.out),
            lambda: rebuild(pair.path, nowhere, pair.out),
            lambda: examine(pair.path / "below a file", pair.parity),
        ):
            with pytest.raises(NotFoundError, match="there is no file at"):
                work()
        for work in (
            lambda: protect(pair.path, nowhere / "parity"),
            lambda: rebuild(pair.path, pair.parity, nowhere / "out"),
        ):
            with pytest.raises(NotFoundError, match=f"there is no folder {nowhere}"):
                work()

    def test_of_other_things_than_files(self, tmp_path: Path) -> None:
        pair, fifo = make(tmp_path, 100), tmp_path / "fifo"
        os.mkfifo(fifo)
        for other in (fifo, tmp_path):
            with pytest.raises(InvalidInputError, match="is no regular file"):
                protect(other, tmp_path / "new")
            with pytest.raises(InvalidInputError, match="is no regular file"):
                examine(pair.path, other)

    def test_of_one_file_twice(self, tmp_path: Path) -> None:
        pair = make(tmp_path, 100)
        link = tmp_path / "link"
        link.symlink_to(pair.path)
        for work in (
            lambda: protect(pair.path, pair.path),
            lambda: protect(pair.path, link),
            lambda: rebuild(pair.path, pair.parity, pair.parity),
        ):
            with pytest.raises(InvalidInputError, match="cannot be a file and its parity file at once"):
                work()
        assert pair.path.read_bytes() == pair.data
        assert pair.parity.read_bytes() == pair.written
