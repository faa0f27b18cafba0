"""The parity file of a data file: where its parts lie and how each of them is checked.

A data file is cut into blocks of 4 KB, the last one filled up with zeros. With c columns, c a fortieth of the
blocks, block i belongs to column i mod c: a column's blocks lie far apart, so that a hole in the file, however
placed, of up to 2c blocks costs no column more than two. Row r is the r-th run of c blocks::

    header | records | P of every column | Q of every column | records again | header again

A record holds the checksums of one column, of P, each data block and Q in this order: the low half of xxh3_64 for
each block, and a whole xxh3_64 over them with the column's number as seed. The header holds the size and digest of
the data file and its own xxh3_128. Numbers are little-endian. These checksums notice damage, not intent: whoever
can write the parity file can also make it agree with a forged data file.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest, xxh3_128, xxh3_128_digest

from ckptlake.errors import DamagedCheckpointError, LakeFormatError
from ckptlake.integrity.galois import Mask, Words

Sums = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int64]

FORMAT_VERSION = 1
BLOCK_BYTES = 4096
BLOCK_WORDS = BLOCK_BYTES // 8
GROUP_BLOCKS = 40
RUN_COLUMNS = 128
"""Columns held in memory at once: 42 x 128 blocks are 22 MB."""

_MAGIC = b"CKLPQ\r\n\x1a"
_HEADER = struct.Struct("<8sIIIIQ16s")
_CHECK_BYTES = 16
HEADER_BYTES = _HEADER.size + _CHECK_BYTES


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies that belongs to a data file of `data_bytes`."""

    data_bytes: int

    @property
    def blocks(self) -> int:
        return -(-self.data_bytes // BLOCK_BYTES)

    @property
    def columns(self) -> int:
        return -(-self.blocks // GROUP_BLOCKS)

    @property
    def rows(self) -> int:
        return -(-self.blocks // self.columns) if self.columns else 0

    @property
    def record(self) -> np.dtype[np.void]:
        return np.dtype([("sums", "<u4", (self.rows + 2,)), ("check", "<u8")])

    @property
    def p_at(self) -> int:
        return HEADER_BYTES + self.columns * self.record.itemsize

    @property
    def q_at(self) -> int:
        return self.p_at + self.columns * BLOCK_BYTES

    @property
    def records_at(self) -> tuple[int, int]:
        return HEADER_BYTES, self.q_at + self.columns * BLOCK_BYTES

    @property
    def headers_at(self) -> tuple[int, int]:
        return 0, self.records_at[1] + self.columns * self.record.itemsize

    @property
    def parity_bytes(self) -> int:
        return self.headers_at[1] + HEADER_BYTES

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield (first column, count) of the columns to hold in memory together."""
        for first in range(0, self.columns, RUN_COLUMNS):
            yield first, min(RUN_COLUMNS, self.columns - first)

    def new_slots(self) -> Words:
        """Return room for one run: shape (rows + 2, columns of a run, words of a block)."""
        return np.empty((self.rows + 2, min(RUN_COLUMNS, self.columns), BLOCK_WORDS), np.uint64)

    def spans(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield for each row the bytes (start, stop) of the data file that these columns hold of it."""
        for row in range(self.rows):
            start = (row * self.columns + first) * BLOCK_BYTES
            yield start, max(start, min(start + count * BLOCK_BYTES, self.data_bytes))

    def block_numbers(self, first: int, count: int) -> Numbers:
        """Return the numbers of the blocks of these columns, shape (rows, count); from `blocks` on there are none."""
        return np.arange(self.rows)[:, None] * self.columns + np.arange(first, first + count)

    def parity_numbers(self, first: int, count: int) -> Numbers:
        """Return the numbers of P and of Q of these columns, shape (2, count)."""
        return np.array([[0], [self.columns]]) + np.arange(first, first + count)


@dataclass(frozen=True, slots=True)
class Header:
    """What a parity file says of its data file: its size and its `DataDigest`."""

    data_bytes: int
    digest: bytes

    def pack(self) -> bytes:
        head = _HEADER.pack(_MAGIC, FORMAT_VERSION, BLOCK_BYTES, GROUP_BLOCKS, 0, self.data_bytes, self.digest)
        return head + xxh3_128_digest(head)

    @classmethod
    def find(cls, payload: bytes, path: Path) -> Header | None:
        """Return the header that `payload` is, None if it is none or a damaged one.

        Raises:
            LakeFormatError: a newer ckptlake wrote it.
            DamagedCheckpointError: it is whole and speaks of blocks or groups that were never written.
        """
        head, check = payload[: _HEADER.size], payload[_HEADER.size :]
        if len(payload) != HEADER_BYTES or xxh3_128_digest(head) != check:
            return None
        magic, version, block_bytes, group_blocks, _, data_bytes, digest = _HEADER.unpack(head)
        if magic != _MAGIC or version == 0:
            return None
        if version > FORMAT_VERSION:
            raise LakeFormatError(f"{path} has parity format {version}, newer than this ckptlake reads; upgrade it")
        if (block_bytes, group_blocks) != (BLOCK_BYTES, GROUP_BLOCKS):
            raise DamagedCheckpointError(
                f"{path} speaks of groups of {group_blocks} blocks of {block_bytes} bytes, "
                f"not {GROUP_BLOCKS} of {BLOCK_BYTES}; protect its data file again"
            )
        return cls(data_bytes, digest)


class DataDigest:
    """The digest of a data file: xxh3_128 over the xxh3_128 of each row, so that columns can be taken in runs."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._rows = [xxh3_128() for _ in range(layout.rows)]

    def update(self, first: int, data: Words) -> None:
        """Take the columns from `first` on; `data` has shape (rows, columns, words)."""
        for row, blocks, (start, stop) in zip(self._rows, data, self._layout.spans(first, data.shape[1]), strict=True):
            row.update(blocks.data.cast("B")[: stop - start])

    def digest(self) -> bytes:
        return xxh3_128_digest(b"".join(row.digest() for row in self._rows))


def checksums(blocks: Words) -> Sums:
    """Return the checksum of each of `blocks`, shape (count, words) and contiguous."""
    view = blocks.data.cast("B") if len(blocks) else memoryview(b"")
    found = (xxh3_64_intdigest(view[at : at + BLOCK_BYTES]) for at in range(0, len(view), BLOCK_BYTES))
    return np.fromiter(found, np.uint64, len(blocks)).astype(np.uint32)


def slot_checksums(slots: Words) -> Sums:
    """Return the checksums of `slots`, shape (slots, columns, words), as an array (slots, columns)."""
    return np.stack([checksums(blocks) for blocks in slots])


def pack_records(layout: Layout, first: int, sums: Sums) -> bytes:
    """Return the records of the columns from `first` on; `sums` has shape (slots, columns)."""
    records = np.empty(sums.shape[1], layout.record)
    records["sums"] = sums.T
    records["check"] = _checks(records, first)
    return records.tobytes()


def _checks(records: npt.NDArray[np.void], first: int) -> npt.NDArray[np.uint64]:
    found = (xxh3_64_intdigest(record.tobytes(), first + at) for at, record in enumerate(records["sums"]))
    return np.fromiter(found, np.uint64, len(records))


class ParityFile:
    """An open parity file whose header has been found good.

    Attributes:
        header: what it says of the data file.
        layout: where everything lies.
        faults: how many headers, records and sizes were met so far that are not as written.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor, self._path = descriptor, path
        size = os.fstat(descriptor).st_size
        front = Header.find(read_bytes(descriptor, 0, HEADER_BYTES), path)
        header = front or Header.find(read_bytes(descriptor, max(0, size - HEADER_BYTES), HEADER_BYTES), path)
        if header is None:
            raise DamagedCheckpointError(
                f"{path} has no header of a parity file, neither at its start nor at its end; "
                "protect its data file again"
            )
        self.header, self.layout = header, Layout(header.data_bytes)
        least = self.layout.p_at if front else self.layout.parity_bytes
        if size < least:
            raise DamagedCheckpointError(
                f"{path} has {size} bytes, and the parity of {header.data_bytes} bytes takes at least {least}; "
                "protect its data file again"
            )
        packed = header.pack()
        copies = [read_bytes(descriptor, at, HEADER_BYTES) for at in self.layout.headers_at]
        self.faults = sum(copy != packed for copy in copies) + (size > self.layout.parity_bytes)

    def read_sums(self, first: int, count: int) -> Sums:
        """Return the checksums written for these columns, shape (slots, columns).

        Raises:
            DamagedCheckpointError: both copies of a column's record are damaged.
        """
        sums = np.empty((count, self.layout.rows + 2), np.uint32)
        known = np.zeros(count, np.bool_)
        for start in self.layout.records_at:
            length = count * self.layout.record.itemsize
            payload = read_bytes(self._descriptor, start + first * self.layout.record.itemsize, length)
            records = np.frombuffer(payload.ljust(length, b"\0"), self.layout.record)
            good = _checks(records, first) == records["check"]
            sums[good] = records["sums"][good]
            known |= good
            self.faults += int((~good).sum())
        if not known.all():
            raise DamagedCheckpointError(
                f"{self._path} has lost both copies of the checksums of {int((~known).sum())} columns, the first "
                f"is column {first + int(known.argmin())}; protect its data file again if that is known to be good"
            )
        return sums.T

    def read_parity(self, first: int, slots: Words) -> Mask:
        """Read P and Q of the columns from `first` on into `slots`; return which are there, shape (2, columns)."""
        count = slots.shape[1]
        starts = (at + first * BLOCK_BYTES for at in (self.layout.p_at, self.layout.q_at))
        return np.stack(
            [
                read_blocks(self._descriptor, blocks, start, start + count * BLOCK_BYTES)
                for blocks, start in zip((slots[0], slots[-1]), starts, strict=True)
            ]
        )


def read_bytes(descriptor: int, offset: int, length: int) -> bytes:
    """Return the bytes there, fewer where the file ends and none where the disk cannot read them."""
    try:
        return os.pread(descriptor, length, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def read_blocks(descriptor: int, blocks: Words, start: int, stop: int) -> Mask:
    """Read the bytes from `start` to `stop` into `blocks`, zeros behind them; return which blocks are whole.

    A block is not whole where the file ends too early or the disk cannot read it. There it is zero or cut short.
    """
    view = blocks.data.cast("B")
    wanted, got = view[: stop - start], 0
    try:
        while got < len(wanted) and (more := os.preadv(descriptor, [wanted[got:]], start + got)):
            got += more
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        if len(blocks) == 1:
            blocks[:] = 0
            return np.zeros(1, np.bool_)
        half = len(blocks) // 2
        middle = min(stop, start + half * BLOCK_BYTES)
        before = read_blocks(descriptor, blocks[:half], start, middle)
        return np.append(before, read_blocks(descriptor, blocks[half:], middle, stop))
    blocks.reshape(-1).view(np.uint8)[got:] = 0
    ends = np.arange(1, len(blocks) + 1) * BLOCK_BYTES
    return np.minimum(ends, len(wanted)) <= got
